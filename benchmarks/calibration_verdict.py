"""When a difference between two calibrators is one."""

from __future__ import annotations

from typing import Any

__all__ = ["MARGIN", "verdict"]

MARGIN = 1e-5
"""Nats per row. Two solvers of one convex problem stop some 1e-8 nats from its minimum and from each other, and an
interval that excludes 0 by that little says nothing about calibrators."""


def verdict(entry: dict[str, Any], margin: float = MARGIN) -> str:
    """Return what a comparison says about crossent: "better", "worse", "the same", "not told apart", "alone"."""
    if "error" in entry:
        return "alone"
    if "rows at infinity" in entry:
        return "better"  # finite beside infinite
    low, high = entry["interval"]
    if max(abs(low), abs(high)) <= margin:
        return "the same"
    return "worse" if low > margin else "better" if high < -margin else "not told apart"
