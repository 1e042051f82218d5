"""How the sigmoid's entries become softmax rows of two classes."""

from __future__ import annotations

from functools import cached_property

from crossent.core.arrays import Array, array_namespace
from crossent.core.statistics import Rows
from crossent.core.target import Target


class SigmoidRows(Rows):
    """Logits z of any shape, entry by entry, as two-class rows ``(0, z)``: class 1 has probability σ(z).

    The row is handed on shifted so that its maximum is exactly 0, which a softmax does not see; so z = ±inf, p = 1 or
    0, needs no rule of its own. Gradients and Hessian diagonals with respect to z are the entries of class 1.

    Parameters
    ----------
    logits : array
    target : Target with the sigmoid link, or of nothing
    """

    def __init__(self, logits: Array, target: Target):
        xp = array_namespace(logits)
        entries = xp.reshape(logits, (-1,))
        zero = xp.zeros_like(entries)
        self.positive_part = xp.maximum(entries, zero)
        rows = xp.stack([-self.positive_part, xp.minimum(entries, zero)], axis=-1)
        super().__init__(rows, target.as_two_classes(logits))

    @cached_property
    def lse(self) -> Array:
        """softplus(z)."""
        return self.positive_part + self.log1p_tail
