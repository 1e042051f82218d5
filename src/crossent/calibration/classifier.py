"""A classifier and its calibrator in one: the calibrator is fitted to rows that the classifier was not trained on."""

from __future__ import annotations

import inspect
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, has_fit_parameter

from crossent.errors import describe, refuse
from crossent.masked import refuse_masked

from ..estimator import Classifier, all_or_nothing
from .affine import BiasCorrectedTemperatureScaling, VectorScaling
from .base import Calibrator
from .beta import BetaCalibration
from .matrix import DirichletCalibration, MatrixScaling
from .one_vs_rest import HistogramBinning, IsotonicCalibration, PlattScaling
from .temperature import TemperatureScaling

__all__ = ["METHODS", "CalibratedClassifier"]

METHODS: dict[str, type[Calibrator]] = {
    "temperature": TemperatureScaling,
    "bias-corrected-temperature": BiasCorrectedTemperatureScaling,
    "vector": VectorScaling,
    "matrix": MatrixScaling,
    "dirichlet": DirichletCalibration,
    "platt": PlattScaling,
    "beta": BetaCalibration,
    "isotonic": IsotonicCalibration,
    "histogram": HistogramBinning,
}


def _has_estimator(self: CalibratedClassifier) -> bool:
    return self.estimator is not None


