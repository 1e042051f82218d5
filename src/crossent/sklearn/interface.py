"""What the solvers and the certificate ask of an objective, and nothing else: they never see where its rows are.

Every method is a sum over rows and returns numbers of the parameters' size, but for `sample`, whose size its argument
bounds. :class:`~crossent.sklearn.objective.LinearObjective` keeps the rows in this process.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .objective import LinearObjective

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """F and its gradient at a point, with the data's part kept apart for the certificate."""

    theta: Array
    data_loss: float
    data_gradient: Array
    value: float
    gradient: Array

    @classmethod
    def penalised(cls, theta: Array, data_loss: float, data_gradient: Array, penalty: float) -> Evaluation:
        """Add ``(λ/2) ‖W‖²`` to the data's part."""
        full = data_gradient.copy()
        full[:, :-1] += penalty * theta[:, :-1]
        value = data_loss + 0.5 * penalty * float(np.sum(theta[:, :-1] ** 2))
        return cls(theta, data_loss, data_gradient, value, full)

    @property
    def gradient_norm(self) -> float:
        """The Euclidean norm of the gradient."""
        return float(np.sqrt(np.vdot(self.gradient, self.gradient)))


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
