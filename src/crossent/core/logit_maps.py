"""Maps of the logits, applied before any loss: soft cap, temperature, prior and margin, in this order.

Each is ``z -> z'`` entry by entry, so a gradient in z is the gradient in z' times the slope ``dz'/dz``. A logit of
-inf (a masked class) stays -inf; a logit of +inf or NaN stays what it is, so that the row is judged as bad as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from crossent.core.arrays import Array, array_namespace, one_hot, two_product


@dataclass(frozen=True)
class LogitMap:
    """``z' = softcap·tanh(z / softcap) / temperature + offset - margin·onehot(y)``.

    Parameters
    ----------
    softcap : float > 0 or None
    temperature : float > 0 or None
    offset : (K,) array or None
        ``prior_strength · log prior``.
    margin : float, (K,) array or None
        Taken off the true class's logit; a vector gives each class its own.
    """

    softcap: float | None = None
    temperature: float | None = None
    offset: Array | None = None
    margin: Array | float | None = None

    @property
    def is_identity(self) -> bool:
        return self.softcap is None and self.temperature is None and self.offset is None and self.margin is None

    def forward(self, logits: Array, labels: Array | None = None) -> Array:
        """Return z', of the shape and dtype of the logits (…, K). `labels` (…) are needed by a margin only."""
        xp = array_namespace(logits)
        mapped = logits
        if self.softcap is not None:
            capped = self.softcap * xp.tanh(logits / self.softcap)
            mapped = xp.where(xp.isfinite(logits), capped, logits)
        if self.temperature is not None:
            mapped = mapped / self.temperature
        if self.offset is not None:
            mapped = mapped + self.offset
        if self.margin is not None:
            at_true_class = one_hot(labels, logits.shape[-1])
            mapped = mapped - xp.where(at_true_class, self.margin, xp.zeros_like(logits))
        return mapped

    @property
    def constant_slope(self) -> float:
        """The factor of dz'/dz that is the same for every entry."""
        return 1.0 if self.temperature is None else 1.0 / self.temperature

    def cap_slope(self, logits: Array) -> Array:
        """Return the soft cap's own slope, sech²(z/softcap).

        ``1 - tanh²`` would cancel at saturation, so it is ``4e / (1 + e)²`` with ``e = e^{-2|z|/softcap}``; what the
        division rounds off is carried into the exponential.
        """
        xp = array_namespace(logits)
        twice = 2 * xp.abs(logits)
        quotient = twice / self.softcap
        product, product_low = two_product(quotient, self.softcap)
        rest = ((twice - product) - product_low) / self.softcap
        e = xp.exp(-quotient)
        e = e - xp.where(e == 0, xp.zeros_like(e), e * rest)
        return 4 * e / (1 + e) ** 2

    def slope(self, logits: Array) -> Array | float:
        """Return dz'/dz: a number where it is constant, else an array."""
        if self.softcap is None:
            return self.constant_slope
        return self.cap_slope(logits) * self.constant_slope

    def curvature(self, logits: Array) -> Array | float:
        """Return d²z'/dz²; 0 unless there is a soft cap."""
        if self.softcap is None:
            return 0.0
        xp = array_namespace(logits)
        scaled = xp.where(xp.isfinite(logits), logits, xp.zeros_like(logits)) / self.softcap
        return -2 / self.softcap * xp.tanh(scaled) * self.slope(logits)
