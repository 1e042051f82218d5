"""The intercept alone, where the Kronecker model has only the diagonal of its Hessian."""

from __future__ import annotations

import numpy as np
import pytest
from libraries import HAS_NUMBA
from plans import tune
from regression_oracle import blobs

from crossent.losses import DEFAULT_LOSS
from crossent.regression import intercept
from crossent.regression.certificate import Certificate
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Ridge
from crossent.regression.plan import tuned
from crossent.regression.targets import EncodedTarget
from crossent.sklearn import SoftmaxRegression

NUM_CLASSES = tuned().dense_outputs + 44


def objective_of(dtype: type, weighted: bool = False) -> LinearObjective:
    """2400 rows of classes whose sizes differ by a factor of 30, a third of them with other weights or none."""
    rng = np.random.default_rng(3)
    X, _ = blobs(2400, 6, NUM_CLASSES, seed=12)
    sizes = np.geomspace(1, 30, NUM_CLASSES)
    y = np.concatenate([np.arange(NUM_CLASSES), rng.choice(NUM_CLASSES, 2400 - NUM_CLASSES, p=sizes / sizes.sum())])
    weight = np.full(2400, 1 / 2400)
    if weighted:
        weight[::3] *= 2.5
        weight[NUM_CLASSES + 1 :: 3] = 0.0
    target = EncodedTarget("softmax", np.arange(NUM_CLASSES), NUM_CLASSES, y.astype(np.int64), None)
    return LinearObjective(X.astype(dtype), target, weight, Ridge(1e-3), DEFAULT_LOSS, True, dtype)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_predicted_class_masses_become_the_observed_ones(dtype: type, weighted: bool) -> None:
    objective = objective_of(dtype, weighted)
    observed = Certificate(objective).observed
    rng = np.random.default_rng(4)
    theta = np.column_stack([rng.normal(size=(NUM_CLASSES, 6)) * 0.003, np.log(np.maximum(observed, 1e-5))])
    theta[:, -1] += 0.3 * rng.normal(size=NUM_CLASSES)
    start = objective.evaluate(theta)
    assert objective.plan.moves_intercept_alone
    end = objective.evaluate(intercept.minimize(objective, start))
    assert np.abs(start.gradient[:, -1] / observed).max() > 0.1
    assert np.abs(end.gradient[:, -1]).max() <= intercept.ROUNDING * np.finfo(dtype).eps * observed.sum()
    assert end.value < start.value
    np.testing.assert_array_equal(end.theta[:, :-1], theta[:, :-1])


def test_a_start_too_far_for_newton_is_left_alone() -> None:
    """Far away full steps lead nowhere, and F must not get worse."""
    objective = objective_of(np.float64)
    theta = np.zeros((NUM_CLASSES, 7))
    theta[:, -1] = np.linspace(-40, 40, NUM_CLASSES)
    start = objective.evaluate(theta)
    assert objective.evaluate(intercept.minimize(objective, start)).value <= start.value


def test_what_memory_cannot_hold_is_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert objective_of(np.float64).plan.moves_intercept_alone
    tune(monkeypatch, cache_bytes=2400 * NUM_CLASSES * 8 - 1)
    assert not objective_of(np.float64).plan.moves_intercept_alone


@pytest.mark.skipif(not HAS_NUMBA, reason="takes half a minute without the kernels")
def test_one_pass_gives_the_intercept_of_many_classes_its_last_digits() -> None:
    """The proof of a fit needs class masses to many digits, and passes for them are not what it spends."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(3000, 20)).astype(np.float32)
    y = np.concatenate([np.arange(NUM_CLASSES), rng.integers(NUM_CLASSES, size=3000 - NUM_CLASSES)])
    X += 1.5 * rng.normal(size=(NUM_CLASSES, 20)).astype(np.float32)[y]
    model = SoftmaxRegression(1.0, tol=1e-6).fit(X, y)
    assert model.duality_gap_ <= 1e-6
    assert model.history_[-1]["evaluations"] <= 20
