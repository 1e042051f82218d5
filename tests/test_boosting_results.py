"""What docs/boosting.md says was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "boosting.json").read_text("utf-8"))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("boosting_tables", "imbalance_tables", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import boosting_tables

    return boosting_tables


def test_the_page_shows_these_results(tables: Any) -> None:
    text = tables.PAGE.read_text("utf-8")
    assert tables.page(RESULTS, text) == text
    changed = json.loads(json.dumps(RESULTS))
    changed["libraries"]["vehicle"]["libraries"]["XGBoost"]["own"][0] += 1
    assert tables.page(changed, text) != text


def mean(found: dict[str, list[float]], name: str) -> float:
    return float(np.mean(found[name]))


def test_the_default_hessian_is_the_best_at_the_defaults_and_as_good_as_any_when_tuned(tables: Any) -> None:
    best, pairs = 0, 0
    for record in RESULTS["hessians"].values():
        for losses in record["losses"].values():
            for setting in ("XGBoost", "LightGBM"):
                means = {name: np.mean([fold[setting]["loss"] for fold in folds]) for name, folds in losses.items()}
                if record["classes"] > 2:
                    pairs, best = pairs + 1, best + (min(means, key=lambda name: means[name]) == "upper")
                else:
                    assert means["upper"] == pytest.approx(means["diagonal"], rel=1e-5)
    assert (best, pairs) == (23, 28)

    def ratios(loss: str, setting: str) -> list[float]:
        return [tables.geometric_mean(RESULTS, loss, setting, name, True) for name in ("diagonal", "gradient")]

    for loss in ("cross-entropy", "focal"):
        assert all(abs(ratio - 1) < 0.03 for ratio in ratios(loss, "tuned"))
        assert min(ratios(loss, "XGBoost") + ratios(loss, "LightGBM")) > 1.02


def test_log_losses_beside_the_libraries_own() -> None:
    for record in RESULTS["libraries"].values():
        found = record["libraries"]
        xgboost, lightgbm = found["XGBoost"], found["LightGBM"]
        assert mean(xgboost, "`BoostedClassifier`") == pytest.approx(mean(xgboost, "own"), abs=5e-4)
        if record["classes"] == 2:
            assert mean(lightgbm, "`BoostedClassifier`") == pytest.approx(mean(lightgbm, "own"), abs=5e-4)
            assert mean(lightgbm, "imlightgbm, focal") == pytest.approx(mean(lightgbm, "crossent, focal"), abs=5e-4)
            assert mean(xgboost, "imbalance-xgboost, focal") == pytest.approx(
                mean(xgboost, "crossent, focal"), abs=5e-4
            )
    lower = [
        library
        for record in RESULTS["libraries"].values()
        for library, found in record["libraries"].items()
        if "crossent, focal" in found and mean(found, "crossent, focal") < mean(found, "own")
    ]
    assert lower == ["LightGBM"] * 4
    worse = [
        mean(record["libraries"]["LightGBM"], "imlightgbm, focal")
        > 1.025 * mean(record["libraries"]["LightGBM"], "crossent, focal")
        for record in RESULTS["libraries"].values()
        if record["classes"] > 2
    ]
    assert (sum(worse), len(worse)) == (5, 7)


def test_cross_entropy_takes_a_small_part_of_a_round_and_a_quarter_of_the_formula() -> None:
    seconds = RESULTS["speed"]["seconds"]
    assert seconds["tutorial, vectorised"] > 4 * seconds["cross-entropy, upper"]
    assert seconds["tutorial, vectorised"] > 5 * seconds["cross-entropy, gradient"]
    assert seconds["cross-entropy, upper"] < 0.1 * seconds["round"]
