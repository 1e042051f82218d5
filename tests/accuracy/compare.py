"""The same rows through every library: how many keep the bars, and how wrong the worst number is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import oracle

from . import families
from .judge import DTYPES, bars, entries, slack_of
from .peers import Peer

FAMILIES = [family for family in families.HARD if family.name not in ("masked classes",)]


def compare(peers: Sequence[Peer], rows: int) -> list[dict[str, Any]]:
    """One record a library, family and dtype: worst error in ulps and relative to the number, share of rows right."""
    records = []
    for dtype in DTYPES:
        for family in FAMILIES:
            problems = [p for p in family.problems(dtype, rows) if p.logits.shape[1] >= 3]
            exact = [
                [oracle.tail_row(row, label) for row, label in zip(p.logits, p.target.tolist(), strict=True)]
                for p in problems
            ]
            for peer in peers:
                record = _judge(peer, problems, exact, dtype)
                records.append({"library": peer.name, "family": family.name, "dtype": np.dtype(dtype).name, **record})
    return records


def _judge(peer: Peer, problems: Any, exact: Any, dtype: Any) -> dict[str, Any]:
    ulps = {"value": 0.0, "gradient": 0.0}
    relative = {"value": 0.0, "gradient": 0.0}
    allowed = dict(zip(("value", "gradient"), bars(dtype)[:2], strict=True))
    right = total = 0
    for problem, rows in zip(problems, exact, strict=True):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = peer.value_and_gradient(problem.logits, problem.target)
        wrong_rows = set()
        smallest = float(np.finfo(dtype).smallest_normal)
        for entry in entries(results, rows, dtype, slack_of(problem.logits.shape[1], dtype)):
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
