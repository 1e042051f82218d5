"""Calibration errors: against loops, on the edges where libraries disagree, and in expectation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from crossent.metrics import (
    brier_score,
    calibration_error,
    calibration_interval,
    calibration_test,
    log_loss,
    reliability_curve,
    reliability_diagram,
    score_decomposition,
    wilson_interval,
)

pytestmark = pytest.mark.usefixtures("twin")


def draw(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.full(classes, 0.7), size=rows)
    truth = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    return truth, prob, rng.random(rows)


def loop(p: np.ndarray, event: np.ndarray, w: np.ndarray, edges: np.ndarray, norm: str, debiased: bool) -> float:
    """One event's error by the definition; for "l2" its square."""
    gaps, shares = [], []
    for b, (lower, upper) in enumerate(itertools.pairwise(edges)):
        inside = (p > lower) & (p <= upper) | ((b == 0) & (p == 0))
        if not inside.any():
            continue
        d, v = (event - p)[inside], w[inside]
        if norm != "l2":
            gaps.append(abs(np.average(d, weights=v)))
        elif not debiased:
            gaps.append(np.average(d, weights=v) ** 2)
        else:
            pairs = [(i, j) for i in range(len(d)) for j in range(len(d)) if i != j]
            mass = sum(v[i] * v[j] for i, j in pairs)
            gaps.append(sum(v[i] * v[j] * d[i] * d[j] for i, j in pairs) / mass if mass else 0.0)
        shares.append(v.sum() / w.sum())
    return max(gaps) if norm == "max" else float(np.dot(gaps, shares))


@pytest.mark.parametrize(("norm", "debiased"), [("l1", False), ("l2", False), ("l2", True), ("max", False)])
@pytest.mark.parametrize("kind", ["top-label", "class-wise"])
@pytest.mark.parametrize("bins", [1, 4, [0.0, 0.3, 0.35, 1.0]])
def test_errors_equal_a_loop(norm: str, debiased: bool, kind: str, bins: object) -> None:
    truth, prob, weight = draw(90, 3)
    edges = np.asarray(bins) if isinstance(bins, list) else np.linspace(0, 1, bins + 1)  # type: ignore[operator]
    if kind == "top-label":
        columns = [(prob.max(axis=1), (prob.argmax(axis=1) == truth).astype(float))]
    else:
        columns = [(prob[:, k], (truth == k).astype(float)) for k in range(3)]
    parts = [loop(p, e, weight, edges, norm, debiased) for p, e in columns]
    expected = max(parts) if norm == "max" else float(np.mean(parts))
    expected = np.sqrt(max(expected, 0)) if norm == "l2" else expected
    found = calibration_error(
        truth,
        prob,
        sample_weight=weight,
        bins=bins,
        kind=kind,
        norm=norm,
        debiased=debiased,  # type: ignore[arg-type]
    )
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-13)
    assert expected > 0.01 or debiased


def test_a_weight_of_two_is_a_row_twice() -> None:
    truth, prob, _ = draw(60, 3)
    weight = np.arange(60) % 3
    again = np.repeat(np.arange(60), weight)
    for options in (
        {},
        {"kind": "class-wise"},
        {"norm": "max"},
        {"binning": "equal-mass"},
        {"binning": "smooth"},
        {"kind": "full"},
    ):
        weighted = calibration_error(truth, prob, sample_weight=weight, bins=5, **options)  # type: ignore[arg-type]
        repeated = calibration_error(truth[again], prob[again], labels=[0, 1, 2], bins=5, **options)  # type: ignore[arg-type]
        assert weighted == pytest.approx(repeated, rel=1e-9)


def test_equal_mass_bins_hold_equal_mass() -> None:
    truth, prob, _ = draw(1000, 4)
    curve = reliability_curve(truth, prob, bins=8, binning="equal-mass")
    assert curve.counts.tolist() == [125] * 8
    tied = np.full((100, 2), 0.5)
    tied[:10] = [0.9, 0.1]
    curve = reliability_curve(np.arange(100) % 2, tied, bins=10, binning="equal-mass")
    assert curve.counts.sum() == 100
    assert sorted(curve.counts[curve.counts > 0]) == [10, 90]


def test_the_full_error_honours_its_bins() -> None:
    """Two cells: split at the median, or in the middle of the range, of the class that varies most."""
    first = np.array([0.1, 0.2, 0.3, 0.4, 0.45, 0.9])
    truth, prob = np.array([1, 1, 0, 1, 0, 0]), np.stack([first, 1 - first], axis=1)
    gaps = (truth == 0) - first
    for binning, below in (("equal-mass", first <= 0.3), ("equal-width", first <= 0.5)):
        cells = [abs(gaps[cell].mean()) for cell in (below, ~below)]
        found = [calibration_error(truth, prob, kind="full", bins=2, binning=binning, norm=n) for n in ("l1", "max")]
        assert found == pytest.approx([np.average(cells, weights=[below.sum(), (~below).sum()]), max(cells)])


