"""Kernels on the bits of bfloat16 numbers: what those of float32 give for the same numbers, rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import crossent as ce
from crossent.core.target import Target
from crossent.kernels import reference

cpu = pytest.importorskip("crossent.kernels.cpu", reason="numba is not installed")

ROWS = 70


def bits_of(values: np.ndarray) -> np.ndarray:
    out = np.empty(values.shape, np.uint16)
    reference.narrow_bfloat16(np.ascontiguousarray(values, np.float32), out)
    return out


def numbers_of(bits: np.ndarray) -> np.ndarray:
    out = np.empty(bits.shape, np.float32)
    reference.widen_bfloat16(bits, out)
    return out


def assert_same_numbers(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(numbers_of(found), numbers_of(expected))  # NaN are alike, and so are zeros


def logits_of(num_classes: int) -> np.ndarray:
    """Bits of ordinary rows, and of one each for what a number may be."""
    rng = np.random.default_rng(num_classes)
    values = rng.normal(size=(ROWS, num_classes)) * np.exp(rng.normal(size=(ROWS, 1), scale=3))
    values[1, 0] = np.nan
    values[2, -1] = -np.nan
    values[3, num_classes // 2] = -np.inf
    values[4, 0] = np.inf
    values[5] = -np.inf
    values[6] = 0.0
    values[7] = -0.0
    values[8, 0] = 3.3e38
    values[9, ::2] = -3.3e38
    values[10] = 1e-40
    values[11] = np.sort(values[11])
    values[12] = np.where(rng.random(num_classes) < 0.3, 1e-6, 50.0)
    bits = bits_of(values)
    bits[2, -1] = 0xFFFF  # a negative NaN with every bit of its payload
    bits[13, 0] = 0x7FFF
    return bits


@pytest.mark.parametrize("scale", [1.0, 1 / 70, 1e30, 1e39, 1e-42])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("num_classes", [1, 2, 10, 64, 65, 300, 1024, 3001])
def test_hard_labels(num_classes: int, smoothing: float, scale: float) -> None:
    bits = logits_of(num_classes)
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, num_classes, ROWS)
    class_weight, row_weight = rng.random(num_classes), rng.random(ROWS)
    row_weight[20] = 0.0
    for loss in (ce.CrossEntropy(), ce.Focal(2.0) + ce.ZPenalty(0.1)):
        for weights in ((None, None), (class_weight, row_weight)):
            target = Target(num_classes, labels, class_weight=weights[0], label_smoothing=smoothing)
            arguments: tuple[Any, ...] = (target, loss, scale, weights[1])
            narrow, wide = np.empty_like(bits), np.empty(bits.shape, np.float32)
            found = cpu.row_losses(bits, *arguments, narrow)
            expected = cpu.row_losses(numbers_of(bits), *arguments, wide)
            np.testing.assert_array_equal(found, expected)
            assert_same_numbers(narrow, bits_of(wide))
            np.testing.assert_array_equal(cpu.row_losses(bits, *arguments, None), expected)
    assert np.isfinite(expected).any()


def test_every_number_is_widened_and_rounded_as_the_reference_does() -> None:
    bits = np.arange(2**16, dtype=np.uint16).reshape(64, -1)
    wide = np.empty(bits.shape, np.float32)
    cpu.widen_bfloat16(bits, wide)
    np.testing.assert_array_equal(wide.view(np.uint32), numbers_of(bits).view(np.uint32))
    low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = ((bits.astype(np.uint32) << 16)[..., None] | low).reshape(64, -1).view(np.float32)
    found = np.empty(values.shape, np.uint16)
    cpu.narrow_bfloat16(values, found)
    np.testing.assert_array_equal(found, bits_of(values))


@pytest.mark.parametrize("num_classes", [1, 2, 10, 65, 300])
@pytest.mark.parametrize("loss", [ce.CrossEntropy(), 2.0 * ce.CrossEntropy(), ce.Focal(2.0)], ids=repr)
def test_entries(loss: ce.Loss, num_classes: int) -> None:
    bits = logits_of(num_classes)
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, bits.shape).astype(np.int8)
    soft = rng.random(bits.shape).astype(np.float32)
    class_weight, row_weight, entry_weight = rng.random((2, num_classes)), rng.random(ROWS), rng.random(bits.shape)
    entry_weight[5:9] = 0.0
    for target in ((labels, None), (None, soft)):
        for weights in ((None, None), (class_weight, row_weight), (class_weight, entry_weight)):
            asked = Target(num_classes, *target, class_weight=weights[0], label_smoothing=0.1, link="sigmoid")
            arguments: tuple[Any, ...] = (asked, loss, 0.3, weights[1])
            narrow, wide = np.empty_like(bits), np.empty(bits.shape, np.float32)
            entries = np.empty((2, *bits.shape))
            found = cpu.row_losses(bits, *arguments, narrow, entries[0])
            expected = cpu.row_losses(numbers_of(bits), *arguments, wide, entries[1])
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(*entries)
            assert_same_numbers(narrow, bits_of(wide))
    assert np.isfinite(expected).any()
