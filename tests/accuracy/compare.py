"""The same rows through every library: how many keep the bars, and how wrong the worst number is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import adversarial
import numpy as np
import oracle
from oracle import Options, Row, Term

from . import families, peers
from .families import Family, Problem
from .judge import DTYPES, bars, entries, factor, largest_multiplier, slack_of
from .peers import Peer

HARD = [family for family in families.HARD if family.name != "masked classes"]
FAMILIES: dict[str, Sequence[Family]] = {
    peers.LABELS: HARD,
    peers.SMOOTHED: families.SMOOTHED[:1],
    peers.WEIGHTED: families.WEIGHTED,
    peers.DISTRIBUTIONS: [families.SMOOTHED[1], *families.SOFT, families.MASKED_SOFT],
}
LOSSES = [*FAMILIES, peers.BINARY, peers.BINARY_FOCAL]
Case = tuple[Problem, list[Row]]


def _softmax_cases(loss: str, family: Family, dtype: Any, rows: int) -> Iterator[Case]:
    """Problems that every library takes (three classes and more, weights in the logits' dtype), and their answers."""
    by_series = loss in (peers.SMOOTHED, peers.DISTRIBUTIONS)
    exact = oracle.softmax_row if by_series else oracle.tail_row
    for problem in family.problems(dtype, rows, limited=by_series):
        if problem.logits.shape[1] < 3:
            continue
        options = {k: v.astype(dtype) if k == "weight" else v for k, v in problem.options.items()}
        targets = problem.target.tolist() if problem.is_hard else list(problem.target)
        given = Options(oracle.CROSS_ENTROPY, **options)
        answers = [exact(row, target, given) for row, target in zip(problem.logits, targets, strict=True)]
        yield Problem(problem.logits, problem.target, options), answers


def _binary_cases(dtype: Any, terms: tuple[Term, ...], soft: bool) -> Iterator[Case]:
    z = adversarial.entries(dtype)
    for target in (0.0, 1.0, 0.25) if soft else (0.0, 1.0):
        label = int(target) if target in (0.0, 1.0) else target
        yield Problem(z, np.full(z.size, target, dtype)), [oracle.sigmoid_row(x, label, Options(terms)) for x in z]


def _cases(loss: str, dtype: Any, rows: int) -> Iterator[tuple[str, tuple[Term, ...], list[Case]]]:
    """Families, the loss as the oracle spells it, and problems."""
    terms: tuple[Term, ...] = (("focal", 1.0, peers.GAMMA),) if loss == peers.BINARY_FOCAL else oracle.CROSS_ENTROPY
    for family in FAMILIES.get(loss, ()):
        yield family.name, terms, list(_softmax_cases(loss, family, dtype, rows))
    if loss not in FAMILIES:
        yield "every size", terms, list(_binary_cases(dtype, terms, soft=loss == peers.BINARY))


def compare(libraries: Sequence[Peer], rows: int, losses: Sequence[str] = LOSSES) -> list[dict[str, Any]]:
    """One record a loss, family, dtype and library: worst error in ulps and relative to the number, rows right."""
    records = []
    for loss in losses:
        for dtype in DTYPES:
            for family, terms, cases in _cases(loss, dtype, rows):
                for library in libraries:
                    if loss in library.functions:
                        names = {"library": library.name, "loss": loss, "family": family, "dtype": np.dtype(dtype).name}
                        records.append(names | _judge(library.functions[loss], cases, terms, dtype))
    return records


def _judge(function: peers.ValueAndGradient, cases: Sequence[Case], terms: tuple[Term, ...], dtype: Any) -> Any:
    ulps = {"value": 0.0, "gradient": 0.0}
    relative = {"value": 0.0, "gradient": 0.0}
    allowed = {what: bar * factor(terms) for what, bar in zip(ulps, bars(dtype)[:2], strict=True)}
    right = total = 0
    for problem, rows in cases:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = function(problem.logits, problem.target, **problem.options)
        wrong_rows = set()
        smallest = float(np.finfo(dtype).smallest_normal)
        z = problem.logits if problem.logits.ndim == 2 else np.stack([0 * problem.logits, problem.logits], axis=1)
        multiplier = largest_multiplier(terms, z, problem.options.get("weight", 1.0))
        for entry in entries(results, rows, dtype, slack_of(z.shape[1], dtype, multiplier)):
            ulps[entry.what] = max(ulps[entry.what], entry.ulps)
            if entry.ulps > 0 and abs(entry.exact) >= smallest:
                error = abs(oracle.mpf(float(entry.got)) - entry.exact) / abs(entry.exact)
                error = float("inf") if not np.isfinite(entry.got) else float(error)
                relative[entry.what] = max(relative[entry.what], error)
            if entry.ulps > allowed[entry.what]:
                wrong_rows.add(entry.row)
        right += len(rows) - len(wrong_rows)
        total += len(rows)
    return {"ulps": ulps, "relative": relative, "right": right, "rows": total}
