"""What all calibrators share: the door for logits and labels, and prediction."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from crossent.core.reduction import check_total
from crossent.errors import describe, refuse
from crossent.kernels import registry
from crossent.masked import refuse_masked

from ..estimator import Classifier

__all__ = ["Calibrator", "Float64", "Sample"]

Float64 = NDArray[np.float64]
_SUM_TOLERANCE = 1e-3
_LOOK_AT = 1000
_LARGEST = 1e75  # Newton's steps multiply sums of squares, and 1e300 is nearly the largest float64


class Sample:
    """Checked logits (N, K) in float32 or float64, class indices or label sets, and weights (None: all 1)."""

    def __init__(
        self, logits: NDArray[Any], codes: NDArray[np.intp], events: NDArray[np.bool_] | None, weights: Float64 | None
    ) -> None:
        self.logits, self.codes, self.events, self.weights = logits, codes, events, weights
        self.kernels: Any = registry.find(logits.dtype)
        self.total = float(len(codes)) if weights is None else float(weights.sum())

    def every(self, stride: int) -> Sample:
        """Return each `stride`-th row: where a minimum is first looked for."""
        part = slice(None, None, stride)
        return Sample(
            np.ascontiguousarray(self.logits[part]),
            np.ascontiguousarray(self.codes[part]),
            None if self.events is None else np.ascontiguousarray(self.events[part]),
            None if self.weights is None else np.ascontiguousarray(self.weights[part]),
        )

    def stages(self, parameters: int) -> list[Sample]:
        """Return growing samples that end with this one: a start on few rows saves passes over all of them."""
        wanted = max(10_000, 100 * parameters)
        stride = len(self.codes) // wanted
        start = self.every(stride) if stride >= 4 else None
        return [self] if start is None or start.total == 0 else [start, self]


class Calibrator(Classifier, BaseEstimator):
    """Base of the calibrators: ``fit(logits, y)``, then ``predict_proba(logits)`` and ``predict(logits)``."""

    input: str
    link: str
    classes_: NDArray[Any]

    # -- the door -------------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        if self.input not in ("logits", "any-logits", "probabilities"):
            raise ValueError(refuse("input must be 'logits', 'any-logits' or 'probabilities'", repr(self.input)))
        if self.link not in ("softmax", "sigmoid"):
            raise ValueError(refuse("link must be 'softmax' or 'sigmoid'", repr(self.link)))

    def _check_sample(self, logits: Any, y: Any, sample_weight: Any) -> Sample:
        self._check_options()
        refuse_masked(y, "y")
        refuse_masked(sample_weight, "sample_weight")
        z = self._check_logits(logits, fitting=True)
        weights = None
        if sample_weight is not None:
            weights = np.ascontiguousarray(sample_weight, dtype=np.float64)
            fine = weights.shape == (len(z),) and bool((np.isfinite(weights) & (weights >= 0)).all())
            if not fine or not weights.any():
                asked = f"sample_weight must hold {len(z)} finite weights, none negative and not all 0"
                raise ValueError(refuse(asked, describe(weights)))
            with np.errstate(over="ignore"):
                check_total("the sum of sample_weight", float(weights.sum()))
        target = np.asarray(y)
        if self.link == "sigmoid" and z.shape[1] > 1:
            events = self._check_label_sets(target, z.shape)
            return Sample(z, np.zeros(len(z), np.intp), events, weights)
        if target.ndim == 2:
            works = "pass link='sigmoid' for label sets"
            raise ValueError(refuse("y must hold one label per row", describe(target), works))
        if target.shape != (len(z),):
            raise ValueError(refuse(f"y must hold one label for each of the {len(z)} rows", describe(target)))
        columns = max(z.shape[1], 2)
        codes, self.classes_ = _encode(target, columns)
        if self.link == "sigmoid":
            return Sample(z, np.zeros(len(z), np.intp), (codes == 1)[:, None], weights)
        return Sample(z, codes, None, weights)

    def _check_label_sets(self, target: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
        if target.shape != shape or not np.isin(target, (0, 1)).all():
            raise ValueError(refuse(f"y must be label sets of 0 and 1, of shape {shape}", describe(target)))
        self.classes_ = np.arange(shape[1])
        return np.ascontiguousarray(target.astype(bool))

    def _check_logits(self, logits: Any, *, fitting: bool) -> NDArray[Any]:
        """Return (N, K) logits, contiguous; their values are looked at where a sum shows that one is not finite."""
        refuse_masked(logits, self.input)
        raw = np.asarray(logits)
        if raw.dtype.kind not in "fiu" or raw.ndim not in (1, 2) or raw.size == 0:
            raise ValueError(refuse(f"{self.input} must be a non-empty array of numbers (N, K) or (N,)", describe(raw)))
        if raw.ndim == 2 and raw.shape[1] == 1 and self.link == "softmax":
            works = "pass the logit of the second class as a one-dimensional array, or link='sigmoid'"
            raise ValueError(refuse("softmax needs two columns or more", describe(raw), works))
        z = np.ascontiguousarray(raw, dtype=np.float32 if raw.dtype in (np.float16, np.float32) else np.float64)
        if self.input == "probabilities":
            return self._from_probabilities(z)
        # A batch to predict may well lie between 0 and 1, but its rows do not sum to 1 as well.
        if self.input == "logits" and (fitting or (z.ndim == 2 and self.link == "softmax")):
            self._refuse_probabilities(z)
        if z.ndim == 1:
            z = z[:, None] if self.link == "sigmoid" else np.stack([np.zeros_like(z), z], axis=1)
        return z

    def _refuse_probabilities(self, z: NDArray[Any]) -> None:
        for part in (z[:_LOOK_AT], z):
            inside = bool(((part >= 0) & (part <= 1)).all())
            if not inside:
                return
            exclusive = z.ndim == 2 and self.link == "softmax"
            if exclusive and not (np.abs(part.sum(axis=1, dtype=np.float64) - 1) <= _SUM_TOLERANCE).all():
                return
            if not exclusive and part.size < 20:  # a few logits may well lie between 0 and 1
                return
        raise ValueError(
            refuse(
                "calibrators are fitted from logits, the scores before softmax or sigmoid",
                "what looks like probabilities (all lie between 0 and 1" + (", rows sum to 1)" if z.ndim == 2 else ")"),
                "pass logits, input='probabilities' to have their logarithms taken as logits, or input='any-logits' if "
                "they are logits that happen to lie there",
            )
        )

    def _from_probabilities(self, p: NDArray[Any]) -> NDArray[Any]:
        """Return ``log p`` (softmax) or ``log p - log(1 - p)`` (sigmoid)."""
        flat = p if p.ndim == 2 else p[:, None]
        bad = ~((flat >= 0) & (flat <= 1)).all(axis=1)
        if p.ndim == 2 and self.link == "softmax":
            bad |= ~(np.abs(flat.sum(axis=1, dtype=np.float64) - 1) <= 10 * _SUM_TOLERANCE)
        if bad.any():
            row = int(np.argmax(bad))
            asked = "probabilities lie between 0 and 1 and a row's sum to 1"
            raise ValueError(refuse(asked, f"row {row}: {flat[row][:8].tolist()}"))
        with np.errstate(divide="ignore"):
            if self.link == "sigmoid":
                return np.log(flat) - np.log1p(-flat)
            if p.ndim == 1:
                odds = np.log(flat) - np.log1p(-flat)
                sure = odds == np.inf  # of the second class: then it is the first that cannot happen
                return np.concatenate([np.where(sure, -np.inf, 0.0), np.where(sure, 0.0, odds)], axis=1).astype(p.dtype)
            return np.log(flat)

    def _refuse_row(self, sample: Sample) -> NoReturn:
        """Say which row made a sum infinite or NaN, or that all of them are too large for one."""
        z = sample.logits
        if np.isfinite(z).all():
            self._refuse_size(float(np.abs(z).max()))
        bad = np.isnan(z).any(axis=1) | (z == np.inf).any(axis=1)
        if self.link == "softmax" and z.shape[1] > 1:
            bad |= z[np.arange(len(z)), sample.codes] == -np.inf
        else:
            bad |= np.isinf(z).any(axis=1)
        if sample.weights is not None:
            bad &= sample.weights > 0
        row = int(np.argmax(bad)) if bad.any() else int(np.argmax(~np.isfinite(z).all(axis=1)))
        asked = "logits must be finite (or -inf for a class that cannot happen, never the true one)"
        raise ValueError(refuse(asked, f"row {row}: {z[row][:8].tolist()}"))

    def _refuse_size(self, largest: float) -> NoReturn:
        asked = "logits must be small enough for their squares to be finite and some probability not to be 0 or 1"
        raise ValueError(refuse(asked, f"logits of up to {largest:.3g}", "divide them by a constant"))

    def _refuse_large(self, sample: Sample) -> None:
        """Refuse finite logits of rows that count whose squares overflow in the solver."""
        z = sample.logits
        if float(z.min()) >= -_LARGEST and float(z.max()) <= _LARGEST:  # 1e75 is no float32
            return
        counted = np.isfinite(z) if sample.weights is None else np.isfinite(z) & (sample.weights > 0)[:, None]
        largest = float(np.abs(z[counted]).max(initial=0.0))
        if largest > _LARGEST:
            self._refuse_size(largest)

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

    # -- prediction -----------------------------------------------------------------------------------------------

    def _predict(self, logits: NDArray[Any]) -> NDArray[Any]:
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
        z = self._check_logits(logits, fitting=False)
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

    def predict(self, logits: Any) -> NDArray[Any]:
        """Return the most probable class of each row; with the sigmoid link label sets of 0 and 1."""
        probabilities = self.predict_proba(logits)
        if self.link == "sigmoid" and self._labels_are_sets():
            return (probabilities > 0.5).astype(np.intp)
        return np.asarray(self.classes_[np.argmax(probabilities, axis=1)])

    def _labels_are_sets(self) -> bool:
        return getattr(self, "_num_columns", 2) > 1


def _encode(target: NDArray[Any], columns: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return class indices and classes: the sorted labels, or 0..K-1 where the labels are such indices."""
    if target.dtype.kind in "iu" and target.min() >= 0 and target.max() < columns:
        codes = np.ascontiguousarray(target, dtype=np.intp)
        seen = np.bincount(codes, minlength=columns)
        if seen.all() or np.count_nonzero(seen) < columns:
            return codes, np.arange(columns)
    known, codes = np.unique(target, return_inverse=True)
    if len(known) != columns:
        asked = f"y must hold {columns} different labels, one per column of logits, or class indices below {columns}"
        raise ValueError(refuse(asked, f"{len(known)} different labels"))
    return np.ascontiguousarray(codes, dtype=np.intp), known
