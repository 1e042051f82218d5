"""What the solvers and the certificate ask of an objective, and nothing else: they never see where its rows are.

Every method is a sum over rows and returns numbers of the parameters' size, but for `sample`, whose size its argument
bounds. `objective.LinearObjective` keeps the rows in this process, `data.distributed.DistributedObjective` on workers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from crossent.losses import Loss

from .arrays import Array, row_blocks
from .penalty import Penalty
from .plan import Plan, Size

Made = TypeVar("Made")


@dataclass(frozen=True)
class Evaluation:
    """F at a point and the data's part of its gradient.

    The penalty's part is added where it is asked for: with 100,000 classes every array of the parameters' size counts.
    """

    theta: Array
    data_loss: float
    data_gradient: Array
    penalty: Penalty
    value: float

    @classmethod
    def penalised(cls, theta: Array, data_loss: float, data_gradient: Array, penalty: Penalty) -> Evaluation:
        """Add R(W) to the data's part."""
        return cls(theta, data_loss, data_gradient, penalty, data_loss + penalty.value(theta[:, :-1]))

    @property
    def gradient(self) -> Array:
        """∇F, a new array."""
        gradient = self.data_gradient.copy()
        for rows in row_blocks(gradient):
            self.penalty.add_gradient(self.theta[rows, :-1], gradient[rows, :-1])
        return gradient

    @property
    def bias_gradient(self) -> Array:
        """The part of ∇F that belongs to b (K,)."""
        return self.data_gradient[:, -1]

    def slope(self, direction: Array) -> float:
        """Return the derivative of F along a direction."""
        along = float(np.vdot(self.data_gradient, direction))
        return along + self.penalty.slope(self.theta[:, :-1], direction[:, :-1])

    @cached_property
    def gradient_norm(self) -> float:
        """The Euclidean norm of the gradient."""
        gradient = self.gradient
        return math.sqrt(float(np.vdot(gradient, gradient)))


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


class WholeHessian(Protocol):
    """The second derivative at one point as a matrix."""

    def solve(self, gradient: Array, *, again: bool = False) -> Array | None:
        """Return the inverse times a gradient (K, D + 1), or None if rounding leaves no inverse; `again` says that
        more gradients follow."""


class Objective(ABC):
    """F of a data set, wherever its rows are."""

    def __init__(self, size: Size, loss: Loss, penalty: Penalty, data_dtype: Any) -> None:
        self.num_rows, self.num_features, self.num_outputs = size.rows, size.features, size.outputs
        self.link, self.fit_intercept, self.is_cross_entropy = size.link, size.fit_intercept, size.is_cross_entropy
        self.loss, self.penalty, self.plan = loss, penalty, Plan.of(size)
        self.is_shift_invariant = size.link == "softmax" and loss.is_shift_invariant
        """Whether F stays the same when the logits of all classes are shifted together."""
        self.data_dtype = np.dtype(data_dtype)
        self.dtype = self._first_dtype = size.dtype
        self.evaluations = self.hessian_products = 0
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """Return what `make` returned when it was first called under this name: it serves all fits to these rows."""
        if name not in self._made:
            self._made[name] = make()
        found: Made = self._made[name]
        return found

    @property
    def can_promote(self) -> bool:
        """Whether float64 would be more precise than what the products run in now."""
        return self.dtype == np.float32

    def promote(self) -> None:
        """Run all products in float64 from now on."""
        self.use_precision(np.float64)

    def use_precision(self, dtype: Any) -> None:
        """Run all products in `dtype` from now on."""
        self.dtype = np.dtype(dtype)

    def restart(self, penalty: Penalty) -> None:
        """Begin a fit with another penalty, in the precision of the first."""
        self.penalty = penalty
        self.evaluations = self.hessian_products = 0
        self.use_precision(self._first_dtype)

    def count_from(self, evaluations: int, hessian_products: int) -> None:
        """Go on counting where an earlier run of the same fit was."""
        self.evaluations, self.hessian_products = evaluations, hessian_products

    @property
    @abstractmethod
    def center(self) -> Array:
        """μ (D,): what the intercept of the parameters refers to."""

    @abstractmethod
    def single_threaded_blas(self) -> AbstractContextManager[Any]:
        """Return the context to run a fit in."""

    @abstractmethod
    def evaluate(self, theta: Array) -> Evaluation:
        """Return F and its gradient at `theta`, in one pass."""

    @abstractmethod
    def hessian(self, theta: Array, sampling: float, step: int, most_rows: float) -> HessianProducts:
        """Return what multiplies by ∇²F at `theta`; `hessian.Hessian` says what the arguments mean."""

    @abstractmethod
    def sample(self, count: int | None) -> tuple[Any, int]:
        """Return about `count` evenly spaced rows (None: all) as a `BlockedRows`, and how many rows each stands for."""

    @abstractmethod
    def dual_sums(self) -> DualSums:
        """Return the constants of the dual, in one pass."""

    @abstractmethod
    def total_mass(self) -> tuple[Array, Any]:
        """Return ``Σ c_i u_i`` (K,) and ``Σ c_i τ_i``, a number or for the sigmoid link (K,)."""

    # Only objectives whose plan says so have the following; those of rows on workers do not.

    def whole_hessian(self, theta: Array) -> WholeHessian:
        """Return ∇²F at `theta` as a matrix, where `plan.forms_hessian`."""
        raise NotImplementedError

    def best_intercept(self, at: Evaluation) -> Array:
        """Return θ with the b that minimises F for the W of a point, where `plan.moves_intercept_alone`."""
        raise NotImplementedError

    def second_moments(self) -> Array:
        """Return ``Σ_i c_i x_ij² / Σ_i c_i`` (D,), where `plan.begins_with_lbfgs`."""
        raise NotImplementedError
