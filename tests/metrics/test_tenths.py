"""Confidences 0.1, 0.2 … 1, which are the edges of ten bins: where every library puts them, ours and the others.

`tenths.json` holds what other libraries returned for `rows(k)`, ten bins: their versions, and an error for each k.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crossent.metrics import calibration_error, reliability_curve

pytestmark = pytest.mark.usefixtures("twin")
CAPTURED = json.loads((Path(__file__).parent / "tenths.json").read_text())
CLASSES = 11
# What docs/calibration.md says of them: the k below 10 whose tenth each counts in the bin below, as crossent does.
BELOW = {
    "netcal": {3, 6, 7},
    "torchmetrics": set(),
    "relplot": {3, 6, 7},
    "uncertainty-calibration": set(range(1, 10)),
}


def rows(k: int) -> tuple[np.ndarray, np.ndarray]:
    """A right row of confidence k/10, a wrong one in the bin below, and a right one far away.

    The first two have gaps of opposite signs, which cancel where they share a bin: the error tells whether they do.
    """
    top = np.array([k / 10, k / 10 - 0.05 if k > 1 else 0.095, 0.15 if k >= 4 else 0.85])
    prob = np.repeat((1 - top)[:, None] / (CLASSES - 1), CLASSES, axis=1)
    prob[[0, 1, 2], [0, 0, 1]] = top
    return np.array([0, 2, 1]), prob


def error(k: int, together: bool) -> float:
    _, prob = rows(k)
    right, wrong, far = prob.max(axis=1)
    pair = abs((1 - right) - wrong) if together else abs(1 - right) + wrong
    return float((pair + (1 - far)) / 3)


@pytest.mark.parametrize("k", range(1, 11))
def test_ours_lies_in_the_bin_below(k: int) -> None:
    truth, prob = rows(k)
    if k < 10:  # at 1 there is no gap to cancel
        assert error(k, True) != pytest.approx(error(k, False), abs=1e-3)
    found = calibration_error(truth, prob, labels=np.arange(CLASSES), bins=10)
    assert found == pytest.approx(error(k, together=True), rel=1e-12)
    counts = reliability_curve(truth, prob, labels=np.arange(CLASSES), bins=10).counts
    assert counts[k - 1] == 2


@pytest.mark.parametrize("name", BELOW)
def test_where_the_others_put_them(name: str) -> None:
    below = set()
    for k, captured in enumerate(CAPTURED["errors"][name][:9], start=1):
        together, apart = error(k, True), error(k, False)
        assert min(abs(captured - together), abs(captured - apart)) < 1e-6
        if abs(captured - together) < 1e-6:
            below.add(k)
    assert below == BELOW[name]


@pytest.mark.parametrize("k", range(1, 11))
def test_class_by_class_too(k: int) -> None:
    """Two classes: P(second) = k/10 and its neighbour below; P(first) = 1 - k/10 as that float64 number is."""
    second = np.array([k / 10, k / 10 - 0.05])
    truth = np.array([1, 0])
    edges = np.linspace(0, 1, 11)
    expected = 0.0
    for p, event in ((1 - second, truth == 0), (second, truth == 1)):
        place = [next(b for b in range(10) if value <= edges[b + 1]) for value in p]
        gaps = event - p
        expected += (abs(gaps.sum()) if place[0] == place[1] else np.abs(gaps).sum()) / 2 / 2
        if p is second:
            assert place == [k - 1, k - 1]
    found = calibration_error(truth, second, kind="class-wise", bins=10)
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_single_precision_tenth_is_the_number_that_it_is() -> None:
    """The nearest float32 lies above the edge for some tenths, and is binned there."""
    confidence = np.linspace(0, 1, 11)[5:]
    prob = np.stack([confidence, 1 - confidence], axis=1)
    prob[0] = [0.5, 0.5]
    assert reliability_curve([0] * 5 + [1], prob, bins=10).counts.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    single = prob.astype(np.float32)
    expected = np.zeros(10, int)
    for c in single.max(axis=1).astype(np.float64):
        expected[next(b for b in range(10) if c <= np.linspace(0, 1, 11)[b + 1])] += 1
    assert reliability_curve([0] * 5 + [1], single, bins=10).counts.tolist() == expected.tolist()
    assert expected.tolist() != [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
