"""Published numbers that every implementation of these losses must give."""

from __future__ import annotations

import numpy as np
import pytest

import crossent as ce

TWO_ROWS = np.array([[1.0, 2, 3], [2, 1, 3]])
HUNDREDS = np.array([[100.0, 0, 0], [0, 100, 0]])
FOUR_ROWS = np.array([[3, 0.5, 0.1], [0.1, 3, 0.2], [0.5, 0.4, 0.3], [0.8, 1, 0.9]])
FOUR_LABELS = np.array([0, 1, 2, 0])
WEIGHT = np.array([1.0, 1, 3])


def ulps(number: float, count: int) -> float:
    return count * np.spacing(number)


def test_mean_cross_entropy(twin):
    assert ce.cross_entropy(TWO_ROWS, [2, 0]) == pytest.approx(0.9076059644443804, abs=ulps(0.9, 2), rel=0)


def test_gradient_of_the_mean(twin):
    value, grad = ce.value_and_grad(TWO_ROWS, [2, 0])
    assert value == ce.cross_entropy(TWO_ROWS, [2, 0])
    expected = [[0.045015, 0.122364, -0.167380], [-0.377636, 0.045015, 0.332620]]
    np.testing.assert_allclose(grad, expected, rtol=0, atol=6e-7)  # six decimals are printed
    np.testing.assert_allclose(grad.sum(axis=1), 0, atol=1e-16)


def test_large_margins(twin):
    assert ce.cross_entropy(HUNDREDS, [1, 0]) == 100.0
    single = ce.cross_entropy(HUNDREDS.astype(np.float32), [1, 0])
    assert single == np.float32(100.0)
    assert single.dtype == np.float32
    # 104 underflows a float32 softmax to 0, and -log of it is inf
    hundred_and_four = np.array([[104.0, 0, 0]], dtype=np.float32)
    with np.errstate(divide="ignore"):
        softmax = np.exp(hundred_and_four - 104)
        assert np.isinf(-np.log(softmax / softmax.sum()))[0, 1]
    assert ce.cross_entropy(hundred_and_four, [1]) == np.float32(104.0)


def test_cross_entropy_per_row(twin):
    rows = ce.cross_entropy(FOUR_ROWS, FOUR_LABELS, reduction="none")
    np.testing.assert_allclose(rows, [0.128488, 0.109601, 1.201943, 1.201943], rtol=0, atol=6e-7)


@pytest.mark.parametrize(
    ("options", "mean"),
    [
        ({"weight": WEIGHT, "normalizer": "count"}, 1.2614653117039862),
        ({"weight": WEIGHT}, 0.8409768744693241),
        ({"loss": ce.Focal(2.0)}, 0.2947256082663088),
        ({"label_smoothing": 0.1}, 0.7479938875893644),
    ],
    ids=["weights, count", "weights", "focal", "smoothing"],
)
def test_options(twin, options, mean):
    assert ce.cross_entropy(FOUR_ROWS, FOUR_LABELS, **options) == pytest.approx(mean, abs=ulps(mean, 4), rel=0)
    assert ce.value_and_grad(FOUR_ROWS, FOUR_LABELS, **options)[0] == pytest.approx(mean, abs=ulps(mean, 4), rel=0)


def test_focal_loss_function(twin):
    assert ce.focal_loss(FOUR_ROWS, FOUR_LABELS) == pytest.approx(0.2947256082663088, rel=1e-15, abs=0)


@pytest.mark.parametrize(
    ("logits", "ce_value", "focal_value"),
    [
        ([3.0, 0, 0], 0.09492295642096085, 0.0007784223979416125),
        ([0.5, 0.5, 0.5], 1.0986122886681098, 0.4882721282969378),
    ],
)
def test_one_row(twin, logits, ce_value, focal_value):
    """As published, computed in float64 by code that cancels: right to about fifteen digits."""
    assert ce.cross_entropy([logits], [0]) == pytest.approx(ce_value, rel=2e-15, abs=0)
    focal = ce.cross_entropy([logits], [0], loss=ce.Focal(2.0))
    assert focal == pytest.approx(focal_value, rel=2e-15, abs=0)
    assert ce.focal_loss([logits], [0], gamma=2.0) == focal


@pytest.mark.parametrize(
    ("logits", "ce_value", "focal_value"),
    [
        ([3.0, 0, 0], 0.094922956420960891312, 0.00077842239794161347761),
        ([0.5, 0.5, 0.5], 1.0986122886681096914, 0.48827212829693764062),
    ],
)
def test_one_row_to_the_last_digits(twin, logits, ce_value, focal_value):
    """The same numbers, computed with 40 digits."""
    assert ce.cross_entropy([logits], [0]) == pytest.approx(ce_value, abs=ulps(ce_value, 4), rel=0)
    focal = ce.cross_entropy([logits], [0], loss=ce.Focal(2.0))
    assert focal == pytest.approx(focal_value, abs=ulps(focal_value, 12), rel=0)


def test_probability_of_the_true_class(twin):
    assert ce.softmax([3.0, 0, 0])[0] == pytest.approx(0.9094429985127419, abs=ulps(0.9, 1), rel=0)


def test_a_confident_right_answer(twin):
    """Where float32 PyTorch, SciPy and scikit-learn return 0."""
    z = np.array([[20.0, 1, 2, 3]])
    for dtype, digits in ((np.float32, 1e-6), (np.float64, 1e-15)):
        value, grad = ce.value_and_grad(z.astype(dtype), [0])
        assert value == pytest.approx(np.log1p(np.exp(-17.0) + np.exp(-18.0) + np.exp(-19.0)), rel=digits, abs=0)
        assert value == pytest.approx(6.22322e-8, rel=1e-6, abs=0)
        assert grad[0, 0] == pytest.approx(-value, rel=1e-6, abs=0)
        value, grad = ce.value_and_grad(np.array([[30, 0, -1]], dtype=dtype), [0])
        assert value == pytest.approx(1.280010034e-13, rel=1e-6, abs=0)
        assert grad[0, 0] == pytest.approx(-1.280010034e-13, rel=1e-6, abs=0)


def test_a_large_common_offset(twin):
    """The same row, shifted by 1e4: exactly, for these numbers are floats in both dtypes."""
    for dtype in (np.float32, np.float64):
        near = ce.value_and_grad(np.array([[5, 0, -3]], dtype=dtype), [0])
        far = ce.value_and_grad(np.array([[1e4 + 5, 1e4, 1e4 - 3]], dtype=dtype), [0])
        assert near[0] == far[0]
        np.testing.assert_array_equal(near[1], far[1])
