"""What docs/rare-classes.md says was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "imbalance.json").read_text("utf-8"))


def mean(record: dict[str, list[float]], key: str) -> float:
    return float(np.mean(record[key]))


def test_the_page_shows_these_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("imbalance_tables", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from imbalance_tables import PAGE, page

    text = PAGE.read_text("utf-8")
    assert page(RESULTS, text) == text
    changed = json.loads(json.dumps(RESULTS))
    changed["links"]["wine"]["links"]["softmax"]["log loss"][0] += 1
    assert page(changed, text) != text


def test_no_way_to_train_has_a_lower_log_loss_than_nothing_at_all() -> None:
    for record in RESULTS["rare"].values():
        nothing = record["ways"]["nothing"]
        for name, numbers in record["ways"].items():
            assert mean(numbers, "log loss") > mean(nothing, "log loss") - 0.0005
            if name == "logit adjustment":
                np.testing.assert_allclose(
                    numbers["log loss"], nothing["log loss"], atol=0.001
                )  # each fit has a tolerance
            elif name != "nothing":
                assert mean(numbers, "log loss as trained") > mean(nothing, "log loss as trained") + 0.005


def test_decisions_bring_most_of_what_weights_bring() -> None:
    for name in ("yeast4", "winequality-red-4", "abalone19"):
        nothing = RESULTS["rare"][name]["ways"]["nothing"]
        assert mean(nothing, "macro recall as trained") < 0.51
        assert mean(nothing, "macro recall") > 0.72


def test_one_against_the_rest_never_wins() -> None:
    ratios = []
    for record in RESULTS["links"].values():
        softmax, sigmoid = (record["links"][link] for link in ("softmax", "sigmoid"))
        assert mean(sigmoid, "log loss") > mean(softmax, "log loss")
        ratios.append(float(np.median(sigmoid["seconds"]) / np.median(softmax["seconds"])))
    assert min(ratios) < 1 < max(ratios)  # neither is faster throughout
