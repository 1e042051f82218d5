"""The page of every rule: complete, and true of its own examples."""

from __future__ import annotations

import pytest

from crossent.doctor.pages import page
from crossent.doctor.rules import RULES, SEVERITIES, Rule
from crossent.doctor.run import lint_text


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_page_is_true(rule: Rule) -> None:
    assert rule.severity in SEVERITIES
    assert rule.code in {finding.code for finding in lint_text(rule.bad)}
    assert rule.code not in {finding.code for finding in lint_text(rule.good)}
    assert any(character.isdigit() for character in rule.harm), "the harm is a number"
    for text in (rule.summary, rule.harm, rule.mend, rule.ignore_when):
        assert text.endswith(".")
    for text in (rule.code, rule.name, rule.severity, "Why it hurts", "Instead", "Ignore it when"):
        assert text in page(rule)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_demonstration_runs(rule: Rule, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("torch", "jax"):
        if f"import {name}" in rule.demonstration:
            pytest.importorskip(name)
    exec(rule.demonstration, {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_codes_and_names_are_unique() -> None:
    assert len({rule.code for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.fix != "none"], ids=lambda rule: rule.code)
def test_a_promised_fix_is_there(rule: Rule) -> None:
    edits = [edit for finding in lint_text(rule.bad) if finding.code == rule.code for edit in finding.edits]
    assert edits
    assert all(edit.is_safe == (rule.fix == "safe") for edit in edits)
