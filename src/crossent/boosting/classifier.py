"""A booster as a classifier: it starts at the log prior, descends a loss of the family, and ends in probabilities."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import train_test_split
from sklearn.utils import get_tags
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from crossent.calibration import CalibratedClassifier
from crossent.errors import check_number, describe, first_line, refuse
from crossent.estimator import Classifier, all_or_nothing
from crossent.losses import DEFAULT_LOSS, Loss
from crossent.masked import refuse_masked
from crossent.numpy.elementwise import log_sigmoid, log_softmax, sigmoid, softmax
from crossent.regression.targets import EncodedTarget, class_weights, encode_target

from .libraries import Library, Rows, Training, library_of, per_class
from .metric import Metric
from .objective import Objective
from .saving import load_model, save_model

__all__ = ["BoostedClassifier", "can_hold_out"]

Float64 = NDArray[np.float64]


@dataclass(eq=False, repr=False)
class BoostedClassifier(Classifier, BaseEstimator):
    """XGBoost, LightGBM or CatBoost as a scikit-learn classifier that descends a loss of the family.

    The raw predictions of row x are ``z = b + Σ_t tree_t(x)``. The start b is the log prior: the logarithm of the
    classes' shares of the training rows, counted by their weights (after label smoothing), so that the trees need not
    learn it. With more than two classes z has K columns and ``p = softmax(z)``; with two it has one and ``p_1 = σ(z)``.

    Parameters
    ----------
    estimator : XGBClassifier, LGBMClassifier or CatBoostClassifier
        Untrained, with the number of rounds, the depth and all else that is about trees. Its objective, metric, class
        weights and early stopping are set from the parameters below.
    loss : Loss, optional
        A loss of the family but distillation, such as ``crossent.Focal(2.0)``; None is cross-entropy.
    class_weight : dict, {"balanced", "inverse", "sqrt", "effective"} or None
        Weights of the classes, by which the weights of their rows are multiplied: ``{class: weight}``, or a scheme of
        `crossent.imbalance.class_weights` that reads them off the training labels.
    label_smoothing : float, default 0.0
        ε: the target becomes ``(1-ε) t + ε/K``.
    hessian : {"upper", "diagonal", "gradient"}
        As in `Objective`.
    early_stopping_rounds : int, optional
        Stop when the loss of rows held out has not fallen for so many rounds, and predict with the rounds up to the
        best one.
    validation_fraction : float, default 0.1
        The share of the rows that is held out for it, with each class in proportion, where `fit` is given no eval_set.
    calibration : str, calibrator or None
        A method of `crossent.sklearn.CalibratedClassifier`, fitted to raw predictions of rows out of fold.
    cv : int or splitter, default 5
        The folds of the calibration.
    random_state : int, RandomState or None
        Draws the rows that are held out. The trees have a seed of their own.

    Attributes
    ----------
    classes_ : ndarray (K,)
    estimator_ : the trained classifier
        On class indices. (After `load`, LightGBM's is a `lightgbm.Booster`.)
    start_ : ndarray (K,), or () for two classes
        b, in nats.
    n_iter_ : int
        Rounds that predictions use.
    calibrator_ : calibrator or None
    n_features_in_, feature_names_in_
        As scikit-learn sets them.

    Notes
    -----
    For cross-entropy the trees are those of the library's own objective where both start at the same b: XGBoost's;
    LightGBM's for two classes, and for more, up to ties between splits, with the learning rate times 2 (K-1)/K;
    CatBoost's for two classes with Newton steps. CatBoost calls a custom objective of more than two classes once a row,
    0.25 ms each, so its own ``MultiClass`` computes plain cross-entropy there, and `hessian` does not count; other
    losses are slow. It chooses a learning rate only for objectives of its own: give one. scikit-learn clones its
    ``cat_features`` only as a tuple.

    References
    ----------
    Friedman, Greedy function approximation (2001), whose F_0 is the start; Lin, Goyal, Girshick, He, Dollár, Focal loss
    for dense object detection (2017), section 3.3, for the log prior as the start of a focal loss.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from xgboost import XGBClassifier
    >>> import crossent as ce
    >>> from crossent.boosting import BoostedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> names = load_iris().target_names[y]
    >>> model = BoostedClassifier(XGBClassifier(n_estimators=10), loss=ce.Focal(1.0)).fit(X, names)
    >>> model.start_.round(4), model.predict(X[:1])
    (array([-1.0986, -1.0986, -1.0986]), array(['setosa'], dtype='<U10'))
    """

    estimator: Any = None
    _: KW_ONLY
    loss: Loss | None = None
    class_weight: Any = None
    label_smoothing: float = 0.0
    hessian: str = Objective.hessian
    early_stopping_rounds: int | None = None
    validation_fraction: float = 0.1
    calibration: Any = None
    cv: Any = 5
    random_state: Any = None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.estimator is not None:
            tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:
        """Train the booster, and where asked its calibrator.

        Parameters
        ----------
        X : array, sparse matrix or table (N, D)
            What the library takes, with its missing values and categories.
        y : array (N,)
            Labels: numbers or texts.
        sample_weight : array (N,), optional
            Weights, at least 0. A class needs a row with a positive one.
        eval_set : (X, y) or (X, y, sample_weight), optional
            Rows for early stopping, in the place of `validation_fraction`. As a list of one, too.

        Returns
        -------
        BoostedClassifier
            Itself.

        Raises
        ------
        TypeError
            If an argument is a masked array.
        ValueError
            If a parameter is not as above, the estimator is another one or was trained, `y` is of one class, a class
            has no weight, or the library refuses the rows.
        """
        library = library_of(self.estimator)
        library.check(self.estimator)
        if y is None:
            raise ValueError("BoostedClassifier requires y to be passed, but the target y is None")
        self._check_stopping(eval_set)
        with all_or_nothing(self):
            if self.calibration is not None:
                return self._fit_calibrated(X, y, sample_weight)
            X = self._read(X, reset=True)
            labels = _read_labels(y, X)
            target = encode_target(labels, "softmax", check_number("label_smoothing", self.label_smoothing))
            self.classes_ = target.classes
            weight = _checked_weight(sample_weight, X)
            factors = class_weights(target, self.class_weight, np.ones(len(labels)) if weight is None else weight)
            rows, held = self._split(self._rows(X, labels, weight, factors), eval_set, factors)
            self.start_ = self._log_prior(replace(target, labels=rows.codes), rows.weight)
            link = "softmax" if self.start_.ndim else "sigmoid"
            loss, label_smoothing = DEFAULT_LOSS if self.loss is None else self.loss, target.label_smoothing
            objective = Objective(loss, link=link, label_smoothing=label_smoothing, hessian=self.hessian)
            metric = Metric(loss, link=link, label_smoothing=label_smoothing)
            self.estimator_ = library.untrained(self.estimator)
            training = Training(objective, metric, rows, self.start_, held, self.early_stopping_rounds or 0)
            try:
                library.fit(self.estimator_, training)
            except Exception as error:
                if type(error).__name__ != library.error:
                    raise
                raise ValueError(f"{library.classifier} refuses the rows: {first_line(error)}") from error
            self.n_iter_ = library.rounds(self.estimator_)
            self.calibrator_ = None
        return self

    def _check_stopping(self, eval_set: Any) -> None:
        rounds = self.early_stopping_rounds
        if rounds is not None and (not isinstance(rounds, int | np.integer) or isinstance(rounds, bool) or rounds < 1):
            raise ValueError(refuse("early_stopping_rounds must be None or a positive integer", repr(rounds)))
        check_number("validation_fraction", self.validation_fraction, above=0.0)
        if eval_set is not None and rounds is None:
            asked = "eval_set holds the rows of early stopping"
            raise ValueError(refuse(asked, "early_stopping_rounds=None", "say after how many rounds to stop"))
        if eval_set is not None and self.calibration is not None:
            asked = "with calibration every fold holds rows of its own out for early stopping"
            raise ValueError(refuse(asked, "an eval_set", "pass validation_fraction"))

    def _fit_calibrated(self, X: Any, y: Any, sample_weight: Any) -> Self:
        plain = clone(self).set_params(calibration=None)
        fitted = CalibratedClassifier(plain, method=self.calibration, cv=self.cv).fit(X, y, sample_weight)
        self.__dict__.update({name: value for name, value in vars(fitted.estimator_).items() if name.endswith("_")})
        self.calibrator_ = fitted.calibrator_
        return self

    def _read(self, X: Any, *, reset: bool) -> Any:
        refuse_masked(X, "X")
        if hasattr(X, "columns"):  # a table, whose types the library knows
            validate_data(self, X, skip_check_array=True, reset=reset)
            return X
        return validate_data(self, X, dtype=None, accept_sparse="csr", ensure_all_finite=False, reset=reset)

    def _rows(self, X: Any, labels: NDArray[Any], weight: Float64 | None, factors: Float64 | None) -> Rows:
        """Return rows with the indices of their classes, and weights times those of the classes."""
        codes = np.minimum(np.searchsorted(self.classes_, labels), len(self.classes_) - 1)
        unknown = self.classes_[codes] != labels
        if np.any(unknown):
            row = int(np.argmax(unknown))
            got = f"{labels.tolist()[row]!r} in row {row}"
            raise ValueError(refuse("labels of eval_set must be among those of y", got))
        if factors is not None:
            weight = factors[codes] if weight is None else weight * factors[codes]
        return Rows(X, codes, weight)

    def _split(self, rows: Rows, eval_set: Any, factors: Float64 | None) -> tuple[Rows, Rows | None]:
        """Return the rows to train on, and those held out for early stopping."""
        if self.early_stopping_rounds is None:
            return rows, None
        if eval_set is None:
            counts = np.bincount(rows.codes)
            if not can_hold_out(counts, self.validation_fraction):
                asked = "early stopping holds rows of each class out"
                got = f"{len(rows.codes)} rows, {counts.min()} of class {self.classes_.tolist()[np.argmin(counts)]!r}"
                raise ValueError(refuse(asked, got, "pass an eval_set, or early_stopping_rounds=None"))
            parts = train_test_split(
                np.arange(len(rows.codes)),
                test_size=self.validation_fraction,
                stratify=rows.codes,
                random_state=self.random_state,
            )
            training, held = (np.sort(part) for part in parts)
            return rows.take(training), rows.take(held)
        given = eval_set[0] if isinstance(eval_set, list) and len(eval_set) == 1 else eval_set
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise ValueError(refuse("eval_set must be (X, y) or (X, y, sample_weight)", describe(given)))
        X = self._read(given[0], reset=False)
        return rows, self._rows(
            X, _read_labels(given[1], X), _checked_weight(given[2] if len(given) == 3 else None, X), factors
        )

    def _log_prior(self, target: EncodedTarget, weight: Float64 | None) -> Float64:
        """Return the raw prediction whose probabilities are the classes' shares of the target: (K,), or () for two."""
        mass, total = target.total_mass(np.ones(len(target.values)) if weight is None else weight)
        if not mass.all():
            label = self.classes_.tolist()[int(np.argmin(mass))]
            raise ValueError(refuse("each class must have a row of positive weight", f"none of class {label!r}"))
        shares = np.log(mass) - np.log(total)
        return np.asarray(shares[1] - shares[0]) if len(shares) == 2 else np.asarray(shares)

    def decision_function(self, X: Any) -> Float64:
        """Return raw predictions in nats, (N, K), or (N,) for two classes: what a calibrator starts from.

        Raises
        ------
        ValueError
            Here and in all predictions, if X has other features than those of the fit.
        """
        check_is_fitted(self)
        X = self._read(X, reset=False)
        return np.asarray(self._library().raw(self.estimator_, X, self.start_), np.float64)

    def logits(self, X: Any) -> Float64:
        """Return raw predictions with a column for each class, (N, K): of two classes -z/2 and z/2."""
        return per_class(self.decision_function(X), len(self.classes_))

    def _library(self) -> Library:
        return library_of(self.estimator)

    def predict_proba(self, X: Any) -> Float64:
        """Return probabilities (N, K), calibrated if that was asked for."""
        raw = self.decision_function(X)
        if self.calibrator_ is not None:
            return np.asarray(self.calibrator_.predict_proba(raw))
        return np.stack([sigmoid(-raw), sigmoid(raw)], axis=1) if raw.ndim == 1 else softmax(raw)

    def predict_log_proba(self, X: Any) -> Float64:
        """Return log-probabilities (N, K) in nats, exact where a probability would underflow."""
        check_is_fitted(self)
        if self.calibrator_ is not None:
            with np.errstate(divide="ignore"):
                return np.log(self.predict_proba(X))
        raw = self.decision_function(X)
        return np.stack([log_sigmoid(-raw), log_sigmoid(raw)], axis=1) if raw.ndim == 1 else log_softmax(raw)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, (N,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the model: the booster in its library's own format, and beside it a file that names it by digest.

        The file at `path` is safetensors: classes, start, calibrator and parameters, as numbers and JSON, no code.
        Beside it lies the library's own file, of the same name with its suffix: .ubj for XGBoost, .txt for LightGBM,
        .cbm for CatBoost. Whatever reads that format can use it; its raw predictions lack the start (XGBoost's take it
        as base_margin).

        Parameters which JSON cannot hold (a splitter, callbacks) are left out.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        list of Path
            The two files.

        Raises
        ------
        ValueError
            If `path` has the library's own suffix, or the calibrator or the classes are not of numbers and texts
            (`IsotonicCalibration`): pickle keeps those.
        OSError
            If a file cannot be written.
        """
        check_is_fitted(self)
        return save_model(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the model that `save` wrote.

        Raises
        ------
        ValueError
            If there is no such file, it is damaged or of another kind, or the library's own file beside it is missing
            or not the one that was saved.
        ImportError
            If the library is not installed.
        """
        return load_model(cls, Path(path))


def can_hold_out(counts: NDArray[np.intp], share: float) -> bool:
    """Return whether each class, of so many rows, has some to train on and to hold out."""
    return bool(counts.min() > 1 and counts.sum() * share >= len(counts))


def _read_labels(y: Any, X: Any) -> NDArray[Any]:
    refuse_masked(y, "y")
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    check_consistent_length(X, labels)
    return labels


def _checked_weight(sample_weight: Any, X: Any) -> Float64 | None:
    refuse_masked(sample_weight, "sample_weight")
    if sample_weight is None:
        return None
    return np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
