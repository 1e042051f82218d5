"""One door for every metric: labels become class indices, probabilities a checked (N, K) array."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import describe, refuse

# Half-precision softmax rows miss 1 by a few 1e-3; rows that are no distribution at all miss it by far more.
_SUM_TOLERANCE = {2: 1e-2, 4: 1e-3, 8: 1e-3}


class Predictions(NamedTuple):
    """Checked input: class indices (N,), probabilities (N, K) in float64, row weights (N,) and the K labels."""

    codes: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    weights: NDArray[np.float64]
    labels: NDArray[Any]


def check_predictions(
    y_true: ArrayLike, y_prob: ArrayLike, labels: ArrayLike | None = None, sample_weight: ArrayLike | None = None
) -> Predictions:
    """Return labels as class indices beside probabilities whose rows are distributions.

    Column k of `y_prob` belongs to the k-th of the sorted labels (those of `y_true` unless `labels` names more).
    A one-dimensional `y_prob` is the probability of the second of two labels.

    Raises
    ------
    ValueError
        If shapes disagree, a label has no column, a probability is NaN or outside [0, 1], a row does not sum to 1, or a
        weight is negative, NaN or infinite.
    """
    truth = np.asarray(y_true)
    if truth.ndim != 1 or truth.size == 0:
        raise ValueError(refuse("y_true must be a one-dimensional, non-empty array of labels", describe(truth)))
    known = np.unique(truth if labels is None else np.asarray(labels))
    raw = np.asarray(y_prob)
    if raw.dtype.kind not in "fiub":
        raise ValueError(refuse("y_prob must hold real numbers", describe(raw)))
    tolerance = _SUM_TOLERANCE.get(raw.dtype.itemsize, 1e-3) if raw.dtype.kind == "f" else 1e-3
    prob = raw.astype(np.float64)
    if prob.ndim == 1:
        prob = np.stack([1.0 - prob, prob], axis=1)
    if prob.ndim != 2 or prob.shape[0] != truth.shape[0]:
        raise ValueError(
            refuse(f"y_prob must have one row for each of the {truth.shape[0]} labels in y_true", describe(raw))
        )
    if prob.shape[1] != known.shape[0]:
        raise ValueError(
            refuse(
                f"y_prob has {prob.shape[1]} columns, one per class",
                f"{known.shape[0]} different labels",
                "pass labels=... with every class, in sorted order",
            )
        )
    codes = np.searchsorted(known, truth)
    unknown = (codes == known.shape[0]) | (known[np.minimum(codes, known.shape[0] - 1)] != truth)
    if unknown.any():
        row = int(np.argmax(unknown))
        label = truth[row : row + 1].tolist()[0]
        raise ValueError(refuse("every label of y_true must be one of labels", f"{label!r} in row {row}"))
    _check_rows(prob, tolerance)
    if sample_weight is None:
        weights = np.ones(truth.shape[0])
    else:
        raw_weights = np.asarray(sample_weight)
        if raw_weights.dtype.kind not in "fiub":
            raise ValueError(refuse("sample_weight must hold real numbers", describe(raw_weights)))
        weights = raw_weights.astype(np.float64)
        if weights.shape != truth.shape:
            raise ValueError(refuse(f"sample_weight must have shape {truth.shape}", describe(weights)))
        if not (np.isfinite(weights) & (weights >= 0)).all() or weights.sum() == 0:
            got = f"values from {weights.min():g} to {weights.max():g}"
            raise ValueError(refuse("sample_weight must be finite, not negative, and not zero everywhere", got))
    return Predictions(codes, prob, weights, known)


def _check_rows(prob: NDArray[np.float64], tolerance: float) -> None:
    bad = ~((prob >= 0) & (prob <= 1))  # written so that NaN is bad too
    if bad.any():
        row, column = np.unravel_index(int(np.argmax(bad)), bad.shape)
        raise ValueError(
            refuse(
                "probabilities lie between 0 and 1",
                f"{prob[row, column]} in row {row}, column {column}",
                "turn logits into probabilities with crossent.softmax first",
            )
        )
    total = prob.sum(axis=1)
    off = np.abs(total - 1) > tolerance
    if off.any():
        first = int(np.argmax(off))
        raise ValueError(refuse("each row of y_prob sums to 1", f"{total[first]:.6g} in row {first}"))


def weighted_mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return Σ w v / Σ w over rows of positive weight: one of weight 0 does not count, even where v is infinite."""
    counted = weights > 0
    return float(np.sum(values[counted] * weights[counted]) / np.sum(weights[counted]))
