"""`crossent.report.evaluate`, `from_estimator` and what a `Report` can do."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from crossent.report import Decision, evaluate, from_estimator, summarize_predictions
from crossent.tabular import read_predictions

LABELS = ["cat", "dog", "cat", "eel", "dog", "eel"]
LOGITS = np.array([[2.0, 0, -1], [0, 1, 0], [-1, 2, 0], [0, 0, 3], [1, 1.5, 0], [0, 1, 0.5]])
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def same(first: dict[str, Any], second: dict[str, Any], *, but: tuple[str, ...]) -> bool:
    return {k: v for k, v in first.items() if k not in but} == {k: v for k, v in second.items() if k not in but}


@pytest.mark.parametrize(("scale", "values"), [("probabilities", P), ("logits", LOGITS)])
def test_it_is_the_report_of_the_command(scale: Any, values: np.ndarray) -> None:
    frame = pl.DataFrame({"y": LABELS, "cat": values[:, 0], "dog": values[:, 1], "eel": values[:, 2]})
    wanted = summarize_predictions(read_predictions(frame, "predictions", "y", scale))
    for given in (scale, None):
        assert same(evaluate(LABELS, values, scale=given).to_dict(), wanted, but=("notes",))


def test_one_column_is_the_second_class() -> None:
    y, p = [0, 1, 1, 0], np.array([0.2, 0.7, 0.4, 0.1])
    both = evaluate(y, np.column_stack([1 - p, p])).to_dict()
    one = evaluate(y, p, scale="probabilities").to_dict()
    assert one["loss"]["nats"] == pytest.approx(both["loss"]["nats"], rel=1e-15)  # log1p(-p) against log(1 - p)
    assert same(one, both, but=("loss", "per_class", "honesty", "surprising"))
    as_logits = evaluate(y, np.log(p / (1 - p)), scale="logits").to_dict()
    assert as_logits["loss"]["nats"] == pytest.approx(both["loss"]["nats"], rel=1e-12)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, lambda cells: np.array(list(cells.values())).T])
def test_cells_are_shown_beside_surprising_rows(make: Any) -> None:
    report = evaluate(LABELS, P, X=make({"name": list("abcdef"), "age": [1, 2, 3, 4, 5, 6]}))
    worst = report.to_dict()["surprising"][0]
    assert worst["row"] == 2
    assert list(worst["cells"].values()) == ["c", "3"]


def test_a_classifier_is_judged_by_its_probabilities() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    y = np.where(X["a"] + rng.normal(size=60) > 0, "yes", "no")
    model = LogisticRegression().fit(X, y)
    report = from_estimator(model, X, y)
    assert same(
        report.to_dict(),
        evaluate(y, model.predict_proba(X), classes=model.classes_, X=X, name="LogisticRegression").to_dict(),
        but=("drivers",),
    )
    weak = from_estimator(LogisticRegression(C=1e-4).fit(X, y), X, y, name="weak")
    compared = report.compare(weak)
    difference = weak.to_dict()["loss"]["nats"] - report.to_dict()["loss"]["nats"]
    assert compared.to_dict()["paired"]["difference"] == pytest.approx(difference, rel=1e-9)
    assert "LogisticRegression" in repr(compared)
    assert "weak" in str(compared)


def test_it_is_saved_and_nothing_is_overwritten(tmp_path: Path) -> None:
    report = evaluate(LABELS, P)
    paths = report.save(tmp_path / "out")
    assert [path.name for path in paths] == ["report.json", "report.html"]
    saved = json.loads(paths[0].read_text())
    assert same(saved, report.to_dict(), but=("run",))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        report.save(tmp_path / "out")
    report.save(tmp_path / "out", overwrite=True)


def test_a_notebook_shows_the_page_whole_and_escaped(tmp_path: Path) -> None:
    report = evaluate(["<b>", "x", '"x', "x"], P[:4], classes=["<b>", '"x', "x"])
    shown = report._repr_html_()
    page = re.fullmatch(r'<iframe title="crossent report" srcdoc="([^"]*)" style="[^"]*"></iframe>', shown)
    assert page is not None
    report.save(tmp_path)
    saved = (tmp_path / "report.html").read_text()
    unmarked = re.sub(r'<meta name="crossent-run"[^>]*>\n| · run [0-9a-f]+', "", saved)
    assert html.unescape(page[1]) == unmarked
    assert "<b>" not in page[1]


def test_the_plot_is_the_reliability_diagram() -> None:
    upper, lower = evaluate(LABELS, P).plot().axes
    assert (upper.get_ylabel(), lower.get_xlabel()) == ("accuracy", "confidence in the predicted class")


def test_the_dict_is_its_own() -> None:
    report = evaluate(LABELS, P)
    report.to_dict()["loss"]["nats"] = 0
    assert report.to_dict()["loss"]["nats"] > 0


def test_an_impossible_label_costs_infinitely_much() -> None:
    assert repr(evaluate([0, 1], [[0.5, 0.5], [1.0, 0.0]])) == "<Report of 2 rows: loss ∞ nats, accuracy 50.0 %>"


REPORT = evaluate(LABELS, P)
BAD: list[tuple[Any, str]] = [
    (lambda: evaluate(LABELS, P[:3]), "3"),
    (lambda: evaluate([], np.empty((0, 2)), classes=[0, 1], scale="logits"), "non-empty"),
    (lambda: evaluate([0.0, np.nan], P[:2, :2], scale="logits"), "nan"),
    (lambda: evaluate([0, 1], [0.3, 0.4]), 'scale="probabilities" or scale="logits"'),
    (lambda: evaluate([0, 1], [[0.5, 0.6], [0.1, 0.2]]), 'scale="probabilities" or scale="logits"'),
    (lambda: evaluate([0, 1], [[0.5, 0.7], [0.1, 0.2]], scale="probabilities"), "sum"),
    (lambda: evaluate(LABELS, P, scale="odds"), "'odds'"),
    (lambda: evaluate(LABELS, P, X=np.zeros((5, 2))), "5 rows"),
    (lambda: evaluate(LABELS, P, X=np.zeros(6)), r"\(6,\)"),
    (lambda: REPORT.compare(evaluate([0, 1], [[0.5, 0.5], [1.0, 0.0]])), "different classes"),
    (lambda: REPORT.compare(REPORT).plot(), "a comparison of two"),
    (lambda: REPORT.compare(REPORT.compare(REPORT)), "a comparison of two"),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_one_sentence(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_regressor_is_refused() -> None:
    with pytest.raises(TypeError, match="predict_proba; got LinearRegression"):
        from_estimator(LinearRegression(), P, LABELS)


def test_weights_count_as_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 300)
    y = np.where(rng.random(300) < p**2, "yes", "no")
    weight = rng.integers(0, 4, 300)
    weighted = evaluate(y, np.column_stack([1 - p, p]), sample_weight=weight, decision=Decision("yes", 5, 1)).to_dict()
    again = np.repeat(np.arange(300), weight)
    P = np.column_stack([1 - p, p])[again]
    repeated = evaluate(y[again], P, decision=Decision("yes", 5, 1)).to_dict()

    def numbers(report: dict[str, Any]) -> list[float]:
        two, loss = report["two_classes"], report["loss"]
        found = [loss["nats"], loss["baseline"]["nats"], report["accuracy"]["value"], report["brier_score"]]
        found += [report["accuracy"]["most_common_class"], report["reliability"]["calibration_error"]]
        found += [b["accuracy"] for b in report["reliability"]["bins"] if b["rows"]]
        found += [e[key] for e in report["per_class"] for key in ("recall", "precision")]
        found += [e["loss"]["nats"] for e in report["per_class"]]
        found += [two["share"], two["roc"]["area"], two["precision_recall"]["area"]]
        found += [t[key] or 0 for t in two["thresholds"] for key in ("precision", "recall", "net_benefit")]
        found += [v for key, v in two["costs"].items() if isinstance(v, float)]
        return found

    np.testing.assert_allclose(numbers(weighted), numbers(repeated), rtol=1e-9)
    assert weighted["two_classes"]["roc"]["lower"] is None
    assert any("by their weights" in note for note in weighted["notes"])


def test_a_row_of_weight_0_does_not_count() -> None:
    report = evaluate([0, 1, 1], [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], sample_weight=[1, 1, 0])
    assert report.to_dict()["loss"]["impossible_rows"] == 0
    assert "row" in str(report)
    assert report._repr_html_()
    assert report.to_dict()["loss"]["nats"] == pytest.approx(-np.log([0.5, 0.75]).mean())
    with pytest.raises(ValueError, match="rows that count alike; got sample_weight"):
        report.compare(evaluate([0, 1, 1], [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="sample_weight must hold 3 finite weights"):
        evaluate([0, 1, 1], P[:3, :2] / P[:3, :2].sum(1, keepdims=True), sample_weight=[1, 1])


def test_every_plot_is_drawn_or_says_what_it_needs() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(60, 2)), columns=["$a$", "b"])
    y = np.where(X["$a$"] + rng.normal(size=60) > 0, "yes", "no")
    report = from_estimator(LogisticRegression().fit(X, y), X, y)
    assert report.plot("precision_recall").axes[0].get_ylabel() == "precision"
    assert len(report.plot("scores").axes) == 2
    axes = report.plot("importance").axes[0]
    strongest = report.to_dict()["drivers"]["columns"][0]
    assert axes.get_yticklabels()[-1].get_text() == strongest["column"] == "$a$"
    assert axes.patches[-1].get_width() == strongest["gain"]
    with pytest.raises(ValueError, match="needs a report of two classes"):
        evaluate(LABELS, P).plot("roc")
    with pytest.raises(ValueError, match="needs a report of from_estimator"):
        evaluate(LABELS, P).plot("importance")
    with pytest.raises(ValueError, match="kind must be one of reliability, roc"):
        report.plot("pie")
