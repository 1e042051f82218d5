"""The errors of one group of rows: every one of them, in ulps, with the worst and how it was judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from oracle import Row, Term

from .judge import WHAT, Entry, bars, entries, factor

Key = tuple[str, str, str]
"""Loss, family, dtype."""


@dataclass
class Errors:
    """The errors of one group, in ulps, by what was judged."""

    bar: dict[str, float]
    ulps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    worst: dict[str, Entry] = field(default_factory=dict)
    rows: int = 0
    by_itself: int = 0
    by_magnitudes: int = 0

    @classmethod
    def of(cls, terms: tuple[Term, ...], dtype: Any) -> Errors:
        """No errors yet, with the bars of a loss."""
        return cls(dict(zip(WHAT, (bar * factor(terms) for bar in bars(dtype)), strict=True)))

    def judge(self, results: Sequence[Any], rows: Sequence[Row], dtype: Any, slack: Any, count: int = 0) -> None:
        """Add the errors of values, gradients and diagonals, as far as `results` go; `count` rows if not one a Row."""
        self.rows += count or len(rows)
        for entry in entries(results, rows, dtype, slack):
            self.add(entry)

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
        counts = {"rows": self.rows, "judged by itself": self.by_itself, "judged by magnitudes": self.by_magnitudes}
        return found | counts
