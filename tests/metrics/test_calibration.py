"""The reliability curve's bins, edge by edge, and the error over them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

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


def test_the_curve_of_a_class_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(500)
    y = np.where(rng.random(500) < p, "yes", "no")
    curve = reliability_curve(y, p, pos_label="yes")
    share, mean = calibration_curve(y == "yes", p, n_bins=10)
    np.testing.assert_allclose(curve.accuracy, share, rtol=1e-12)
    np.testing.assert_allclose(curve.confidence, mean, rtol=1e-12)
    other = reliability_curve(y, p, pos_label="no", sample_weight=np.ones(500))
    np.testing.assert_allclose(other.accuracy[::-1], 1 - share, rtol=1e-12)
    three = np.column_stack([p / 2, 1 - p, p / 2])
    of_three = reliability_curve(np.where(y == "yes", "c", "b"), three, labels=["a", "b", "c"], pos_label="b")
    np.testing.assert_allclose(of_three.accuracy, other.accuracy, rtol=1e-12)
    np.testing.assert_array_equal(of_three.counts, other.counts)
    with pytest.raises(ValueError, match=r"pos_label must be one of the labels \['no', 'yes'\]; got 'maybe'"):
        reliability_curve(y, p, pos_label="maybe")


def test_a_curve_is_a_table_too() -> None:
    curve = reliability_curve([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8], bins=2)
    frame = curve.to_frame()
    assert frame.columns.tolist() == ["from", "to", "rows", "confidence", "accuracy", "lower", "upper"]
    assert frame["accuracy"].tolist()[1] == 0.75
    assert curve._repr_html_().count("<tr>") == 3


def test_the_diagram_of_an_estimator_is_that_of_its_probabilities() -> None:
    import matplotlib as mpl
    from sklearn.linear_model import LinearRegression, LogisticRegression

    mpl.use("agg")
    from crossent.metrics import reliability_diagram, reliability_diagram_from_estimator

    X = np.random.default_rng(0).normal(size=(200, 2))
    y = np.where(X[:, 0] + 0.5 * X[:, 1] ** 3 > 0, "$a$", "b")
    model = LogisticRegression().fit(X, y)
    drawn = reliability_diagram_from_estimator(model, X, y, pos_label="$a$")
    wanted = reliability_diagram(y, model.predict_proba(X), pos_label="$a$")
    for one, other in zip(drawn.lines, wanted.lines, strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    assert drawn.get_ylabel() == "share of $a$"
    assert drawn.get_legend_handles_labels()[1] == ["LogisticRegression"]
    with pytest.raises(TypeError, match="predict_proba; got LinearRegression"):
        reliability_diagram_from_estimator(LinearRegression(), X, y)
