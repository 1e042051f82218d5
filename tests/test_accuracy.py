"""Every value, every gradient component and every entry of the Hessian's diagonal against the oracle, in ulps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import adversarial
import numpy as np
import oracle
import pytest
from accuracy import divergences
from accuracy.judge import DTYPES, GRADIENT_BAR, VALUE_BAR, judge, largest_multiplier, scaled, slack_of
from accuracy.reductions import as_one
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.tables import LOSSES, LossCase
from oracle import Options, Row, mp, mpf

import crossent as ce

BOTH_DTYPES = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


@cache
def exact_rows(case: LossCase, kind: str, num_classes: int, dtype: Any) -> tuple[list[Row], np.ndarray, Any, dict]:
    """Oracle rows, logits, target and options of one kind of problem; both twins are judged by them."""
    z, y = adversarial.rows(num_classes, dtype)
    rng = np.random.default_rng(1)
    options: dict[str, Any] = {}
    target: Any = y
    if "weighted" in kind:
        options["weight"] = rng.uniform(0.1, 5.0, num_classes)
    if "smoothed" in kind:
        options["label_smoothing"] = 0.1
    if "soft" in kind:
        target = rng.dirichlet(np.full(num_classes, 0.5), len(z)).astype(dtype)
        target[rng.random(target.shape) < 0.2] = 0
        target = (target / target.sum(axis=1, keepdims=True)).astype(dtype)
    given_options = Options(terms=case.terms, **options)
    hard = kind in ("hard", "weighted") and all(name in HARD_TERMS for name, _, _ in case.terms)
    exact = oracle.tail_row if hard else oracle.softmax_row
    return [exact(row, t, given_options) for row, t in zip(z, list(target), strict=True)], z, target, options


HARD_TERMS = {"cross_entropy", "focal", "poly1", "gce"}
KINDS = ["hard", "weighted", "smoothed", "soft", "weighted-soft", "weighted-smoothed"]


@BOTH_DTYPES
@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_softmax(twin: str, case: LossCase, dtype: Any) -> None:
    for kind in KINDS if case in SEVERAL_KINDS else KINDS[: 1 if case.hard_only else 3]:
        rows, z, target, options = exact_rows(case, kind, 5, dtype)
        results = ce.value_grad_hess(z, target, loss=case.loss, reduction="none", **options)
        slack = slack_of(5, dtype, largest_multiplier(case.terms, z, options.get("weight", 1.0)))
        fast = ce.value_and_grad(z, target, loss=case.loss, reduction="none", **options)
        try:
            judge(fast, rows, case.terms, dtype, slack)
            judge(results, rows, case.terms, dtype, slack)
        except AssertionError as error:
            error.add_note(f"target: {kind}")
            raise
        assert fast[1].dtype == results[2].dtype == dtype


BY_LOSS = {str(case): case for case in LOSSES}
SEVERAL_KINDS = [BY_LOSS["CrossEntropy()"], BY_LOSS["Focal(gamma=2.0)"]]
"""The losses that are tried with every kind of target; the others with hard, weighted and smoothed ones."""


@pytest.mark.parametrize("filler", [0, 70], ids=["few classes", "many classes"])
def test_the_square_in_the_brier_score_costs_no_bar(twin: str, filler: int) -> None:
    """Rows on which errors of p, doubled by the square, made 4.4 (compiled) and 6.3 ulps of the value."""
    z = np.array(
        [
            [-1.0079891075967484, 3.7931180604354524, 20.793118060435454, -8.946102092281235, -1.8659668227691766],
            [6.237138594508824, -0.280177036569621, -2.249614284962401, -0.8995759863106392, 0.03820193732008573],
            [0.027475083647785375, 1.8080794408082663, -0.5179658834229424, 14.277138709479642, 2.2771387094796416],
            [-1.0, -10.0, -29.0, -17.0, -10.0],
        ]
    )
    z = np.concatenate([z, np.full((4, filler), -np.inf)], axis=1)
    y, terms = [2, 0, 2, 0], (("brier", 1.0, 0.0),)
    rows = [oracle.softmax_row(row, label, Options(terms)) for row, label in zip(z, y, strict=True)]
    results = ce.value_and_grad(z, y, loss=ce.Brier(), reduction="none")
    judge(results, rows, terms, np.float64, slack_of(z.shape[1], np.float64))


def test_the_square_in_the_binary_brier_score_costs_no_bar(twin: str) -> None:
    """Entries on which the value was 5.4 ulps off (compiled) and 4.6."""
    z, y, terms = np.array([-3.813459, 3.449935, -3.803701, 2.364117]), np.array([0, 1, 0, 1]), (("brier", 1.0, 0.0),)
    rows = [oracle.sigmoid_row(x, int(t), Options(terms)) for x, t in zip(z, y, strict=True)]
    results = ce.value_and_grad(z, y, link="sigmoid", loss=ce.Brier(), reduction="none")
    judge(results, rows, terms, np.float64, slack_of(2, np.float64))


@BOTH_DTYPES
@pytest.mark.parametrize("num_classes", [1, 2, 3, 10, 16, 17, 33, 65, 257, 1000, 4099])
def test_number_of_classes(twin: str, num_classes: int, dtype: Any) -> None:
    """Kernels change their loops with K; here each of them meets the same rows."""
    for case in (BY_LOSS["CrossEntropy()"], BY_LOSS["Focal(gamma=2.0)"])[: 2 if num_classes < 100 else 1]:
        z, y = adversarial.rows(num_classes, dtype, repeats=1)
        if num_classes >= 1000:
            z, y = z[::4], y[::4]
        rows = [oracle.tail_row(row, label, Options(terms=case.terms)) for row, label in zip(z, y, strict=True)]
        results = ce.value_and_grad(z, y, loss=case.loss, reduction="none")
        judge(results, rows, case.terms, dtype, slack_of(num_classes, dtype, largest_multiplier(case.terms, z)))


@BOTH_DTYPES
@pytest.mark.parametrize("case", [case for case in LOSSES if case.looks_at_target or case.z_penalty], ids=str)
@pytest.mark.parametrize("pos_weight", [None, 3.5], ids=["", "pos_weight"])
def test_sigmoid(twin: str, case: LossCase, dtype: Any, pos_weight: float | None) -> None:
    z = adversarial.entries(dtype)
    soft = np.random.default_rng(2).random(z.size).astype(dtype)
    targets = [np.zeros(z.size, dtype=int), np.ones(z.size, dtype=int)]
    for target in targets if case.hard_only else [*targets, soft]:
        options = Options(terms=case.terms, weight=None if pos_weight is None else [1.0, pos_weight])
        rows = [oracle.sigmoid_row(x, t, options) for x, t in zip(z, target.tolist(), strict=True)]
        settings = {"loss": case.loss, "link": "sigmoid", "reduction": "none", "pos_weight": pos_weight}
        slack = slack_of(2, dtype, largest_multiplier(case.terms, np.stack([0 * z, z], axis=1), pos_weight or 1.0))
        judge(ce.value_and_grad(z, target, **settings), rows, case.terms, dtype, slack)
        judge(ce.value_grad_hess(z, target, **settings), rows, case.terms, dtype, slack)


@BOTH_DTYPES
def test_maps_are_judged_on_their_rounded_output(twin: str, dtype: Any) -> None:
    """The mapped logits rounded to the dtype are taken as exact; what follows keeps the bars."""
    case = BY_LOSS["CrossEntropy()"]
    z, y = adversarial.rows(4, dtype)
    wide = z.astype(np.float64)
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    one_hot = np.eye(4)[y]
    maps: list[tuple[dict[str, Any], np.ndarray, float]] = [
        ({"temperature": 0.7}, wide / 0.7, 1 / 0.7),
        ({"prior": prior}, wide + np.log(prior), 1.0),
        ({"margin": 0.3}, wide - 0.3 * one_hot, 1.0),
    ]
    for options, mapped, slope in maps:
        rows = [oracle.tail_row(row, label) for row, label in zip(mapped.astype(dtype), y, strict=True)]
        value, grad = ce.value_and_grad(z, y, reduction="none", **options)
        # the slope 1/T is one more rounding: its half ulp, and that of the product, are the map's
        judge((value, grad.astype(np.float64) / slope), rows, case.terms, dtype, slack_of(4, dtype, 2.0))


def test_distillation(twin: str) -> None:
    found = divergences.distillation(4) | divergences.many_classes([300]) | divergences.top_k(6)
    assert [text for errors in found.values() for text in errors.broken()] == []


@BOTH_DTYPES
def test_distillation_reduced(twin: str, dtype: Any) -> None:
    """Weighted, over a number, near equality: value and gradient of the sum of the rows."""
    rng = np.random.default_rng(4)
    v = rng.normal(scale=2.0, size=(6, 5)).astype(dtype)
    z = (v * (1 + 1e-3 * rng.normal(size=v.shape))).astype(dtype)
    weight = np.array([0.0, 1.0, 2.5, 0.125, 1e-3, 3.0])
    rows = [oracle.distilled_row(a, b, 20.0) for a, b in zip(z, v, strict=True)]
    one = as_one([scaled(row, mpf(w) / 7) for row, w in zip(rows, weight, strict=True)])
    options = {"loss": ce.Distillation(20.0), "sample_weight": weight}
    value, grad = ce.value_and_grad(z, v, normalizer=7.0, **options)
    judge(([value], grad.reshape(1, -1)), [one], oracle.CROSS_ENTROPY, dtype, slack_of(5, dtype))
    product = ce.hessian_vector_product(z, v, z, reduction="sum", **options)
    p = ce.softmax(z.astype(np.float64) / 20)
    expected = weight[:, None] * p * (z - (p * z).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(product, expected, rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-16)


def focal_of_distribution(z: np.ndarray, t: np.ndarray, gamma: float) -> Row:
    """``miss^γ nll`` and its gradient in closed form, with terms and magnitudes, for logits however far apart."""
    with mp.workdps(100):
        exact, target = ([mpf(float(x)) for x in values] for values in (z, t))
        top = max(exact)
        weights = [mp.exp(max(x - top, mpf(-10000))) for x in exact]
        everything = sum(weights)
        p = [x / everything for x in weights]
        nll = sum(a * ((top - x) + mp.log(everything)) for a, x in zip(target, exact, strict=True))
        miss = sum((1 - a) * b for a, b in zip(target, p, strict=True))
        hit, mass = sum(a * b for a, b in zip(target, p, strict=True)), sum(target)
        slope = gamma * miss ** (gamma - 1) * nll

        def gradient(sign: int) -> list[Any]:
            return [
                miss**gamma * (mass * a + sign * b) + slope * a * (hit + sign * b)
                for a, b in zip(p, target, strict=True)
            ]

        return Row(miss**gamma * nll, gradient(-1), [], miss**gamma * nll, gradient(1))


@BOTH_DTYPES
def test_focal_of_soft_targets_for_logits_of_any_size(twin: str, dtype: Any) -> None:
    for seed in range(40):
        rng = np.random.default_rng([seed, 31])
        gamma, k = (0.5, 1.0, 2.0, 5.0)[seed % 4], (2, 3, 5, 20)[seed // 4 % 4]
        z = rng.normal(size=(4, k))
        z[:, 0] = 10.0 ** rng.uniform(20, 36 if dtype == np.float32 else 300, 4) * rng.choice([-1, 1], 4)
        z[2:, 1] = z[2:, 0]
        t = rng.dirichlet(np.full(k, 1.0), 4).astype(dtype)
        rows = [focal_of_distribution(a, b, gamma) for a, b in zip(z.astype(dtype), t, strict=True)]
        terms = (("focal", 1.0, gamma),)
        for function in (ce.value_and_grad, ce.value_grad_hess):
            results = function(z.astype(dtype), t, loss=ce.Focal(gamma), reduction="none")
            assert all(np.isfinite(part).all() for part in results)
            judge(results[:2], rows, terms, dtype, slack_of(k, dtype))


def check_elementwise(got: np.ndarray, exact: list[list[Any]], scale: list[list[Any]], dtype: Any, bar: float) -> None:
    assert got.dtype == dtype
    for i, row in enumerate(np.atleast_2d(got.T).T):
        for k, x in enumerate(row):
            slack = slack_of(len(row), dtype)
            error = oracle.error_in_ulps(x, exact[i][k], scale[i][k], dtype, slack)
            assert error <= bar, f"row {i}, entry {k}: {error} ulps; got {x!r}, exact {float(exact[i][k])!r}"


@BOTH_DTYPES
def test_softmax_and_its_logarithm(twin: str, dtype: Any) -> None:
    z, _ = adversarial.rows(4, dtype)
    surprisal = [[oracle.tail_row(row, k).value for k in range(4)] for row in z]
    with oracle.mp.workdps(400):
        probability = [[oracle.mp.exp(-x) for x in row] for row in surprisal]
        lse = [[min(s) + oracle.mpf(float(max(row)))] for s, row in zip(surprisal, z, strict=True)]
        lse_scale = [[min(s) + abs(oracle.mpf(float(max(row))))] for s, row in zip(surprisal, z, strict=True)]
    check_elementwise(ce.softmax(z), probability, probability, dtype, GRADIENT_BAR[dtype])
    check_elementwise(-ce.log_softmax(z), surprisal, surprisal, dtype, VALUE_BAR[dtype])
    check_elementwise(ce.logsumexp(z), lse, lse_scale, dtype, VALUE_BAR[dtype])


@BOTH_DTYPES
def test_sigmoid_and_its_logarithms(twin: str, dtype: Any) -> None:
    z = adversarial.entries(dtype)
    softplus = [[oracle.sigmoid_row(x, 0).value] for x in z]
    minus_log = [[oracle.sigmoid_row(x, 1).value] for x in z]
    with oracle.mp.workdps(400):
        probability = [[oracle.mp.exp(-x[0])] for x in minus_log]
    check_elementwise(ce.sigmoid(z), probability, probability, dtype, GRADIENT_BAR[dtype])
    check_elementwise(ce.softplus(z), softplus, softplus, dtype, VALUE_BAR[dtype])
    check_elementwise(-ce.log_sigmoid(z), minus_log, minus_log, dtype, VALUE_BAR[dtype])


def test_logits_as_far_apart_as_floats_go(twin: str) -> None:
    """Beyond the oracle's reach, but not beyond arithmetic: the loss is the difference of two logits."""
    for dtype in DTYPES:
        big = np.finfo(dtype).max
        z = np.array([[big, 0, -1], [0, big / 4, -big / 4], [big, big, 0]], dtype=dtype)
        value, grad = ce.value_and_grad(z, [1, 2, 0], reduction="none")
        np.testing.assert_array_equal(value, np.array([big, big / 2, np.log(2)], dtype=dtype))
        np.testing.assert_array_equal(grad, np.array([[1, -1, 0], [0, 1, -1], [-0.5, 0.5, 0]], dtype=dtype))


