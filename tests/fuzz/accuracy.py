"""Problems with any combination of options, judged by the oracle; checks return the largest share used of a bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
from accuracy.judge import DTYPES, judge, largest_multiplier, scaled, slack_of
from hypothesis import strategies as st
from laws.tables import LOSSES, LossCase
from oracle import Options

import crossent as ce
from crossent.numpy.evaluator import make_map
from crossent.numpy.options import Options as NumpyOptions

FLOATS = st.one_of(
    st.floats(-8, 8, width=32),
    st.floats(-750, 750, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 1e-30, 88.75, -104.0, -np.inf]),
)
OFFSETS = st.sampled_from([0.0, 0.0, 1e4, -12345.678])
WEIGHTS = st.sampled_from([0.0, 1e-15, 0.5, 1.0, 3.0, 1e15])


@dataclass(frozen=True)
class Judged:
    """A call of `value_and_grad` and `value_grad_hess`, and what the oracle needs to judge it."""

    link: str
    logits: np.ndarray
    target: np.ndarray
    case: LossCase
    options: dict[str, Any]


@st.composite
def softmax_problems(draw: Any) -> Judged:
    num_classes, num_rows, dtype = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.sampled_from(DTYPES))
    row = st.lists(FLOATS, min_size=num_classes, max_size=num_classes).filter(lambda r: max(r) > -np.inf)
    z = (np.array([draw(row) for _ in range(num_rows)]) + draw(OFFSETS)).astype(dtype)
    case = draw(st.sampled_from(LOSSES))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["weight"] = np.array([draw(WEIGHTS) for _ in range(num_classes)])
    if draw(st.booleans()) and not case.hard_only:
        options["label_smoothing"] = draw(st.sampled_from([1e-20, 0.1, 0.5, 1.0]))
    target = np.array([draw(st.integers(0, num_classes - 1)) for _ in range(num_rows)])
    needs_unit_mass = any(name in ("focal", "poly1", "brier") for name, _, _ in case.terms)
    if draw(st.booleans()) and not case.hard_only:
        # Binary fractions: exact in both dtypes, and sums of exactly 1 where a loss asks for it.
        shares = np.array([draw(st.lists(st.integers(0, 8), min_size=num_classes, max_size=num_classes)) for _ in z])
        shares[:, 0] += 8 * num_classes - shares.sum(axis=1)
        target = (shares / (8 * num_classes)).astype(dtype)
        if num_classes & (num_classes - 1) and needs_unit_mass:
            target = np.eye(num_classes, dtype=dtype)[np.argmax(shares, axis=1)]
    return Judged("softmax", _without_masked_mass(z, target, options), target, case, options)


def _without_masked_mass(z: np.ndarray, target: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Mass on a masked class makes a loss infinite, and its gradient a convention: not for an oracle to judge."""
    if options.get("label_smoothing"):
        masked = np.isneginf(z)
    elif target.ndim == 1:
        masked = np.isneginf(z) & (np.arange(z.shape[1]) == target[:, None])
    else:
        masked = np.isneginf(z) & (target > 0)
    return np.where(masked, z.dtype.type(-100), z)


@st.composite
def sigmoid_problems(draw: Any) -> Judged:
    dtype = draw(st.sampled_from(DTYPES))
    z = np.array(draw(st.lists(FLOATS.filter(np.isfinite), min_size=1, max_size=6)), dtype)
    case = draw(st.sampled_from([case for case in LOSSES if case.looks_at_target]))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["pos_weight"] = draw(st.sampled_from([1e-15, 0.5, 3.0, 1e15]))
    if draw(st.booleans()) and not case.hard_only:
        options["label_smoothing"] = draw(st.sampled_from([1e-20, 0.1, 1.0]))
    target = np.array([draw(st.integers(0, 1)) for _ in z])
    if draw(st.booleans()) and not case.hard_only:
        target = np.array([draw(st.sampled_from([0.0, 0.25, 2.0**-20, 1.0])) for _ in z], dtype)
    return Judged("sigmoid", z, target, case, options)


@dataclass(frozen=True)
class Mapped:
    """A problem behind maps of its logits."""

    problem: Judged
    maps: dict[str, Any]


@st.composite
def mapped_problems(draw: Any) -> Mapped:
    problem = draw(softmax_problems())
    num_classes = problem.logits.shape[1]
    maps: dict[str, Any] = {}
    if draw(st.booleans()):
        maps["softcap"] = draw(st.sampled_from([5.0, 30.0, 1000.0]))
    if draw(st.booleans()):
        maps["temperature"] = draw(st.sampled_from([0.5, 0.7, 3.0]))
    if draw(st.booleans()):
        maps["prior"] = np.array([draw(st.sampled_from([0.5, 0.1, 1e-20])) for _ in range(num_classes)])
        maps["prior_strength"] = draw(st.sampled_from([1.0, -0.3]))
    if draw(st.booleans()) and problem.target.ndim == 1:
        maps["margin"] = np.array([draw(st.sampled_from([0.0, 0.35, -20.0])) for _ in range(num_classes)])
    return Mapped(problem, maps)


