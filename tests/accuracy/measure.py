"""Run the families through the library and the oracle, and keep every error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import oracle
from oracle import Options, Row, Term

import crossent as ce

from . import divergences, families, heads, linear, reductions
from .errors import Errors, Key
from .families import Family, Problem
from .judge import DTYPES, largest_multiplier, slack_of

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
_NOT_ONE_HOT = [*families.SMOOTHED, *families.WEIGHTED_AND_SMOOTHED, *families.SOFT, families.MASKED_SOFT]
CASES = [
    Case(ce.CrossEntropy(), (CE,), _HARD),
    *[Case(ce.Focal(g), (("focal", 1.0, g),), _HARD) for g in (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)],
    Case(ce.GeneralizedCrossEntropy(0.7), (("gce", 1.0, 0.7),), _HARD),
    Case(ce.Poly1(2.0), (("poly1", 1.0, 2.0),), _HARD),
    Case(ce.CrossEntropy(), (CE,), _NOT_ONE_HOT, by_series=True),
    Case(ce.Focal(2.0), (("focal", 1.0, 2.0),), families.SMOOTHED, by_series=True),
    Case(ce.CrossEntropy() + ce.ZPenalty(0.1), (CE, ("z_penalty", 0.1, 0.0)), _ADDED, by_series=True),
    Case(ce.CrossEntropy() + ce.EntropyPenalty(0.3), (CE, ("entropy", 0.3, 0.0)), _ADDED, by_series=True),
    Case(ce.Brier(), (("brier", 1.0, 0.0),), _ADDED, by_series=True),
]


Functions = tuple[Callable[..., Any], Callable[..., Any]]
OURS: Functions = (ce.value_and_grad, ce.value_grad_hess)


def _oracle_rows(case: Case, problem: Problem) -> list[Row]:
    options = Options(terms=case.terms, **problem.options)
    exact = oracle.softmax_row if case.by_series else oracle.tail_row
    targets = problem.target.tolist() if problem.is_hard else list(problem.target)
    return [exact(row, target, options) for row, target in zip(problem.logits, targets, strict=True)]


def dense(
    rows: int, rows_by_series: int, functions: Functions = OURS, cases: Sequence[Case] = CASES
) -> dict[Key, Errors]:
    """Judge every case on all its families."""
    fast, second = functions
    found: dict[Key, Errors] = {}
    for case in cases:
        for family in case.families:
            for dtype in DTYPES:
                key = (case.name, family.name, np.dtype(dtype).name)
                errors = found.setdefault(key, Errors.of(case.terms, dtype))
                budget = rows_by_series if case.by_series else rows
                for problem in family.problems(dtype, budget, limited=case.by_series):
                    options = {"loss": case.loss, "reduction": "none", **problem.options}
                    multiplier = largest_multiplier(case.terms, problem.logits, problem.options.get("weight", 1.0))
                    slack = slack_of(problem.logits.shape[1], dtype, multiplier)
                    exact = _oracle_rows(case, problem)
                    value, gradient = fast(problem.logits, problem.target, **options)
                    diagonal = second(problem.logits, problem.target, **options).hess
                    errors.judge((value, gradient, diagonal), exact, dtype, slack)
    return {key: errors for key, errors in found.items() if errors.ulps}


MANY: list[tuple[ce.Loss, tuple[Term, ...], dict[str, Any]]] = [
    (ce.CrossEntropy(), (CE,), {}),
    (ce.Focal(2.0), (("focal", 1.0, 2.0),), {}),
    (ce.CrossEntropy(), (CE,), {"label_smoothing": 0.1}),
]


def many_classes(counts: Sequence[int]) -> dict[Key, Errors]:
    """Very many classes: value and gradient."""
    found = {}
    for loss, terms, options in MANY:
        name = "very many classes, smoothed" if options else "very many classes"
        exact = oracle.smoothed_row if options else oracle.tail_row
        for dtype in DTYPES:
            errors = found[repr(loss), name, np.dtype(dtype).name] = Errors.of(terms, dtype)
            for num_classes in counts:
                problem = families.many_classes(dtype, num_classes)
                row = exact(problem.logits[0], int(problem.target[0]), Options(terms, **options))
                result = ce.value_and_grad(problem.logits, problem.target, loss=loss, reduction="none", **options)
                multiplier = largest_multiplier(terms, problem.logits)
                errors.judge(result, [row], dtype, slack_of(num_classes, dtype, multiplier))
    return found


def parts(budget: str) -> dict[str, Callable[[], dict[Key, Errors]]]:
    """Everything there is to measure, in parts of minutes; `budget` is "full" or "quick"."""
    full = budget == "full"
    by_case = {
        f"{case.name}, {case.families[0].name} and others": partial(
            dense, 300 if full else 24, 60 if full else 8, cases=[case]
        )
        for case in CASES
    }
    return by_case | {
        "very many classes": lambda: many_classes(MANY_CLASSES[budget]),
        "reductions": lambda: reductions.softmax(90 if full else 18) | reductions.sigmoid(60 if full else 10),
        "sigmoid link": lambda: heads.sigmoid(full),
        "probabilities": lambda: heads.probabilities(60 if full else 10),
        "statistics": lambda: heads.statistics(100 if full else 13),
        "products": lambda: heads.products(30 if full else 4) | heads.distances(60 if full else 10),
        "divergences": lambda: (
            divergences.distillation(24 if full else 8)
            | divergences.many_classes([300, 1000] if full else [300])
            | divergences.top_k(30 if full else 8)
            | divergences.measures(200 if full else 64)
        ),
        "linear head": lambda: linear.measure(60 if full else 9),
    }
