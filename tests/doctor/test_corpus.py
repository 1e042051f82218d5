"""Code as people write it, half of it right: what is reported is wrong, and what is wrong is reported."""

from __future__ import annotations

import ast
from collections import Counter

import pytest
from snippets import Snippet, snippets

from crossent.doctor.rules import RULES
from crossent.doctor.run import lint_text

CORPUS = snippets()


def found_in(snippet: Snippet) -> set[tuple[str, int]]:
    return {(finding.code, finding.line) for finding in lint_text(snippet.text, "snippet.py")}


def test_precision_and_recall(capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    mistakes = []
    for snippet in CORPUS:
        found = found_in(snippet)
        right.update(code for code, _ in found & snippet.expected)
        wrong.update(code for code, _ in found - snippet.expected)
        missed.update(code for code, _ in snippet.expected - found)
        mistakes += [f"{snippet.name}: {item} is wrong" for item in sorted(found - snippet.expected)]
        mistakes += [f"{snippet.name}: {item} is missed" for item in sorted(snippet.expected - found)]
    with capsys.disabled():
        print(f"\n{'rule':6} {'right':>5} {'wrong':>5} {'missed':>6}")
        for rule in RULES:
            print(f"{rule.code:6} {right[rule.code]:5} {wrong[rule.code]:5} {missed[rule.code]:6}")
        print("\n".join(mistakes))
        precision = right.total() / (right.total() + wrong.total())
        recall = right.total() / (right.total() + missed.total())
        print(f"{len(CORPUS)} snippets: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.97
    assert recall >= 0.9


def test_the_corpus_is_large_and_half_of_it_is_right() -> None:
    assert len({snippet.name for snippet in CORPUS}) == len(CORPUS)
    assert 2 * sum(not snippet.expected for snippet in CORPUS) >= len(CORPUS)


@pytest.mark.parametrize("snippet", CORPUS, ids=lambda snippet: snippet.name)
def test_snippets_are_python(snippet: Snippet) -> None:
    ast.parse(snippet.text)


def test_every_rule_is_in_the_corpus() -> None:
    assert {rule.code for rule in RULES} == {code for snippet in CORPUS for code, _ in snippet.expected}
