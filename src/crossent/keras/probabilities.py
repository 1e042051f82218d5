"""The losses of rows of probabilities: exact at 0 and 1, never clipped. The backend differentiates them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from crossent.core.target import Target
from crossent.errors import refuse
from crossent.losses import Loss

from .tensors import known, nan_where

__all__ = ["row_losses"]

SUM_TOLERANCE = 1e-2  # rows of bfloat16 probabilities come this close


class _Rows:
    """The statistics of rows p (N, K) that a loss reads. With the sigmoid link a row is (1 - p, p), for each entry."""

    def __init__(self, given: Any, target: Target):
        self.given, self.is_sigmoid = given, target.link == "sigmoid"
        self.p = given
        if self.is_sigmoid:
            self.p = ops.concatenate([1 - given, given], axis=-1)
            target = target.as_two_classes(given)
        self.target = target

    def surprisal(self, needed: Any) -> Any:
        """``-log p`` where it is needed, and 0 elsewhere, which no derivative leaves."""
        one = ops.ones_like(self.given)
        if not self.is_sigmoid:
            return -ops.log(ops.where(needed, self.given, one))
        negative = -ops.log1p(-ops.where(needed[:, :1], self.given, 0 * one))
        return ops.concatenate([negative, -ops.log(ops.where(needed[:, 1:], self.given, one))], axis=-1)

    @cached_property
    def distribution(self) -> Any:
        return self.target.distribution(self.p)

    @cached_property
    def weighted(self) -> Any:
        weight = self.target.class_weight
        return self.distribution if weight is None else self.distribution * weight

    @cached_property
    def mass(self) -> Any:
        return ops.sum(self.weighted, axis=-1)

    @cached_property
    def nll(self) -> Any:
        return ops.sum(self.weighted * self.surprisal(self.weighted != 0), axis=-1)

    @cached_property
    def miss(self) -> Any:
        others = self.target.complement(self.p)
        miss = ops.sum(ops.where(others == 0, 0 * others, others * self.p), axis=-1)
        # A power below 1 has no slope at 0; the bound gives its limit in every use, 0.
        return ops.maximum(miss, float(np.finfo(np.float32).smallest_normal))

    def lost_likelihood(self, q: float) -> Any:
        likelihood = ops.sum(self.distribution * self.p, axis=-1)
        is_zero = likelihood == 0
        lost = -ops.expm1(q * ops.log(ops.where(is_zero, ops.ones_like(likelihood), likelihood)))
        return ops.where(is_zero, ops.ones_like(lost), lost)

    @cached_property
    def entropy(self) -> Any:
        return ops.sum(self.p * self.surprisal(self.p > 0), axis=-1)

    @cached_property
    def brier(self) -> Any:
        return ops.sum((self.p - self.distribution) ** 2, axis=-1)


def row_losses(probabilities: Any, target: Target, loss: Loss) -> Any:
    """Return the losses (N,) of probabilities (N, K), in nats; with the sigmoid link those of entries (N, 1).

    A row that is no distribution is refused or, where nothing can raise, NaN.

    Raises
    ------
    ValueError
    """
    valid = ops.all((probabilities >= 0) & (probabilities <= 1), axis=-1)
    asked = "y_pred must lie in [0, 1]"
    if target.link == "softmax":
        asked = "the rows of y_pred must be probabilities that sum to 1"
        valid = valid & (ops.abs(ops.sum(probabilities, axis=-1) - 1) <= SUM_TOLERANCE)
    found = known(valid)
    if found is not None and not found.all():
        row = int(np.argmin(found))
        values = known(probabilities)
        raise ValueError(refuse(asked, f"{values[row]} in row {row}", "from_logits=True takes logits"))  # type: ignore[index]
    rows = _Rows(probabilities, target)
    losses = loss.of(rows)
    losses = ops.where(rows.mass == 0, ops.zeros_like(losses), losses)
    losses = nan_where(~valid, losses)
    return losses[:, None] if target.link == "sigmoid" else losses
