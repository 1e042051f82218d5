"""The report on two classes: curves, thresholds, costs and lift, each beside a count by hand or scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from crossent.cli import app
from crossent.report import Decision, evaluate, render_html
from crossent.report.charts import LIGHT, draw_precision, draw_roc, draw_scores
from crossent.report.words import decided

RNG = np.random.default_rng(0)
N = 400
SCORES = RNG.normal(size=N) - 2
TRUTH = RNG.random(N) < 1 / (1 + np.exp(-1.5 * SCORES))
P = np.round(1 / (1 + np.exp(-SCORES)), 2)  # two digits: with ties
Y = np.where(TRUTH, "fraud", "fine")
COSTS = Decision("fraud", 10.0, 1.0)
REPORT = evaluate(Y, P, scale="probabilities", decision=COSTS).to_dict()
STATE: dict[str, Any] = REPORT["two_classes"]


def test_the_areas_are_scikit_learns() -> None:
    assert STATE["roc"]["area"] == pytest.approx(roc_auc_score(TRUTH, P), abs=1e-12)
    assert STATE["precision_recall"]["area"] == pytest.approx(average_precision_score(TRUTH, P), abs=1e-12)


def test_the_roc_interval_is_delongs() -> None:
    pairs = (P[TRUTH][:, None] > P[~TRUTH]) + 0.5 * (P[TRUTH][:, None] == P[~TRUTH])
    area = pairs.mean()
    error = np.sqrt(sum(pairs.mean(axis).var(ddof=1) / pairs.shape[1 - axis] for axis in (0, 1)))
    reach = 1.959963984540054 * error / (area * (1 - area))
    ends = [1 / (1 + np.exp(-(np.log(area / (1 - area)) + s * reach))) for s in (-1, 1)]
    assert [STATE["roc"]["lower"], STATE["roc"]["upper"]] == pytest.approx(ends, rel=1e-9)


def test_the_other_class_may_be_the_positive_one() -> None:
    other = evaluate(Y, P, scale="probabilities", decision=Decision("fine")).to_dict()["two_classes"]
    assert other["positive"] == "fine"
    assert other["roc"]["area"] == pytest.approx(STATE["roc"]["area"], abs=1e-12)
    assert other["share"] == pytest.approx(1 - STATE["share"])


@pytest.mark.parametrize("entry", STATE["thresholds"], ids=lambda entry: str(entry["threshold"]))
def test_a_threshold_counts_rows(entry: dict[str, Any]) -> None:
    called = entry["threshold"] <= P
    hits, alarms = (called & TRUTH).sum(), (called & ~TRUTH).sum()
    assert (entry["called"], entry["hits"], entry["false_alarms"]) == (called.sum(), hits, alarms)
    assert entry["recall"] == pytest.approx(hits / TRUTH.sum())
    assert entry["precision"] == (pytest.approx(hits / called.sum()) if called.any() else None)
    odds = entry["threshold"] / (1 - entry["threshold"])
    assert entry["net_benefit"] == pytest.approx((hits - alarms * odds) / N)


def test_costs_are_counted_and_the_best_threshold_is_the_best() -> None:
    def cost(threshold: float) -> float:
        return float(10 * (TRUTH & (threshold > P)).mean() + (~TRUTH & (threshold <= P)).mean())

    costs = STATE["costs"]
    assert costs["threshold"] == pytest.approx(1 / 11)
    assert costs["at_threshold"] == pytest.approx(cost(1 / 11))
    assert costs["at_half"] == pytest.approx(cost(0.5))
    assert (costs["never"], costs["always"]) == pytest.approx((cost(2.0), cost(0.0)))
    assert costs["at_best"] == pytest.approx(min(cost(t) for t in [*np.unique(P), 2.0]))
    assert cost(costs["best_threshold"]) == pytest.approx(costs["at_best"])
    assert costs["at_best"] < costs["at_threshold"] < costs["at_half"]
    saved = 10 * TRUTH * ((P >= 1 / 11) & (P <= 0.5)) - ~TRUTH * (
        (P >= 1 / 11) & (P <= 0.5)
    )  # beside the likelier class
    value = costs["value"]
    assert value["saving"] == pytest.approx(saved.mean())
    assert value["upper"] - value["saving"] == pytest.approx(1.645 * saved.std() / np.sqrt(N), rel=1e-3)
    assert any(f"{costs['at_threshold']:.4g} instead of" in line for line in decided(STATE))
    even = evaluate(Y, P, scale="probabilities", decision=Decision("fraud")).to_dict()["two_classes"]
    assert even["costs"]["value"] is None
    assert not any("most probable class" in line for line in decided(even))


def test_a_miss_that_costs_next_to_nothing_asks_never_to_act() -> None:
    decision = Decision("fraud", 1e-30, 1.0)
    costs = evaluate(Y, P, scale="probabilities", decision=decision).to_dict()["two_classes"]["costs"]
    assert costs["threshold"] == 1.0
    assert costs["value"]["saving"] == pytest.approx((~TRUTH & (P > 0.5)).mean())


def test_costs_of_any_size_have_an_interval() -> None:
    costs = evaluate(Y, P, scale="probabilities", decision=Decision("fraud", 1e300, 1.0)).to_dict()["two_classes"][
        "costs"
    ]
    assert np.isfinite(list(costs["value"].values())).all()


def test_lift_and_scores_count_rows() -> None:
    for entry in STATE["lift"]:
        top = TRUTH[np.argsort(-P, kind="stable")[: entry["rows"]]]
        assert entry["recall"] == pytest.approx(top.sum() / TRUTH.sum())
        assert entry["lift"] == pytest.approx(top.mean() / TRUTH.mean())
    assert (sum(STATE["scores"]["positive"]), sum(STATE["scores"]["negative"])) == (TRUTH.sum(), (~TRUTH).sum())
    bins = STATE["reliability"]
    assert sum(b["rows"] for b in bins) == N
    assert sum(b["rows"] * b["share"] for b in bins) == pytest.approx(TRUTH.sum())
    assert all(b["lower"] <= b["probability"] <= b["upper"] for b in bins)


def test_perfect_predictions_have_no_interval() -> None:
    state = evaluate([0, 0, 1], [0.1, 0.2, 0.9], scale="probabilities").to_dict()["two_classes"]
    assert (state["roc"]["area"], state["roc"]["lower"]) == (1.0, None)
    assert (state["costs"]["at_best"], state["costs"]["best_threshold"]) == (0.0, 0.9)


def test_an_area_that_rounds_to_just_below_one_is_no_overflow() -> None:
    curve = evaluate([0] * 5 + [1] * 7, np.linspace(0.01, 0.99, 12), scale="probabilities").to_dict()["two_classes"]
    area = curve["precision_recall"]
    assert 0.999 < area["area"] < 1
    assert 0 <= area["lower"] <= area["area"] <= area["upper"] <= 1


def test_there_are_no_curves_without_two_classes() -> None:
    assert evaluate([0, 1, 2], np.eye(3)).to_dict()["two_classes"] is None
    one_label = evaluate([0, 0], [0.1, 0.2], classes=[0, 1], scale="probabilities").to_dict()
    assert one_label["two_classes"] is None
    render_html(one_label)


def test_missed_rare_positives_are_no_suspect_labels() -> None:
    advice = {item["rule"]: item for item in evaluate(Y, P**2, scale="probabilities").to_dict()["advice"]}
    assert "suspect-labels" not in advice
    assert "--cost-false-negative" in advice["threshold"]["reason"]
    assert "threshold" not in {item["rule"] for item in REPORT["advice"]}  # the costs were said


def test_the_drawings_show_the_numbers() -> None:
    for draw, name in ((draw_roc, "roc"), (draw_precision, "precision_recall")):
        figure = Figure()
        draw(figure, LIGHT, STATE)
        np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata(), STATE[name]["points"])
    figure = Figure()
    draw_scores(figure, LIGHT, STATE)
    upper, lower = figure.axes
    points = upper.collections[1].get_offsets()
    np.testing.assert_allclose(points, [[b["probability"], b["share"]] for b in STATE["reliability"]])
    assert [text.get_text() for text in lower.get_legend().get_texts()] == ["negatives", "positives"]


BAD = [
    (Decision("theft"), "'theft'"),
    (Decision(None, 0.0), "false negative must be a positive number; got 0.0"),
    (Decision(None, 1.0, float("inf")), "false positive"),
]


@pytest.mark.parametrize(("decision", "text"), BAD)
def test_a_decision_that_cannot_be_is_refused(decision: Decision, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        evaluate(Y, P, scale="probabilities", decision=decision)


def test_costs_of_three_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="need two classes; got 3"):
        evaluate([0, 1, 2], np.eye(3), decision=Decision(None, 5.0))


def test_the_command_takes_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"y": Y, "p_fraud": P}).write_csv("p.csv")
    asked = ["report", "p.csv", "--target", "y", "--probabilities", "--positive", "fraud"]
    result = CliRunner().invoke(app, [*asked, "--cost-false-negative", "10"])
    assert result.exit_code == 0, result.output
    assert "If a missed fraud costs 10 and a false alarm 1" in result.output
    assert json.loads((tmp_path / "out" / "report.json").read_text())["two_classes"]["costs"] == STATE["costs"]
    refused = CliRunner().invoke(app, [*asked, "-o", "other", "--cost-false-positive", "-1"])
    assert refused.exit_code == 2
    assert "must be a positive number; got -1.0" in refused.output


def test_a_fit_is_not_lost_for_a_class_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"y": Y, "x": SCORES}).write_csv("t.csv")
    result = CliRunner().invoke(app, ["fit", "t.csv", "--target", "y", "--positive", "theft"])
    assert result.exit_code == 0
    assert "must be one of 'fine', 'fraud'; got 'theft': the report takes the default costs" in result.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
