"""Another penalty is another class: the solvers, the preconditioner and the certificate take it as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from regression_oracle import blobs

from crossent.losses import DEFAULT_LOSS
from crossent.regression.certificate import Certificate
from crossent.regression.method import Goal
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Penalty, Ridge
from crossent.regression.solvers import Solver
from crossent.regression.targets import encode_target


@dataclass(frozen=True)
class Uneven(Penalty):
    """``½ Σ_kd λ_d W_kd²``."""

    strengths: np.ndarray

    @property
    def curvature(self) -> float:
        return float(self.strengths.min())

    def value(self, weight: np.ndarray) -> float:
        return 0.5 * float(np.sum(self.strengths * weight**2))

    def add_gradient(self, weight: np.ndarray, out: np.ndarray) -> None:
        out += self.strengths * weight

    def slope(self, weight: np.ndarray, direction: np.ndarray) -> float:
        return float(np.sum(self.strengths * weight * direction))

    def add_product(self, vector: np.ndarray, out: np.ndarray) -> None:
        out += self.strengths * vector

    def dual_gap(self, weight: np.ndarray, dual: np.ndarray) -> float:
        return float(np.sum((self.strengths * weight + dual) ** 2 / (2 * self.strengths)))

    def of_difference(self) -> Uneven:
        return Uneven(self.strengths / 2)


def test_another_penalty_is_fitted_with_a_proof() -> None:
    X, y = blobs(300, 70, 5, seed=1)
    strengths = np.geomspace(1e-3, 1e-1, 70)
    weight = np.full(300, 1 / 300)
    objective = LinearObjective(X, encode_target(y, "softmax"), weight, Uneven(strengths), DEFAULT_LOSS, True)
    solver = Solver(Goal(objective, Certificate.shared(objective), 1e-9), 200)
    result = solver.run(solver.init(np.zeros((5, 71))))
    assert result.status == "converged"
    assert result.gap <= 1e-9
    # The same problem with features divided by √λ and a plain ridge.
    scaled = LinearObjective(
        X / np.sqrt(strengths), encode_target(y, "softmax"), weight, Ridge(1.0), DEFAULT_LOSS, True
    )
    theta = result.at.theta.copy()
    theta[:, :-1] *= np.sqrt(strengths)
    at = scaled.evaluate(theta)
    np.testing.assert_allclose(at.value, result.at.value, rtol=1e-10)
    assert Certificate.shared(scaled).gap(at).total <= 2e-9 * at.value


def test_a_plan_says_where_each_number_comes_from() -> None:
    X, y = blobs(50, 4, 3, seed=1)
    weight = np.full(50, 1 / 50)
    plan = LinearObjective(X, encode_target(y, "softmax"), weight, Ridge(1.0), DEFAULT_LOSS, True).plan
    lines = str(plan).splitlines()
    assert len(lines) == len(vars(plan))
    assert all(len(line.split()) > 4 for line in lines)