def check_mapped(mapped: Mapped) -> float:
    """The map's output within 4 ulps of what it adds up, the loss of that output within the bars, and its slope."""
    problem, maps = mapped.problem, mapped.maps
    z, target, dtype = problem.logits, problem.target, problem.logits.dtype.type
    hard = target.ndim == 1
    logit_map = make_map(NumpyOptions(**maps), z.shape[1])
    with np.errstate(all="ignore"):
        output = logit_map.forward(z.astype(np.float64), target if hard else None).astype(dtype)
    given = Options(problem.case.terms, **problem.options)
    rows = []
    for i, (before, after) in enumerate(zip(z, output, strict=True)):
        label = int(target[i]) if hard else None
        row = oracle.softmax_row(after, target[i] if label is None else label, given)
        with oracle.mp.workdps(400):  # the slope of a soft cap is 1 - tanh²
            slopes = _check_map(before, after, label, Options(**maps), dtype)
            row.gradient = [g * s for g, s in zip(row.gradient, slopes, strict=True)]
            row.gradient_scale = [g * s for g, s in zip(row.gradient_scale, slopes, strict=True)]
        rows.append(row)
    options = {"loss": problem.case.loss, "reduction": "none", **problem.options, **maps}
    steepest = 1 / min(1.0, maps.get("temperature", 1.0))
    weight = problem.options.get("weight", 1.0)
    slack = slack_of(z.shape[1], dtype, steepest * largest_multiplier(problem.case.terms, output, weight))
    return judge(ce.value_and_grad(z, target, **options), rows, problem.case.terms, dtype, slack)


def _check_map(before: np.ndarray, after: np.ndarray, label: int | None, options: Options, dtype: Any) -> list[Any]:
    """Judge a row of the map's output; return the map's slopes."""
    finite = [0.0 if np.isneginf(x) else x for x in before]
    exact = oracle.apply_maps([oracle.mpf(float(x)) for x in finite], label, options)
    slopes = []
    for k, (x, got, want) in enumerate(zip(before, after, exact, strict=True)):
        temperature = oracle.mpf(options.temperature or 1)
        slope = 1 / temperature
        if np.isneginf(x):
            capped = options.softcap is None
            assert np.isneginf(got), "a mask does not pass through"
            slopes.append(slope if capped else oracle.mpf(0))
            continue
        size = abs(oracle.mpf(float(x)))
        if options.softcap is not None:
            tanh = oracle.mp.tanh(oracle.mpf(float(x)) / oracle.mpf(options.softcap))
            size, slope = abs(options.softcap * tanh), slope * (1 - tanh**2)
        size = size / temperature
        if options.prior is not None:
            size += abs(oracle.mpf(options.prior_strength) * oracle.mp.log(oracle.mpf(float(options.prior[k]))))
        if options.margin is not None and k == label:
            size += abs(oracle.mpf(float(options.margin[k])))
        assert oracle.error_in_ulps(got, want, size, dtype) <= 4, f"the map of {x!r} is {got!r}, exactly {want}"
        slopes.append(slope)
    return slopes


def check_softmax(problem: Judged) -> float:
    given = Options(problem.case.terms, **problem.options)
    rows = [
        oracle.softmax_row(row, int(t) if problem.target.ndim == 1 else t, given)
        for row, t in zip(problem.logits, problem.target, strict=True)
    ]
    weight = problem.options.get("weight", 1.0)
    return _check(problem, problem.logits, rows, weight)


def check_sigmoid(problem: Judged) -> float:
    options = dict(problem.options)
    pos_weight = options.pop("pos_weight", None)
    given = Options(problem.case.terms, weight=None if pos_weight is None else [1.0, pos_weight], **options)
    rows = [oracle.sigmoid_row(z, t, given) for z, t in zip(problem.logits, problem.target.tolist(), strict=True)]
    return _check(problem, np.stack([np.zeros_like(problem.logits), problem.logits], axis=1), rows, pos_weight or 1.0)


def _check(problem: Judged, z: np.ndarray, rows: list[oracle.Row], weight: Any) -> float:
    terms, dtype = problem.case.terms, problem.logits.dtype.type
    with np.errstate(invalid="ignore"):
        slack = slack_of(z.shape[1], dtype, largest_multiplier(terms, np.where(np.isnan(z), 0, z), weight))
    options = {"loss": problem.case.loss, "link": problem.link, "reduction": "none", **problem.options}
    results = [f(problem.logits, problem.target, **options) for f in (ce.value_and_grad, ce.value_grad_hess)]
    return max(judge(result, rows, terms, dtype, slack) for result in results)


