"""What fuzzing found and was mended, each as the example it was found with."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from accuracy.judge import judge, largest_multiplier, slack_of
from oracle import Options

import crossent as ce
from crossent import information, metrics


def test_a_smoothed_sigmoid_target_of_one_keeps_what_is_left(twin: str) -> None:
    """t' = 1 - ε/2 rounds to 1; 1 - t' must not be formed from it."""
    terms = (("cross_entropy", 1.0, 0.0),)
    for dtype in (np.float32, np.float64):
        z, target = np.zeros(2, dtype), np.array([0.0, 1.0], dtype)
        options = {"pos_weight": 1e-15, "label_smoothing": 1e-20}
        results = ce.value_and_grad(z, target, link="sigmoid", reduction="none", **options)
        given = Options(terms, weight=[1.0, 1e-15], label_smoothing=1e-20)
        judge(results, [oracle.sigmoid_row(0.0, t, given) for t in (0.0, 1.0)], terms, dtype, slack_of(2, dtype))
    assert ce.value_and_grad([np.inf], [1], link="sigmoid", label_smoothing=1e-30).value == np.inf


@pytest.mark.parametrize("loss", [(ce.CrossEntropy(), "cross_entropy", 0.0), (ce.Focal(2.0), "focal", 2.0)])
def test_a_floating_target_that_is_one_class_is_a_label(twin: str, loss: Any) -> None:
    z = np.array([2.0, 5.0, 30.0])
    terms = ((loss[1], 1.0, loss[2]),)
    rows = [oracle.sigmoid_row(x, 1, Options(terms)) for x in z]
    slack = slack_of(2, np.float64, largest_multiplier(terms, np.stack([0 * z, z], axis=1)))
    for function in (ce.value_and_grad, ce.value_grad_hess):
        judge(function(z, np.ones(3), link="sigmoid", loss=loss[0], reduction="none"), rows, terms, np.float64, slack)


@pytest.mark.parametrize("epsilon", [1e-20, 1e-3])
@pytest.mark.parametrize("num_classes", [3, 70])
def test_smoothed_distributions_that_are_nearly_one_class(twin: str, epsilon: float, num_classes: int) -> None:
    terms = (("focal", 1.0, 2.0),)
    z, target = np.zeros((1, num_classes)), np.zeros((1, num_classes))
    z[0, 0], target[0, 0] = 13.0, 1.0
    rows = [oracle.softmax_row(z[0], target[0], Options(terms, label_smoothing=epsilon))]
    results = ce.value_and_grad(z, target, loss=ce.Focal(2.0), label_smoothing=epsilon, reduction="none")
    judge(results, rows, terms, np.float64, slack_of(num_classes, np.float64))


def test_the_slope_of_a_soft_cap_far_in_its_tail(twin: str) -> None:
    """sech²(z/c) = 4 e^{-2z/c} up to e^{-4z/c}: as right as the exponential, whatever the division rounds off."""
    grad = ce.value_and_grad(np.array([[0.0, 271.0]]), [0], softcap=5.0).grad
    with oracle.mp.workdps(80):
        exact = 4 * oracle.mp.exp(oracle.mpf(-542) / 5) / (1 + oracle.mp.exp(-5))
    assert oracle.error_in_ulps(grad[0, 1], exact, exact, np.float64) <= 8


def test_a_tiny_sigmoid_target_at_an_impossible_logit(twin: str) -> None:
    logits = np.array([-np.inf], np.float32)
    assert ce.focal_loss(logits, np.array([1e-30]), link="sigmoid") == np.inf


def test_diagonal_of_focal_at_the_end_of_the_range(twin: str) -> None:
    hess = ce.value_grad_hess([[1e307, 0.0, 0.0], [-1e307, 0.0, 0.0]], [1, 0], loss=ce.Focal(5.0)).hess
    np.testing.assert_allclose(hess, [[0, 0, 0], [0, 0.125, 0.125]], atol=1e-300)


def test_a_loss_of_nothing_is_nan_where_the_row_is(twin: str) -> None:
    values = ce.cross_entropy(np.array([[np.inf, 0.0], [1.0, 0.0]]), [0, 0], loss=ce.ZPenalty(0.0), reduction="none")
    np.testing.assert_array_equal(values, [np.nan, 0.0])


def test_statistics_of_a_nan_row_without_target_mass(twin: str) -> None:
    found = ce.linear_statistics(np.array([[1.0]]), np.array([[np.inf], [np.inf]]), np.zeros((1, 2)))
    assert np.isnan(found.log_prob).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_confident_teacher_of_itself(twin: str, dtype: Any) -> None:
    """Its probability rounds to 1; the loss is 0 up to ulps of what it adds up, and that is tiny."""
    z = np.array([[0.0, -60.0], [30.0, 2.0]], dtype)
    rows = [oracle.distillation_row(row, row.tolist(), 1.0) for row in z]
    results = ce.value_and_grad(z, z, loss=ce.Distillation(1.0), reduction="none")
    judge(results, rows, oracle.CROSS_ENTROPY, dtype, slack_of(2, dtype))


SILENT: dict[str, Any] = {
    "a weight of 0 at a wrong infinite logit": lambda: ce.binary_cross_entropy_with_logits(
        np.array([np.inf, 1.0]), np.array([0, 1]), weight=np.array([0.0, 1.0])
    ),
    "a sample of weight 0 in distillation": lambda: ce.distillation_loss(
        np.array([[0.0, -np.inf], [0.0, 0.0]]), np.zeros((2, 2)), sample_weight=[0.0, 1.0]
    ),
    "a sample of weight 0 and probability 0": lambda: ce.nll_loss(
        np.log([[0.5, 0.5], [1e-300, 1.0]]) - [[0, 0], [np.inf, 0]], [0, 0], sample_weight=[1.0, 0.0]
    ),
    "infinite features of a row that does not count": lambda: ce.linear_cross_entropy(
        np.array([[np.inf], [1.0]]), np.array([[1.0], [-1.0]]), [-100, 0]
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_does_not_count_does_not_warn(twin: str, name: str) -> None:
    """Warnings are errors here."""
    assert np.isfinite(SILENT[name]())


def test_class_weights_beyond_float32_do_not_warn(twin: str) -> None:
    value, grad = ce.value_and_grad(np.zeros((1, 2), np.float32), [0], weight=[1e300, 1.0])
    assert value == np.float32(np.log(2))
    np.testing.assert_allclose(grad, [[-0.5, 0.5]], rtol=1e-6)


SENTENCES: dict[str, tuple[Any, str]] = {
    "keyword": (lambda: ce.statistics(np.zeros((1, 9)), [0], weight=np.ones(9)), r"weight.*array of shape \(9,\)"),
    "shapes": (lambda: ce.kl_divergence(np.ones((1, 2)) / 2, np.ones(3) / 3), r"broadcast; got \(1, 2\) and \(3,\)"),
    "js": (lambda: ce.js_divergence(np.ones((1, 2)) / 2, np.ones(3) / 3), r"broadcast; got"),
    "cross-entropy": (lambda: information.cross_entropy(np.ones((1, 2)) / 2, np.ones(3) / 3), r"broadcast; got"),
    "no weight": (lambda: metrics.log_loss([0], [[1.0]], sample_weight=[0.0]), r"not all 0; got values from 0"),
    "weight as text": (lambda: metrics.log_loss([0], [[1.0]], sample_weight="heavy"), r"real numbers; got"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_one_sentence_that_says_what_came(name: str) -> None:
    call, pattern = SENTENCES[name]
    with pytest.raises((TypeError, ValueError), match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value)
