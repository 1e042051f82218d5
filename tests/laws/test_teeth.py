"""Laws that cannot fail say nothing: each must reject a twin that returns zeros, a flipped sign, a last column skipped
or everything 1 % too large, in every loss and setting taken together that it speaks about."""

from __future__ import annotations

import numpy as np
import pytest

from .catalogue import LAWS, Law
from .tables import LOSSES
from .twins import DAMAGES, BrokenTwin, Damage, Twin


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_broken_twin_fails(law: Law, damage: Damage) -> None:
    """Not in one lucky case: in the first problem of every loss that the law speaks about."""
    tried = 0
    for case in LOSSES:
        for name, drawn in law.problems(case):
            with pytest.raises(AssertionError):  # noqa: PT012
                law.check(BrokenTwin(Twin("broken"), damage, law.damaged), case, drawn)
                pytest.fail(f"{name}: nobody noticed")
            tried += 1
            break
    assert tried > 0


def test_damage_is_damage() -> None:
    x = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    for damage in DAMAGES:
        assert damage(x).dtype == x.dtype
        assert not np.array_equal(damage(x), x)
