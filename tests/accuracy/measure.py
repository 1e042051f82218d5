"""Run the families through the library and the oracle, and keep every error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import adversarial
import numpy as np
import oracle
from oracle import Options, Row, Term

import crossent as ce

from . import families
from .families import Family, Problem
from .judge import DTYPES, WHAT, Entry, bars, entries, factor, largest_multiplier, slack_of

MANY_CLASSES = {"full": [10_000, 100_000, 1_000_000], "quick": [5000]}
CE: Term = ("cross_entropy", 1.0, 0.0)


@dataclass(frozen=True)
class Case:
    """A loss as the library and as the oracle spell it, and the families it is tried with."""

    loss: ce.Loss
    terms: tuple[Term, ...]
    families: Sequence[Family]
    by_series: bool = False
    """Whether the oracle needs series, with as many digits as the logits are apart, and so fewer rows."""

    @property
    def name(self) -> str:
        return repr(self.loss)


_HARD = [*families.HARD, *families.WEIGHTED]
_ADDED = [*families.HARD, *families.SMOOTHED]
CASES = [
    Case(ce.CrossEntropy(), (CE,), _HARD),
    *[Case(ce.Focal(g), (("focal", 1.0, g),), _HARD) for g in (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)],
    Case(ce.GeneralizedCrossEntropy(0.7), (("gce", 1.0, 0.7),), _HARD),
    Case(ce.Poly1(2.0), (("poly1", 1.0, 2.0),), _HARD),
    Case(ce.CrossEntropy(), (CE,), [*families.SMOOTHED, *families.SOFT], by_series=True),
    Case(ce.Focal(2.0), (("focal", 1.0, 2.0),), families.SMOOTHED, by_series=True),
    Case(ce.CrossEntropy() + ce.ZPenalty(0.1), (CE, ("z_penalty", 0.1, 0.0)), _ADDED, by_series=True),
    Case(ce.CrossEntropy() + ce.EntropyPenalty(0.3), (CE, ("entropy", 0.3, 0.0)), _ADDED, by_series=True),
    Case(ce.Brier(), (("brier", 1.0, 0.0),), _ADDED, by_series=True),
]


@dataclass
class Errors:
    """The errors of one group, in ulps, by what was judged."""

    bar: dict[str, float]
    ulps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    worst: dict[str, Entry] = field(default_factory=dict)
    by_itself: int = 0
    by_magnitudes: int = 0

    def add(self, entry: Entry) -> None:
        ulps = self.ulps[entry.what]
        if not ulps or entry.ulps > max(self.worst[entry.what].ulps, 0):
            self.worst[entry.what] = entry
        ulps.append(entry.ulps)
        if entry.what != "diagonal":
            self.by_itself += entry.is_judged_by_itself
            self.by_magnitudes += not entry.is_judged_by_itself

    def broken(self) -> list[str]:
        """A sentence for each bar that is not met."""
        return [
            f"{what}: {max(ulps):.3g} ulps, allowed {self.bar[what]:g} ({self.worst[what]})"
            for what, ulps in self.ulps.items()
            if max(ulps) > self.bar[what]
        ]

    def summary(self) -> dict[str, Any]:
        """The maximum and the 99.9th percentile of each kind, and how they were judged."""
        found: dict[str, Any] = {
            what: {
                "max": max(ulps),
                "p99.9": float(np.quantile(ulps, 0.999)),
                "bar": self.bar[what],
                "count": len(ulps),
            }
            for what, ulps in self.ulps.items()
        }
        return found | {"judged by itself": self.by_itself, "judged by magnitudes": self.by_magnitudes}


Key = tuple[str, str, str]
"""Loss, family, dtype."""
Functions = tuple[Callable[..., Any], Callable[..., Any]]
OURS: Functions = (ce.value_and_grad, ce.value_grad_hess)


def _oracle_rows(case: Case, problem: Problem) -> list[Row]:
    options = Options(terms=case.terms, **problem.options)
    exact = oracle.softmax_row if case.by_series else oracle.tail_row
    targets = problem.target.tolist() if problem.is_hard else list(problem.target)
    return [exact(row, target, options) for row, target in zip(problem.logits, targets, strict=True)]


def _bar(terms: tuple[Term, ...], dtype: Any) -> dict[str, float]:
    return dict(zip(WHAT, (bar * factor(terms) for bar in bars(dtype)), strict=True))


def dense(rows: int, rows_by_series: int, functions: Functions = OURS, cases: Sequence[Case] = CASES) -> dict[Key, Any]:
    """Judge every case on all its families."""
    fast, second = functions
    found: dict[Key, Errors] = {}
    for case in cases:
        for family in case.families:
            for dtype in DTYPES:
                key = (case.name, family.name, np.dtype(dtype).name)
                errors = found.setdefault(key, Errors(_bar(case.terms, dtype)))
                budget = rows_by_series if case.by_series else rows
                for problem in family.problems(dtype, budget, limited=case.by_series):
                    options = {"loss": case.loss, "reduction": "none", **problem.options}
                    multiplier = largest_multiplier(case.terms, problem.logits, problem.options.get("weight", 1.0))
                    slack = slack_of(problem.logits.shape[1], dtype, multiplier)
                    exact = _oracle_rows(case, problem)
                    value, gradient = fast(problem.logits, problem.target, **options)
                    diagonal = second(problem.logits, problem.target, **options).hess
                    for entry in entries((value, gradient, diagonal), exact, dtype, slack):
                        errors.add(entry)
    return {key: errors for key, errors in found.items() if errors.ulps}


def many_classes(counts: Sequence[int]) -> dict[Key, Any]:
    """Cross-entropy with very many classes: value and gradient."""
    found = {}
    for dtype in DTYPES:
        errors = found["CrossEntropy()", "very many classes", np.dtype(dtype).name] = Errors(_bar((CE,), dtype))
        for num_classes in counts:
            problem = families.many_classes(dtype, num_classes)
            exact = [oracle.tail_row(problem.logits[0], int(problem.target[0]))]
            result = ce.value_and_grad(problem.logits, problem.target, reduction="none")
            for entry in entries(result, exact, dtype, slack_of(num_classes, dtype)):
                errors.add(entry)
    return found


SIGMOID_LOSSES: list[tuple[ce.Loss, Term]] = [
    (ce.CrossEntropy(), CE),
    (ce.Focal(2.0), ("focal", 1.0, 2.0)),
    (ce.Focal(0.1), ("focal", 1.0, 0.1)),
]


def sigmoid() -> dict[Key, Any]:
    """Binary losses of every size of logit, with labels 0 and 1, and positive weights."""
    found = {}
    for loss, term in SIGMOID_LOSSES:
        for dtype in DTYPES:
            errors = found[repr(loss), "sigmoid link", np.dtype(dtype).name] = Errors(_bar((term,), dtype))
            z = adversarial.entries(dtype)
            z = np.concatenate([z, z * np.asarray(3, dtype)])
            for label in (0, 1):
                for pos_weight in (1.0, 1e-15, 1e15):
                    target = np.full(z.size, label)
                    given = Options(terms=(term,), weight=[1.0, pos_weight])
                    exact = [oracle.sigmoid_row(x, label, given) for x in z]
                    multiplier = largest_multiplier((term,), np.stack([0 * z, z], axis=1), pos_weight)
                    options = {"loss": loss, "link": "sigmoid", "reduction": "none", "pos_weight": pos_weight}
                    value, gradient = ce.value_and_grad(z, target, **options)
                    diagonal = ce.value_grad_hess(z, target, **options).hess
                    for entry in entries((value, gradient, diagonal), exact, dtype, slack_of(2, dtype, multiplier)):
                        errors.add(entry)
    return found


def linear(repeats: int) -> dict[Key, Any]:
    """The linear head against the exact logits of its rounded inputs.

    A dot product that rounds is off by ulps of ``c = Σ|x w| + |b|``, not of itself, and so are the logits; errors are
    in ulps of what that can do: of a value's magnitude plus ``Σ_k |G_k| c_k``, of a gradient's sum of ``|G|·|w|`` (or
    ``|G|·|x|``) with each ``|G|`` times ``1 + 2 max_k c_k``.
    """
    found = {}
    settings: list[tuple[str, ce.Loss, tuple[Term, ...], dict[str, Any]]] = [
        ("linear head", ce.CrossEntropy(), (CE,), {}),
        ("linear head, smoothed", ce.CrossEntropy(), (CE,), {"label_smoothing": 0.1}),
        ("linear head", ce.Focal(2.0), (("focal", 1.0, 2.0),), {}),
    ]
    for name, loss, terms, options in settings:
        for dtype in DTYPES:
            errors = found[repr(loss), name, np.dtype(dtype).name] = Errors(_bar(terms, dtype))
            for seed in range(repeats):
                rng = np.random.default_rng([seed, 7])
                size = (0.1, 1.0, 4.0)[seed % 3]
                x = rng.normal(scale=size, size=(6, 8)).astype(dtype)
                w, b = rng.normal(size=(5, 8)).astype(dtype), rng.normal(size=5).astype(dtype)
                y = rng.integers(0, 5, 6)
                result = ce.linear_value_and_grad(x, w, y, linear_bias=b, loss=loss, reduction="sum", **options)
                row = _linear_row(x, w, b, y, Options(terms=terms, **options))
                got = np.concatenate([np.ravel(g) for g in result.grad])[None]
                for entry in entries(([result.value], got), [row], dtype, slack_of(5, dtype, 1.0)):
                    errors.add(entry)
    return found


def _linear_row(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, options: Options) -> Row:
    """Value and gradients of the summed loss as one row: input, weight and bias, one after the other."""
    exact = oracle.softmax_row if options.label_smoothing else oracle.tail_row
    with oracle.mp.workdps(oracle.GUARD_DIGITS + 20):
        X, W = (np.array([[oracle.mpf(float(v)) for v in r] for r in a], dtype=object) for a in (x, w))
        bias = np.array([oracle.mpf(float(v)) for v in b], dtype=object)
        rows = [exact(list(z), int(label), options) for z, label in zip(X @ W.T + bias, y, strict=True)]
        G = np.array([row.gradient for row in rows], dtype=object)
        scale = np.array([row.gradient_scale for row in rows], dtype=object)
        condition = abs(X) @ abs(W).T + abs(bias)
        value_scale = sum(row.value_scale for row in rows) + (scale * condition).sum()
        blurred = scale * (1 + 2 * condition.max(axis=1))[:, None]
        gradient = np.concatenate([(G @ W).ravel(), (G.T @ X).ravel(), G.sum(axis=0)])
        gradient_scale = np.concatenate([(blurred @ abs(W)).ravel(), (blurred.T @ abs(X)).ravel(), blurred.sum(axis=0)])
        value = sum(row.value for row in rows)
        return Row(value, list(gradient), [], value_scale, list(gradient_scale), [])


def measure(budget: str) -> dict[Key, Errors]:
    """Everything; `budget` is "full" or "quick"."""
    full = budget == "full"
    found = dense(300 if full else 24, 60 if full else 8)
    found |= many_classes(MANY_CLASSES[budget])
    return found | sigmoid() | linear(60 if full else 9)