@dataclass(frozen=True)
class Reduced:
    """A softmax or sigmoid problem whose rows (or entries) have weights and a denominator."""

    problem: Judged
    sample_weight: np.ndarray
    entry_weight: np.ndarray | None
    alpha: float | None
    normalizer: Any


SAMPLE_WEIGHTS = st.sampled_from([0.0, 1e-15, 0.5, 1.0, 7.0, 1e15])


@st.composite
def reduced_problems(draw: Any) -> Reduced:
    """Sample weights, elementwise weights and alpha over thirty orders of magnitude, under any denominator."""
    problem = draw(st.one_of(softmax_problems(), sigmoid_problems()).filter(lambda p: p.case.looks_at_target))
    n = len(problem.logits)
    entry_weight = alpha = None
    if problem.link == "sigmoid":
        problem.options.pop("pos_weight", None)
        alpha = draw(st.sampled_from([None, 0.25, 1e-6]))
        entry_weight = np.array([draw(SAMPLE_WEIGHTS) for _ in range(n)])
    sample_weight = np.array([draw(SAMPLE_WEIGHTS) for _ in range(n)]) if problem.link == "softmax" else np.ones(n)
    return Reduced(problem, sample_weight, entry_weight, alpha, draw(st.sampled_from(["sum", "none", 1e-10, 1e10])))


def check_reduced(reduced: Reduced) -> float:
    """Every row's loss and gradient times its weight over the denominator."""
    problem = reduced.problem
    options = {"loss": problem.case.loss, "link": problem.link, **problem.options}
    factors = reduced.sample_weight
    if problem.link == "sigmoid":
        factors = reduced.entry_weight
        sides = None if reduced.alpha is None else [1 - reduced.alpha, reduced.alpha]
        given = Options(problem.case.terms, weight=sides, **problem.options)
        rows = [oracle.sigmoid_row(z, t, given) for z, t in zip(problem.logits, problem.target.tolist(), strict=True)]
        options |= {"weight": reduced.entry_weight, "alpha": reduced.alpha}
        z = np.stack([np.zeros_like(problem.logits), problem.logits], axis=1)
    else:
        given = Options(problem.case.terms, **problem.options)
        targets = problem.target.tolist() if problem.target.ndim == 1 else problem.target
        rows = [oracle.softmax_row(row, t, given) for row, t in zip(problem.logits, targets, strict=True)]
        options["sample_weight"] = reduced.sample_weight
        z = problem.logits
    if isinstance(reduced.normalizer, str):
        options["reduction"], denominator = reduced.normalizer, 1.0
    else:
        options["normalizer"], denominator = reduced.normalizer, reduced.normalizer
    values, grad = ce.value_and_grad(problem.logits, problem.target, **options)
    quotients = [oracle.mpf(float(f)) / oracle.mpf(denominator) for f in factors]
    pairs = zip(rows, quotients, strict=True)
    expected = [scaled(row, q) if q else oracle.nothing(len(row.gradient)) for row, q in pairs]
    multiplier = largest_multiplier(problem.case.terms, z, problem.options.get("weight", 1.0))
    slack = slack_of(z.shape[1], problem.logits.dtype.type, multiplier * max(1.0, float(max(quotients))))
    if reduced.normalizer != "none":  # the sum is judged elsewhere: here every gradient is
        values = [float(row.value) for row in expected]
    return judge((values, grad), expected, problem.case.terms, problem.logits.dtype.type, slack)


@st.composite
def distilled(draw: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """A student's and a teacher's logits, and a temperature."""
    dtype, n, k = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    numbers = st.one_of(st.floats(-8, 8, width=32), st.sampled_from([0.0, 30.0, -60.0]))
    z, teacher = (np.array([[draw(numbers) for _ in range(k)] for _ in range(n)]).astype(dtype) for _ in range(2))
    return z, teacher, draw(st.sampled_from([1.0, 2.0, 0.5, 10.0]))


def check_distilled(problem: tuple[np.ndarray, np.ndarray, float]) -> float:
    z, teacher, temperature = problem
    dtype = z.dtype.type
    rows = [oracle.distillation_row(row, t, temperature) for row, t in zip(z, teacher.tolist(), strict=True)]
    result = ce.value_and_grad(z, teacher, loss=ce.Distillation(temperature), reduction="none")
    slack = slack_of(z.shape[1], dtype, max(temperature, temperature**2))
    return judge(result, rows, oracle.CROSS_ENTROPY, dtype, slack)


ACCURACY: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], float]]] = {
    "accuracy of softmax losses": (softmax_problems(), check_softmax),
    "accuracy behind maps": (mapped_problems(), check_mapped),
    "accuracy of sigmoid losses": (sigmoid_problems(), check_sigmoid),
    "accuracy under weights and denominators": (reduced_problems(), check_reduced),
    "accuracy of distillation": (distilled(), check_distilled),
}
