"""A batch as the checks see it: arrays of any library, read once into float64 on a bounded number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.losses import Loss
from crossent.numpy.elementwise import log_sigmoid, log_softmax

__all__ = ["Batch", "Float64", "LeftOut", "mean_and_error", "nats", "plural"]

Float64 = NDArray[np.float64]
_EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}


class LeftOut(Exception):
    """A check cannot say anything about this batch; the text is the reason."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What the checks look at.

    Attributes
    ----------
    logits : array (n, K)
        The rows that were drawn; K = 1 for a single logit with the sigmoid link.
    rows : array (n,)
        Their numbers among the N rows of the caller.
    row_shape : tuple of int
        The logits' shape without the class axis; its product is N.
    labels : array (N,) or None
        With the softmax link, the class of every row as it came.
    target : array (n, K) or None
        A distribution of each row or, with the sigmoid link, numbers in 0..1; NaN where an entry does not count.
    shape, dtype, target_dtype : tuple of int, str, str
        Of the arrays as they came.
    link, link_from, loss, ignore_index
        As `check` has them.
    """

    logits: Float64
    rows: NDArray[np.intp]
    row_shape: tuple[int, ...]
    labels: NDArray[Any] | None
    target: Float64 | None
    shape: tuple[int, ...]
    dtype: str
    target_dtype: str
    link: str
    link_from: str
    loss: Loss | None
    ignore_index: int

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]

    @property
    def eps(self) -> float:
        """Half the distance of two numbers near 1 in the logits' dtype; of float32 where that is coarser."""
        return _EPS.get(self.dtype, _EPS["float32"])

    def row_name(self, row: int) -> str:
        """Return how the caller knows a row of the N."""
        place = np.unravel_index(row, self.row_shape) if len(self.row_shape) > 1 else (row,)
        return f"row {int(place[0])}" if len(place) == 1 else f"row {tuple(map(int, place))}"

    @cached_property
    def is_sane(self) -> NDArray[np.bool_]:
        """Which rows (n,) define probabilities."""
        z = self.logits
        bad = np.isnan(z)
        if self.link == "softmax":
            return np.asarray(~(bad | (z == np.inf)).any(axis=1) & (z > -np.inf).any(axis=1))
        return np.asarray(~bad.any(axis=1))

    @cached_property
    def sane(self) -> Float64:
        """The logits of the rows that define probabilities."""
        return self.logits[self.is_sane]

    @cached_property
    def is_label(self) -> NDArray[np.bool_]:
        """Which of the N labels are classes."""
        assert self.labels is not None
        y = self.labels
        return np.asarray((y >= 0) & (y < self.num_classes) & (y != self.ignore_index) & (np.floor(y) == y))

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """How often each class (K,) is the label."""
        labels = self.y if self.labels is None else self.labels[self.is_label].astype(np.intp)
        return np.bincount(labels, minlength=self.num_classes)

    @cached_property
    def has_target(self) -> NDArray[np.bool_]:
        """Which rows (n,) have a target to compare them with."""
        if self.labels is not None:
            return self.is_label[self.rows]
        if self.target is None:
            raise LeftOut("no target could be read")
        if self.link == "softmax":
            return np.asarray((self.target >= 0).all(axis=1))
        return np.asarray(((self.target >= 0) & (self.target <= 1)).any(axis=1))

    @cached_property
    def is_ruled_out(self) -> NDArray[np.bool_]:
        """Which rows (n,) have an infinite loss: a logit of -inf (or inf with the sigmoid link) denies the target."""
        z, t = self.logits, self.target
        present = self.is_sane & self.has_target
        if self.labels is not None:
            labels = np.where(present, self.labels[self.rows], 0).astype(np.intp)
            return np.asarray(present & (z[np.arange(len(z)), labels] == -np.inf))
        assert t is not None
        denied = (z == -np.inf) & (t > 0) | (self.link == "sigmoid") & (z == np.inf) & (t < 1)
        return np.asarray(present & denied.any(axis=1))

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Which rows (n,) have a finite loss."""
        return np.asarray(self.is_sane & self.has_target & ~self.is_ruled_out)

    @cached_property
    def z(self) -> Float64:
        """The logits (m, K) of the rows that count."""
        return self.logits[self.counted]

    @cached_property
    def y(self) -> NDArray[np.intp]:
        """The labels (m,) of the rows that count, of one-hot rows too."""
        if self.labels is not None:
            return self.labels[self.rows][self.counted].astype(np.intp)
        if self.target is None or self.link == "sigmoid":
            raise LeftOut("it needs labels")
        if not np.isin(self.t, (0, 1)).all() or (self.t.sum(axis=1) != 1).any():
            raise LeftOut("it needs labels, or rows that are one-hot")
        return self.t.argmax(axis=1)

    @cached_property
    def t(self) -> Float64:
        """The target (m, K) of the rows that count; NaN where an entry does not."""
        if self.target is not None:
            t = self.target[self.counted]
            return t if self.link == "softmax" else np.where((t >= 0) & (t <= 1), t, np.nan)
        return (self.y[:, None] == np.arange(self.num_classes)).astype(np.float64)

    @cached_property
    def log_probs(self) -> Float64:
        """``log p`` (m, K) of the rows that count."""
        return self.log_probs_of(self.z)

    def log_probs_of(self, z: Float64) -> Float64:
        """Return ``log softmax(z)`` or ``log σ(z)``."""
        return np.asarray(log_softmax(z) if self.link == "softmax" else log_sigmoid(z))

    @cached_property
    def losses(self) -> Float64:
        """Cross-entropy (m,) of the rows that count, in nats; with the sigmoid link the mean over a row's entries."""
        return self.losses_of(self.z)

    def losses_of(self, z: Float64) -> Float64:
        """Return the losses of logits (m, K) of these rows."""
        log_probs = self.log_probs if z is self.z else self.log_probs_of(z)
        with np.errstate(invalid="ignore"):
            if self.link == "sigmoid":
                entries = _times(self.t, -log_probs) + _times(1 - self.t, -np.asarray(log_sigmoid(-z)))
                return np.asarray(np.nanmean(entries, axis=1))
            if self.labels is not None:
                return np.asarray(-log_probs[np.arange(len(self.y)), self.y])
            return np.asarray(_times(self.t, -log_probs).sum(axis=1))

    @cached_property
    def is_softmaxed(self) -> bool:
        """Whether every row that defines probabilities lies in [0, 1] and sums to 1, more exactly than by chance."""
        z = self.sane
        tolerance = max(1e-5, self.eps)
        if len(z) * -np.log10(tolerance) < 5 or self.num_classes < 2 or not ((z >= 0) & (z <= 1)).all():
            return False
        return bool((np.abs(z.sum(axis=1) - 1) <= tolerance).all())

    def some(self, least: int) -> int:
        """Return how many rows count; `LeftOut` if they are fewer than `least`."""
        number = int(self.counted.sum())
        if number < least:
            raise LeftOut(f"it needs {least} rows that count; there {'is' if number == 1 else 'are'} {number}")
        return number


def _times(factor: Float64, other: Float64) -> Float64:
    """Return the product in which 0 times infinity is 0."""
    return np.where(factor == 0, 0.0, factor * other)


def mean_and_error(values: Float64) -> tuple[float, float]:
    """Return the mean of independent numbers and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def plural(number: int, what: str) -> str:
    """Return a number with what is counted.

    Examples
    --------
    >>> plural(1, "row"), plural(2, "row")
    ('1 row', '2 rows')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def nats(loss: float) -> str:
    """Return a loss with three decimals, or three digits where it is beyond measure.

    Examples
    --------
    >>> nats(1.4611), nats(1e300)
    ('1.461', '1e+300')
    """
    return f"{loss:.3f}" if abs(loss) < 1e6 else f"{loss:.3g}"
