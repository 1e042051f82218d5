"""What the solvers and the certificate ask of an objective, and nothing else: they never see where its rows are.

Every method is a sum over rows and returns numbers of the parameters' size, but for `sample`, whose size its argument
bounds. :class:`~crossent.regression.objective.LinearObjective` keeps the rows in this process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .objective import LinearObjective

Array = NDArray[np.float64]

BLOCK_ELEMENTS = 1 << 20
"""What is computed from parameter-sized arrays for a moment is computed so many elements at a time."""
_EVERYTHING = (slice(None),)


@dataclass(frozen=True)
class Evaluation:
    """F at a point and the data's part of its gradient; the penalty's part is added where it is asked for: of 100,000
    classes every array of the parameters' size counts."""

    theta: Array
    data_loss: float
    data_gradient: Array
    penalty: float
    value: float

    @classmethod
    def penalised(cls, theta: Array, data_loss: float, data_gradient: Array, penalty: float) -> Evaluation:
        """Add ``(λ/2) ‖W‖²`` to the data's part."""
        weight = theta[:, :-1]
        return cls(theta, data_loss, data_gradient, penalty, data_loss + 0.5 * penalty * squared_norm(weight))

    @property
    def gradient(self) -> Array:
        """∇F, a new array."""
        gradient = self.data_gradient.copy()
        for rows in row_blocks(gradient):
            gradient[rows, :-1] += self.penalty * self.theta[rows, :-1]
        return gradient

    @property
    def bias_gradient(self) -> Array:
        """The part of ∇F that belongs to b (K,)."""
        return self.data_gradient[:, -1]

    def slope(self, direction: Array) -> float:
        """Return the derivative of F along a direction."""
        along = float(np.vdot(self.data_gradient, direction))
        return along + self.penalty * inner(self.theta[:, :-1], direction[:, :-1])

    @cached_property
    def gradient_norm(self) -> float:
        """The Euclidean norm of the gradient."""
        return math.sqrt(squared_norm(self.gradient))


def row_blocks(array: Array) -> Iterable[slice]:
    """Yield slices of about `BLOCK_ELEMENTS`, so that what is computed from one stays small."""
    if array.size <= BLOCK_ELEMENTS:
        return _EVERYTHING
    size = max(1, BLOCK_ELEMENTS // max(1, array.shape[1]))
    return (slice(start, start + size) for start in range(0, len(array), size))


def inner(a: Array, b: Array) -> float:
    """Return ``Σ a b`` of matrices that need not be contiguous."""
    return float(np.einsum("kd,kd->", a, b))


def squared_norm(array: Array) -> float:
    """Return ``Σ a²``."""
    return float(np.vdot(array, array)) if array.flags.c_contiguous else inner(array, array)


class RowSample(NamedTuple):
    """Rows taken at even distances, in memory; each stands for `stride` rows."""

    objective: LinearObjective
    stride: int


class DualSums(NamedTuple):
    """What the certificate needs of the data: M (K, D), x̄ (D,), ȳ (K,) and A, in its notation; sigmoid: x̄ (K, D) and
    A (K,)."""

    moments: Array
    totals: Array
    observed: Array
    mass: Any


class HessianProducts(Protocol):
    """Products with the second derivative at one point."""

    outputs: Array | None
    """``Σ_i S_i`` (K, K) over all rows, or None where that would cost too much."""

    @property
    def share(self) -> float:
        """The part of all rows that takes part in a product."""

    def __matmul__(self, vector: Array) -> Array: ...


class Objective(Protocol):
    """F of a data set, wherever its rows are."""

    num_rows: int
    num_features: int
    num_outputs: int
    link: str
    penalty: float
    fit_intercept: bool
    is_cross_entropy: bool
    dtype: np.dtype[Any]
    data_dtype: np.dtype[Any]
    evaluations: int
    hessian_products: int
    basis: Any
    certificate: Any

    @property
    def center(self) -> Array:
        """μ (D,): what the intercept of the parameters refers to."""

    @property
    def can_promote(self) -> bool:
        """Whether float64 would be more precise than what the products run in now."""

    @property
    def is_sizeable(self) -> bool:
        """Whether one pass takes long enough for rows to be left out."""

    @property
    def is_shift_invariant(self) -> bool:
        """Whether F stays the same when the logits of all classes are shifted together."""

    def single_threaded_blas(self) -> AbstractContextManager[Any]:
        """Return the context to run a fit in."""

    def restart(self, penalty: float) -> None: ...
    def promote(self) -> None: ...
    def evaluate(self, theta: Array) -> Evaluation: ...
    def hessian(self, theta: Array, sampling: float, step: int, most_rows: float) -> HessianProducts: ...
    def sample(self, count: int | None) -> RowSample: ...
    def dual_sums(self) -> DualSums: ...
    def total_mass(self) -> tuple[Array, Any]:
        """Return ``Σ c_i u_i`` (K,) and ``Σ c_i τ_i``, a number or for the sigmoid link (K,)."""
