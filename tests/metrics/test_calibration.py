"""The reliability curve's bins, edge by edge, and the error over them."""

from __future__ import annotations

import numpy as np
import pytest

from crossent.metrics import calibration_error, reliability_curve


def two_classes(confidence: list[float]) -> np.ndarray:
    first = np.array(confidence)
    return np.stack([first, 1 - first], axis=1)


def test_bins_are_open_on_the_left_and_closed_on_the_right() -> None:
    edges = np.linspace(0, 1, 5)
    prob = two_classes([0.5, np.nextafter(0.5, 1), 0.75, np.nextafter(0.75, 1), 1.0])
    curve = reliability_curve([0, 0, 0, 0, 1], prob, bins=4)
    assert curve.edges.tolist() == edges.tolist()
    assert curve.counts.tolist() == [0, 1, 2, 2]
    assert curve.accuracy[1:].tolist() == [1, 1, 0.5]
    assert np.isnan(curve.accuracy[0])
    assert np.isnan(curve.confidence[0])


def test_every_row_is_in_exactly_one_bin() -> None:
    prob = np.random.default_rng(0).dirichlet([0.3] * 5, size=1000)
    truth = np.arange(1000) % 5
    for bins in (1, 3, 10, 17):
        assert reliability_curve(truth, prob, bins=bins).counts.sum() == 1000


def test_curve_equals_a_loop() -> None:
    rng = np.random.default_rng(1)
    prob = rng.dirichlet(np.ones(3), size=300)
    truth = rng.integers(3, size=300)
    curve = reliability_curve(truth, prob, bins=6)
    error = 0.0
    for b in range(6):
        rows = [
            i
            for i in range(300)
            if curve.edges[b] < prob[i].max() <= curve.edges[b + 1] or (b == 0 and prob[i].max() == 0)
        ]
        assert curve.counts[b] == len(rows)
        if rows:
            confidence = float(np.mean([prob[i].max() for i in rows]))
            hits = float(np.mean([prob[i].argmax() == truth[i] for i in rows]))
            assert curve.confidence[b] == pytest.approx(confidence, rel=1e-12)
            assert curve.accuracy[b] == pytest.approx(hits, rel=1e-12)
            error += len(rows) / 300 * abs(confidence - hits)
    assert error > 0.1
    assert calibration_error(truth, prob, bins=6) == pytest.approx(error, rel=1e-12)


def test_perfectly_calibrated_bin_scores_zero_and_overconfidence_its_gap() -> None:
    prob = two_classes([0.75] * 4)
    assert calibration_error([0, 0, 0, 1], prob) == 0
    assert calibration_error([0, 0, 1, 1], prob) == 0.25
    assert calibration_error([1, 1, 1, 1], prob, labels=[0, 1]) == 0.75


def test_gaps_do_not_cancel_between_bins() -> None:
    prob = two_classes([0.75] * 2 + [1.0] * 2)
    assert calibration_error([0, 0, 0, 1], prob) == pytest.approx((0.25 + 0.5) / 2)


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, "ten"])
def test_number_of_bins_is_a_positive_integer(bins: object) -> None:
    with pytest.raises(ValueError, match="bins must be a positive integer"):
        reliability_curve([0, 1], two_classes([0.5, 0.5]), bins=bins)  # type: ignore[arg-type]


def test_labels_may_be_words() -> None:
    curve = reliability_curve(["cat", "dog"], [[0.9, 0.1], [0.8, 0.2]], bins=10)
    assert curve.counts.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    assert curve.accuracy[7:9].tolist() == [0, 1]
