"""The oracle is checked before anything is checked against it: published numbers, closed forms, and mpmath's own
numerical differentiation, which knows nothing of series."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
from mpmath import mp, mpf
from oracle import Options

ONE = {
    "cross_entropy": ("cross_entropy", 1.0, 0.0),
    "focal 2": ("focal", 1.0, 2.0),
    "focal 1/2": ("focal", 1.0, 0.5),
    "poly1": ("poly1", 1.0, -0.5),
    "gce": ("gce", 1.0, 0.7),
    "z_penalty": ("z_penalty", 1.0, 0.0),
    "entropy": ("entropy", 1.0, 0.0),
    "brier": ("brier", 1.0, 0.0),
}
HARD_ONLY = {"gce"}
EVERY_OPTION = {
    "weight": [0.5, 2.0, 1.5, 3.0],
    "softcap": 5.0,
    "temperature": 1.7,
    "prior": [0.1, 0.2, 0.3, 0.4],
    "prior_strength": 0.8,
}
Z = [0.3, -1.2, 2.5, 0.7]
SOFT = [0.125, 0.25, 0.5, 0.125]


def close(a, b, digits=40):
    return all(abs(x - y) <= mpf(10) ** -digits * max(abs(y), mpf(10) ** -60) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("kind", ["hard", "soft", "smoothed", "mapped", "margin"])
def test_derivatives_agree_with_numerical_differentiation(name, kind):
    if name in HARD_ONLY and kind in ("soft", "smoothed"):
        pytest.skip("defined for hard targets only")
    options = Options(
        terms=(ONE[name],),
        weight=EVERY_OPTION["weight"],
        label_smoothing=0.1 if kind == "smoothed" else 0.0,
        **({k: v for k, v in EVERY_OPTION.items() if k != "weight"} if kind == "mapped" else {}),
        margin=[0.1, 0.2, 0.3, 0.4] if kind == "margin" else None,
    )
    target = SOFT if kind == "soft" else 1
    row = oracle.softmax_row(Z, target, options)
    with mp.workdps(120):

        def along(k):
            def f(x):
                z = [x if j == k else mpf(v) for j, v in enumerate(Z)]
                return oracle.mapped_loss(oracle.apply_maps(z, target, options), target, options)

            return f

        first = [mp.diff(along(k), Z[k]) for k in range(4)]
        second = [mp.diff(along(k), Z[k], 2) for k in range(4)]
        assert close(row.gradient, first)
        assert close(row.hessian, second)
        shrink = 1 - mpf(10) ** -40
        assert row.value_scale >= abs(row.value) * shrink
        if kind != "mapped":  # magnitudes are taken with respect to the mapped logits
            assert all(s >= abs(g) * shrink for s, g in zip(row.gradient_scale, row.gradient, strict=True))
            assert all(s >= abs(h) * shrink for s, h in zip(row.hessian_scale, row.hessian, strict=True))


def test_textbook_formulas():
    """The definitions, in plain float64 where nothing cancels."""
    z = np.array(Z)
    p = np.exp(z) / np.exp(z).sum()
    w = np.array(EVERY_OPTION["weight"])
    y, k = 1, 4
    t = 0.9 * np.eye(4)[y] + 0.1 / k
    expected = {
        ("cross_entropy", 1.0, 0.0): -(w * t * np.log(p)).sum(),
        ("focal", 1.0, 2.0): ((1 - t) * p).sum() ** 2 * -(w * t * np.log(p)).sum(),
        ("poly1", 1.0, 2.0): -(w * t * np.log(p)).sum() + 2 * (w * t).sum() * ((1 - t) * p).sum(),
        ("z_penalty", 3.0, 0.0): 3 * np.log(np.exp(z).sum()) ** 2,
        ("entropy", 1.0, 0.0): -(p * np.log(p)).sum(),
        ("brier", 1.0, 0.0): (w * t).sum() * ((p - t) ** 2).sum(),
    }
    for term, value in expected.items():
        got = oracle.softmax_row(Z, y, Options(terms=(term,), weight=list(w), label_smoothing=0.1)).value
        assert float(got) == pytest.approx(value, rel=1e-14, abs=0)
    gce = oracle.softmax_row(Z, y, Options(terms=(("gce", 1.0, 0.7),), weight=list(w))).value
    assert float(gce) == pytest.approx(w[y] * (1 - p[y] ** 0.7) / 0.7, rel=1e-14, abs=0)
    pytorchs_rule = -(0.9 * w[y] * np.log(p[y]) + 0.1 / k * (w * np.log(p)).sum())
    assert expected["cross_entropy", 1.0, 0.0] == pytest.approx(pytorchs_rule, rel=1e-14, abs=0)


def test_maps_in_their_order():
    z = np.array(Z)
    mapped = 5 * np.tanh(z / 5) / 1.7 + 0.8 * np.log([0.1, 0.2, 0.3, 0.4])
    mapped[2] -= 0.25
    options = Options(margin=[9, 9, 0.25, 9], **{k: v for k, v in EVERY_OPTION.items() if k != "weight"})
    expected = np.log(np.exp(mapped).sum()) - mapped[2]
    assert float(oracle.softmax_row(Z, 2, options).value) == pytest.approx(expected, rel=1e-14, abs=0)


def test_confident_right_answers():
    row = oracle.softmax_row([20, 1, 2, 3], 0)
    assert float(row.value) == pytest.approx(6.22322e-8, rel=1e-6, abs=0)
    assert float(oracle.softmax_row([30, 0, -1], 0).value) == pytest.approx(
        math.exp(-30) + math.exp(-31), rel=1e-12, abs=0
    )
    assert row.gradient[0] == pytest.approx(-6.22322e-8, rel=1e-6, abs=0)


def test_margin_of_700():
    """Sixty right digits where float64 has none to spare: log(1 + e^-700 + e^-701) and its gradient."""
    row = oracle.softmax_row([700, 0, -1], 0)
    with mp.workdps(100):
        odds = mp.exp(-700) + mp.exp(-701)
        expected = odds - odds**2 / 2
        assert close([row.value], [expected], 55)
        assert close(row.gradient, [-odds + odds**2, mp.exp(-700) * (1 - odds), mp.exp(-701) * (1 - odds)], 55)
        assert close(row.hessian[:1], [odds], 55)
    wrong = oracle.softmax_row([700, 0, -1], 1)
    assert float(wrong.value) == pytest.approx(700, rel=1e-15, abs=0)
    assert float(wrong.gradient[1]) == -1


@pytest.mark.parametrize("name", ["cross_entropy", "focal 2", "focal 1/2", "poly1", "gce"])
@pytest.mark.parametrize("y", [0, 2])
def test_closed_form_for_many_classes_is_the_series(name, y):
    z = [300.0, -1.5, 2.25, 17.0, -400.0]
    options = Options(terms=(ONE[name], ("cross_entropy", 0.5, 0.0)), weight=[2.0, 1, 0.5, 1, 1])
    series, closed = oracle.softmax_row(z, y, options), oracle.tail_row(z, y, options)
    with mp.workdps(60):
        assert close([series.value], [closed.value])
        assert close(series.gradient, closed.gradient)
        assert close(series.hessian, closed.hessian)
        assert close([series.value_scale], [closed.value_scale])
        assert close(series.gradient_scale, closed.gradient_scale)
        assert close(series.hessian_scale, closed.hessian_scale)
        if name != "poly1":
            assert close([abs(g) for g in series.gradient], series.gradient_scale)


def test_sigmoid_is_the_two_class_softmax():
    options = Options(terms=(("focal", 1.0, 2.0),), weight=[1, 3.0])
    binary = oracle.sigmoid_row(1.25, 1, options)
    pair = oracle.softmax_row([0, 1.25], 1, options)
    assert close([binary.value, binary.gradient[0], binary.hessian[0]], [pair.value, pair.gradient[1], pair.hessian[1]])
    bce = oracle.sigmoid_row(1.25, 0.3, Options(weight=[1, 3.0]))
    sigma = 1 / (1 + math.exp(-1.25))
    assert float(bce.value) == pytest.approx(-3 * 0.3 * math.log(sigma) - 0.7 * math.log(1 - sigma), rel=1e-14, abs=0)
    assert float(bce.gradient[0]) == pytest.approx(0.7 * sigma - 0.9 * (1 - sigma), rel=1e-14, abs=0)


def test_masked_classes():
    row = oracle.softmax_row([1.0, -math.inf, 2.0], 0)
    pair = oracle.softmax_row([1.0, 2.0], 0)
    assert float(row.value) == float(pair.value)
    assert [float(g) for g in row.gradient] == [float(pair.gradient[0]), 0.0, float(pair.gradient[1])]
    masked = oracle.softmax_row([1.0, -math.inf, 2.0], 1, Options(terms=(("focal", 1.0, 0.5),)))
    assert masked.value == mpf("inf")
    sigma = 1 / (1 + math.e)
    assert [float(g) for g in masked.gradient] == pytest.approx([sigma, -1.0, 1 - sigma], rel=1e-12, abs=0)
    assert oracle.sigmoid_row(math.inf, 0).value == mpf("inf")
    assert float(oracle.sigmoid_row(4000.0, 0).value) == 4000.0
    with pytest.raises(ValueError, match="more digits"):
        oracle.sigmoid_row(1e5, 0)
    assert float(oracle.sigmoid_row(math.inf, 1).value) == 0.0


def test_hessian_vector_product_is_the_covariance():
    z, v = np.array(Z), np.array([1.0, -2.0, 0.5, 3.0])
    p = np.exp(z) / np.exp(z).sum()
    product = oracle.hessian_vector_product(Z, 1, v)
    np.testing.assert_allclose([float(x) for x in product], p * v - p * (p @ v), rtol=1e-13)


def test_distillation_and_information():
    teacher = [1.0, 0.5, -0.25, 2.0]
    T = 2.0
    t, p = (np.exp(np.array(x) / T) / np.exp(np.array(x) / T).sum() for x in (teacher, Z))
    row = oracle.distillation_row(Z, teacher, T)
    assert float(row.value) == pytest.approx(T**2 * (t * np.log(t / p)).sum(), rel=1e-13, abs=0)
    np.testing.assert_allclose([float(g) for g in row.gradient], T * (p - t), rtol=1e-12)
    closed = oracle.distilled_row(Z, teacher, T)
    pairs = [([x.value], x.gradient, x.hessian) for x in (row, closed)]
    for series, formula in zip(*pairs, strict=True):
        np.testing.assert_allclose([float(a / b) for a, b in zip(series, formula, strict=True)], 1.0, rtol=1e-15)
    row = oracle.distillation_row(Z, ([3, 0], [0.5, 0.25]), T)
    rest = 1 - p[3] - p[0]
    value = 0.5 * math.log(0.5 / p[3]) + 0.25 * math.log(0.25 / p[0]) + 0.25 * math.log(0.25 / rest)
    assert float(row.value) == pytest.approx(T**2 * value, rel=1e-13, abs=0)
    everything = oracle.distillation_row(Z, ([0, 1, 2, 3], [0.25, 0.25, 0.25, 0.25]), 1.0)
    divergence = oracle.divergence([0.25] * 4, np.exp(Z) / np.exp(Z).sum())
    assert float(everything.value) == pytest.approx(float(divergence), rel=1e-12, abs=0)
    assert float(oracle.entropy([0.5, 0.5, 0.0])) == pytest.approx(math.log(2), rel=1e-15, abs=0)
    assert oracle.divergence([0.5, 0.5], [1.0, 0.0]) == mpf("inf")
    assert float(oracle.js_divergence([1.0, 0.0], [0.0, 1.0])) == pytest.approx(math.log(2), rel=1e-15, abs=0)


def test_ulps():
    assert oracle.error_in_ulps(np.nextafter(1.0, 2), mpf(1), 1, np.float64) == 1
    assert oracle.error_in_ulps(np.float32(3.0), mpf(3) + mpf(2) ** -22, 3, np.float32) == 1
    assert oracle.error_in_ulps(0.0, mpf(1), 1, np.float32) == 2**23
    assert oracle.error_in_ulps(0.0, mpf(10) ** -310, mpf(10) ** -310, np.float64, slack=2.3e-308) == 0
    assert oracle.error_in_ulps(math.nan, mpf(1), 1, np.float64) == math.inf
    assert oracle.error_in_ulps(math.inf, mpf("inf"), 1, np.float64) == 0
    assert oracle.error_in_ulps(1e308, mpf("inf"), 1, np.float64) == math.inf


# Numbers that every implementation of these losses must give. They were computed in float64: some are 9 ulps off.
PUBLISHED = [
    ([[1, 2, 3], [2, 1, 3]], [2, 0], Options(), 0.9076059644443804),
    ([[100, 0, 0], [0, 100, 0]], [1, 0], Options(), 100.0),
    ([[3, 0, 0]], [0], Options(), 0.09492295642096085),
    ([[3, 0, 0]], [0], Options(terms=(("focal", 1.0, 2.0),)), 0.0007784223979416125),
    ([[0.5, 0.5, 0.5]], [0], Options(), 1.0986122886681098),
    ([[0.5, 0.5, 0.5]], [0], Options(terms=(("focal", 1.0, 2.0),)), 0.4882721282969378),
]
FOUR = [[3, 0.5, 0.1], [0.1, 3, 0.2], [0.5, 0.4, 0.3], [0.8, 1, 0.9]]
PUBLISHED += [
    (FOUR, [0, 1, 2, 0], Options(weight=[1, 1, 3]), 1.2614653117039862),
    (FOUR, [0, 1, 2, 0], Options(terms=(("focal", 1.0, 2.0),)), 0.2947256082663088),
    (FOUR, [0, 1, 2, 0], Options(label_smoothing=0.1), 0.7479938875893644),
]


@pytest.mark.parametrize(("logits", "labels", "options", "mean"), PUBLISHED)
def test_published_numbers(logits, labels, options, mean):
    values = [oracle.softmax_row(z, y, options).value for z, y in zip(logits, labels, strict=True)]
    assert float(sum(values) / len(values)) == pytest.approx(mean, rel=2e-15, abs=0)


def test_published_gradient():
    logits, labels = [[1, 2, 3], [2, 1, 3]], [2, 0]
    rows = [[float(g) / 2 for g in oracle.softmax_row(z, y).gradient] for z, y in zip(logits, labels, strict=True)]
    expected = [[0.045015, 0.122364, -0.167380], [-0.377636, 0.045015, 0.332620]]
    np.testing.assert_allclose(rows, expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.sum(rows, axis=1), 0, atol=1e-16)


def test_the_closed_form_of_smoothed_labels_is_the_series() -> None:
    rng = np.random.default_rng(4)
    for z in (rng.normal(size=7), np.array([700.0, 0.0, -3.0]), np.array([0.0])):
        given = Options(weight=rng.uniform(0.1, 3.0, len(z)), label_smoothing=0.1)
        series, closed = oracle.softmax_row(z, 0, given), oracle.smoothed_row(z, 0, given)
        for name in ("value", "gradient", "value_scale", "gradient_scale"):
            for a, b in zip(np.ravel(getattr(series, name)), np.ravel(getattr(closed, name)), strict=True):
                assert abs(a - b) <= mpf(10) ** -40 * max(abs(a), mpf(10) ** -320)


def test_a_number_beyond_the_range_is_infinite() -> None:
    assert oracle.error_in_ulps(-np.inf, mpf("-5e38"), mpf("5e38"), np.float32) == 0.0
    for got, exact in ((np.inf, "-5e38"), (-np.inf, "-3e38"), (np.nan, "5e38")):
        assert oracle.error_in_ulps(got, mpf(exact), abs(mpf(exact)), np.float32) == math.inf
    assert oracle.error_in_ulps(-np.inf, mpf("-5e38"), mpf("5e38"), np.float64) == math.inf
