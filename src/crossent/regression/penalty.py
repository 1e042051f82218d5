"""The penalty on the weights W: its value, its derivatives, and what the certificate needs of its conjugate.

The intercept is never penalised. Another penalty is another subclass; nothing else in the package knows a formula of
one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from .arrays import Array, inner, squared_norm

__all__ = ["Penalty", "Ridge"]


class Penalty(ABC):
    """A convex function R of weights W (K, D), or of some rows of them: R of all rows is the sum over rows."""

    @property
    @abstractmethod
    def curvature(self) -> float:
        """The least second derivative of R, 0 or more: models of the Hessian add it to every weight."""

    @property
    def has_dual(self) -> bool:
        """Whether a duality gap exists: R must be strongly convex."""
        return self.curvature > 0

    @abstractmethod
    def value(self, weight: Array) -> float:
        """Return R(W)."""

    @abstractmethod
    def add_gradient(self, weight: Array, out: Array) -> None:
        """Add ∇R(W) to `out`."""

    @abstractmethod
    def slope(self, weight: Array, direction: Array) -> float:
        """Return ``<∇R(W), V>``."""

    @abstractmethod
    def add_product(self, vector: Array, out: Array) -> None:
        """Add ``∇²R V`` to `out`."""

    @abstractmethod
    def dual_gap(self, weight: Array, dual: Array) -> float:
        """Return ``R(W) + R*(-Q) + <Q, W>``, which is 0 or more, without cancellation; R* is the conjugate."""

    @abstractmethod
    def of_difference(self) -> Penalty:
        """Return the penalty on ``v = w_1 - w_0`` that stands for R on the least two rows of that difference."""


@dataclass(frozen=True)
class Ridge(Penalty):
    """``(λ/2) ‖W‖²``; λ = 0 is no penalty.

    Examples
    --------
    >>> import numpy as np
    >>> Ridge(0.5).value(np.array([[1.0, 2.0]]))
    1.25
    """

    strength: float

    @property
    def curvature(self) -> float:
        """λ."""
        return self.strength

    def value(self, weight: Array) -> float:
        """Return ``(λ/2) ‖W‖²``."""
        return 0.5 * self.strength * squared_norm(weight)

    def add_gradient(self, weight: Array, out: Array) -> None:
        """Add λ W to `out`."""
        out += self.strength * weight

    def slope(self, weight: Array, direction: Array) -> float:
        """Return ``λ <W, V>``."""
        return self.strength * inner(weight, direction)

    def add_product(self, vector: Array, out: Array) -> None:
        """Add λ V to `out`."""
        out += self.strength * vector

    def dual_gap(self, weight: Array, dual: Array) -> float:
        """Return ``‖λW + Q‖² / (2λ)``."""
        return squared_norm(self.strength * weight + dual) / (2 * self.strength)

    def of_difference(self) -> Ridge:
        """Return half the penalty: the least rows are ``±v/2``, and their squares sum to ``‖v‖²/2``."""
        return Ridge(0.5 * self.strength)
