"""Floating targets: whether they lie in their range; and the sum of the losses of entries that are rows each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import crossent as ce
from crossent.kernels import reference, registry

SIZES = [1, 100, 16_384, 40_001]


def bits_of(values: np.ndarray) -> np.ndarray:
    bits = np.empty(values.shape, np.uint16)
    reference.narrow_bfloat16(values.astype(np.float32), bits)
    return bits


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("as_given", [np.float32, np.float64, bits_of], ids=["float32", "float64", "bits"])
def test_one_number_outside_is_found_anywhere(size: int, as_given: Any) -> None:
    convert = as_given if as_given is bits_of else lambda values: values.astype(as_given)
    lies_within = registry.find("float64" if as_given is np.float64 else "float32").lies_within
    values = np.random.default_rng(size).random(size)
    values[0] = 1.0
    values[size // 2] = -0.0
    assert lies_within(convert(values), 1.0)
    for place in {0, size // 3, size - 1}:
        for wrong in (-1e-30, 1.01, math.inf, -math.inf, math.nan):
            spoiled = values.copy()
            spoiled[place] = wrong
            assert not lies_within(convert(spoiled), 1.0)
    assert lies_within(convert(np.zeros(0)), 1.0)


def test_columns_and_strides_are_looked_at_whole() -> None:
    lies_within = registry.find("float32").lies_within
    values = np.ones((400, 200), np.float32)
    assert lies_within(values[:, ::2], 1.0)
    values[-1, -2] = 2.0
    assert not lies_within(values[:, ::2], 1.0)
    assert lies_within(values[:, 1::2], 1.0)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 50_001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", [None, ce.Focal(2.0), ce.Brier()])
def test_the_mean_of_single_labels_is_that_of_their_losses(size: int, dtype: Any, loss: Any) -> None:
    rng = np.random.default_rng(size)
    z, t = rng.normal(size=size, scale=4).astype(dtype), rng.integers(0, 2, size)
    losses = ce.binary_cross_entropy_with_logits(z, t, loss=loss, reduction="none")
    expected = math.fsum(losses.tolist()) / size
    for options in ({}, {"temperature": 1.0}, {"sample_weight": np.ones(size)}):
        value = ce.binary_cross_entropy_with_logits(z, t, loss=loss, **options)
        assert value == pytest.approx(expected, rel=1e-7 if dtype == np.float32 else 1e-15)
    results = []
    try:
        for threads in (1, 2, 5):
            ce.set_num_threads(threads)
            results.append(ce.value_and_grad(z, t, link="sigmoid", loss=loss))
    finally:
        ce.set_num_threads(None)
    for value, grad in results[1:]:
        assert value == results[0].value
        np.testing.assert_array_equal(grad, results[0].grad)


def test_a_double_is_judged_as_it_was_given() -> None:
    """And not as the float32 that it is rounded to for float32 logits, which may lie in the range."""
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]; got 1.0000000001 in row 1"):
        ce.binary_cross_entropy_with_logits(np.zeros(2, np.float32), np.array([0.5, 1 + 1e-10]))
