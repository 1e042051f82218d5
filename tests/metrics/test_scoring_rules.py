"""The other proper scores: against loops over the definitions, at their extremes, and with what makes them proper."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crossent.metrics import (
    accuracy,
    brier_score,
    log_loss,
    perplexity,
    ranked_probability_score,
    skill_score,
    spherical_score,
)

Score = Callable[..., float]
pytestmark = pytest.mark.usefixtures("twin")


def loop(name: str, truth: np.ndarray, prob: np.ndarray, weight: np.ndarray) -> float:
    """The definitions, one row and one class at a time."""
    total = 0.0
    for y, p, w in zip(truth.tolist(), prob.astype(float).tolist(), weight.tolist(), strict=True):
        if name == "brier":
            value = sum((v - (k == y)) ** 2 for k, v in enumerate(p))
        elif name == "spherical":
            value = p[y] / math.sqrt(sum(v * v for v in p))
        elif name == "ranked":
            value = sum((sum(p[: k + 1]) - (y <= k)) ** 2 for k in range(len(p) - 1))
        else:
            value = -math.log(p[y])
        total += w * value
    return total / float(weight.sum())


SCORES: dict[str, Score] = {
    "log": log_loss,
    "brier": brier_score,
    "spherical": spherical_score,
    "ranked": ranked_probability_score,
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 3, 17, 700])
def test_scores_equal_a_loop(name: str, dtype: Any, classes: int) -> None:
    rng = np.random.default_rng(classes)
    prob = rng.dirichlet(np.full(classes, 0.5), size=40).astype(dtype)
    prob = np.maximum(prob, dtype(1e-30))
    truth, weight = rng.integers(classes, size=40), rng.random(40)
    expected = loop(name, truth, prob, weight)
    # The ranked score adds each tail from its own end: the same where a row sums to 1, which float32 rows do not quite.
    rel = 1e-6 if name == "ranked" else 1e-11
    assert SCORES[name](truth, prob, labels=np.arange(classes), sample_weight=weight) == pytest.approx(
        expected, rel=rel
    )
    wrong = prob.copy()
    wrong[7] = np.roll(wrong[7], 1)
    assert SCORES[name](truth, wrong, labels=np.arange(classes), sample_weight=weight) != pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("name", SCORES)
def test_the_truth_scores_best(name: str) -> None:
    truth = np.array([0.5, 0.3, 0.2])

    def expected(p: list[float]) -> float:
        sign = -1 if name == "spherical" else 1
        return sign * SCORES[name]([0, 1, 2], np.tile(p, (3, 1)), sample_weight=truth)

    best = expected(truth.tolist())
    for other in ([0.6, 0.3, 0.1], [1 / 3] * 3, [0.51, 0.29, 0.2], [0.5, 0.2, 0.3]):
        assert expected(other) > best + 1e-5


def test_tiny_errors_keep_their_digits() -> None:
    prob = np.array([[1 - 1e-9, 1e-9], [1e-9, 1 - 1e-9]])
    assert brier_score([0, 1], prob) == pytest.approx(2e-18, rel=1e-6)
    assert ranked_probability_score([0, 1], prob) == pytest.approx(1e-18, rel=1e-6)


def test_clip_is_asked_for_and_only_lifts() -> None:
    prob = [[1.0, 0.0], [0.25, 0.75]]
    assert log_loss([1, 1], prob, labels=[0, 1]) == math.inf
    assert log_loss([1, 1], prob, labels=[0, 1], clip=0.5) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    for clip in (0, 1.0, -1, "eps", math.nan):
        with pytest.raises(ValueError, match="clip must be None or a probability"):
            log_loss([0, 1], prob, clip=clip)  # type: ignore[arg-type]


def test_without_validation_rows_are_taken_as_they_are_and_labels_are_not() -> None:
    prob = np.array([[0.5, 9.0], [np.nan, 0.5]])
    assert log_loss([0, 1], prob, validate=False) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="pass labels="):
        log_loss([1, 1], prob, validate=False)


@pytest.mark.parametrize("bad", [np.nan, -1e-30, 1.0000001, np.inf])
@pytest.mark.parametrize("classes", [3, 1100])
def test_any_entry_that_is_no_probability_is_found(bad: float, classes: int) -> None:
    for column in (0, classes // 2, classes - 1):
        prob = np.full((5, classes), 1 / classes)
        prob[3, column] = bad
        with pytest.raises(ValueError, match=f"in row 3, column {column}"):
            log_loss([0] * 5, prob, labels=np.arange(classes))


def test_negative_zero_is_a_probability() -> None:
    prob = np.array([[1.0, -0.0], [-0.0, 1.0]])
    assert accuracy([0, 1], prob) == 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_layout_and_small_types_do_not_matter(order: Any) -> None:
    prob = np.random.default_rng(0).dirichlet(np.ones(4), size=20)
    truth = np.arange(20) % 4
    assert brier_score(truth, np.asarray(prob, order=order)) == brier_score(truth, prob)
    half = prob.astype(np.float16)
    assert brier_score(truth, half) == pytest.approx(brier_score(truth, prob), rel=5e-3)
    assert accuracy(truth, np.eye(4, dtype=int)[truth]) == 1


def test_of_equal_probabilities_the_first_is_the_prediction() -> None:
    prob = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]])
    assert accuracy([0, 1], prob, labels=[0, 1, 2]) == 0.5


def test_columns_are_in_the_order_of_the_labels_named() -> None:
    prob = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    named, truth = ["low", "mid", "high"], ["low", "high", "mid"]
    by_index = {name: score([0, 2, 1], prob) for name, score in SCORES.items()}
    assert {name: score(truth, prob, labels=named) for name, score in SCORES.items()} == by_index
    assert skill_score(truth, prob, labels=named) == skill_score([0, 2, 1], prob)
    with pytest.raises(ValueError, match="labels must be different; got 'mid' twice"):
        log_loss(truth, prob, labels=["low", "mid", "mid"])


def test_labels_that_are_not_indices() -> None:
    prob = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    by_index = log_loss([0, 1, 0], prob)
    for labels in ([1, 2, 1], [-1, 1, -1], ["a", "b", "a"], [False, True, False], [0.0, 1.0, 0.0]):
        assert log_loss(labels, prob) == by_index


def test_perplexity_of_the_uniform_prediction_is_the_number_of_classes() -> None:
    assert perplexity([0, 1, 2, 3], np.full((4, 4), 0.25)) == pytest.approx(4, rel=1e-14)
    assert perplexity([0, 1], [[1.0, 0.0], [1.0, 0.0]]) == math.inf
    assert perplexity([1, 1], [[1.0, 5e-324]] * 2, labels=[0, 1]) == math.inf  # exp(744) is beyond the largest float
    assert perplexity([1, 1], [[1.0, 1e-300]] * 2, labels=[0, 1]) == pytest.approx(1e300)


@pytest.mark.parametrize("name", SCORES)
def test_skill_is_0_for_the_prior_and_1_for_perfection(name: str) -> None:
    truth = np.array([0, 0, 0, 1, 2, 2])
    weight = np.array([1.0, 2.0, 0.0, 1.0, 1.0, 0.5])
    shares = np.bincount(truth, weights=weight) / weight.sum()
    prior = np.tile(shares, (6, 1))
    assert skill_score(truth, prior, score=name, sample_weight=weight) == pytest.approx(0, abs=1e-12)
    assert skill_score(truth, np.eye(3)[truth], score=name, sample_weight=weight) == pytest.approx(1, rel=1e-12)
    uniform = np.full((6, 3), 1 / 3)
    assert skill_score(truth, uniform, score=name, sample_weight=weight) < 0
    prob = 0.5 * prior + 0.5 * np.eye(3)[truth]
    constant = skill_score(truth, prob, score=name, reference=shares, sample_weight=weight)
    assert constant == pytest.approx(skill_score(truth, prob, score=name, reference=prior, sample_weight=weight))
    assert constant == pytest.approx(skill_score(truth, prob, score=name, sample_weight=weight))


def test_skill_refusals() -> None:
    with pytest.raises(ValueError, match="score must be one of"):
        skill_score([0, 1], [0.5, 0.5], score="accuracy")
    with pytest.raises(ValueError, match="reference must have shape"):
        skill_score([0, 1], [0.5, 0.5], reference=[0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="not perfect"):
        skill_score([0, 0], [[0.5, 0.5]] * 2, labels=[0, 1])
