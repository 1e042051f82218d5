"""What a backend computes: the statistics of rows of logits, a gradient pulled back through them, and both at once.

A backend is a module with these functions on arrays that were checked before: C-contiguous, in native byte order, the
logits (N, K) in float32 or float64. The reference computes them for any array that it is given; a compiled backend
computes the same numbers faster. Front ends ask `crossent.kernels.registry` for one and never for its name.
"""

from __future__ import annotations

from typing import Any, Protocol

from crossent.core.target import Target
from crossent.losses import Loss

__all__ = ["Backend"]

Array = Any


class Backend(Protocol):
    """The functions of a backend."""

    def statistics(self, logits: Array, target: Target) -> dict[str, Array]:
        """Return the statistics of `crossent.core.statistics` for each row, float64, and argmax in int64.

        Those of the target are 0 where its label is negative.
        """

    def pullback(self, logits: Array, target: Target, partials: dict[str, Array], out: Array) -> None:
        """Fill `out` (N, K) with ``Σ_s partials_s · ∂s/∂z``, s by name; 0 where the label is negative."""

    def row_losses(
        self,
        logits: Array,
        target: Target,
        loss: Loss,
        scale: float = 1.0,
        weight: Array | None = None,
        grad: Array | None = None,
        entries: Array | None = None,
        sum_only: bool = False,
    ) -> Array:
        """Return the loss of each row, float64 (N,), of a softmax, the sigmoid's entries or a student.

        Parameters
        ----------
        logits : (N, K) array
            Also one of the `forms`: the bits of bfloat16 numbers in uint16, or planes (M, K, P) with N = M · P.
        target, loss : Target, Loss
            Rows that do not count have no loss and no gradient.
        scale : float
            Factor of the gradient.
        weight : (N,) or, with the sigmoid link, (N, K) float64, optional
            A further factor of the gradient; the losses are returned without it. An entry whose own weight is 0 has
            no loss.
        grad : array like the logits, optional
            Filled with the gradient; it may be the logits.
        entries : (N, K) float64, optional
            With the sigmoid link, filled with the loss of each entry.
        sum_only : bool
            Whether the losses of several rows of one entry may be returned as one.
        """

    def forms(self, target: Target, loss: Loss) -> frozenset[str]:
        """Return which other forms of logits `row_losses` takes: "bfloat16", "planes"."""
