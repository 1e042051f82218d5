"""The published numbers, by `crossent.jax` under `jit`: in float64 to their last digits, in float32 to its bar."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from test_reference_numbers import FOUR_LABELS, FOUR_ROWS, HUNDREDS, TWO_ROWS, WEIGHT

import crossent as ce
import crossent.jax as cej

CASES: list[tuple[Any, Any, dict[str, Any], float]] = [
    (TWO_ROWS, [2, 0], {}, 0.9076059644443804),
    (HUNDREDS, [1, 0], {}, 100.0),
    (FOUR_ROWS, FOUR_LABELS, {"weight": WEIGHT, "normalizer": "count"}, 1.2614653117039862),
    (FOUR_ROWS, FOUR_LABELS, {"weight": WEIGHT}, 0.8409768744693241),
    (FOUR_ROWS, FOUR_LABELS, {"loss": ce.Focal(2.0)}, 0.2947256082663088),
    (FOUR_ROWS, FOUR_LABELS, {"label_smoothing": 0.1}, 0.7479938875893644),
    ([[3.0, 0.0, 0.0]], [0], {}, 0.09492295642096085),
    ([[3.0, 0.0, 0.0]], [0], {"loss": ce.Focal(2.0)}, 0.0007784223979416125),
    ([[0.5, 0.5, 0.5]], [0], {"loss": ce.Focal(2.0)}, 0.4882721282969378),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_published_numbers(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        for logits, labels, options, number in CASES:
            rounded, wanted = np.asarray(logits, dtype), number
            if dtype == "float32":  # the number of the rounded logits
                wanted = float(ce.cross_entropy(rounded.astype("float64"), labels, **options))
            value = jax.jit(partial(cej.cross_entropy, **options))(rounded, np.asarray(labels))
            assert value.dtype == dtype
            bar = 12 if "loss" in options else 4
            assert float(value) == pytest.approx(wanted, abs=bar * float(np.spacing(np.array(wanted, dtype))), rel=0)


def test_rows_and_the_gradient_of_the_mean() -> None:
    rows = jax.jit(partial(cej.cross_entropy, reduction="none"))(np.float32(FOUR_ROWS), FOUR_LABELS)
    np.testing.assert_allclose(rows, [0.128488, 0.109601, 1.201943, 1.201943], rtol=0, atol=1e-6)
    gradient = jax.jit(jax.grad(cej.cross_entropy))(np.float32(TWO_ROWS), np.array([2, 0]))
    expected = [[0.045015, 0.122364, -0.167380], [-0.377636, 0.045015, 0.332620]]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=6e-7)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-7)
