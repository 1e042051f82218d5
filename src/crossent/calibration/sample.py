"""The door of the calibrators: logits, labels and weights, checked once and kept as one frozen sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.errors import describe, refuse
from crossent.kernels import registry
from crossent.masked import refuse_masked
from crossent.metrics.predictions import check_weights

__all__ = ["Float64", "Sample", "check_link", "read_logits", "read_sample", "row_blocks"]

Float64 = NDArray[np.float64]

_SUM_TOLERANCE = 1e-3
_LOOK_AT = 1000
_BLOCK_ELEMENTS = 1 << 18
_SATURATED = 100.0
_LARGEST = 1e75  # Newton's steps multiply sums of squares, and 1e300 is nearly the largest float64


@dataclass(frozen=True)
class Sample:
    """Checked rows of positive weight.

    Attributes
    ----------
    logits : array (N, K)
        In float32 or float64; ``-inf`` is a class that cannot happen.
    codes : array (N,)
        Class indices; not read where `events` says what happened.
    events : array (N, K) of bool, or None
        Which labels are 1, with the sigmoid link. None: label k is "the class is k".
    weights : array (N,) or None
        None: all are 1.
    link : str
    numbers : array (N,) or None
        Which rows of the caller's these are. None: all of them.
    """

    logits: NDArray[Any]
    codes: NDArray[np.intp]
    events: NDArray[np.bool_] | None
    weights: Float64 | None
    link: str
    numbers: NDArray[np.intp] | None = None

    @property
    def kernels(self) -> Any:
        """The twin that computes for these logits."""
        return registry.find(self.logits.dtype)

    @cached_property
    def total(self) -> float:
        """The sum of the weights."""
        return float(len(self.codes)) if self.weights is None else float(self.weights.sum())

    @cached_property
    def is_moderate(self) -> bool:
        """Whether all logits are finite and their squares far from overflow, as the sum of these shows in one pass."""
        flat = self.logits.ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(flat @ flat <= _LARGEST**2)

    def number(self, row: int) -> int:
        """Return the number that the caller knows a row by."""
        return row if self.numbers is None else int(self.numbers[row])

    def weight(self, part: slice) -> Float64:
        """Return the weights of some rows."""
        return np.ones(len(self.codes[part])) if self.weights is None else self.weights[part]

    def columns(self) -> Iterator[tuple[Float64, NDArray[np.bool_]]]:
        """Yield each column's scores and events."""
        for k in range(self.logits.shape[1]):
            yield self.logits[:, k].astype(np.float64), self.codes == k if self.events is None else self.events[:, k]

    def blocks(self, width: int = 0) -> Iterator[slice]:
        """Yield slices of rows for work on `width` numbers a row (0: on the logits)."""
        return row_blocks(len(self.logits), width or self.logits.shape[1])

    def rows(self, part: Any) -> Sample:
        """Return some of the rows."""
        logits, codes, events, weights = (
            None if values is None else np.ascontiguousarray(values[part])
            for values in (self.logits, self.codes, self.events, self.weights)
        )
        numbers = np.arange(len(self.codes))[part] if self.numbers is None else self.numbers[part]
        return Sample(logits, codes, events, weights, self.link, numbers)  # type: ignore[arg-type]

    def stages(self, parameters: int) -> list[Sample]:
        """Return growing samples that end with this one: a start on few rows saves passes over all of them."""
        stride = len(self.codes) // max(10_000, 100 * parameters)
        return [self] if stride < 4 else [self.rows(slice(None, None, stride)), self]

    def scaled(self, by_column: bool = False, lazily: bool = False) -> tuple[Sample, Float64]:
        """Return logits in a unit in which most are moderate, and that unit of each column.

        The probabilities of logits of 1000, say, are all 0 or 1, and their Hessian of nearly 0 sends Newton's method
        astray. So logits are divided by a power of two near the median of their size, where that is above 100: the
        range of a row or, with the sigmoid link, the absolute value (`by_column`: each column's own).

        Raises
        ------
        ValueError
            As `refuse_infinite`, or if a square overflows in this unit; `lazily`: not now.
        """
        if not lazily:
            self.refuse_infinite()
        some = self.logits[:: max(1, len(self.logits) // _LOOK_AT)].astype(np.float64)
        with np.errstate(invalid="ignore"):
            if self.link == "softmax":
                some = some.max(axis=1) - some.min(axis=1, where=np.isfinite(some), initial=np.inf)
            median = np.median(np.abs(some), axis=0 if by_column else None)
        unit = np.broadcast_to(
            np.where(median > _SATURATED, 2.0 ** (np.frexp(median)[1] - 1), 1.0), self.logits.shape[1]
        )
        scaled = self
        if unit.max() > 1:
            scaled = replace(self, logits=(self.logits / unit).astype(self.logits.dtype))
        if not (lazily or scaled.is_moderate):
            largest = float(np.abs(scaled.logits[np.isfinite(scaled.logits)]).max(initial=0.0))
            if largest > _LARGEST:
                asked = "logits must be small enough for their squares to be finite and some probability not to be "
                got = f"logits of up to {largest * unit.max():.3g}"
                raise ValueError(refuse(asked + "0 or 1", got, "divide them by a constant"))
        return scaled, unit

    def refuse_infinite(self) -> None:
        """Refuse rows of which a class is NaN or +inf, or what happened cannot happen."""
        z = self.logits
        if self.is_moderate:
            return
        bad = np.isnan(z).any(axis=1) | (z == np.inf).any(axis=1)
        if self.link == "softmax":
            bad |= z[np.arange(len(z)), self.codes] == -np.inf
        else:
            bad |= np.isinf(z).any(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            asked = "logits must be finite (or -inf for a class that cannot happen, never the true one)"
            raise ValueError(refuse(asked, f"row {self.number(row)}: {z[row][:8].tolist()}"))


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices of rows that hold a few hundred thousand numbers each."""
    step = max(1, _BLOCK_ELEMENTS // width)
    return (slice(i, i + step) for i in range(0, rows, step))


def check_link(input: str, link: str) -> None:
    """Raise ValueError unless both options are known."""
    if input not in ("logits", "any-logits", "probabilities"):
        raise ValueError(refuse("input must be 'logits', 'any-logits' or 'probabilities'", repr(input)))
    if link not in ("softmax", "sigmoid"):
        raise ValueError(refuse("link must be 'softmax' or 'sigmoid'", repr(link)))


def read_sample(logits: Any, y: Any, sample_weight: Any, input: str, link: str) -> tuple[Sample, NDArray[Any]]:
    """Return the rows that count and the classes of their columns.

    Raises
    ------
    TypeError
        If an argument is a masked array.
    ValueError
        If one is malformed or looks like probabilities.
    """
    refuse_masked(y, "y")
    z = read_logits(logits, input, link, fitting=True)
    weights = None if sample_weight is None else check_weights(sample_weight, len(z))
    target = np.asarray(y)
    codes, events = np.zeros(len(z), np.intp), None
    if link == "sigmoid" and z.shape[1] > 1:
        if target.shape != z.shape or not np.isin(target, (0, 1)).all():
            raise ValueError(refuse(f"y must be label sets of 0 and 1, of shape {z.shape}", describe(target)))
        events, classes = np.ascontiguousarray(target.astype(bool)), np.arange(z.shape[1])
    else:
        if target.ndim == 2:
            works = "pass link='sigmoid' for label sets"
            raise ValueError(refuse("y must hold one label per row", describe(target), works))
        if target.shape != (len(z),):
            raise ValueError(refuse(f"y must hold one label for each of the {len(z)} rows", describe(target)))
        codes, classes = _encode(target, max(z.shape[1], 2))
        if link == "sigmoid":
            codes, events = np.zeros(len(z), np.intp), (codes == 1)[:, None]
    sample = Sample(z, codes, events, weights, link)
    return sample if weights is None or weights.all() else sample.rows(weights > 0), classes


def _encode(target: NDArray[Any], columns: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return class indices and classes: the sorted labels, or 0..K-1 where the labels are such indices."""
    if target.dtype.kind in "iu" and target.min() >= 0 and target.max() < columns:
        return np.ascontiguousarray(target, dtype=np.intp), np.arange(columns)
    known, codes = np.unique(target, return_inverse=True)
    if len(known) != columns:
        asked = f"y must hold {columns} different labels, one per column of logits, or class indices below {columns}"
        raise ValueError(refuse(asked, f"{len(known)} different labels"))
    return np.ascontiguousarray(codes, dtype=np.intp), known


def read_logits(logits: Any, input: str, link: str, *, fitting: bool) -> NDArray[Any]:
    """Return (N, K) logits, contiguous; whether they are finite is not looked at here."""
    refuse_masked(logits, input)
    raw = np.asarray(logits)
    if raw.dtype.kind not in "fiu" or raw.ndim not in (1, 2) or raw.size == 0:
        raise ValueError(refuse(f"{input} must be a non-empty array of numbers (N, K) or (N,)", describe(raw)))
    if raw.ndim == 2 and raw.shape[1] == 1 and link == "softmax":
        works = "pass the logit of the second class as a one-dimensional array, or link='sigmoid'"
        raise ValueError(refuse("softmax needs two columns or more", describe(raw), works))
    z = np.ascontiguousarray(raw, dtype=np.float32 if raw.dtype in (np.float16, np.float32) else np.float64)
    exclusive = z.ndim == 2 and link == "softmax"
    if input == "probabilities":
        return _log_odds_of(z, link)
    # A batch to predict may well lie between 0 and 1, but its rows do not sum to 1 as well.
    if input == "logits" and (fitting or exclusive) and _are_like_probabilities(z, exclusive):
        raise ValueError(
            refuse(
                "calibrators are fitted from logits, the scores before softmax or sigmoid",
                "what looks like probabilities (all lie between 0 and 1" + (", rows sum to 1)" if z.ndim == 2 else ")"),
                "pass logits, input='probabilities' to have their logarithms taken as logits, or input='any-logits' if "
                "they are logits that happen to lie there",
            )
        )
    if z.ndim == 1:
        z = z[:, None] if link == "sigmoid" else np.stack([np.zeros_like(z), z], axis=1)
    return z


def _are_like_probabilities(z: NDArray[Any], exclusive: bool) -> bool:
    for part in (z[:_LOOK_AT], z):
        if not ((part >= 0) & (part <= 1)).all():
            return False
        if exclusive and not (np.abs(part.sum(axis=1, dtype=np.float64) - 1) <= _SUM_TOLERANCE).all():
            return False
        if not exclusive and part.size < 20:  # a few logits may well lie between 0 and 1
            return False
    return True


def _log_odds_of(p: NDArray[Any], link: str) -> NDArray[Any]:
    """Return ``log p`` (softmax) or ``log p - log(1 - p)`` (sigmoid) of probabilities."""
    flat = p if p.ndim == 2 else p[:, None]
    bad = ~((flat >= 0) & (flat <= 1)).all(axis=1)
    exclusive = p.ndim == 2 and link == "softmax"
    if exclusive:
        bad |= ~(np.abs(flat.sum(axis=1, dtype=np.float64) - 1) <= 10 * _SUM_TOLERANCE)
    if bad.any():
        row = int(np.argmax(bad))
        asked = "probabilities lie between 0 and 1 and a row's sum to 1"
        raise ValueError(refuse(asked, f"row {row}: {flat[row][:8].tolist()}"))
    with np.errstate(divide="ignore"):
        if exclusive:
            return np.log(flat)
        odds = np.log(flat) - np.log1p(-flat)
    if link == "sigmoid":
        return odds
    sure = odds == np.inf  # of the second class: then it is the first that cannot happen
    return np.concatenate([np.where(sure, -np.inf, 0.0), np.where(sure, 0.0, odds)], axis=1).astype(p.dtype)
