"""What a fitted softmax regression says of rows: logits, probabilities, classes, and losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from crossent.errors import refuse
from crossent.estimator import Classifier
from crossent.masked import refuse_masked
from crossent.numpy.dense import binary_cross_entropy_with_logits, cross_entropy
from crossent.numpy.elementwise import log_sigmoid, log_softmax, sigmoid, softmax
from crossent.regression.data.sources import RowSource

from .inputs import check_source, read_frame, refuse_infinite_logits

__all__ = ["LinearPredictions", "is_dask_collection"]


def is_dask_collection(X: Any) -> bool:
    """Whether X is a Dask array or data frame; Dask is not imported to find out."""
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "__dask_graph__")


def _or_lazily(method: Callable[[Any, Any], NDArray[Any]]) -> Callable[[Any, Any], Any]:
    """Let a method of rows return a lazy dask.array for a Dask collection."""

    @wraps(method)
    def wrapped(self: LinearPredictions, X: Any) -> Any:
        if not is_dask_collection(X):
            return method(self, X)
        from crossent.regression.data.dask_collections import frame_of, map_rows

        check_is_fitted(self)
        validate_data(self, frame_of(X), skip_check_array=True, reset=False)
        return map_rows(self._predictor(), method.__name__, X)

    return wrapped


class LinearPredictions(Classifier, BaseEstimator):
    """Predictions of `coef_`, `intercept_`, `classes_` and a link."""

    link = "softmax"
    coef_: NDArray[Any]
    intercept_: NDArray[Any]
    classes_: NDArray[Any]
    _multilabel: bool

    def _predictor(self) -> LinearPredictions:
        """Return what predictions need and nothing else, to be sent to where the rows are."""
        model = clone(self)
        for name in ("classes_", "coef_", "intercept_", "n_features_in_", "_multilabel"):
            setattr(model, name, getattr(self, name))
        return model

    @_or_lazily
    def logits(self, X: Any) -> NDArray[Any]:
        """Return ``X Wᵀ + b``, (N, K): a column per class (per label; one for two classes with the sigmoid link).

        With the sigmoid link and more than two exclusive classes ``log σ(X Wᵀ + b)``: in any case but label sets and
        the one column, the softmax of logits is what `predict_proba` returns.

        Raises
        ------
        ValueError
            Here and in all predictions, if ``X Wᵀ`` leaves the range of X's dtype, with the row: infinite logits would
            make any class certain.
        """
        check_is_fitted(self)
        if isinstance(X, RowSource):
            return self._logits_by_window(X)
        read_frame(X)
        X = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False, accept_sparse="csr")
        with np.errstate(over="ignore", invalid="ignore"):
            logits = X @ self.coef_.T.astype(X.dtype, copy=False)
        refuse_infinite_logits(logits)
        return self._of_link(logits + self.intercept_.astype(X.dtype, copy=False))

    def _logits_by_window(self, X: RowSource) -> NDArray[Any]:
        check_source(self, X, [np.float64, np.float32], reset=False)
        logits = np.empty((len(X), len(self.coef_)), X.dtype)
        weight = self.coef_.T.astype(X.dtype, copy=False)
        for rows, window in X.windows():
            with np.errstate(over="ignore", invalid="ignore"):
                np.matmul(window, weight, out=logits[rows])
            refuse_infinite_logits(logits[rows], rows.start)
        logits += self.intercept_.astype(X.dtype, copy=False)
        return self._of_link(logits)

    def _of_link(self, products: NDArray[Any]) -> NDArray[Any]:
        """Return logits of ``X Wᵀ + b``."""
        return log_sigmoid(products) if self.link == "sigmoid" and self._has_softmax else products

    @property
    def _has_softmax(self) -> bool:
        """Whether the softmax of the logits is what `predict_proba` returns."""
        return self.link == "softmax" or (not self._multilabel and len(self.classes_) > 2)

    @_or_lazily
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return logits (N, K); for two classes the evidence for the second, (N,): a difference of logits."""
        logits = self.logits(X)
        if self._multilabel or len(self.classes_) > 2:
            return logits
        return logits[:, 0] if self.link == "sigmoid" else logits[:, 1] - logits[:, 0]

    @_or_lazily
    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class, (N,), or for label sets the labels with probability above ½, (N, K)."""
        decision = self.decision_function(X)
        if self._multilabel:
            return (decision > 0).astype(np.int64)
        if decision.ndim == 1:
            return self.classes_[(decision > 0).astype(np.intp)]
        return self.classes_[decision.argmax(axis=1)]

    @_or_lazily
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return probabilities (N, K) of the classes, or of each label."""
        logits = self.logits(X)
        if self._has_softmax:
            return softmax(logits)
        if self._multilabel:
            return sigmoid(logits)
        return np.concatenate([sigmoid(-logits), sigmoid(logits)], axis=1)

    @_or_lazily
    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Return log-probabilities (N, K) in nats, exact where a probability would underflow."""
        logits = self.logits(X)
        if self._has_softmax:
            return log_softmax(logits)
        if self._multilabel:
            return log_sigmoid(logits)
        return np.concatenate([log_sigmoid(-logits), log_sigmoid(logits)], axis=1)

    def row_losses(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Return each row's plain cross-entropy in nats, (N,), for labels, distributions or label sets `y`.

        Raises
        ------
        ValueError
            If a label is none of `classes_`.
        """
        refuse_masked(y, "y")
        logits = np.asarray(self.logits(X), dtype=np.float64)
        y = np.asarray(y)
        if y.ndim == 2:
            if self._has_softmax:
                return np.asarray(cross_entropy(logits, y.astype(np.float64), reduction="none"))
            entries = binary_cross_entropy_with_logits(logits, y.astype(np.float64), reduction="none")
            return np.asarray(entries).sum(axis=1)
        codes = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        unknown = self.classes_[codes] != y
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(refuse("labels must be among the classes of the fit", f"{y[row]!r} in row {row}"))
        if self._has_softmax:
            return np.asarray(cross_entropy(logits, codes, reduction="none"))
        entries = binary_cross_entropy_with_logits(logits[:, 0], codes.astype(np.float64), reduction="none")
        return np.asarray(entries)
