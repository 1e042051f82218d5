"""What every method of minimisation is: `init() -> state`, `step(at, state) -> (where to go on, state)`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .certificate import Certificate
from .interface import Evaluation, Objective

__all__ = ["Goal", "Method", "Pace"]


@dataclass(frozen=True)
class Goal:
    """What is minimised, and how far: to a relative gap that the certificate proves, or (None) a relative gradient."""

    objective: Objective
    certificate: Certificate | None
    tol: float

    def allowed(self, at: Evaluation) -> float:
        """Return the gap f - D that meets the tolerance at a point."""
        return self.tol * abs(at.value)


class Pace(NamedTuple):
    """The state of Newton's method, which a checkpoint keeps."""

    first_norm: float = math.inf  # of the gradient at the first step that solved an equation
    last_norm: float = math.inf  # of the gradient at the last step
    steps: int = 0
    oversampling: float = 8.0


class Method(Protocol):
    """A way to get from one point to the next. States are frozen; the method itself never changes."""

    def init(self) -> Any:
        """Return the state to begin with."""

    def step(self, at: Evaluation, state: Any) -> tuple[Evaluation | None, Any]:
        """Return where to go on (None if no step reduces the objective), and the state there."""

    def after_promotion(self, state: Any) -> Any:
        """Return the state after the products' precision has changed."""
