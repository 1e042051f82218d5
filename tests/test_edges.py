"""Corners that a user reaches by accident: each was wrong once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import crossent as ce

Z = np.random.default_rng(0).normal(size=(3, 3))


def test_a_full_top_k_teacher_leaves_no_bucket() -> None:
    rounded = ce.TopK([[0, 1, 2]], [[0.2, 0.3, 0.5 - 1e-9]])
    assert ce.distillation_loss(np.zeros((1, 3)), rounded) == pytest.approx(
        ce.distillation_loss(np.zeros((1, 3)), np.log([[0.2, 0.3, 0.5]])), rel=1e-7
    )


@pytest.mark.parametrize("options", [{"target": [-100, 1]}, {"target": [0, 1], "sample_weight": [0.0, 1.0]}])
@pytest.mark.parametrize("num_classes", [3, 100])
@pytest.mark.parametrize("padding", [np.nan, np.inf])
def test_rows_without_a_part_do_not_reach_the_weight_gradient(
    options: dict[str, Any], num_classes: int, padding: float
) -> None:
    weight = np.random.default_rng(1).normal(size=(num_classes, 2))
    rows = np.array([[padding, 0.0], [1.0, 2.0]])
    expected = ce.linear_value_and_grad(rows[1:], weight, [1])
    options = dict(options)
    with np.errstate(invalid="ignore"):
        value, grad = ce.linear_value_and_grad(rows, weight, options.pop("target"), **options)
    np.testing.assert_allclose(value, expected.value, rtol=1e-14)
    np.testing.assert_allclose(grad.weight, expected.grad.weight, rtol=1e-13)
    assert (grad.input[0] == 0).all()


@pytest.mark.parametrize("weight", [1e308, 1e-320])
def test_a_denominator_that_overflows_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="denominator must be finite"):
        ce.cross_entropy(Z, [0, 1, 2], sample_weight=[weight] * 3)


def test_hessian_of_an_impossible_probability_is_infinite() -> None:
    assert ce.value_grad_hess([[0.0, 1.0]], [0], link="probability").hess[0, 0] == np.inf


def test_labels_beyond_int64_are_out_of_range() -> None:
    labels = np.array([0, 1, 2**63 + 5], dtype=np.uint64)
    with pytest.raises(ValueError, match="9223372036854775813 in row 2"):
        ce.cross_entropy(Z, labels, ignore_index=2**63 - 1)


def test_soft_targets_beyond_float32_are_refused() -> None:
    with pytest.raises(ValueError, match="finite in float32"):
        ce.cross_entropy(Z.astype(np.float32), np.full((3, 3), 1e300))


@pytest.mark.parametrize(
    "options",
    [
        {"loss": ce.Loss()},
        {"ignore_index": 2**70},
        {"normalizer": 10**400},
        {"normalizer": np.array([1, 2])},
        {"link": ["a"]},
        {"temperature": "2"},
        {"label_smoothing": np.array([0.1, 0.2])},
        {"link": "sigmoid", "alpha": [0.1]},
    ],
    ids=lambda options: next(reversed(options)),
)
def test_what_is_no_option_gets_a_sentence(options: dict[str, Any]) -> None:
    target = [0, 1, 2] if options.get("link") != "sigmoid" else np.zeros((3, 3), dtype=int)
    with pytest.raises((TypeError, ValueError), match=next(k for k in reversed(options))):
        ce.value_and_grad(Z, target, **options)


def test_masked_targets_are_refused() -> None:
    with pytest.raises(TypeError, match="masked"):
        ce.binary_cross_entropy_with_logits(Z[0], np.ma.masked_array([1, 0, 1], mask=[1, 0, 0]))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_lists_and_arrays_mean_the_same_on_every_axis(axis: int) -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, 3, 3))
    soft = np.moveaxis(rng.dirichlet(np.ones(3), (3, 3)), -1, axis)
    assert ce.cross_entropy(logits, soft.tolist(), axis=axis) == ce.cross_entropy(logits, soft, axis=axis)
    moved = ce.cross_entropy(np.moveaxis(logits, axis, -1), np.moveaxis(soft, axis, -1))
    assert ce.cross_entropy(logits, soft, axis=axis) == moved
    weight, labels = rng.random(3), rng.integers(0, 2, (3, 3, 3))
    found = ce.value_and_grad(logits, labels, link="sigmoid", weight=weight, axis=axis)
    expected = ce.value_and_grad(logits, labels, link="sigmoid", weight=np.broadcast_to(weight, (3, 3, 3)))
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-14)
    np.testing.assert_array_equal(found.grad, expected.grad)


def test_one_dimensional_sigmoid_logits_have_one_axis() -> None:
    found = ce.value_and_grad([0.0, 1.0, 2.0], [0, 1, 1], link="sigmoid", axis=0)
    np.testing.assert_array_equal(found.grad, ce.value_and_grad([0.0, 1.0, 2.0], [0, 1, 1], link="sigmoid").grad)


def test_a_row_that_is_nan_is_not_correct() -> None:
    assert not ce.statistics([[np.nan, 1.0]], [0]).correct[0]


def test_losses_add_up_and_a_term_of_scale_0_is_absent() -> None:
    assert repr(sum([ce.CrossEntropy(), ce.Brier()])) == "CrossEntropy() + Brier()"
    assert repr((ce.Focal(1.0) - ce.Brier()) / 2) == "0.5 * Focal(gamma=1.0) + -0.5 * Brier()"
    masked = [[-np.inf, 0.0, 1.0]]
    for evaluate in (ce.value_and_grad, ce.value_grad_hess):
        assert evaluate(masked, [0], loss=0.0 * ce.CrossEntropy()).value == 0


def test_information_at_the_smallest_numbers() -> None:
    assert ce.information.mutual_information([[1e-200, 0.0], [0.0, 1.0]]) == pytest.approx(
        1e-200 * np.log(1e200), rel=1e-12
    )
    assert ce.js_divergence([5e-324, 1.0], [0.0, 1.0]) >= 0
    assert ce.kl_divergence([1.0, 0.0], [5e-324, 1.0]) == pytest.approx(-np.log(5e-324), rel=1e-12)


def test_distilling_from_oneself_costs_nothing() -> None:
    logits = np.random.default_rng(3).normal(size=(50, 20)).astype(np.float32)
    assert ce.distillation_loss(logits, logits, temperature=2.0) == 0
    value, grad = ce.value_and_grad(logits, logits + 64, loss=ce.Distillation(3.0))
    assert value < 1e-8 or np.abs(grad).max() < 1e-6  # what adding 64 rounds off
    exact = ce.value_and_grad(np.float64(logits), np.float64(logits) + 64, loss=ce.Distillation(3.0))
    assert (exact.value, np.abs(exact.grad).max()) == (0, 0)


@pytest.mark.parametrize("temperature", [1e-200, 1e-3, 1e200])
def test_a_temperature_of_any_size(twin: str, temperature: float) -> None:
    """Towards infinity T² KL is half the variance of the differences of logits under equal probabilities."""
    z, v = np.array([[0.0, 1.0, 5.0]]), np.array([[0.0, 2.0, 3.0]])
    value, grad = ce.value_and_grad(z, v, loss=ce.Distillation(temperature))
    difference = (z - v)[0] - np.mean(z - v)
    if temperature > 1:
        assert value == pytest.approx((difference**2).mean() / 2, rel=1e-14)
        np.testing.assert_allclose(grad[0], difference / 3, rtol=1e-14)
    else:  # both have all their mass on the last class
        assert value == 0
        np.testing.assert_array_equal(grad, 0)


def test_a_teacher_keeps_its_own_digits(twin: str) -> None:
    """A float64 teacher of a float32 student is not rounded first."""
    z = np.array([[0.5, 1.0, 2.0]], np.float32)
    v = z.astype(np.float64) + np.array([[1e-12, 0.0, 0.0]])
    value = ce.distillation_loss(z, v)
    assert value == pytest.approx(ce.distillation_loss(z.astype(np.float64), v), rel=1e-6)
    assert value > 0
