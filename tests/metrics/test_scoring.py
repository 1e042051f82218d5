"""Scores against hand-computed values, against scikit-learn, and against what makes a score proper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from crossent.metrics import accuracy, brier_score, log_loss


def distributions(seed: int, rows: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=rows)


def test_log_loss_by_hand() -> None:
    prob = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]
    assert log_loss(["a", "c"], prob, labels=["a", "b", "c"], base="bits") == 2.0
    assert log_loss(["a", "c"], prob, labels=["a", "b", "c"]) == pytest.approx(2 * math.log(2), rel=1e-15)


def test_impossible_label_costs_infinity_and_is_not_clipped() -> None:
    assert log_loss([0, 1], [[1.0, 0.0], [1.0, 0.0]]) == math.inf
    assert log_loss([0, 1], [[1.0, 0.0], [1.0, 5e-324]], labels=[0, 1]) == pytest.approx(-math.log(5e-324) / 2)


def test_row_of_weight_zero_does_not_count_even_if_impossible() -> None:
    assert log_loss([0, 1], [[0.5, 0.5], [1.0, 0.0]], sample_weight=[3.0, 0.0]) == pytest.approx(math.log(2))


def test_certain_and_right_is_zero_without_a_sign() -> None:
    assert math.copysign(1, log_loss([0, 1], [[1.0, 0.0], [0.0, 1.0]])) == 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 6))
def test_scores_equal_scikit_learn(seed: int, rows: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    prob = distributions(seed, rows, classes)
    truth = rng.integers(classes, size=rows)
    weight = rng.random(rows) + 0.1
    labels = np.arange(classes)
    expected = sklearn.metrics.log_loss(truth, prob, labels=labels, sample_weight=weight)
    assert log_loss(truth, prob, labels=labels, sample_weight=weight) == pytest.approx(expected, rel=1e-12)
    if len(np.unique(truth)) == classes > 2:
        expected = sklearn.metrics.brier_score_loss(truth, prob, sample_weight=weight, scale_by_half=False)
        assert brier_score(truth, prob, sample_weight=weight) == pytest.approx(expected, rel=1e-12)
    expected = sklearn.metrics.accuracy_score(truth, prob.argmax(axis=1), sample_weight=weight)
    assert accuracy(truth, prob, labels=labels, sample_weight=weight) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("score", [log_loss, brier_score])
def test_proper_scores_are_least_at_the_truth(score: object) -> None:
    # Labels weighted by the truth: the expected score under it, exactly.
    truth = np.array([0.6, 0.3, 0.1])
    best = score([0, 1, 2], np.tile(truth, (3, 1)), sample_weight=truth)  # type: ignore[operator]
    for other in ([0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.61, 0.3, 0.09]):
        assert score([0, 1, 2], np.tile(other, (3, 1)), sample_weight=truth) > best + 1e-4  # type: ignore[operator]


def test_of_two_classes_the_brier_score_is_twice_scikit_learns() -> None:
    prob = distributions(3, 50, 2)
    truth, weight = np.arange(50) % 2, np.random.default_rng(4).random(50)
    halved = sklearn.metrics.brier_score_loss(truth, prob[:, 1], sample_weight=weight)
    assert brier_score(truth, prob, sample_weight=weight) == pytest.approx(2 * halved, rel=1e-12)
    assert halved > 0.1


def test_brier_score_lies_between_0_and_2() -> None:
    assert brier_score([0, 1], [[1.0, 0.0], [0.0, 1.0]]) == 0
    assert brier_score([0, 1], [[0.0, 1.0], [1.0, 0.0]]) == 2


def test_one_column_is_the_second_label() -> None:
    assert log_loss(["no", "yes"], [0.25, 0.25], base="bits") == pytest.approx((math.log2(4 / 3) + 2) / 2)
    assert accuracy(["no", "yes"], [0.25, 0.25]) == 0.5


@pytest.mark.parametrize("score", [log_loss, brier_score, accuracy])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [[0.5, 0.5]]), "one row for each of the 2 labels"),
        (([0, 1], [[2.0, -1.0], [0.5, 0.5]]), "got 2.0 in row 0, column 0"),
        (([0, 1], [[0.5, 0.5], [math.nan, 0.5]]), "got nan in row 1, column 0"),
        (([0, 1], [[0.5, 0.5], [0.5, 0.4]]), "sums to 1; got 0.9 in row 1"),
        (([0, 1], [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]), "pass labels="),
        (([], np.zeros((0, 2))), "non-empty"),
        (([0, 1], [["a", "b"], ["c", "d"]]), "real numbers"),
    ],
)
def test_refusals(score: object, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(*arguments)  # type: ignore[operator]


def test_refusals_of_options() -> None:
    prob = [[0.5, 0.5], [0.5, 0.5]]
    with pytest.raises(ValueError, match="nats"):
        log_loss([0, 1], prob, base="decibel")
    with pytest.raises(ValueError, match="got 2 in row 1"):
        log_loss(np.array([0, 2]), prob, labels=[0, 1])
    for weight in ([1.0, -1.0], [math.nan, 1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="sample_weight"):
            log_loss([0, 1], prob, sample_weight=weight)
    with pytest.raises(ValueError, match="shape"):
        log_loss([0, 1], prob, sample_weight=[1.0])


def test_arguments_are_not_written_to() -> None:
    truth, prob = np.array([0, 1]), np.array([[0.5, 0.5], [0.25, 0.75]])
    for array in (truth, prob):
        array.flags.writeable = False
    assert brier_score(truth, prob) == pytest.approx((0.5 + 0.125) / 2)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_a_frame_whose_columns_are_the_labels_in_another_order_is_refused(make: Any) -> None:
    p = {"a": [0.7, 0.1], "b": [0.2, 0.3], "c": [0.1, 0.6]}
    expected = log_loss(["a", "c"], np.column_stack(list(p.values())), labels=["a", "b", "c"])
    assert log_loss(["a", "c"], make(p), labels=["a", "b", "c"]) == expected
    other = make({name: p[name] for name in "cba"})
    with pytest.raises(ValueError, match=r"^the columns of y_prob must be in the order of the labels, a, b, c"):
        log_loss(["a", "c"], other, labels=["a", "b", "c"])
    assert log_loss(["a", "c"], other, labels=["c", "b", "a"]) == expected


def test_half_the_brier_score_is_scikit_learns() -> None:
    y, p = np.array([0, 1, 1, 0]), np.array([0.2, 0.7, 0.4, 0.1])
    assert brier_score(y, p, scale="half") == pytest.approx(sklearn.metrics.brier_score_loss(y, p), rel=1e-15)
    with pytest.raises(ValueError, match="'double'"):
        brier_score(y, p, scale="double")


@pytest.mark.parametrize(
    ("missing", "shown"), [(np.nan, "nan"), (None, "None"), (pd.NA, "<NA>"), (np.datetime64("NaT"), "NaT")]
)
def test_a_row_without_a_label_is_named(missing: Any, shown: str) -> None:
    asked = f"y_true must hold a label in every row; got {shown} in row 1"
    with pytest.raises(ValueError, match=asked):
        log_loss(np.array(["a", missing, "b"], dtype=object), np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match="got nan in row 0"):
        log_loss(np.array([np.nan, 1.0]), [0.5, 0.5])