floats = st.one_of(
    st.floats(-8, 8, width=32),
    st.floats(-750, 750, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 1e-30, 88.75, -104.0]),
)
offsets = st.sampled_from([0.0, 0.0, 1e4, -12345.678])


@st.composite
def softmax_problems(draw: Callable) -> tuple[np.ndarray, np.ndarray, LossCase, dict[str, Any], Any]:
    num_classes, num_rows = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(DTYPES))
    row = st.lists(floats, min_size=num_classes, max_size=num_classes)
    z = (np.array([draw(row) for _ in range(num_rows)]) + draw(offsets)).astype(dtype)
    y = np.array([draw(st.integers(0, num_classes - 1)) for _ in range(num_rows)])
    case = draw(st.sampled_from(LOSSES))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["weight"] = np.array([draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])) for _ in range(num_classes)])
    if draw(st.booleans()) and not case.hard_only:
        options["label_smoothing"] = draw(st.sampled_from([0.1, 0.5, 1.0]))
    return z, y, case, options, dtype


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=softmax_problems())
def test_any_shape_and_values(problem: tuple) -> None:
    z, y, case, options, dtype = problem
    rows = [
        oracle.softmax_row(row, int(label), Options(case.terms, **options)) for row, label in zip(z, y, strict=True)
    ]
    results = ce.value_grad_hess(z, y, loss=case.loss, reduction="none", **options)
    slack = slack_of(z.shape[1], dtype, largest_multiplier(case.terms, z, options.get("weight", 1.0)))
    judge(results, rows, case.terms, dtype, slack)
    judge(ce.value_and_grad(z, y, loss=case.loss, reduction="none", **options), rows, case.terms, dtype, slack)


