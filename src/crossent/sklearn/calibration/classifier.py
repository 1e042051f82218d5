"""A classifier and its calibrator in one, without anybody calibrating on rows that were trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import check_cv
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, has_fit_parameter

from crossent.errors import describe, refuse

from .affine import BiasCorrectedTemperatureScaling, VectorScaling
from .base import Calibrator
from .beta import BetaCalibration
from .matrix import DirichletCalibration, MatrixScaling
from .one_vs_rest import HistogramBinning, IsotonicCalibration, PlattScaling
from .temperature import TemperatureScaling

__all__ = ["METHODS", "CalibratedClassifier", "logits_of"]

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


def logits_of(estimator: Any, X: Any) -> NDArray[Any]:
    """Return a fitted classifier's logits: its `logits`, `decision_function`, or the logarithm of `predict_proba`.

    A logarithm of probabilities is a logit up to a constant per row; a probability of 0 becomes -inf.
    """
    for name in ("logits", "decision_function"):
        if hasattr(estimator, name):
            return np.asarray(getattr(estimator, name)(X))
    if not hasattr(estimator, "predict_proba"):
        asked = "the estimator must have one of logits, decision_function and predict_proba"
        raise ValueError(refuse(asked, describe(estimator)))
    with np.errstate(divide="ignore"):
        return np.log(estimator.predict_proba(X))


def _has_estimator(self: CalibratedClassifier) -> bool:
    return self.estimator is not None


class CalibratedClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities were calibrated on rows that it had not seen.

    With ``cv=5``, five clones predict the logits of the rows that they were not trained on; one calibrator is fitted to
    all of these, and the estimator once more to all rows. ``cv="prefit"`` takes a fitted estimator as it is: calibrate
    it on other rows than it was trained on.

    The clones saw fewer rows than the final estimator. Where that makes them far more certain, as with hardly any
    penalty and nearly separable classes, the calibrator repairs more than the final estimator needs: penalise, use more
    folds, or hold out rows and use "prefit".

    Parameters
    ----------
    estimator : classifier
        Anything with `logits` (crossent's estimators), `decision_function` or `predict_proba`, in this order.
    method : str or calibrator
        "temperature", "bias-corrected-temperature", "vector", "matrix", "dirichlet", "platt", "beta", "isotonic" or
        "histogram"; or a calibrator with options of its own.
    cv : int, splitter or "prefit"
        As in scikit-learn; an integer makes stratified folds.

    Attributes
    ----------
    classes_ : array (K,)
    estimator_ : classifier
        Fitted to all rows (or the one passed, for "prefit").
    calibrator_ : calibrator

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from crossent.sklearn import CalibratedClassifier, SoftmaxRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> model = CalibratedClassifier(SoftmaxRegression(C=10.0), method="temperature").fit(X[::2], y[::2])
    >>> bool(model.calibrator_.temperature_ > 1), model.predict_proba(X[1:3]).shape
    (True, (2, 10))
    """

    def __init__(self, estimator: Any = None, *, method: Any = "temperature", cv: Any = 5) -> None:
        self.estimator = estimator
        self.method = method
        self.cv = cv

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.estimator is not None:
            tags.input_tags.sparse = get_tags(self.estimator).input_tags.sparse
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> CalibratedClassifier:
        """Fit estimator and calibrator.

        Parameters
        ----------
        X : array or table (N, D)
            What the estimator takes.
        y : array (N,)
            Labels.
        sample_weight : array (N,), optional
            Given to the calibrator, and to the estimator if it takes weights.

        Returns
        -------
        CalibratedClassifier
            Itself.

        Raises
        ------
        ValueError
            If the method is unknown, or a fold lacks a class.
        """
        calibrator = self._calibrator()
        if self.estimator is None:
            raise ValueError(refuse("estimator must be a classifier", "None"))
        if y is None:
            raise ValueError("CalibratedClassifier requires y to be passed, but the target y is None")
        truth = column_or_1d(y, warn=True)
        check_classification_targets(truth)
        if issparse(X):
            X = X.tocsr()
        elif not hasattr(X, "__getitem__"):
            X = np.asarray(X)
        check_consistent_length(X, truth)
        self.classes_, codes = np.unique(truth, return_inverse=True)
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        if isinstance(self.cv, str):
            if self.cv != "prefit":
                raise ValueError(refuse("cv must be an integer, a splitter or 'prefit'", repr(self.cv)))
            check_is_fitted(self.estimator)
            self.estimator_ = self.estimator
            self.classes_ = np.asarray(getattr(self.estimator, "classes_", self.classes_))
            codes = np.searchsorted(self.classes_, truth)
            if not np.isin(truth, self.classes_).all():
                raise ValueError(refuse("every label must be one that the estimator knows", "others"))
            logits = logits_of(self.estimator, X)
        else:
            logits = self._held_out_logits(X, truth, weights)
            self.estimator_ = self._fitted(X, truth, weights, None)
        self.calibrator_ = calibrator.fit(logits, codes, weights)
        if hasattr(self.estimator_, "n_features_in_"):
            self.n_features_in_ = self.estimator_.n_features_in_
        return self

    def _calibrator(self) -> Any:
        if isinstance(self.method, str):
            if self.method not in METHODS:
                asked = f"method must be a calibrator or one of {', '.join(map(repr, METHODS))}"
                raise ValueError(refuse(asked, repr(self.method)))
            return METHODS[self.method]()
        if not (hasattr(self.method, "fit") and hasattr(self.method, "predict_proba")):
            raise ValueError(refuse("method must be a name or a calibrator", describe(self.method)))
        return clone(self.method)

    def _fitted(self, X: Any, y: NDArray[Any], weights: Any, rows: Any) -> Any:
        model = clone(self.estimator)
        part, labels = (X, y) if rows is None else (_safe_indexing(X, rows), y[rows])
        if weights is not None and has_fit_parameter(model, "sample_weight"):
            return model.fit(part, labels, sample_weight=weights if rows is None else weights[rows])
        return model.fit(part, labels)

    def _held_out_logits(self, X: Any, y: NDArray[Any], weights: Any) -> NDArray[Any]:
        found: NDArray[Any] | None = None
        seen = np.zeros(len(y), dtype=bool)
        for training, held_out in check_cv(self.cv, y, classifier=True).split(X, y):
            missing = np.setdiff1d(self.classes_, y[training])
            if len(missing):
                asked = "every class must be in the training part of every fold"
                raise ValueError(refuse(asked, f"a fold without {missing[0]!r}", "use fewer folds or more rows"))
            model = self._fitted(X, y, weights, training)
            part = logits_of(model, _safe_indexing(X, held_out))
            if found is None:
                found = np.empty((len(y), *part.shape[1:]))
            found[held_out] = part
            seen[held_out] = True
        if found is None or not seen.all():
            raise ValueError(refuse("cv must hold every row out once", f"{seen.sum()} of {len(y)} rows held out"))
        return found

    @available_if(_has_estimator)
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return calibrated probabilities (N, K)."""
        check_is_fitted(self)
        return self.calibrator_.predict_proba(logits_of(self.estimator_, X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row."""
        check_is_fitted(self)
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])
