"""The duality gap: never below the truth, zero at the optimum, and not fooled by an intercept that is off."""

from __future__ import annotations

import numpy as np
import pytest
from regression_oracle import Problem, blobs, one_hot

from crossent.losses import DEFAULT_LOSS, Focal
from crossent.regression.certificate import Certificate
from crossent.regression.interface import Evaluation
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Ridge
from crossent.regression.targets import EncodedTarget
from crossent.sklearn import SoftmaxRegression

RNG = np.random.default_rng(7)
X, LABELS = blobs(60, 3, 4, seed=1)
WEIGHT = RNG.uniform(0.1, 3.0, size=60)
CLASS_WEIGHT = np.array([0.3, 1.0, 2.0, 4.0])
SOFT = RNG.dirichlet(np.full(4, 0.5), size=60)
SETS = (RNG.uniform(size=(60, 3)) < 0.4).astype(float)
PAIR = np.array([[1.0, 0.5, 2.0], [3.0, 1.0, 0.25]])

CASES = {
    "plain": Problem(X, one_hot(LABELS, 4)),
    "weighted": Problem(X, one_hot(LABELS, 4), 3.0, WEIGHT, CLASS_WEIGHT),
    "smoothed": Problem(X, one_hot(LABELS, 4), 0.5, smoothing=0.2),
    "smoothed, class weights": Problem(X, one_hot(LABELS, 4), 0.5, WEIGHT, CLASS_WEIGHT, 0.3),
    "soft": Problem(X, SOFT, 2.0, WEIGHT, CLASS_WEIGHT),
    "label sets": Problem(X, SETS, 2.0, WEIGHT, link="sigmoid"),
    "label sets, smoothed, class weights": Problem(X, SETS, 2.0, WEIGHT, PAIR, 0.1, link="sigmoid"),
    "soft label sets": Problem(X, RNG.uniform(size=(60, 3)), link="sigmoid"),
}
CASES |= {f"{name}, no intercept": Problem(**(vars(case) | {"intercept": False})) for name, case in CASES.items()}


def objective_of(case: Problem) -> LinearObjective:
    k = case.target.shape[1]
    hard = bool(np.isin(case.target, (0, 1)).all())
    labels = None
    if hard:
        labels = case.target.argmax(axis=1) if case.link == "softmax" else case.target.astype(np.int8)
    target = EncodedTarget(
        case.link,
        np.arange(k),
        k,
        labels,
        None if hard else case.target,
        case.class_weight,
        case.smoothing,
    )
    return LinearObjective(case.X, target, case.row_weight, Ridge(1.0), DEFAULT_LOSS, case.intercept)


def evaluate(objective: LinearObjective, W: np.ndarray, b: np.ndarray) -> Evaluation:
    return objective.evaluate(np.column_stack([W, b + W @ objective.center]))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Problem:
    return CASES[request.param]


def test_dual_is_a_lower_bound_at_100_points_far_from_the_optimum(case: Problem) -> None:
    objective = objective_of(case)
    certificate = Certificate(objective)
    optimum, best_W, best_b = case.optimum()
    rng = np.random.default_rng(0)
    loosest = 0.0
    for _ in range(100):
        scale = 10 ** rng.uniform(-3, 2)
        W = best_W * rng.uniform(0, 2) + scale * rng.normal(size=best_W.shape)
        b = (best_b + scale * rng.normal(size=best_b.shape)) * case.intercept
        at = evaluate(objective, W, b)
        assert at.value == pytest.approx(case.value(W, b), rel=1e-10)
        dual = at.value - certificate.gap(at).total
        assert dual <= optimum * (1 + 1e-9)
        loosest = max(loosest, optimum - dual)
    assert loosest > 0.01 * optimum  # some points were really far


def test_dual_is_the_one_that_was_derived(case: Problem) -> None:
    """The formula without cancellation gives f - D of the formula with it."""
    objective = objective_of(case)
    certificate = Certificate(objective)
    rng = np.random.default_rng(1)
    for scale in (0.01, 0.3, 1.0):
        W = scale * rng.normal(size=(case.target.shape[1], 3))
        b = scale * rng.normal(size=len(W)) * case.intercept
        at = evaluate(objective, W, b)
        assert at.value - certificate.gap(at).total == pytest.approx(case.dual(W, b), rel=1e-9, abs=1e-9 * at.value)


def test_gap_vanishes_at_the_optimum(case: Problem) -> None:
    objective = objective_of(case)
    optimum, W, b = case.optimum()
    gap = Certificate(objective).gap(evaluate(objective, W, b)).total
    assert 0 <= gap <= 1e-6 * optimum


@pytest.mark.parametrize("name", ["plain", "weighted", "smoothed, class weights", "label sets"])
def test_an_intercept_that_is_off_is_not_certified(name: str) -> None:
    """The plain formula (predictions as dual point whatever the class masses) calls such points optimal."""
    case = CASES[name]
    objective = objective_of(case)
    certificate = Certificate(objective)
    optimum, W, b = case.optimum()
    off = b.copy()
    while case.value(W, off) < 1.04 * optimum:
        off[0] += 0.01
    at = evaluate(objective, W, off)
    excess = (at.value - optimum) / optimum
    assert excess == pytest.approx(0.04, abs=0.01)
    assert certificate.gap(at).total / optimum >= excess
    assert certificate.gap(at).weights / optimum < certificate.gap(at).total / optimum


def test_plain_formula_would_lie() -> None:
    """At W = 0, b = 0, with weak features and unequal classes, the unmixed predictions "prove" more than f*."""
    case = Problem(0.01 * RNG.normal(size=(50, 3)), one_hot(np.repeat([0, 1, 2], [40, 7, 3]), 3))
    optimum, _, _ = case.optimum()
    uniform = np.full((50, 3), 1 / 3)
    plain = -np.sum(uniform * np.log(uniform)) - 0.5 * np.sum(((uniform - case.target).T @ case.X) ** 2)
    assert plain > 1.3 * optimum
    objective = objective_of(case)
    at = evaluate(objective, np.zeros((3, 3)), np.zeros(3))
    assert at.value - Certificate(objective).gap(at).total <= optimum


def test_the_reported_gap_bounds_the_excess_at_every_iteration() -> None:
    model = SoftmaxRegression(C=2.0, tol=1e-8).fit(X, LABELS)
    optimum = Problem(X, one_hot(LABELS, 4), 2.0).optimum()[0]
    assert len(model.history_) > 3
    for entry in model.history_:
        assert (entry["objective"] - optimum) / entry["objective"] <= entry["duality_gap"] + 1e-12
    assert model.duality_gap_ <= 1e-8


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_no_certificate_where_there_is_no_dual(penalty: float) -> None:
    objective = objective_of(CASES["plain"])
    loss = DEFAULT_LOSS if penalty == 0 else Focal(2.0)
    other = LinearObjective(objective.X, objective.target, objective.row_weight, Ridge(penalty), loss, True)
    with pytest.raises(ValueError, match="cross-entropy with an L2 penalty"):
        Certificate(other)
