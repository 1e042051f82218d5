"""Every rule of `crossent lint`, one class each, grouped by what they look at."""

from __future__ import annotations

from . import activations, divergence, estimators, focal, keras, labels, numerics, pairing, weights
from .base import SEVERITIES, Context, Found, Pairing, Rule

__all__ = ["RULES", "SEVERITIES", "Context", "Found", "Pairing", "Rule", "find_rule"]

_GROUPS = (pairing, activations, numerics, labels, weights, divergence, keras, focal, estimators)
RULES: tuple[Rule, ...] = tuple(
    sorted((made() for group in _GROUPS for made in group.RULES), key=lambda rule: rule.code)
)
"""All rules, by code."""


def find_rule(text: str) -> Rule | None:
    """Return the rule of a code or a name, in any case; None if there is none."""
    return next((rule for rule in RULES if text.upper() == rule.code or text.lower() == rule.name), None)
