"""Every law, for every loss, on every twin."""

from __future__ import annotations

import pytest

from .laws import LAWS, Law
from .tables import LOSSES, LossCase
from .twins import Twin


@pytest.mark.parametrize("case", LOSSES, ids=str)
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_law(law: Law, case: LossCase, twin: str) -> None:
    if law.hold(Twin(twin), case) == 0:
        pytest.skip("the law does not speak about this loss")


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_every_law_speaks_about_something(law: Law) -> None:
    assert sum(1 for case in LOSSES for _ in law.problems(case)) > 0
