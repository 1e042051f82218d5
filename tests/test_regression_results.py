"""What README and docs/softmax-regression.md say of the solver's speed is what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "regression.json").read_text())


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("regression_tables", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_the_pages_show_these_results() -> None:
    import regression_tables as tables

    changed = json.loads(json.dumps(RESULTS))
    next(iter(changed["problems"].values()))["fits"]["crossent"]["seconds"] *= 1.5
    for path, text in ((tables.PAGE, tables.text), (tables.README, tables.claim)):
        page = path.read_text("utf-8")
        assert tables.between_marks(page, text(RESULTS)) == page
        assert tables.between_marks(page, text(changed)) != page


def test_every_fit_that_counts_reached_the_excess() -> None:
    for record in RESULTS["problems"].values():
        assert record["optimum"].get("disagreement", 0.0) <= 1e-8
        for fit in record["fits"].values():
            if fit["reached"]:
                assert fit["excess"] <= 1e-4
        certified = record["fits"]["crossent"]["certified"]
        assert certified["excess"] <= certified["duality_gap"] + 1e-9 <= 1e-4 + 2e-9


def test_other_solvers_are_faster_on_easy_problems_alone() -> None:
    """On a table of a few hundred rows; README says so."""
    faster = {
        problem
        for problem, record in RESULTS["problems"].items()
        for name, fit in record["fits"].items()
        if name != "crossent" and fit["reached"]
        if fit["seconds"] <= record["fits"]["crossent"]["seconds"]
    }
    assert faster <= {"wine"}
