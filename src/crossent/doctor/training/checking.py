"""The checks of a batch that make sense while a model trains, and the pages that a finding is taken from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..names import Loss
from ..pages import find
from ..rules import RULES, Pairing
from ..runtime import CHECKS, Symptom
from ..runtime.batch import LeftOut
from ..runtime.reading import read

__all__ = ["checked", "pairing_of", "symptom_of"]

_FORM = frozenset({"XE802", "XE803", "XE804"})  # whether the outputs are logits
_LATER = frozenset({"XE821", "XE822"})  # of a model that has been trained for some steps
_NEVER = frozenset({"XE823"})  # a temperature is for a trained model and data that it has not seen
_IGNORED = -100


def symptom_of(code: str, message: str) -> Symptom:
    """Return a symptom with the severity and the advice of its page."""
    page = find(code)
    assert page is not None
    return Symptom(code, page.severity, message, {}, page.mend)


def pairing_of(kind: str | None, loss: Loss, reads: str) -> Symptom | None:
    """Return what is wrong with an output of a kind that goes into a loss."""
    for rule in RULES:
        if kind is not None and isinstance(rule, Pairing) and rule.fits(kind, loss, reads):
            return symptom_of(rule.code, rule.message(kind, "", loss.name))
    return None


def checked(
    logits: Any,
    target: Any,
    link: str | None,
    *,
    is_form_known: bool,
    is_early: bool,
    has_weight: bool = False,
    ignore_index: int = _IGNORED,
) -> Iterator[Symptom]:
    """Give what the numbers of a batch show."""
    left_out = _NEVER | (_LATER if is_early else frozenset()) | (_FORM if is_form_known else frozenset())
    batch = read(logits, target, link, None, ignore_index)
    for one in CHECKS:
        if one.code not in left_out and (has_weight or one.code != "XE816"):
            with contextlib.suppress(LeftOut):
                symptom = one.look(batch)
                if symptom is not None:
                    yield symptom
