"""One door for every metric: labels become class indices, probabilities a checked (N, K) array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.reduction import check_total
from ..errors import describe, refuse
from ..kernels import registry
from ..kernels.metrics import RowSummary
from ..masked import refuse_masked

__all__ = ["Predictions", "check_distributions", "check_predictions", "check_weights", "weighted_mean"]

# Half-precision softmax rows miss 1 by a few 1e-3; rows that are no distribution at all miss it by far more.
_SUM_TOLERANCE = {2: 1e-2, 4: 1e-3, 8: 1e-3}
_BLOCK_ELEMENTS = 1 << 18


class Predictions(NamedTuple):
    """Checked input.

    Attributes
    ----------
    codes : array of shape (N,)
        Class indices.
    probabilities : array of shape (N, K)
        As they came, whatever their layout and dtype: the kernels read `blocks`.
    weights : array of shape (N,) or None
        Row weights; None where all are 1.
    labels : array of shape (K,)
        Of the columns.
    summary : RowSummary or None
        What the check read off each row; None where nothing was checked.
    """

    codes: NDArray[np.intp]
    probabilities: NDArray[Any]
    weights: NDArray[np.float64] | None
    labels: NDArray[Any]
    summary: RowSummary | None

    @property
    def kernels(self) -> Any:
        """The twin that computes for these probabilities."""
        return registry.find(_dtype(self.probabilities))

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any], NDArray[np.intp]]]:
        """Yield slices of rows, their probabilities as the kernels read them (C-contiguous floats), and their codes.

        All rows at once where they lie in memory like that already; otherwise copies of a few rows at a time.
        """
        prob = self.probabilities
        if prob.flags.c_contiguous and prob.dtype == _dtype(prob):
            yield slice(0, len(prob)), prob, self.codes
            return
        step = max(1, _BLOCK_ELEMENTS // max(1, prob.shape[1]))
        for start in range(0, len(prob), step):
            part = slice(start, min(start + step, len(prob)))
            yield part, np.ascontiguousarray(prob[part], dtype=_dtype(prob)), self.codes[part]

    def of_rows(self, function: Any) -> NDArray[np.float64]:
        """Return ``function(probabilities, codes)`` of all rows, a number for each."""
        out = np.empty(len(self.codes))
        for part, prob, codes in self.blocks():
            out[part] = function(prob, codes)
        return out

    def rows(self) -> RowSummary:
        """Return maximum and hit of each row, read now if the check did not."""
        return self.summary if self.summary is not None else self.summarize(0.0)

    def summarize(self, tolerance: float) -> RowSummary:
        """Read off each row whether it is a distribution, its maximum and its hit."""
        parts = [self.kernels.summarize_rows(prob, codes, tolerance) for _, prob, codes in self.blocks()]
        if len(parts) == 1:
            whole: RowSummary = parts[0]
            return whole
        return RowSummary(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def of_label(self) -> NDArray[np.float64]:
        """Return the probability that each row gave its label, in float64."""
        return self.probabilities[np.arange(len(self.codes)), self.codes].astype(np.float64)

    def weight_or_ones(self) -> NDArray[np.float64]:
        """Return the row weights, ones where there are none."""
        return np.ones(len(self.codes)) if self.weights is None else self.weights


def _dtype(prob: NDArray[Any]) -> np.dtype[Any]:
    """Return the dtype that the kernels read: float32 for half precision and float32, else float64."""
    return np.dtype(np.float32 if prob.dtype in (np.float16, np.float32) else np.float64)


def check_predictions(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    validate: bool = True,
) -> Predictions:
    """Return labels as class indices beside probabilities whose rows are distributions.

    Column k of `y_prob` belongs to ``labels[k]``, or without `labels` to the k-th of the sorted labels of `y_true`.
    A one-dimensional `y_prob` is the probability of the second of two labels. ``validate=False`` takes the rows of
    `y_prob` as they are; labels, shapes and weights are checked in any case.

    Raises
    ------
    TypeError
        If an argument is a masked array or holds one.
    ValueError
        If shapes disagree, a label is missing or has no column, a frame's columns are named after the labels in another
        order, `labels` names one twice, a probability is NaN or outside [0, 1], a row does not sum to 1, or a weight is
        negative, NaN or infinite.
    """
    for name, given in (("y_true", y_true), ("y_prob", y_prob), ("labels", labels)):
        refuse_masked(given, name)
    truth = np.asarray(y_true)
    if truth.ndim != 1 or truth.size == 0:
        raise ValueError(refuse("y_true must be a one-dimensional, non-empty array of labels", describe(truth)))
    _refuse_missing(truth)
    raw = np.asarray(y_prob)
    if raw.dtype.kind not in "fiub":
        raise ValueError(refuse("y_prob must hold real numbers", describe(raw)))
    prob = raw
    if raw.ndim == 1:
        second = raw.astype(np.float64)
        prob = np.stack([1.0 - second, second], axis=1)
    if prob.ndim != 2 or prob.shape[0] != truth.shape[0]:
        raise ValueError(
            refuse(f"y_prob must have one row for each of the {truth.shape[0]} labels in y_true", describe(raw))
        )
    codes, known = _encode(truth, labels, prob.shape[1])
    _refuse_other_order(getattr(y_prob, "columns", None), known)
    weights = None if sample_weight is None else check_weights(sample_weight, len(truth))
    checked = Predictions(codes, prob, weights, known, None)
    if not validate:
        return checked
    return _with_summary(checked)


def _refuse_missing(truth: NDArray[Any]) -> None:
    """Refuse labels of which one is NaN, NaT, None or pandas' NA: what is not equal to itself, or None."""
    if truth.dtype.kind in "fcmM":
        missing = truth != truth
    elif truth.dtype.kind == "O":
        missing = np.array([label is None or not _is_itself(label) for label in truth.tolist()], dtype=np.bool_)
    else:
        return
    if missing.any():
        row = int(np.argmax(missing))
        works = "leave out the rows without a label"
        raise ValueError(refuse("y_true must hold a label in every row", f"{truth[row]!s} in row {row}", works))