def test_debiased_square_is_unbiased_and_the_plain_one_is_not() -> None:
    rng = np.random.default_rng(0)
    estimates = []
    plain = []
    for _ in range(400):
        p = rng.uniform(0.5, 1, 60)
        right = rng.random(60) < p - 0.1
        estimates.append(calibration_interval(right.astype(int), p, labels=[0, 1], bins=[0, 1], draws=1).estimate)
        plain.append(calibration_error(right.astype(int), p, labels=[0, 1], bins=[0, 1], norm="l2") ** 2)
    standard_error = np.std(estimates) / 20
    assert abs(np.mean(estimates) - 0.01) < 3 * standard_error
    assert np.mean(plain) - 0.01 > 3 * standard_error


def smooth_by_integration(p: np.ndarray, residual: np.ndarray) -> float:
    """smECE on a fine grid with the kernel written out, reflected often enough."""
    grid = (np.arange(4000) + 0.5) / 4000

    def error(sigma: float) -> float:
        total = np.zeros_like(grid)
        for shift in range(-2, 3):
            for image in (2 * shift + p, 2 * shift - p):
                total += residual @ np.exp(-(((grid - image[:, None]) / sigma) ** 2) / 2)
        return float(np.mean(np.abs(total))) / (sigma * np.sqrt(2 * np.pi))

    low, high = 1e-3, 1.0
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > middle else (low, middle)
    return high


def test_smooth_error_equals_integration() -> None:
    truth, prob, weight = draw(40, 3, seed=5)
    top = prob.max(axis=1)
    residual = weight * ((prob.argmax(axis=1) == truth) - top) / weight.sum()
    expected = smooth_by_integration(top, residual)
    assert expected > 0.03
    assert calibration_error(truth, prob, sample_weight=weight, binning="smooth") == pytest.approx(expected, rel=2e-3)


def test_smooth_error_of_a_constant_gap_is_nearly_the_gap() -> None:
    prob = np.full(1000, 0.8)
    assert calibration_error(np.arange(1000) % 2, prob, binning="smooth") == pytest.approx(0.3, abs=0.02)
    assert calibration_error(np.arange(1000) % 5 > 0, prob, binning="smooth") < 1e-6


def test_full_error_sees_what_the_top_label_hides() -> None:
    """The top label is calibrated, the other two are swapped."""
    rng = np.random.default_rng(0)
    base = np.tile([0.6, 0.3, 0.1], (20000, 1))
    truth = rng.choice(3, p=[0.6, 0.1, 0.3], size=20000)
    assert calibration_error(truth, base) < 0.01
    assert calibration_error(truth, base, kind="full", bins=1) == pytest.approx(0.2, abs=0.01)
    assert calibration_error(truth, base, kind="full", norm="l2") == pytest.approx(0.2 * np.sqrt(2), abs=0.01)
    mixed = np.where(rng.random((20000, 1)) < 0.5, base, base[:, ::-1])
    fair = np.array([rng.choice(3, p=p) for p in mixed[:3000]])
    assert calibration_error(fair, mixed[:3000], kind="full", bins=2, norm="l2", debiased=True) < 0.03


def test_interval_ends_are_where_the_test_turns() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.5, 1, 2000)
    right = (rng.random(2000) < p - 0.08).astype(int)
    found = calibration_interval(right, p)
    assert 0 < found.lower < found.estimate < found.upper
    for inside, outside in ((found.lower * 1.03, found.lower * 0.9), (found.upper * 0.97, found.upper * 1.1)):
        assert calibration_test(right, p, squared_error=inside) >= 0.09
        assert calibration_test(right, p, squared_error=outside) < 0.11
    fair = calibration_interval((rng.random(2000) < p).astype(int), p)
    assert fair.lower == 0 < fair.upper


def test_the_test_finds_miscalibration_and_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 1, 3000)
    assert calibration_test((rng.random(3000) < p - 0.1).astype(int), p) < 0.001
    rejected = [calibration_test((rng.random(3000) < p).astype(int), p, draws=200, seed=s) < 0.1 for s in range(300)]
    assert np.mean(rejected) == pytest.approx(0.1, abs=3 * np.sqrt(0.09 / 300))


@pytest.mark.parametrize("score", ["brier", "log"])
@pytest.mark.parametrize("method", ["isotonic", "bins"])
@pytest.mark.parametrize("classes", [2, 4])
def test_decompositions_add_up(score: str, method: str, classes: int) -> None:
    truth, prob, weight = draw(300, classes)
    kind = "class-wise" if score == "brier" or classes == 2 else "top-label"
    parts = score_decomposition(truth, prob, score=score, method=method, kind=kind, sample_weight=weight)
    assert parts.calibration + parts.refinement == pytest.approx(parts.score, rel=1e-12)
    assert parts.calibration - parts.resolution + parts.uncertainty == pytest.approx(parts.score, rel=1e-12)
    if kind == "class-wise":
        whole = (brier_score if score == "brier" else log_loss)(truth, prob, sample_weight=weight)
        assert parts.score == pytest.approx(whole, rel=1e-12)
    if method == "isotonic":
        assert parts.calibration >= 0
        assert parts.resolution >= 0


