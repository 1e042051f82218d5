"""docs/common-mistakes.md is what docs/make_common_mistakes.py writes; tests/test_documents.py runs its code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from crossent.doctor.rules import RULES
from crossent.doctor.runtime import CHECKS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_common_mistakes", DOCS / "make_common_mistakes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_of_the_rules_and_the_checks(maker: ModuleType) -> None:
    text = (DOCS / "common-mistakes.md").read_text("utf-8")
    printed = dict(re.findall(r"^## (XE\d+): .*?\n```text\n(.*?)\n```\n", text, re.MULTILINE | re.DOTALL))
    assert printed.keys() == {one.code for one in (*RULES, *CHECKS)}
    assert maker.page(printed, maker.num_snippets()) == text
