"""Every law, for every loss that it speaks about, on every twin."""

from __future__ import annotations

import pytest

from .catalogue import LAWS, Law
from .tables import LOSSES, LossCase
from .twins import Twin

PAIRS = [
    pytest.param(law, case, id=f"{law}-{case}")
    for law in LAWS
    for case in LOSSES
    if any(True for _ in law.problems(case))
]


@pytest.mark.parametrize(("law", "case"), PAIRS)
def test_law(law: Law, case: LossCase, twin: str) -> None:
    assert law.hold(Twin(twin), case) > 0


def test_no_law_is_left_out() -> None:
    assert {pair.values[0] for pair in PAIRS} == set(LAWS)
    assert {pair.values[1] for pair in PAIRS} == set(LOSSES)
