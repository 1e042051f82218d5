"""Problems with any combination of options, judged by the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
from accuracy.judge import DTYPES, judge, largest_multiplier, slack_of
from hypothesis import strategies as st
from laws.tables import LOSSES, LossCase
from oracle import Options

import crossent as ce

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


def check_softmax(problem: Judged) -> str:
    given = Options(problem.case.terms, **problem.options)
    rows = [
        oracle.softmax_row(row, int(t) if problem.target.ndim == 1 else t, given)
        for row, t in zip(problem.logits, problem.target, strict=True)
    ]
    weight = problem.options.get("weight", 1.0)
    return _check(problem, problem.logits, rows, weight)


def check_sigmoid(problem: Judged) -> str:
    options = dict(problem.options)
    pos_weight = options.pop("pos_weight", None)
    given = Options(problem.case.terms, weight=None if pos_weight is None else [1.0, pos_weight], **options)
    rows = [oracle.sigmoid_row(z, t, given) for z, t in zip(problem.logits, problem.target.tolist(), strict=True)]
    return _check(problem, np.stack([np.zeros_like(problem.logits), problem.logits], axis=1), rows, pos_weight or 1.0)


def _check(problem: Judged, z: np.ndarray, rows: list[oracle.Row], weight: Any) -> str:
    terms, dtype = problem.case.terms, problem.logits.dtype.type
    with np.errstate(invalid="ignore"):
        slack = slack_of(z.shape[1], dtype, largest_multiplier(terms, np.where(np.isnan(z), 0, z), weight))
    options = {"loss": problem.case.loss, "link": problem.link, "reduction": "none", **problem.options}
    for function in (ce.value_and_grad, ce.value_grad_hess):
        judge(function(problem.logits, problem.target, **options), rows, terms, dtype, slack)
    return "judged"


ACCURACY: dict[str, tuple[st.SearchStrategy[Judged], Callable[[Judged], str]]] = {
    "accuracy of softmax losses": (softmax_problems(), check_softmax),
    "accuracy of sigmoid losses": (sigmoid_problems(), check_sigmoid),
}
