"""The sigmoid link behind maps of its logits and the linear head, drawn and judged by the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
from accuracy.judge import DTYPES, judge, largest_multiplier, slack_of
from accuracy.linear import blocks_of, exact_row
from hypothesis import strategies as st
from laws.tables import LossCase
from oracle import Options, Term

import crossent as ce
from crossent.numpy.evaluator import make_map
from crossent.numpy.options import Options as NumpyOptions
from fuzz.accuracy import Judged, Mapped, sigmoid_problems

MAP_BAR = 4
"""A map's output, in ulps of what it adds up."""


@st.composite
def mapped_sigmoid_problems(draw: Any) -> Mapped:
    maps: dict[str, Any] = {}
    if draw(st.booleans()):
        maps["softcap"] = draw(st.sampled_from([5.0, 30.0, 1000.0]))
    if draw(st.booleans()):
        maps["temperature"] = draw(st.sampled_from([0.5, 0.7, 3.0]))
    if draw(st.booleans()):
        maps["prior"] = np.array([draw(st.sampled_from([0.5, 0.01, 1e-20, 0.999]))])
        maps["prior_strength"] = draw(st.sampled_from([1.0, -0.3]))
    return Mapped(draw(sigmoid_problems()), maps)


def _exact_map(logit: Any, maps: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The mapped logit, the magnitudes that it adds up, and the slope."""
    mapped, slope = oracle.mpf(float(logit)), oracle.mpf(1)
    if "softcap" in maps:
        cap = oracle.mpf(maps["softcap"])
        slope = oracle.mp.sech(mapped / cap) ** 2
        mapped = cap * oracle.mp.tanh(mapped / cap)
    temperature = oracle.mpf(maps.get("temperature", 1.0))
    mapped, slope = mapped / temperature, slope / temperature
    size = abs(mapped)
    if "prior" in maps:
        rate, strength = oracle.mpf(float(maps["prior"][0])), oracle.mpf(maps["prior_strength"])
        logs = oracle.mp.log(rate), oracle.mp.log(1 - rate)
        mapped = mapped + strength * (logs[0] - logs[1])
        size += abs(strength) * (abs(logs[0]) + abs(logs[1]))
    return mapped, size, slope


def check_mapped_sigmoid(drawn: Mapped) -> float:
    """The map's output within its bar; the loss of that output, and the gradient times the map's exact slope."""
    problem, maps = drawn.problem, drawn.maps
    z, dtype = problem.logits, problem.logits.dtype.type
    with np.errstate(all="ignore"):
        forward = make_map(NumpyOptions(link="sigmoid", **maps), 1).forward
        output = forward(z[:, None].astype(np.float64), None)[:, 0].astype(dtype)
    options = dict(problem.options)
    pos_weight = options.pop("pos_weight", 1.0)
    given = Options(problem.case.terms, weight=[1.0, pos_weight], **options)
    rows, share = [], 0.0
    for before, after, t in zip(z, output, problem.target.tolist(), strict=True):
        row = oracle.sigmoid_row(after, t, given)
        with oracle.mp.workdps(400):
            mapped, size, slope = _exact_map(before, maps)
            off = oracle.error_in_ulps(after, mapped, size, dtype)
            assert off <= MAP_BAR, f"the map of {before!r} is {after!r}, exactly {float(mapped)}"
            row.gradient = [g * slope for g in row.gradient]
            row.gradient_scale = [g * slope for g in row.gradient_scale]
        rows.append(row)
        share = max(share, off / MAP_BAR)
    multiplier = largest_multiplier(problem.case.terms, np.stack([0 * output, output], axis=1), pos_weight)
    slack = slack_of(2, dtype, multiplier / min(1.0, maps.get("temperature", 1.0)))
    keywords = {"loss": problem.case.loss, "link": "sigmoid", "reduction": "none", "pos_weight": pos_weight}
    result = ce.value_and_grad(z[:, None], problem.target[:, None], **keywords, **options, **maps)
    return max(share, judge(result, rows, problem.case.terms, dtype, slack))


@dataclass(frozen=True)
class Linear:
    """A linear head's arguments (the logits of `problem` are its bias), and the rows in a block."""

    problem: Judged
    input: np.ndarray
    weight: np.ndarray
    rows_in_block: int | None


HEADS: list[tuple[ce.Loss, tuple[Term, ...]]] = [
    (ce.CrossEntropy(), oracle.CROSS_ENTROPY),
    (ce.Focal(2.0), (("focal", 1.0, 2.0),)),
]


@st.composite
def linear_problems(draw: Any) -> Linear:
    n, d, k, dtype = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
        draw(st.integers(2, 5)),
        draw(st.sampled_from(DTYPES)),
    )
    numbers = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 1.0, -30.0, 1e-10]))
    x, w = (np.array([[draw(numbers) for _ in range(d)] for _ in range(m)], dtype) for m in (n, k))
    loss, terms = draw(st.sampled_from(HEADS))
    link = draw(st.sampled_from(["softmax", "softmax", "sigmoid"]))
    offset = draw(st.sampled_from([0.0, 0.0, 1e4 if link == "softmax" else -50.0]))
    bias = np.array([draw(numbers) for _ in range(k)]) + offset
    options: dict[str, Any] = {}
    if link == "softmax" and draw(st.booleans()):
        options["weight"] = np.array([draw(st.sampled_from([1e-15, 0.5, 1.0, 1e15])) for _ in range(k)])
    if link == "softmax" and terms == oracle.CROSS_ENTROPY and draw(st.booleans()):
        options["label_smoothing"] = draw(st.sampled_from([1e-20, 0.1, 1.0]))
    shape = (n, k) if link == "sigmoid" else (n,)
    y = np.array([draw(st.integers(0, 1 if link == "sigmoid" else k - 1)) for _ in range(int(np.prod(shape)))])
    problem = Judged(link, bias.astype(dtype), y.reshape(shape), LossCase(loss, terms), options)
    return Linear(problem, x, w, draw(st.sampled_from([None, 1, 2])))


def check_linear(drawn: Linear) -> float:
    """Value and gradients of the sum, in ulps of what rounding the dot products does to them."""
    problem, x, w = drawn.problem, drawn.input, drawn.weight
    terms, dtype, num_classes = problem.case.terms, x.dtype.type, len(w)
    options = {"loss": problem.case.loss, "link": problem.link, "reduction": "sum", **problem.options}
    with blocks_of(drawn.rows_in_block, x.shape[1], num_classes, x.itemsize):
        result = ce.linear_value_and_grad(x, w, problem.target, linear_bias=problem.logits, **options)
    row = exact_row(x, w, problem.logits, problem.target, Options(terms, **problem.options))
    got = np.concatenate([np.ravel(g) for g in result.grad])[None]
    multiplier = largest_multiplier(terms, x @ w.T + problem.logits, problem.options.get("weight", 1.0)).max()
    largest = len(x) * max(1.0, float(np.abs(x).max()), float(np.abs(w).max()))
    return judge(([result.value], got), [row], terms, dtype, slack_of(num_classes, dtype, multiplier * largest))


HEADS_ACCURACY: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], float]]] = {
    "accuracy of sigmoid losses behind maps": (mapped_sigmoid_problems(), check_mapped_sigmoid),
    "accuracy of linear heads": (linear_problems(), check_linear),
}
