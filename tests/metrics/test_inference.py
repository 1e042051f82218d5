"""The interval and the test of the calibration error: coverage, level, weights."""

from __future__ import annotations

import numpy as np
import pytest

from crossent.metrics import calibration_interval, calibration_test
from crossent.metrics.binning import top_label_bins
from crossent.metrics.inference import _Profile
from crossent.metrics.predictions import check_predictions

ATOMS = np.array([0.62, 0.75, 0.88, 0.97])


def draw(rows: int, gaps: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    atom = rng.integers(len(ATOMS), size=rows)
    return (rng.random(rows) < (ATOMS - gaps)[atom]).astype(int), ATOMS[atom]


@pytest.mark.parametrize("gap", [0.0, pytest.param(0.06, marks=pytest.mark.slow), 0.2])
def test_the_interval_covers_as_promised(gap: float) -> None:
    """1000 simulations of the interval's own ends; 90 % within three standard errors."""
    covered = 0
    for seed in range(1000):
        right, p = draw(400, np.full(4, gap), seed)
        found = calibration_interval(right, p, labels=[0, 1], draws=200, seed=seed)
        covered += found.lower <= gap**2 <= found.upper
    assert abs(covered / 1000 - 0.9) <= 3 * np.sqrt(0.9 * 0.1 / 1000)


@pytest.mark.parametrize("weighted", [False, True])
def test_where_one_bin_has_all_of_the_error_it_covers_at_least_so_often(weighted: bool) -> None:
    """The observed profile spreads the error over all bins: more than 90 % (docs/calibration.md), never less."""
    gaps = np.array([0.15, 0.0, 0.0, 0.0])
    covered = 0
    for seed in range(200):
        right, p = draw(400, gaps, seed)
        weight = np.random.default_rng(seed).exponential(size=400) if weighted else None
        found = calibration_interval(right, p, labels=[0, 1], sample_weight=weight, draws=100, seed=seed)
        covered += found.lower <= np.mean(gaps**2) <= found.upper
    assert covered / 200 >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / 200)


def test_with_weights_the_test_keeps_its_level() -> None:
    rejected = 0
    for seed in range(300):
        right, p = draw(400, np.zeros(4), seed)
        weight = np.random.default_rng(seed + 1).exponential(size=400)
        rejected += calibration_test(right, p, labels=[0, 1], sample_weight=weight, draws=200, seed=seed) < 0.1
    assert rejected / 300 == pytest.approx(0.1, abs=3 * np.sqrt(0.09 / 300))


def test_equal_weights_are_none_and_rows_of_weight_0_are_not_there() -> None:
    right, p = draw(500, np.full(4, 0.08), 0)
    plain = calibration_interval(right, p, labels=[0, 1])
    assert calibration_interval(right, p, labels=[0, 1], sample_weight=np.full(500, 3.0)) == pytest.approx(plain)
    more = np.concatenate([np.ones(500), np.zeros(200)])
    padded = (np.concatenate([right, 1 - right[:200]]), np.concatenate([p, p[:200]]))
    assert calibration_interval(*padded, labels=[0, 1], sample_weight=more) == pytest.approx(plain)
    one = calibration_test(*padded, labels=[0, 1], sample_weight=more)
    assert one == calibration_test(right, p, labels=[0, 1])


def test_scaled_profiles_have_the_error_asked_for() -> None:
    """Up to the largest, where accuracies have come to 0 and 1; the closed form against the definition."""
    right, p = draw(300, np.array([0.1, -0.02, 0.05, 0.2]), 3)
    profile = _Profile(top_label_bins(check_predictions(right, p, [0, 1]), 10), 10, 0)
    largest = profile.largest()
    for error in np.linspace(0, 1, 23) * largest:
        accuracies = profile._accuracies(float(error))
        assert ((accuracies >= 0) & (accuracies <= 1)).all()
        assert profile.share @ (accuracies - profile.confidence) ** 2 == pytest.approx(error, rel=1e-9, abs=1e-15)
    assert np.isin(profile._accuracies(largest).round(9), (0, 1)).all()