def test_isotonic_decomposition_equals_scikit_learn() -> None:
    from sklearn.isotonic import IsotonicRegression

    truth, prob, weight = draw(200, 2)
    p = np.round(prob[:, 1], 2)
    again = IsotonicRegression().fit(p, truth, weight).predict(p)
    parts = score_decomposition(truth, p, sample_weight=weight)
    assert parts.refinement == pytest.approx(2 * np.average((again - truth) ** 2, weights=weight), rel=1e-10)


def test_murphys_decomposition_of_discrete_forecasts() -> None:
    p = np.repeat([0.15, 0.55, 0.85], [20, 30, 50])
    truth = np.concatenate([np.arange(20) < 5, np.arange(30) < 12, np.arange(50) < 45]).astype(int)
    share, rate = np.array([0.2, 0.3, 0.5]), np.array([5 / 20, 12 / 30, 45 / 50])
    parts = score_decomposition(truth, p, method="bins")
    assert parts.calibration == pytest.approx(2 * share @ (np.array([0.15, 0.55, 0.85]) - rate) ** 2)
    assert parts.resolution == pytest.approx(2 * share @ (rate - truth.mean()) ** 2)
    assert parts.uncertainty == pytest.approx(2 * truth.mean() * (1 - truth.mean()))


def test_wilson_interval_equals_the_score_test() -> None:
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.95)
    lower, upper = wilson_interval(np.array([0.3]), np.array([50.0]), 0.9)
    for end in (lower[0], upper[0]):
        assert abs(0.3 - end) / np.sqrt(end * (1 - end) / 50) == pytest.approx(z, rel=1e-12)


def test_the_diagram_shows_the_curve() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    del matplotlib
    truth, prob, weight = draw(500, 3)
    curve = reliability_curve(truth, prob, sample_weight=weight, bins=6)
    ax = Figure().add_subplot()
    assert reliability_diagram(truth, prob, sample_weight=weight, bins=6, ax=ax, name="ours") is ax
    filled = curve.counts > 0
    (container,) = ax.containers
    points, _, (bars,) = container.lines
    np.testing.assert_allclose(points.get_xydata(), np.stack([curve.confidence, curve.accuracy], axis=1)[filled])
    ends = np.array(bars.get_segments())
    np.testing.assert_allclose(ends[:, 0, 1], curve.lower[filled], atol=1e-12)
    np.testing.assert_allclose(ends[:, 1, 1], curve.upper[filled], atol=1e-12)
    (foot,) = (inset for inset in ax.child_axes if inset.get_gid() == "row counts")
    assert [patch.get_height() for patch in foot.patches] == curve.counts.tolist()
    assert container.get_label() == "ours"
    reliability_diagram(truth, prob, bins=6, ax=ax, name="second")
    assert sum(line.get_gid() == "perfect calibration" for line in ax.lines) == 1


def test_the_diagram_leaves_other_insets_alone() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    truth, prob, _ = draw(100, 3)
    ax = Figure().add_subplot()
    own = ax.inset_axes((0.5, 0.5, 0.2, 0.2))
    for _ in range(2):
        reliability_diagram(truth, prob, ax=ax)
    assert own.axison
    assert len(own.patches) == 0
    assert len(ax.child_axes) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "marginal"}, "kind must be"),
        ({"norm": "l3"}, "norm must be"),
        ({"debiased": True}, "only the L2 error can be debiased"),
        ({"binning": "quantile"}, "binning must be"),
        ({"bins": [0.1, 1.0]}, "increasing edges from 0 to 1"),
        ({"bins": [0, 0.5, 1], "binning": "equal-mass"}, "by their number"),
        ({"binning": "smooth", "norm": "l2"}, "the smooth error is"),
        ({"kind": "full", "bins": 0}, "bins must be a positive integer"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    truth, prob, _ = draw(20, 3)
    with pytest.raises(ValueError, match=message):
        calibration_error(truth, prob, **options)


def test_refusals_of_the_others() -> None:
    truth, prob, _ = draw(20, 3)
    with pytest.raises(ValueError, match="does not split class by class"):
        score_decomposition(truth, prob, score="log")
    with pytest.raises(ValueError, match="squared_error must lie between 0 and"):
        calibration_test(truth, prob, squared_error=2.0)
    with pytest.raises(ValueError, match="level must lie between"):
        calibration_interval(truth, prob, level=1.5)
    with pytest.raises(ValueError, match="two rows or more"):
        calibration_test([0], [[0.9, 0.1]], labels=[0, 1])
