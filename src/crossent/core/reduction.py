"""Weights, rows that do not count, normaliser, mean, sum and none: decided here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from crossent.core.arrays import Array
from crossent.errors import check_number, refuse

LEAST = 2.0**-1022  # the smallest normal number: 1 / x is finite from here on
REDUCTIONS = ("mean", "sum", "none")
ON_EMPTY = ("nan", "zero", "raise")


def check_total(what: str, total: float) -> None:
    """Refuse what cannot be divided by.

    Parameters
    ----------
    what : str
        What `total`, a sum of weights, is called.
    total : float

    Raises
    ------
    ValueError
        If it is infinite, or below the smallest normal number: its inverse may be infinite, and its digits are lost.
    """
    if not LEAST <= total < math.inf:
        raise ValueError(
            refuse(f"{what} must be finite and at least the smallest normal number", total, "scale the weights")
        )


def is_silent(mass: Array, labels: Array | None = None, weight: Array | None = None) -> Array:
    """Return which rows contribute nothing, penalties and NaN included: no loss, no gradient.

    They are the rows whose target has no (weighted) mass, whose label is marked as ignored (-1), or that weigh 0.
    """
    silent = mass == 0
    if labels is not None:
        silent = silent | (labels < 0)
    return silent if weight is None else silent | (weight == 0)


@dataclass(frozen=True)
class Reduction:
    """How row losses become one number.

    Parameters
    ----------
    kind : {"mean", "sum", "none"}
    normalizer : None, "count" or number > 0
        The mean's denominator. None: the weights of the rows that count, for hard labels ``Σ w_y · sample_weight``.
        "count": the number of rows that count, whatever the weights. A number: that number.
    on_empty : {"nan", "zero", "raise"}
        What a mean with denominator 0 is. Its gradient is 0 in any case.

    Raises
    ------
    ValueError
        If an argument is none of these.
    """

    kind: Literal["mean", "sum", "none"] = "mean"
    normalizer: float | Literal["count"] | None = None
    on_empty: Literal["nan", "zero", "raise"] = "nan"

    def __post_init__(self) -> None:
        if self.kind not in REDUCTIONS:
            raise ValueError(refuse("reduction must be 'mean', 'sum' or 'none'", repr(self.kind)))
        if self.on_empty not in ON_EMPTY:
            raise ValueError(refuse("on_empty must be 'nan', 'zero' or 'raise'", repr(self.on_empty)))
        normalizer = self.normalizer
        if normalizer is None or (isinstance(normalizer, str) and normalizer == "count"):
            return
        check_number("normalizer (unless None or 'count')", normalizer, above=0)

    def denominator(self, count: float, weighted: float) -> float:
        """Return the mean's denominator from the number of rows that count and their summed weights."""
        if self.normalizer is None:
            return weighted
        if isinstance(self.normalizer, str):
            return count
        return float(self.normalizer)

    def resolve(self, count: float, weighted: float) -> tuple[float, float]:
        """Return (factor on a row's gradient, value to return for an empty mean, else 0).

        The reduced value is ``factor · Σ row losses + second``.

        Raises
        ------
        ValueError
            If the denominator is 0 and on_empty is "raise", or it is positive and no normal number.
        """
        if self.kind != "mean":
            return 1.0, 0.0
        denominator = self.denominator(count, weighted)
        if denominator > 0:
            check_total("a mean's denominator", denominator)
            return 1.0 / denominator, 0.0
        if self.on_empty == "raise":
            raise ValueError(
                refuse(
                    "a mean needs at least one row that counts with a positive weight",
                    f"{count:g} rows that count, of summed weight {weighted:g}",
                    'on_empty="zero" or "nan" returns a value instead',
                )
            )
        return 0.0, math.nan if self.on_empty == "nan" else 0.0
