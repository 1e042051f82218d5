"""Laws that every front end obeys, over JAX's: those that mean most for a front end, in float64, on some settings.

All laws run over the reference, whose formulas these are, in `tests/laws`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from laws.catalogue import LAWS, Law
from laws.tables import BY_NAME, LOSSES, LossCase

from .twin import JaxTwin

NAMES = (
    "value is the formula",
    "gradient is autodiff of the formula",
    "hessian vector product is autodiff of the formula",
    "a mean is the sum over the normalizer",
    "distillation is a divergence with gradient t times p minus t",
)
SETTINGS = (
    "hard",
    "weighted-soft",
    "pos-weight-smoothed",
    "ignored",
    "elementwise-weight",
    "every-map",
    "rates",
    "masked",
)
SOME = (LOSSES[0], LOSSES[8], LOSSES[-1])
"""Cross-entropy, generalised cross-entropy, and a sum of focal loss, Poly-1 and z-penalty."""


def narrowed(law: Law) -> Law:
    """The law on the settings above."""
    settings = tuple(setting for setting in law.settings if setting in [BY_NAME[name] for name in SETTINGS])
    return replace(law, settings=settings, dtypes=(np.float64,))


CHOSEN = [narrowed(law) for law in LAWS if law.name in NAMES]
PAIRS = [
    pytest.param(law, case, id=f"{law}-{case}")
    for law in CHOSEN
    for case in SOME
    if any(True for _ in law.problems(case))
]


@pytest.mark.parametrize(("law", "case"), PAIRS)
def test_law(law: Law, case: LossCase) -> None:
    assert law.hold(JaxTwin("jax"), case) > 0


def test_every_chosen_law_is_one() -> None:
    assert {law.name for law in CHOSEN} == set(NAMES)