@BOTH_DTYPES
def test_no_worse_than_plain_code(twin: str, dtype: Any) -> None:
    """The worst error over all rows is at most that of the log-sum-exp trick in the same dtype."""
    z, y = adversarial.rows(5, dtype)
    rows = [oracle.tail_row(row, label) for row, label in zip(z, y, strict=True)]
    shifted = z - z.max(axis=1, keepdims=True)
    exponential = np.exp(shifted)
    total = exponential.sum(axis=1)
    at_target = np.arange(len(y)), y
    plain_value = np.log(total) - shifted[at_target]
    plain_grad = exponential / total[:, None]
    plain_grad[at_target] -= 1

    def worst(value: np.ndarray, grad: np.ndarray) -> tuple[float, float]:
        slack = slack_of(5, dtype)
        of_values = [oracle.error_in_ulps(v, r.value, r.value, dtype, slack) for v, r in zip(value, rows, strict=True)]
        of_grads = [
            oracle.error_in_ulps(g, e, e, dtype, slack)
            for row, r in zip(grad, rows, strict=True)
            for g, e in zip(row, r.gradient, strict=True)
        ]
        return max(of_values), max(of_grads)

    plain = worst(plain_value, plain_grad)
    ours = worst(*ce.value_and_grad(z, y, reduction="none"))
    assert ours[0] <= plain[0]
    assert ours[1] <= plain[1]
    assert plain[0] > 1e5 * ours[0]  # these rows are where plain code goes wrong


@pytest.mark.parametrize(("what", "amount"), [("value", 9), ("gradient", 17), ("diagonal", 33)])
def test_the_judge_has_teeth(what: str, amount: int) -> None:
    """An error of a few ulps in one entry of one row fails."""
    case = BY_LOSS["CrossEntropy()"]
    rows, z, target, _ = exact_rows(case, "hard", 5, np.float64)
    results = [np.array(x) for x in ce.value_grad_hess(z, target, reduction="none")]
    judge(tuple(results), rows, case.terms, np.float64, slack_of(5, np.float64))
    broken = results[["value", "gradient", "diagonal"].index(what)].reshape(len(z), -1)
    broken[3, -1] += 2 * amount * np.spacing(broken[3, -1])
    with pytest.raises(AssertionError, match=f"{what} of row 3"):
        judge(tuple(results), rows, case.terms, np.float64, slack_of(5, np.float64))