def _is_itself(label: Any) -> bool:
    try:
        return bool(label == label)
    except TypeError:  # pandas' NA has no truth value
        return False


def check_distributions(probabilities: ArrayLike) -> NDArray[Any]:
    """Return an array (N, K) of real numbers, each of whose rows is a distribution, as every metric asks for it.

    Raises
    ------
    TypeError
        If it is a masked array or holds one.
    ValueError
        If it has another shape, a probability is NaN or outside [0, 1], or a row does not sum to 1.
    """
    refuse_masked(probabilities, "probabilities")
    raw = np.asarray(probabilities)
    if raw.dtype.kind not in "fiub" or raw.ndim != 2 or raw.shape[1] == 0:
        asked = "probabilities must be real numbers of shape (N, K), a column for each class"
        raise ValueError(refuse(asked, describe(raw)))
    if len(raw):
        _with_summary(Predictions(np.zeros(len(raw), np.intp), raw, None, np.arange(raw.shape[1]), None))
    return raw


def _with_summary(checked: Predictions) -> Predictions:
    """Return predictions with what was read off their rows; refuse the first row that is no distribution."""
    prob = checked.probabilities
    tolerance = _SUM_TOLERANCE.get(prob.dtype.itemsize, 1e-3) if prob.dtype.kind == "f" else 1e-3
    summary = checked.summarize(tolerance)
    if summary.bad.any():
        _refuse_row(prob, int(np.argmax(summary.bad)))
    return checked._replace(summary=summary)


