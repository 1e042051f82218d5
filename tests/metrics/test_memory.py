"""Metrics hold no N × K temporaries, whatever the layout and dtype of the probabilities."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crossent.metrics import (
    accuracy,
    brier_score,
    calibration_error,
    log_loss,
    ranked_probability_score,
    score_decomposition,
    skill_score,
    spherical_score,
)

pytestmark = pytest.mark.usefixtures("twin")
ROWS, CLASSES = 8000, 500
CALLS: dict[str, Callable[[Any, Any], object]] = {
    "log_loss": log_loss,
    "accuracy": accuracy,
    "brier_score": brier_score,
    "spherical_score": spherical_score,
    "ranked_probability_score": ranked_probability_score,
    "skill_score": skill_score,
    "score_decomposition": lambda y, p: score_decomposition(y, p, kind="top-label"),
    "top-label": calibration_error,
    "class-wise": lambda y, p: calibration_error(y, p, kind="class-wise"),
    "class-wise, equal mass": lambda y, p: calibration_error(y, p, kind="class-wise", binning="equal-mass"),
    "full": lambda y, p: calibration_error(y, p, kind="full", bins=4),
}


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    prob = rng.exponential(size=(ROWS, CLASSES))
    prob /= prob.sum(axis=1, keepdims=True)
    return np.arange(ROWS) % CLASSES, prob


@pytest.mark.parametrize("layout", ["C", "F", "float32", "float16"])
@pytest.mark.parametrize("name", CALLS)
def test_no_temporary_of_the_size_of_the_probabilities(name: str, layout: str, sample: Any) -> None:
    truth, prob = sample
    prob = np.asfortranarray(prob) if layout == "F" else prob if layout == "C" else prob.astype(layout)
    CALLS[name](truth[:CLASSES], prob[:CLASSES])  # compiles
    tracemalloc.start()
    try:
        CALLS[name](truth, prob)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Some blocks of 2**18 numbers are: 2 MiB each in float64, beside the 30.5 MiB of the probabilities.
    assert peak < 0.4 * 8 * ROWS * CLASSES


def test_a_constant_reference_needs_no_square_of_the_classes() -> None:
    classes = 4000
    prob = np.full((4, classes), 1 / classes)
    tracemalloc.start()
    try:
        skill_score([0, 1, 2, 3], prob, labels=np.arange(classes), score="ranked", reference=prob[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.05 * 8 * classes**2
