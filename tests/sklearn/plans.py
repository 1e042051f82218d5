"""Plans with other numbers, so that a small problem goes the way of a large one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crossent.regression import plan


def tune(monkeypatch: pytest.MonkeyPatch, **numbers: Any) -> None:
    """Give some numbers of every plan other values."""
    monkeypatch.setattr(plan, "TUNED", replace(plan.TUNED, **numbers))
