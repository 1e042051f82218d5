"""What all calibrators share: one way to be fitted, options that are checked, and prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from crossent.errors import describe, refuse
from crossent.estimator import Classifier, all_or_nothing
from crossent.regression.blas import single_threaded_blas

from .sample import Sample, check_link, read_logits, read_sample

__all__ = ["Calibrator"]


@dataclass(kw_only=True, eq=False, repr=False)
class Calibrator(Classifier, BaseEstimator):
    """Base of the calibrators: ``fit(logits, y)``, then ``predict_proba(logits)`` and ``predict(logits)``.

    The fields of a calibrator are its parameters.
    """

    input: str = "logits"
    link: str = "softmax"

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the map.

        Parameters
        ----------
        logits : array (N, K), or (N,) for two classes (the logit of the second)
            Best from rows that the model was not trained on. ``-inf`` is a class that cannot happen, where the map
            allows one.
        y : array (N,), or (N, K) of 0 and 1 with the sigmoid link
            Labels: column k belongs to the k-th in sorted order; class indices below K need not all occur.
        sample_weight : array (N,), optional
            Weights, at least 0; a row of weight 0 is left out.

        Returns
        -------
        The calibrator itself.

        Raises
        ------
        TypeError
            If an argument is a masked array.
        ValueError
            If an argument or an option is malformed, the logits look like probabilities, or one is NaN or +inf.

        Warns
        -----
        ConvergenceWarning
            If no finite parameters are best, or a minimum was not reached.
        """
        check_link(self.input, self.link)
        self._check_options()
        with all_or_nothing(self), single_threaded_blas():
            sample, self.classes_ = read_sample(logits, y, sample_weight, self.input, self.link)
            self._num_columns = sample.logits.shape[1]
            self._fit(sample)
        return self

    def _check_options(self) -> None:
        """Raise ValueError unless the options of the map are sound."""

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (isinstance(value, int | float) and value >= 0):
                raise ValueError(refuse(f"{name} must be a number of at least 0", repr(value)))

    def _check_solver(self) -> None:
        tol, max_iter = self.tol, self.max_iter
        if not (isinstance(tol, int | float) and tol > 0):
            raise ValueError(refuse("tol must be a positive number", repr(tol)))
        if not isinstance(max_iter, int | np.integer) or isinstance(max_iter, bool) or max_iter < 1:
            raise ValueError(refuse("max_iter must be a positive integer", repr(max_iter)))

    def _fit(self, sample: Sample) -> None:
        raise NotImplementedError

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError

    def predict_proba(self, logits: Any) -> NDArray[Any]:
        """Return calibrated probabilities.

        Parameters
        ----------
        logits : array (N, K), or (N,) for two classes
            As in `fit`.

        Returns
        -------
        array (N, K)
            One column per class; with the sigmoid link one per label (two for a single column: of 0 and of 1).

        Raises
        ------
        ValueError
            If a row has no probabilities, with the row: a logit is NaN or, of exclusive classes, infinite, or the map
            leaves float64's range.
        """
        check_is_fitted(self)
        z = read_logits(logits, self.input, self.link, fitting=False)
        columns = len(self.classes_)
        if z.shape[1] != columns and not (self.link == "sigmoid" and z.shape[1] == 1 and columns == 2):
            raise ValueError(refuse(f"logits must have {columns} columns, as in fit", describe(np.asarray(logits))))
        self._refuse_undefined(z, z)
        with np.errstate(all="ignore"):
            probabilities = self._predict(z)
        self._refuse_undefined(z, probabilities)
        if self.link == "sigmoid" and probabilities.shape[1] == 1:
            return np.concatenate([1 - probabilities, probabilities], axis=1)
        return probabilities

    def _refuse_undefined(self, z: NDArray[Any], values: NDArray[Any]) -> None:
        """Refuse rows of which `values`, the logits or what was made of them, say nothing."""
        if np.isfinite(values).all():
            return
        top = values.max(axis=1)  # NaN if one is; +inf; or -inf if all are
        bad = np.isnan(top) if self.link == "sigmoid" else ~np.isfinite(top)
        if bad.any():
            row = int(np.argmax(bad))
            asked = "logits must be finite (or -inf for a class that cannot happen), before and after calibration"
            raise ValueError(refuse(asked, f"row {row}: {z[row][:8].tolist()}"))

    def predict(self, logits: Any) -> NDArray[Any]:
        """Return the most probable class of each row; with the sigmoid link label sets of 0 and 1."""
        probabilities = self.predict_proba(logits)
        if self.link == "sigmoid" and self._num_columns > 1:
            return (probabilities > 0.5).astype(np.intp)
        return np.asarray(self.classes_[np.argmax(probabilities, axis=1)])
