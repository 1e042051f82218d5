"""Meta-estimators for rare classes: probabilities for another prior, and decisions of least cost."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import check_cv, cross_val_predict
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, has_fit_parameter

from crossent.errors import describe, refuse
from crossent.estimator import Classifier, all_or_nothing
from crossent.imbalance import correct_prior, decide, estimate_prior
from crossent.imbalance.costs import check_cost
from crossent.imbalance.weights import SCHEMES, class_weights
from crossent.masked import refuse_masked

from .fitting import checked_weight

__all__ = ["PriorCorrectedClassifier", "TunedDecision"]

Float64 = NDArray[np.float64]

FACTORS = np.exp(np.linspace(-3, 3, 49))  # odds of a class times 1/20 to 20, in steps of an eighth of a nat
SWEEPS = 3


def _has_estimator(self: _Wrapper) -> bool:
    return self.estimator is not None


class _Wrapper(Classifier, BaseEstimator):
    """A classifier around another one, which is fitted to the same rows."""

    estimator: Any
    estimator_: Any
    classes_: NDArray[Any]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.estimator is not None:
            tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        return tags

    def _checked(self, X: Any, y: Any, sample_weight: Any) -> tuple[NDArray[Any], NDArray[np.intp], Float64]:
        """Return labels, their class indices and the weights of the rows; set `classes_`."""
        if self.estimator is None or not hasattr(self.estimator, "predict_proba"):
            raise ValueError(refuse("estimator must be a classifier with predict_proba", describe(self.estimator)))
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        for name, given in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            refuse_masked(given, name)
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        check_consistent_length(X, labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        weights = checked_weight(sample_weight, labels)
        if not weights.any():
            raise ValueError(refuse("a row must have a weight that is not zero", "a sample_weight of zeros"))
        return labels, codes, weights

    def _weighting(self, sample_weight: Any) -> dict[str, Any]:
        """Return the keyword of `fit` for the weights, if there are any and the estimator takes them."""
        takes = sample_weight is not None and has_fit_parameter(self.estimator, "sample_weight")
        return {"sample_weight": np.asarray(sample_weight, dtype=np.float64)} if takes else {}

    def _fit_estimator(self, X: Any, labels: NDArray[Any], sample_weight: Any) -> None:
        self.estimator_ = clone(self.estimator).fit(X, labels, **self._weighting(sample_weight))
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))

    @available_if(_has_estimator)
    def predict_proba(self, X: Any) -> Float64:
        """Return probabilities (N, K)."""
        check_is_fitted(self)
        refuse_masked(X, "X")
        return np.asarray(self.estimator_.predict_proba(X))


@dataclass(eq=False, repr=False)
class PriorCorrectedClassifier(_Wrapper):
    """A classifier whose probabilities are moved from the prior that it was trained on to the one where it is used.

    Class weights, resampling and logit adjustment make rare classes seem more common than they are. This classifier
    takes them back (`crossent.imbalance.correct_prior`), and moves probabilities to a population with other shares.

    Parameters
    ----------
    estimator : classifier
        With `predict_proba`; a pipeline that resamples is one too.
    trained_on : "weighted", "uniform", array (K,) or dict
        What the classes had in training. "weighted": their shares among the rows of `fit`, times the estimator's
        `class_weight` where it has one. "uniform": what resampling to equal numbers ends in. Say it by an array where a
        calibrator with a bias for each class stands between: it has taken the weights back already.
    deployed_on : "shares", "uniform", array (K,) or dict
        What they have where the model is used. "shares": as among the rows of `fit`. `adapt` replaces it.

    Attributes
    ----------
    classes_ : array (K,)
    estimator_ : classifier
        Fitted.
    trained_on_, deployed_on_ : array (K,)
        The priors; each sums to 1.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from crossent.sklearn import PriorCorrectedClassifier, SoftmaxRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = PriorCorrectedClassifier(SoftmaxRegression(1e-3, class_weight="balanced")).fit(X, y)
    >>> model.trained_on_.round(2), model.deployed_on_.round(2)
    (array([0.5, 0.5]), array([0.37, 0.63]))
    """

    estimator: Any = None
    _: KW_ONLY
    trained_on: Any = "weighted"
    deployed_on: Any = "shares"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the estimator, and note the priors.

        Parameters
        ----------
        X : array or table (N, D)
        y : array (N,)
        sample_weight : array (N,), optional
            Given to the estimator if it takes weights; the shares count rows by them.

        Raises
        ------
        ValueError
            If a prior is malformed, or the estimator's class weights cannot be told.
        """
        with all_or_nothing(self):
            labels, codes, weights = self._checked(X, y, sample_weight)
            shares = np.bincount(codes, weights, len(self.classes_))
            uniform = np.ones(len(shares))
            known = {"weighted": lambda: shares * self._class_weight(labels, sample_weight), "uniform": lambda: uniform}
            self.trained_on_ = self._prior("trained_on", known)
            self.deployed_on_ = self._prior("deployed_on", {"shares": lambda: shares, "uniform": lambda: uniform})
            correct_prior(np.empty((0, len(shares))), self.trained_on_, self.deployed_on_)  # refuses what is no prior
            self.trained_on_, self.deployed_on_ = (p / p.sum() for p in (self.trained_on_, self.deployed_on_))
            self._fit_estimator(X, labels, sample_weight)
        return self

    def _prior(self, name: str, known: dict[str, Any]) -> Float64:
        given = getattr(self, name)
        refuse_masked(given, name)
        if isinstance(given, dict):
            lacking = [label for label in self.classes_.tolist() if label not in given]
            if lacking or len(given) != len(self.classes_):
                asked = f"{name} must have the {len(self.classes_)} classes as its keys"
                raise ValueError(refuse(asked, f"no {lacking[0]!r}" if lacking else f"{len(given)} keys"))
            return np.array([float(given[label]) for label in self.classes_.tolist()])
        if not isinstance(given, str):
            return np.asarray(given, dtype=np.float64)
        if given not in known:
            raise ValueError(refuse(f"{name} must be an array or one of {', '.join(map(repr, known))}", repr(given)))
        return np.asarray(known[given]())

    def _class_weight(self, labels: NDArray[Any], sample_weight: Any) -> Float64:
        """Return the class weights that the estimator, or one step of a pipeline, trains with."""
        given = [
            value
            for name, value in self.estimator.get_params().items()
            if name.rpartition("__")[2] == "class_weight" and value is not None
        ]
        if not given:
            return np.ones(len(self.classes_))
        works = "set trained_on to the products of shares and weights"
        if len(given) > 1 or not (isinstance(given[0], dict) or given[0] in SCHEMES):
            asked = f"class_weight must be a dict or one of {', '.join(map(repr, SCHEMES))}, in one place"
            raise ValueError(refuse(asked, ", ".join(map(repr, given)), works))
        if isinstance(given[0], dict):
            return np.array([float(given[0].get(name, 1.0)) for name in self.classes_.tolist()])
        if sample_weight is not None:
            asked = "libraries differ in what a named class_weight is beside a sample_weight"
            raise ValueError(refuse(asked, repr(given[0]), works))
        return class_weights(labels, given[0])

    def adapt(self, X: Any) -> Self:
        """Take as `deployed_on_` how common the classes are among unlabelled rows, by `estimate_prior`, smoothing 1.

        Parameters
        ----------
        X : array or table (N, D)
            Rows from where the model is used. Those of rare classes have to be among them.

        Warns
        -----
        RuntimeWarning
            If the estimate did not converge.

        Returns
        -------
        PriorCorrectedClassifier
            Itself, changed.
        """
        self.deployed_on_ = estimate_prior(super().predict_proba(X), self.trained_on_, smoothing=1.0)
        return self

    @available_if(_has_estimator)
    def predict_proba(self, X: Any) -> Float64:
        """Return probabilities (N, K) for the prior `deployed_on_`."""
        return correct_prior(super().predict_proba(X), self.trained_on_, self.deployed_on_)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row."""
        check_is_fitted(self)
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])


@dataclass(eq=False, repr=False)
class TunedDecision(_Wrapper):
    """A classifier that takes the action of least expected cost, and repairs its odds where that pays.

    With true probabilities, the best decision is known and nothing is tuned (`crossent.imbalance.decide`). Where they
    are not true, factors v_k of the classes' odds, ``p_k v_k / Σ_j p_j v_j``, can make cheaper decisions. Clones
    predict the rows that they were not trained on, and coordinate descent finds factors of least cost on these. Rows
    judge only factors that were found on the others; where such factors save nothing, all are 1.

    Parameters
    ----------
    estimator : classifier
        With `predict_proba`.
    cost : array (K, A), optional
        ``cost[k, a]`` is what action a costs when k is the true class, k in the order of the sorted labels. By default
        every mistake costs 1.
    actions : array (A,), optional
        What `predict` returns. By default the classes where A is K, else 0 to A-1.
    cv : int, splitter or None, default 5
        Folds that the factors are tuned in, as in scikit-learn: an integer takes rows in their order, so shuffle a
        sorted table. None tunes nothing.

    Attributes
    ----------
    classes_ : array (K,)
    actions_ : array (A,)
    estimator_ : classifier
        Fitted to all rows.
    factors_ : array (K,)
        v, of geometric mean 1; ones where tuning saved nothing.
    plain_cost_, tuned_cost_ : float
        Mean cost of held-out rows without factors, and with factors that were found on other rows. Not for ``cv=None``.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from crossent.sklearn import SoftmaxRegression, TunedDecision
    >>> X, y = load_breast_cancer(return_X_y=True)  # 0 is malignant
    >>> cost = [[0.0, 20.0, 2.0], [1.0, 0.0, 2.0]]  # treat, send home, or ask for 2
    >>> model = TunedDecision(SoftmaxRegression(1e-3), cost=cost, actions=["treat", "send home", "ask"]).fit(X, y)
    >>> model.predict(X[:1])
    array(['treat'], dtype='<U9')
    """

    estimator: Any = None
    _: KW_ONLY
    cost: Any = None
    actions: Any = None
    cv: Any = 5

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the estimator to all rows, and tune the factors on rows held out.

        Parameters
        ----------
        X : array or table (N, D)
        y : array (N,)
        sample_weight : array (N,), optional
            Given to the estimator if it takes weights; costs count rows by them.

        Raises
        ------
        ValueError
            If `cost` or `actions` has another shape, or a fold trains without one of the classes.
        """
        with all_or_nothing(self):
            labels, codes, weights = self._checked(X, y, sample_weight)
            num_classes = len(self.classes_)
            self._cost = 1.0 - np.eye(num_classes) if self.cost is None else check_cost(self.cost, num_classes)
            self.actions_ = self._named_actions()
            self._fit_estimator(X, labels, sample_weight)
            self.factors_ = np.ones(num_classes)
            if self.cv is not None:
                self._tune(X, labels, codes, weights, self._weighting(sample_weight))
        return self

    def _named_actions(self) -> NDArray[Any]:
        num_actions = self._cost.shape[1]
        if self.actions is None:
            return self.classes_ if num_actions == len(self.classes_) else np.arange(num_actions)
        refuse_masked(self.actions, "actions")
        actions = np.asarray(self.actions)
        if actions.shape != (num_actions,):
            raise ValueError(refuse(f"actions must name the {num_actions} columns of cost", describe(actions)))
        return actions

    def _tune(
        self, X: Any, labels: NDArray[Any], codes: NDArray[np.intp], weights: Float64, weighting: dict[str, Any]
    ) -> None:
        """Set the factors and what they were judged by."""
        folds = list(check_cv(self.cv, labels, classifier=True).split(X, labels))
        for training, _ in folds:
            missing = np.setdiff1d(self.classes_, labels[training])
            if len(missing):
                asked = "every class must be in the training part of every fold"
                works = "use fewer folds, or cv=None, or more rows"
                raise ValueError(refuse(asked, f"a fold without {missing[0]!r}", works))
        prob = cross_val_predict(self.estimator, X, labels, cv=folds, method="predict_proba", params=weighting)
        paid = self._paid(prob, codes)
        tuned = np.empty(len(paid))
        for others, rows in folds:
            found = self._best_factors(prob[others], codes[others], weights[others])
            tuned[rows] = self._paid(prob[rows] * found, codes[rows])
        self.plain_cost_ = float(np.average(paid, weights=weights))
        self.tuned_cost_ = float(np.average(tuned, weights=weights))
        if self.tuned_cost_ < self.plain_cost_:
            self.factors_ = self._best_factors(prob, codes, weights)

    def _paid(self, odds: Float64, codes: NDArray[np.intp]) -> Float64:
        """Return what each row costs; decisions do not depend on the sums of its odds."""
        return np.asarray(self._cost[codes, (odds @ self._cost).argmin(axis=1)])

    def _best_factors(self, prob: Float64, codes: NDArray[np.intp], weights: Float64) -> Float64:
        """Return factors of least cost, found by coordinate descent; equally good ones are as near to 1 as can be."""
        factors = np.ones(len(self.classes_))
        of_row = self._cost[codes] * weights[:, None]
        rows = np.arange(len(codes))
        nearest_first = FACTORS[np.argsort(np.abs(np.log(FACTORS)), kind="stable")]
        least = float(of_row[rows, (prob @ self._cost).argmin(axis=1)].sum())
        for _ in range(SWEEPS):
            before = least
            for k in range(1 if len(factors) == 2 else 0, len(factors)):
                own = np.outer(prob[:, k], self._cost[k])
                rest = (prob * factors) @ self._cost - factors[k] * own
                for factor in nearest_first:
                    total = float(of_row[rows, (rest + factor * own).argmin(axis=1)].sum())
                    if total < least:
                        least, factors[k] = total, factor
            if not least < before:
                break
        return np.asarray(factors / np.exp(np.log(factors).mean()))

    def decide(self, X: Any) -> NDArray[np.intp]:
        """Return the action of each row, (N,), as a column of `cost`."""
        prob = self.predict_proba(X) * self.factors_
        return decide(prob / prob.sum(axis=1, keepdims=True), self._cost)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the action of each row, (N,), one of `actions_`."""
        check_is_fitted(self)
        return np.asarray(self.actions_[self.decide(X)])