@dataclass(eq=False, repr=False)
class CalibratedClassifier(Classifier, BaseEstimator):
    """A classifier whose probabilities were calibrated on rows that it had not seen.

    With ``cv=5``, five clones predict the logits of the rows that they were not trained on. One calibrator is fitted to
    all of these logits, and the estimator is fitted once more, to all rows. ``cv="prefit"`` takes a fitted estimator as
    it is: pass `fit` other rows than those that it was trained on.

    Logits are the first of these that the estimator has: `logits` (crossent's estimators), `decision_function`,
    `predict_log_proba`, the logarithm of `predict_proba`. Nearest neighbours, trees and forests predict votes and
    frequencies, which can be exactly 0. No calibrator could make anything of the logarithm of 0: see `floor`.

    The clones saw fewer rows than the final estimator. Hardly any penalty and nearly separable classes can make them
    far more certain than it is. The calibrator then repairs more than the final estimator needs: penalise, use more
    folds, or hold out rows and use "prefit".

    Parameters
    ----------
    estimator : classifier
        With `logits`, `decision_function` or `predict_proba`. For label sets: with `decision_function` of shape (N, K),
        or `predict_proba` of shape (N, K) or as a list of (N, 2).
    method : str or calibrator
        "temperature", "bias-corrected-temperature", "vector", "matrix", "dirichlet", "platt", "beta", "isotonic" or
        "histogram"; or a calibrator with options of its own. For label sets "matrix" and "dirichlet" are out: they are
        maps of exclusive classes.
    cv : int, splitter or "prefit"
        As in scikit-learn; an integer makes stratified folds (for label sets plain ones).
    floor : "auto" or float
        The probability that a predicted 0 counts as, between 0 and 1. "auto": half of the smallest positive probability
        of the rows that the calibrator is fitted to (half a vote, for votes). Logits are never changed.

    Attributes
    ----------
    classes_ : array (K,)
    estimator_ : classifier
        Fitted to all rows (or the one passed, for "prefit").
    calibrator_ : calibrator
    floor_ : float or None
        None where no probability was 0.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from crossent.sklearn import CalibratedClassifier, SoftmaxRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> model = CalibratedClassifier(SoftmaxRegression(C=10.0), method="temperature").fit(X[::2], y[::2])
    >>> bool(model.calibrator_.temperature_ > 1), model.predict_proba(X[1:3]).shape
    (True, (2, 10))
    """

    estimator: Any = None
    _: KW_ONLY
    method: Any = "temperature"
    cv: Any = 5
    floor: float | str = "auto"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.estimator is not None:
            inner = get_tags(self.estimator)
            tags.input_tags.sparse = inner.input_tags.sparse
            if inner.classifier_tags is not None:
                tags.classifier_tags.multi_label = inner.classifier_tags.multi_label
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> CalibratedClassifier:
        """Fit estimator and calibrator.

        Parameters
        ----------
        X : array or table (N, D)
            What the estimator takes.
        y : array (N,), or (N, K) of 0 and 1
            Labels; label sets are calibrated with the sigmoid link.
        sample_weight : array (N,), optional
            Given to the calibrator, and to the estimator if it takes weights.

        Returns
        -------
        CalibratedClassifier
            Itself.

        Raises
        ------
        ValueError
            If `method`, `cv` or `floor` is malformed, or a fold trains without one of the classes.
        """
        if self.estimator is None:
            raise ValueError(refuse("estimator must be a classifier", "None"))
        if y is None:
            raise ValueError("CalibratedClassifier requires y to be passed, but the target y is None")
        if self.floor != "auto" and not (isinstance(self.floor, float) and 0 < self.floor < 1):
            raise ValueError(refuse("floor must be 'auto' or a probability between 0 and 1", repr(self.floor)))
        for name, given in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            refuse_masked(given, name)
        with all_or_nothing(self):
            self._sets = type_of_target(y, input_name="y") == "multilabel-indicator"
            truth = _label_sets(y) if self._sets else column_or_1d(y, warn=True)
            check_classification_targets(truth)
            calibrator = self._calibrator()
            if issparse(X):
                X = X.tocsr()
            elif not hasattr(X, "__getitem__"):
                X = np.asarray(X)
            check_consistent_length(X, truth)
            self.classes_ = np.arange(truth.shape[1]) if self._sets else np.unique(truth)
            weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
            if isinstance(self.cv, str):
                if self.cv != "prefit":
                    raise ValueError(refuse("cv must be an integer, a splitter or 'prefit'", repr(self.cv)))
                check_is_fitted(self.estimator)
                self.estimator_ = self.estimator
                if not self._sets:
                    self.classes_ = np.asarray(getattr(self.estimator, "classes_", self.classes_))
                    if not np.isin(truth, self.classes_).all():
                        raise ValueError(refuse("every label must be one that the estimator knows", "others"))
                scores = scores_of(self.estimator, X, self._sets)
            else:
                scores = self._held_out_scores(X, truth, weights)
                self.estimator_ = self._fitted(X, truth, weights, None)
            self.floor_ = scores.floor() if self.floor == "auto" else float(self.floor)
            codes = truth if self._sets else np.searchsorted(self.classes_, truth)
            self.calibrator_ = calibrator.fit(scores.logits(self.floor_), codes, weights)
            if hasattr(self.estimator_, "n_features_in_"):
                self.n_features_in_ = self.estimator_.n_features_in_
        return self

    def _calibrator(self) -> Any:
        """Return an unfitted calibrator that takes any logits: these come from `Scores`, and are no probabilities."""
        if isinstance(self.method, str):
            if self.method not in METHODS:
                asked = f"method must be a calibrator or one of {', '.join(map(repr, METHODS))}"
                raise ValueError(refuse(asked, repr(self.method)))
            make = METHODS[self.method]
            if not self._sets:
                return make(input="any-logits")
            if "link" not in inspect.signature(make).parameters:
                asked = "label sets need a method of separate labels, 'temperature', 'vector' or 'platt' for instance"
                raise ValueError(refuse(asked, f"{self.method!r}, a map of exclusive classes"))
            return make(input="any-logits", link="sigmoid")
        if not (hasattr(self.method, "fit") and hasattr(self.method, "predict_proba")):
            raise ValueError(refuse("method must be a name or a calibrator", describe(self.method)))
        calibrator = clone(self.method)
        if not isinstance(calibrator, Calibrator):
            return calibrator
        if calibrator.input == "probabilities":
            raise ValueError(refuse("the calibrator is given logits", "one with input='probabilities'"))
        return calibrator.set_params(input="any-logits")

    def _fitted(self, X: Any, y: NDArray[Any], weights: Any, rows: Any) -> Any:
        model = clone(self.estimator)
        part, labels = (X, y) if rows is None else (_safe_indexing(X, rows), y[rows])
        if weights is not None and has_fit_parameter(model, "sample_weight"):
            return model.fit(part, labels, sample_weight=weights if rows is None else weights[rows])
        return model.fit(part, labels)

    def _held_out_scores(self, X: Any, y: NDArray[Any], weights: Any) -> Scores:
        found: NDArray[Any] | None = None
        kind = ""
        seen = np.zeros(len(y), dtype=bool)
        for training, held_out in check_cv(self.cv, y, classifier=True).split(X, y):
            self._refuse_missing(y[training])
            model = self._fitted(X, y, weights, training)
            kind, part = scores_of(model, _safe_indexing(X, held_out), self._sets)
            if found is None:
                found = np.empty((len(y), *part.shape[1:]))
            found[held_out] = part
            seen[held_out] = True
        if found is None or not seen.all():
            raise ValueError(refuse("cv must hold every row out once", f"{seen.sum()} of {len(y)} rows held out"))
        return Scores(kind, found)

    def _refuse_missing(self, training: NDArray[Any]) -> None:
        if self._sets:
            constant = training.min(axis=0) == training.max(axis=0)
            if constant.any():
                asked = "every label must be both 0 and 1 in the training part of every fold"
                got = f"a fold in which label {int(np.argmax(constant))} is constant"
                raise ValueError(refuse(asked, got, "use fewer folds, a splitter that shuffles, or more rows"))
            return
        missing = np.setdiff1d(self.classes_, training)
        if len(missing):
            asked = "every class must be in the training part of every fold"
            raise ValueError(refuse(asked, f"a fold without {missing[0]!r}", "use fewer folds or more rows"))

    @available_if(_has_estimator)
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return calibrated probabilities (N, K); for label sets of each label being 1.

        Raises
        ------
        ValueError
            If a row has none, with the row: the estimator's scores are NaN or infinite, say.
        """
        check_is_fitted(self)
        refuse_masked(X, "X")
        scores = scores_of(self.estimator_, X, self._sets).logits(self.floor_)
        probabilities = self.calibrator_.predict_proba(scores)
        missing = np.isnan(probabilities)
        if missing.any():  # a calibrator of another library lets them pass
            row = int(np.argmax(missing.any(axis=1)))
            raise ValueError(refuse("calibrated probabilities must be numbers", f"NaN in row {row}"))
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row; label sets of 0 and 1 where `y` was label sets."""
        check_is_fitted(self)
        if self._sets:
            return (self.predict_proba(X) > 0.5).astype(np.intp)
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])


