"""Calibrators: optima against independent optimisers, what they promise, and what they refuse."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from crossent.calibration import linear
from crossent.calibration.one_vs_rest import log_odds
from crossent.kernels import calibration, registry
from crossent.metrics import calibration_error, log_loss
from crossent.sklearn import (
    BetaCalibration,
    BiasCorrectedTemperatureScaling,
    CalibratedClassifier,
    DirichletCalibration,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    SoftmaxRegression,
    TemperatureScaling,
    VectorScaling,
)

pytestmark = pytest.mark.usefixtures("twin")
ALL = [
    TemperatureScaling,
    BiasCorrectedTemperatureScaling,
    VectorScaling,
    MatrixScaling,
    DirichletCalibration,
    PlattScaling,
    BetaCalibration,
    IsotonicCalibration,
    HistogramBinning,
]


def sample(rows: int, classes: int, sharpness: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `sharpness` times too large, and shifted; labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(rows, classes)) * 1.5
    labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    return sharpness * truth + 0.3 * np.arange(classes) % 1, labels


def nll(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    return float(np.average(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels], weights=weights))


def compiled_and_reference(dtype: Any) -> tuple[Any, Any]:
    return registry.find(np.dtype(dtype)), calibration


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 2), (70, 3), (300, 10), (40, 64), (40, 65), (1500, 130)])
def test_sums_of_the_twins_agree(shape: tuple[int, int], dtype: Any) -> None:
    rng = np.random.default_rng(shape[1])
    rows, classes = shape
    z = (3 * rng.normal(size=shape)).astype(dtype)
    y = rng.integers(classes, size=rows)
    z[0, (y[0] + 1) % classes] = -np.inf
    w = rng.random(rows)
    a, b = (0.5 + rng.random(classes)).astype(dtype), rng.normal(size=classes).astype(dtype)
    fast, plain = compiled_and_reference(dtype)
    rtol = 1e-6 if dtype == np.float32 else 1e-12
    for beta in (0.01, 0.4, 1.7):
        found = fast.temperature_moments(z, y, w, beta)
        np.testing.assert_allclose(found, plain.temperature_moments(z, y, w, beta), rtol=10 * rtol, atol=rtol)
    found, expected = (m.affine_moments(z, y, w, a.astype(float), b.astype(float)) for m in (fast, plain))
    assert found[0] == pytest.approx(expected[0], rel=rtol)
    np.testing.assert_allclose(found[1], expected[1], rtol=10 * rtol, atol=10 * rtol * np.abs(expected[1]).max())
    z[0] = 0
    targets = (np.full(classes, 0.1), np.full(classes, 0.8))
    for events in (None, rng.random(shape) < 0.4):
        arguments = (z, y, events, targets, w, a.astype(float), b.astype(float))
        pair = [m.sigmoid_affine_moments(*arguments) for m in (fast, plain)]
        np.testing.assert_allclose(pair[0], pair[1], rtol=1e-11, atol=1e-11)


def test_derivatives_are_those_of_the_loss() -> None:
    z, y = sample(50, 4)
    fast, _ = compiled_and_reference(np.float64)
    h = 1e-5
    values = [fast.temperature_moments(z, y, None, 0.7 + d) for d in (-h, 0, h)]
    assert values[1][1] == pytest.approx((values[2][0] - values[0][0]) / (2 * h), rel=1e-7)
    assert values[1][2] == pytest.approx((values[2][1] - values[0][1]) / (2 * h), rel=1e-7)
    assert values[1][0] == pytest.approx(50 * nll(0.7 * z, y), rel=1e-12)
    a, b = np.linspace(0.5, 1.5, 4), np.linspace(-1, 1, 4)
    loss, sums = fast.affine_moments(z, y, None, a, b)
    assert loss == pytest.approx(50 * nll(a * z + b, y), rel=1e-12)
    for k in range(4):
        e = h * (np.arange(4) == k)
        up, down = fast.affine_moments(z, y, None, a, b + e), fast.affine_moments(z, y, None, a, b - e)
        assert sums[0, k] == pytest.approx((up[0] - down[0]) / (2 * h), rel=1e-6)
        assert sums[2, k] == pytest.approx((up[1][0, k] - down[1][0, k]) / (2 * h), rel=1e-6)
        assert sums[3, k] == pytest.approx((up[1][1, k] - down[1][1, k]) / (2 * h), rel=1e-6)
        up, down = fast.affine_moments(z, y, None, a + e, b), fast.affine_moments(z, y, None, a - e, b)
        assert sums[1, k] == pytest.approx((up[0] - down[0]) / (2 * h), rel=1e-6)
        assert sums[4, k] == pytest.approx((up[1][1, k] - down[1][1, k]) / (2 * h), rel=1e-6)


# -- temperature ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 7, 100])
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 8.0])
def test_temperature_is_the_best(classes: int, sharpness: float) -> None:
    z, y = sample(400, classes, sharpness)
    weights = np.random.default_rng(1).random(400)
    model = TemperatureScaling().fit(z, y, weights)
    options = {"xatol": 1e-9}
    best = minimize_scalar(lambda t: nll(z / np.exp(t), y, weights), bounds=(-5, 5), method="bounded", options=options)
    assert np.log(model.temperature_) == pytest.approx(best.x, abs=1e-5)
    assert model.predict_proba(z).argmax(axis=1).tolist() == z.argmax(axis=1).tolist()


def test_a_start_on_few_rows_ends_at_the_same_optimum() -> None:
    z, y = sample(60_000, 3)
    model = TemperatureScaling().fit(z, y)
    best = minimize_scalar(lambda t: nll(z / t, y), bounds=(0.5, 5), method="bounded", options={"xatol": 1e-9})
    assert model.temperature_ == pytest.approx(best.x, rel=1e-6)
    assert model.n_passes_ <= 4


@pytest.mark.parametrize("seed", range(40))
def test_temperature_cannot_hurt_its_own_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, classes = int(rng.integers(1, 40)), int(rng.integers(2, 6))
    z = rng.normal(size=(rows, classes)) * 10 ** rng.uniform(-3, 2)
    y = rng.integers(classes, size=rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = TemperatureScaling().fit(z, y)
    calibrated = z / model.temperature_ if np.isfinite(model.temperature_) else 0 * z
    assert nll(calibrated, y) <= nll(z, y) + 1e-15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["masked", "sigmoid"])
@pytest.mark.parametrize("seed", range(10))
def test_nor_with_masked_classes_nor_by_the_sigmoid_link(seed: int, kind: str, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    rows, classes = int(rng.integers(1, 30)), int(rng.integers(2, 6))
    z = (rng.normal(size=(rows, classes)) * 10 ** rng.uniform(-2, 1)).astype(dtype)
    y = rng.integers(classes, size=rows)
    if kind == "masked":
        z[rng.random(z.shape) < 0.4] = -np.inf
        z[np.arange(rows), y] = rng.normal(size=rows)

        def loss(p: np.ndarray) -> float:
            return float(np.mean(-np.log(p[np.arange(rows), y].astype(float))))

        plain = nll(z.astype(float), y)
    else:
        y = rng.integers(2, size=z.shape)

        def loss(p: np.ndarray) -> float:
            return float(np.mean(-np.log(np.where(y == 1, p, 1 - p.astype(float)))))

        plain = float(np.mean(np.logaddexp(0, z.astype(float) * (1 - 2 * y))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = TemperatureScaling(link="sigmoid" if kind == "sigmoid" else "softmax").fit(z, y)
    # Probabilities are returned in the logits' dtype: what its rounding can add to a loss.
    slack = 4 * np.finfo(dtype).eps * max(1.0, plain) + (1e-7 if dtype == np.float32 else 0)
    assert loss(model.predict_proba(z)) <= plain + slack


def test_masked_classes_stay_masked_at_an_infinite_temperature() -> None:
    z = np.concatenate([[[0.1, 0.0]], np.full((1, 98), -np.inf)], axis=1)
    with pytest.warns(ConvergenceWarning, match="worse than none"):
        model = TemperatureScaling().fit(z, [1])
    assert model.temperature_ == np.inf
    assert model.predict_proba(z)[0, :3].tolist() == [0.5, 0.5, 0.0]


def test_calibrated_logits_keep_their_temperature() -> None:
    z, y = sample(30_000, 5, sharpness=1.0)
    model = TemperatureScaling().fit(z, y)
    again = TemperatureScaling().fit(z / model.temperature_, y)
    assert again.temperature_ == pytest.approx(1, abs=1e-6)
    assert nll(z / model.temperature_ / again.temperature_, y) <= nll(z / model.temperature_, y)


def test_temperatures_without_an_optimum_warn() -> None:
    z = np.array([[3.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
    with pytest.warns(ConvergenceWarning, match="every row is classified right"):
        model = TemperatureScaling().fit(z, [0, 1])
    assert nll(z / model.temperature_, np.array([0, 1])) < 1e-12
    with pytest.warns(ConvergenceWarning, match="worse than none"):
        model = TemperatureScaling().fit(z, [2, 0])
    assert model.temperature_ == np.inf
    assert model.predict_proba(z).tolist() == np.full((2, 3), 1 / 3).tolist()


def test_masked_classes_stay_masked() -> None:
    z, y = sample(200, 4)
    z[np.arange(200), (y + 1) % 4] = -np.inf
    model = TemperatureScaling().fit(z, y)
    assert (model.predict_proba(z)[np.arange(200), (y + 1) % 4] == 0).all()
    best = minimize_scalar(lambda t: nll(z / t, y), bounds=(0.3, 9), method="bounded", options={"xatol": 1e-9})
    assert model.temperature_ == pytest.approx(best.x, rel=1e-5)


# -- the others' optima --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_affine_calibrators_reach_the_optimum(dense: bool, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr(linear, "DENSE", 0)
    z, y = sample(500, 6)
    weights = np.random.default_rng(2).random(500)
    model = (BiasCorrectedTemperatureScaling if tied else VectorScaling)(tol=1e-12).fit(z, y, weights)
    spread, intercept = (0, 0) if tied else (10 / weights.sum(), 1 / weights.sum())

    def objective(theta: np.ndarray) -> float:
        a, b = theta[:-6], theta[-6:]
        return nll((a[0] if tied else a) * z + b, y, weights) + spread * 6 * np.var(a) + intercept * b @ b

    start = np.concatenate([np.ones(1 if tied else 6), np.zeros(6)])
    best = minimize(objective, start, method="BFGS", options={"gtol": 1e-7})
    found = np.concatenate([model.scale_[:1] if tied else model.scale_, model.bias_])
    assert objective(found) == pytest.approx(best.fun, abs=1e-9)
    assert best.fun < objective(start) - 0.01
    assert model.bias_.sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(model.scale_, np.broadcast_to(best.x[:-6], 6), rtol=1e-3)


def test_vector_scaling_of_many_classes_takes_few_passes() -> None:
    z, y = sample(3000, 160)
    model = VectorScaling(spread=0, intercept=0).fit(z, y)
    tight = VectorScaling(spread=0, intercept=0, tol=1e-13).fit(z, y)
    assert nll(model.scale_ * z + model.bias_, y) <= nll(tight.scale_ * z + tight.bias_, y) + 1e-8
    assert model.n_passes_ < 40


def test_vector_scaling_of_a_thousand_classes_takes_at_most_20_passes() -> None:
    z, y = sample(2000, 1000)
    assert VectorScaling().fit(z, y).n_passes_ <= 20


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("dirichlet", [True, False])
def test_matrix_scaling_reaches_the_optimum(dense: bool, dirichlet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr(linear, "DENSE", 0)
    z, y = sample(300, 4)
    model = (DirichletCalibration if dirichlet else MatrixScaling)(off_diagonal=3.0, intercept=0.5, tol=1e-12).fit(z, y)
    x = log_softmax(z, axis=1) if dirichlet else z
    off = 1 - np.eye(4)

    def objective(theta: np.ndarray) -> float:
        w, b = theta[:16].reshape(4, 4), theta[16:]
        return 300 * nll(x @ w.T + b, y) + 3 * np.sum(off * w**2) + 0.5 * np.sum(b**2)

    best = minimize(objective, np.concatenate([np.eye(4).ravel(), np.zeros(4)]), method="BFGS", options={"gtol": 1e-5})
    found = objective(np.concatenate([model.coef_.ravel(), model.bias_]))
    assert found <= best.fun + 1e-7
    np.testing.assert_allclose(model.coef_, best.x[:16].reshape(4, 4), atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(z), np.exp(log_softmax(x @ model.coef_.T + model.bias_, axis=1)))


def test_log_odds_are_exact() -> None:
    z = np.array([[1.0, 2.0, 3.0], [800.0, 0.0, -5.0], [0.0, 0.0, -np.inf], [40.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.array([[row[k] - logsumexp(np.delete(row, k)) for k in range(3)] for row in z])
    np.testing.assert_allclose(log_odds(z), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("classes", [2, 4])
def test_platt_equals_logistic_regressions(classes: int) -> None:
    z, y = sample(800, classes)
    model = PlattScaling(score="log-odds", smooth_targets=False, tol=1e-13).fit(z, y)
    scores = log_odds(z)
    columns = [1] if classes == 2 else range(classes)
    p = []
    for found, k in enumerate(columns):
        logistic = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, [k]], y == k)
        assert model.scale_[found] == pytest.approx(logistic.coef_[0, 0], rel=1e-4)
        assert model.bias_[found] == pytest.approx(logistic.intercept_[0], rel=1e-4, abs=1e-5)
        p.append(expit(model.scale_[found] * scores[:, k] + model.bias_[found]))
    expected = np.stack([1 - p[0], p[0]], axis=1) if classes == 2 else np.stack(p, axis=1)
    np.testing.assert_allclose(model.predict_proba(z), expected / expected.sum(axis=1, keepdims=True), rtol=1e-12)


def test_platt_keeps_the_better_score() -> None:
    found = set()
    for sharpness in (0.3, 3.0):
        z, y = sample(2000, 5, sharpness)
        losses = {}
        for score in ("auto", "log-odds", "log-probability"):
            model = PlattScaling(score=score).fit(z, y)
            losses[score] = log_loss(y, model.predict_proba(z))
            assert score in ("auto", model.score_)
        assert losses["auto"] == min(losses.values())
        assert losses["log-odds"] != losses["log-probability"]
        found.add(PlattScaling().fit(z, y).score_)
    assert found <= {"log-odds", "log-probability"}


def test_platts_targets_keep_separated_classes_finite() -> None:
    model = PlattScaling().fit(np.array([-1.0, -2.0, 1.0, 2.0]), [0, 0, 1, 1])
    assert 0 < model.scale_[0] < 10
    assert model.predict_proba(np.array([50.0]))[0, 1] < 1 or model.scale_[0] > 0


@pytest.mark.parametrize("prior", [0.0, 0.1, 20.0])
def test_beta_is_the_constrained_optimum(prior: float) -> None:
    rng = np.random.default_rng(0)
    q = rng.beta(0.6, 0.6, 600)
    for power in (0.5, 2.0):
        y = (rng.random(600) < q**power / (q**power + (1 - q) ** 0.3)).astype(int)
        a, b, c = BetaCalibration(prior=prior, input="probabilities").fit(q, y).coef_[0]

        def objective(t: np.ndarray, y: np.ndarray = y) -> float:
            s = t[0] * np.log(q) - t[1] * np.log1p(-q) + t[2]
            return float(np.mean(np.logaddexp(0, s) - y * s)) + prior / 600 * float((t[0] - 1) ** 2 + (t[1] - 1) ** 2)

        best = minimize(objective, [1, 1, 0], bounds=[(0, None), (0, None), (None, None)], tol=1e-12)
        assert objective(np.array([a, b, c])) == pytest.approx(best.fun, abs=1e-8)
    a, b, c = BetaCalibration(prior=0, input="probabilities").fit(q, rng.random(600) > q).coef_[0]
    assert a == b == 0


def test_isotonic_is_scikit_learns() -> None:
    z, y = sample(300, 2)
    p = expit(z[:, 1] - z[:, 0])
    expected = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p, y).predict(p)
    np.testing.assert_allclose(IsotonicCalibration(smooth_ends=False).fit(z, y).predict_proba(z)[:, 1], expected)
    smooth = IsotonicCalibration().fit(z, y).predict_proba(z)[:, 1]
    np.testing.assert_allclose(smooth, np.clip(expected, 1 / 302, 301 / 302))


def test_histogram_equals_a_loop() -> None:
    z, y = sample(90, 3)
    model = HistogramBinning(bins=4, binning="equal-width", pseudo_rows=2.0).fit(z, y)
    p = expit(log_odds(z))
    expected = np.empty((90, 3))
    for k in range(3):
        for i in range(90):
            mates = [j for j in range(90) if np.ceil(4 * p[j, k]) == np.ceil(4 * p[i, k])]
            expected[i, k] = (sum(y[j] == k for j in mates) + 2 * np.mean(y == k)) / (len(mates) + 2)
    np.testing.assert_allclose(model.predict_proba(z), expected / expected.sum(axis=1, keepdims=True))


# -- what all of them promise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("calibrator", ALL)
@pytest.mark.parametrize("classes", [2, 5])
def test_every_calibrator_repairs_overconfidence(calibrator: Any, classes: int) -> None:
    z, y = sample(6000, classes, sharpness=3.0)
    model = calibrator().fit(z[:4000], y[:4000])
    before, after = np.exp(log_softmax(z[4000:], axis=1)), model.predict_proba(z[4000:])
    np.testing.assert_allclose(after.sum(axis=1), 1, rtol=1e-12)
    assert log_loss(y[4000:], after) < log_loss(y[4000:], before) - 0.1
    assert calibration_error(y[4000:], after) < 0.5 * calibration_error(y[4000:], before)


@pytest.mark.parametrize("calibrator", ALL)
def test_a_weight_of_two_is_a_row_twice(calibrator: Any) -> None:
    z, y = sample(150, 3)
    weight = 1 + np.arange(150) % 2
    again = np.repeat(np.arange(150), weight)
    weighted = calibrator().fit(z, y, weight).predict_proba(z)
    np.testing.assert_allclose(weighted, calibrator().fit(z[again], y[again]).predict_proba(z), atol=1e-5)
    assert np.abs(weighted - calibrator().fit(z, y).predict_proba(z)).max() > 1e-4


@pytest.mark.parametrize("calibrator", ALL)
def test_probabilities_are_refused_or_converted(calibrator: Any) -> None:
    z, y = sample(300, 3)
    p = np.exp(log_softmax(z, axis=1))
    with pytest.raises(ValueError, match="looks like probabilities"):
        calibrator().fit(p, y)
    model = calibrator(input="probabilities").fit(p, y)
    plain = calibrator().fit(np.log(p), y)
    np.testing.assert_allclose(model.predict_proba(p), plain.predict_proba(np.log(p)), rtol=1e-9)
    with pytest.raises(ValueError, match="looks like probabilities"):
        plain.predict_proba(p)


@pytest.mark.parametrize("calibrator", ALL)
def test_one_column_is_the_second_class(calibrator: Any) -> None:
    z, y = sample(200, 2)
    z -= z[:, :1]
    words = np.array(["no", "yes"])[y]
    model = calibrator().fit(z[:, 1], words)
    assert model.classes_.tolist() == ["no", "yes"]
    np.testing.assert_allclose(model.predict_proba(z[:, 1]), calibrator().fit(z, y).predict_proba(z), rtol=1e-6)
    assert set(model.predict(z[:, 1])) == {"no", "yes"}


@pytest.mark.parametrize("calibrator", [c for c in ALL if "link" in c().get_params()])
def test_label_sets_by_the_sigmoid_link(calibrator: Any) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3000, 4))
    sets = (rng.random((3000, 4)) < expit(truth)).astype(int)
    model = calibrator(link="sigmoid").fit(3 * truth, sets)
    p = model.predict_proba(3 * truth)
    assert p.shape == (3000, 4)
    assert np.mean(-np.log(np.where(sets == 1, p, 1 - p))) < np.mean(np.logaddexp(0, 3 * truth * (1 - 2 * sets))) - 0.1
    assert np.isin(model.predict(3 * truth), (0, 1)).all()
    if calibrator is TemperatureScaling:
        assert model.temperature_ == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("calibrator", ALL)
def test_bad_logits_name_their_row(calibrator: Any) -> None:
    z, y = sample(50, 3)
    for bad in (np.nan, np.inf):
        wrong = z.copy()
        wrong[31, 1] = bad
        with pytest.raises(ValueError, match="row 31"):
            calibrator().fit(wrong, y)
    with pytest.raises(ValueError, match="one label for each of the 50 rows"):
        calibrator().fit(z, y[:-1])
    with pytest.raises(ValueError, match="3 different labels"):
        calibrator().fit(z, np.where(y == 2, 9, y + 8))
    with pytest.raises(ValueError, match="two columns or more"):
        calibrator().fit(z[:, :1], y)
    with pytest.raises(ValueError, match="must have 3 columns"):
        calibrator().fit(z, y).predict_proba(z[:, :2])
    with pytest.raises(ValueError, match="sample_weight must hold 50"):
        calibrator().fit(z, y, -np.ones(50))


def test_class_indices_need_not_all_occur() -> None:
    z, y = sample(100, 6)
    kept = y != 3
    model = TemperatureScaling().fit(z[kept], y[kept])
    assert model.classes_.tolist() == [0, 1, 2, 3, 4, 5]


# -- cross-fitting -------------------------------------------------------------------------------------------------


class Memory(ClassifierMixin, BaseEstimator):
    """Knows the rows that it was trained on by heart, and says so at the top of its voice; guesses others badly."""

    def fit(self, X: Any, y: Any) -> Memory:
        self.classes_ = np.unique(y)
        self.known_ = {float(x): label for x, label in zip(X[:, 0], y, strict=True)}
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        assert not self.known_.keys() & set(X[:, 0].tolist()) or getattr(self, "may_repeat", False)
        rng = np.random.default_rng(0)
        return 5 * rng.normal(size=(len(X), len(self.classes_)))


def test_nobody_calibrates_on_rows_trained_on() -> None:
    X, y = np.arange(120.0)[:, None], np.arange(120) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        CalibratedClassifier(Memory(), cv=4).fit(X, y)  # Memory asserts
        with pytest.raises(AssertionError):
            CalibratedClassifier(Memory().fit(X, y), cv="prefit").fit(X, y)


def test_calibrated_classifier_beats_its_estimator() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 20))
    y = np.array(["ant", "bee", "cat"])[(2 * X[:, :3] + rng.gumbel(size=(900, 3))).argmax(axis=1)]
    X = np.concatenate([X, rng.normal(size=(900, 10))], axis=1)
    base = SoftmaxRegression(C=10.0).fit(X[:300], y[:300])
    plain = log_loss(y[300:], base.predict_proba(X[300:]))
    for method in ("temperature", "vector", "platt", TemperatureScaling()):
        model = CalibratedClassifier(SoftmaxRegression(C=10.0), method=method).fit(X[:300], y[:300])
        assert log_loss(y[300:], model.predict_proba(X[300:])) < plain - 0.01
        assert set(model.predict(X)) <= {"ant", "bee", "cat"}
        clone(model).fit(X[:300], y[:300], sample_weight=np.ones(300))
    prefit = CalibratedClassifier(base, cv="prefit").fit(X[300:600], y[300:600])
    assert log_loss(y[600:], prefit.predict_proba(X[600:])) < plain - 0.01


def test_refusals_of_the_classifier() -> None:
    X, y = np.zeros((6, 1)), np.arange(6) % 2
    with pytest.raises(ValueError, match="method must be a calibrator or one of"):
        CalibratedClassifier(Memory(), method="sigmoid").fit(X, y)
    with pytest.raises(ValueError, match="estimator must be a classifier"):
        CalibratedClassifier().fit(X, y)
    with pytest.raises(ValueError, match="'prefit'"):
        CalibratedClassifier(Memory(), cv="all").fit(X, y)