def _refuse_other_order(columns: Any, known: NDArray[Any]) -> None:
    """Refuse a data frame whose columns are named after the labels and stand in another order."""
    names = [] if columns is None else [str(name) for name in columns]
    expected = [str(label) for label in known]
    if names != expected and sorted(names) == sorted(expected):
        raise ValueError(
            refuse(
                f"the columns of y_prob must be in the order of the labels, {', '.join(expected)}",
                ", ".join(names),
                "reorder them, or give labels=",
            )
        )


def _encode(truth: NDArray[Any], labels: ArrayLike | None, columns: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    codes = _indices(truth, columns) if labels is None else None
    if codes is not None:
        return codes, np.arange(columns, dtype=truth.dtype)
    known = np.unique(truth) if labels is None else np.asarray(labels)
    if columns != known.shape[0]:
        raise ValueError(
            refuse(
                f"y_prob has {columns} columns, one per class",
                f"{known.shape[0]} different labels",
                "pass labels=... with every class, in the columns' order",
            )
        )
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    if (ordered[1:] == ordered[:-1]).any():
        twice = ordered[:-1][ordered[1:] == ordered[:-1]].tolist()[0]
        raise ValueError(refuse("labels must be different", f"{twice!r} twice"))
    place = np.minimum(np.searchsorted(ordered, truth), len(ordered) - 1)
    unknown = ordered[place] != truth
    if unknown.any():
        row = int(np.argmax(unknown))
        label = truth[row : row + 1].tolist()[0]
        raise ValueError(refuse("every label of y_true must be one of labels", f"{label!r} in row {row}"))
    return np.ascontiguousarray(order[place]), known


def _indices(truth: NDArray[Any], columns: int) -> NDArray[np.intp] | None:
    """Return labels that are class indices, each of which occurs: what sorting them would give, without sorting."""
    if truth.dtype.kind not in "iu" or truth.min() != 0 or truth.max() != columns - 1:
        return None
    codes = truth.astype(np.intp, copy=False)
    return np.ascontiguousarray(codes) if np.bincount(codes, minlength=columns).all() else None


def check_weights(sample_weight: ArrayLike, rows: int) -> NDArray[np.float64]:
    """Return the weights of so many rows as contiguous float64.

    Raises
    ------
    TypeError
        If they are a masked array or hold one.
    ValueError
        If they are no numbers or of another shape, one is negative or not finite, or their sum cannot be divided by.
    """
    refuse_masked(sample_weight, "sample_weight")
    raw = np.asarray(sample_weight)
    if raw.dtype.kind not in "fiub":
        raise ValueError(refuse("sample_weight must hold real numbers", describe(raw)))
    weights = np.ascontiguousarray(raw, dtype=np.float64)
    asked = f"sample_weight must hold {rows} finite weights, none negative and not all 0"
    if weights.shape != (rows,):
        raise ValueError(refuse(asked, describe(weights)))
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise ValueError(refuse(asked, f"values from {weights.min():g} to {weights.max():g}"))
    with np.errstate(over="ignore"):
        check_total("the sum of sample_weight", float(weights.sum()))
    return weights


def _refuse_row(prob: NDArray[Any], row: int) -> NoReturn:
    inside = (prob[row] >= 0) & (prob[row] <= 1)
    if not inside.all():
        column = int(np.argmin(inside))
        raise ValueError(
            refuse(
                "probabilities lie between 0 and 1",
                f"{prob[row, column]} in row {row}, column {column}",
                "turn logits into probabilities with crossent.softmax first",
            )
        )
    total = prob[row].sum(dtype=np.float64)
    raise ValueError(refuse("each row of y_prob sums to 1", f"{total:.6g} in row {row}"))


def weighted_mean(values: NDArray[np.float64], weights: NDArray[np.float64] | None) -> float:
    """Return Σ w v / Σ w over rows of positive weight: one of weight 0 does not count, even where v is infinite."""
    if weights is None:
        return float(np.mean(values))
    counted = weights > 0
    return float(np.sum(values[counted] * weights[counted]) / np.sum(weights[counted]))