def _label_sets(y: Any) -> NDArray[np.intp]:
    dense = y.toarray() if issparse(y) else np.asarray(y)
    return np.ascontiguousarray(dense, dtype=np.intp)


class Scores(NamedTuple):
    """What a classifier says of each row, (N, K) or (N,).

    `kind` is "logits", "log-probabilities" (of exclusive classes), or "label-probabilities" (one event per column).
    """

    kind: str
    values: NDArray[Any]

    def floor(self) -> float | None:
        """Return half of the smallest positive probability, or None where none is 0 (or, of a label, 1)."""
        if self.kind == "logits":
            return None
        p = np.exp(self.values) if self.kind == "log-probabilities" else np.stack([self.values, 1 - self.values])
        zero = self.values == -np.inf if self.kind == "log-probabilities" else p <= 0
        if not zero.any():
            return None
        return 0.5 * float(p[p > 0].min())

    def logits(self, floor: float | None) -> NDArray[Any]:
        """Return logits; probabilities below `floor` count as this much (None: as they are)."""
        if self.kind == "logits":
            return self.values
        if self.kind == "log-probabilities":
            return self.values if floor is None else np.maximum(self.values, np.log(floor))
        p, rest = self.values, 1 - self.values
        if floor is not None:
            p, rest = np.maximum(p, floor), np.maximum(rest, floor)
        with np.errstate(divide="ignore"):
            return np.log(p) - np.log(rest)


def scores_of(estimator: Any, X: Any, label_sets: bool = False) -> Scores:
    """Return a fitted classifier's `logits`, `decision_function`, `predict_log_proba` or `predict_proba`.

    The first that it has. `predict_log_proba` comes before the logarithm of `predict_proba`, which has underflowed
    where the former is computed as a logarithm (naive Bayes).

    Raises
    ------
    ValueError
        If it has none of them.
    """
    for name in ("logits", "decision_function"):
        if hasattr(estimator, name):
            return Scores("logits", np.asarray(getattr(estimator, name)(X)))
    if not hasattr(estimator, "predict_proba"):
        asked = "the estimator must have one of logits, decision_function and predict_proba"
        raise ValueError(refuse(asked, describe(estimator)))
    with np.errstate(divide="ignore"):
        if label_sets:
            found = estimator.predict_proba(X)
            columns = np.stack([p[:, 1] for p in found], axis=1) if isinstance(found, list) else np.asarray(found)
            return Scores("label-probabilities", columns)
        if hasattr(estimator, "predict_log_proba"):
            return Scores("log-probabilities", np.asarray(estimator.predict_log_proba(X)))
        return Scores("log-probabilities", np.log(estimator.predict_proba(X)))
