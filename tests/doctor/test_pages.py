"""The page of every rule and every check: complete, and true of its own examples."""

from __future__ import annotations

import pytest

from crossent.doctor.explained import Explained
from crossent.doctor.pages import find, page
from crossent.doctor.rules import RULES, SEVERITIES, Rule
from crossent.doctor.run import lint_text
from crossent.doctor.runtime import CHECKS

EVERY: tuple[Explained, ...] = (*RULES, *CHECKS)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.code)
def test_a_page_is_complete(one: Explained) -> None:
    assert one.severity in SEVERITIES
    assert any(character.isdigit() for character in one.harm), "the harm is a number"
    for text in (one.summary, one.harm, one.mend, one.ignore_when):
        assert text.endswith(".")
    for text in (one.code, one.name, one.severity, "Why it hurts", "Instead", "Ignore it when"):
        assert text in page(one)
    assert find(one.code.lower()) is find(one.name) is one


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_page_is_true(rule: Rule) -> None:
    assert rule.code in {finding.code for finding in lint_text(rule.bad)}
    assert rule.code not in {finding.code for finding in lint_text(rule.good)}


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.code)
def test_a_demonstration_runs(one: Explained, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("torch", "jax"):
        if f"import {name}" in one.demonstration:
            pytest.importorskip(name)
    exec(one.demonstration, {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_codes_and_names_are_unique() -> None:
    assert len({one.code for one in EVERY}) == len({one.name for one in EVERY}) == len(EVERY)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.fix != "none"], ids=lambda rule: rule.code)
def test_a_promised_fix_is_there(rule: Rule) -> None:
    edits = [edit for finding in lint_text(rule.bad) if finding.code == rule.code for edit in finding.edits]
    assert edits
    assert all(edit.is_safe == (rule.fix == "safe") for edit in edits)
