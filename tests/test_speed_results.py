"""What README and docs/performance.md say of speed and memory is what benchmarks/results/speed.json holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables

    yield tables
    for name in ("tables", "jax_tables", "accelerator_tables"):
        sys.modules.pop(name, None)


def test_the_pages_are_those_of_the_record(tables: ModuleType) -> None:
    results = json.loads(tables.RESULTS.read_text())
    readme = tables.README.read_text("utf-8")
    assert tables.PAGE.read_text("utf-8") == tables.page(results)
    assert tables.headline(results) in readme
    assert tables.readme_table(results) in readme
