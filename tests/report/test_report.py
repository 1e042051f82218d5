"""The report's dict, and that the renderers show it without trusting a word that came from the data."""

from __future__ import annotations

import html
import io
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from crossent.report import render_html, render_terminal, summarize_fit, summarize_predictions
from crossent.report.evaluation import MATRIX_CLASSES
from crossent.tabular import Predictions, fit_table, read_predictions

NASTY = "<script>alert('x')</script>&\"{{ 7 * 7 }}"


def fitted(rows: int = 90) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    kind = np.arange(rows) % 3
    frame = pl.DataFrame(
        {
            "size": [None if k % 10 == 0 else float(v) for k, v in enumerate(rng.normal(size=rows) + kind)],
            "colour": [["red", "green", ""][k] for k in rng.permutation(kind)],
            "kind": [["ant", "bee", "cat"][k] for k in kind],
        }
    )
    return summarize_fit(fit_table(frame, "t.csv", "kind"))


def judged(frame: pl.DataFrame) -> Predictions:
    return read_predictions(frame, "p.csv", "y", "probabilities")


def random_predictions(rows: int, classes: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet(np.ones(classes), size=rows)
    # Every class has a row, so that labels and columns agree.
    truth = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    frame = pl.DataFrame({f"p_{k}": prob[:, k] for k in range(classes)})
    return frame.with_columns(y=pl.Series(truth))


def plain_types(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and plain_types(item) for key, item in value.items())
    if isinstance(value, list):
        return all(plain_types(item) for item in value)
    return value is None or type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value))


def test_schema_of_fit() -> None:
    report = fitted()
    assert set(report) == {
        "schema", "crossent_version", "kind", "source", "target", "rows_judged", "data", "classes", "imbalance", "loss",
        "accuracy", "brier_score", "per_class", "costliest_classes",
        "confusion", "reliability", "surprising", "training_loss", "optimiser",
        "notes", "warnings", "advice", "calibration", "honesty", "two_classes", "model",
        "slices", "drivers", "coefficients", "learning_curve", "card",
    }  # fmt: skip
    assert report["schema"] == "crossent.report/1"
    assert plain_types(report)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert fitted() == report
    assert report["data"] == {
        "rows": 90,
        "columns": 2,
        "number_columns": 1,
        "category_columns": 1,
        "dropped_columns": [],
        "inputs": 3,
        "missing_cells": 39,
        "training_rows": 67,
        "stratified": True,
        "test_rows": 23,
        "calibration_rows": 0,
        "seed": 0,
    }


def test_schemas_agree() -> None:
    other = summarize_predictions(judged(random_predictions(50, 3)))
    assert set(other) - {"declared"} == set(fitted())
    assert plain_types(other)
    assert other["optimiser"] is None


def test_numbers_by_hand() -> None:
    frame = pl.DataFrame(
        {
            "y": ["a", "a", "b", "b"],
            "p_a": [0.5, 0.25, 0.25, 0.5],
            "p_b": [0.25, 0.5, 0.75, 0.25],
            "p_c": [0.25, 0.25, 0, 0.25],
        }
    )
    report = summarize_predictions(judged(frame))
    bits = [1, 2, math.log2(4 / 3), 2]
    assert report["loss"]["bits"] == pytest.approx(sum(bits) / 4, rel=1e-14)
    assert report["loss"]["nats"] == pytest.approx(sum(bits) / 4 * math.log(2), rel=1e-14)
    assert report["loss"]["baseline"]["bits"] == pytest.approx(1, rel=1e-14)
    assert report["loss"]["explained"] == pytest.approx(1 - sum(bits) / 4, rel=1e-12)
    assert report["accuracy"] == {"value": 0.5, "right": 2, "rows": 4, "most_common_class": 0.5}
    assert report["confusion"]["matrix"] == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert report["confusion"]["most_confused"] == [
        {"label": "a", "prediction": "b", "rows": 1},
        {"label": "b", "prediction": "a", "rows": 1},
    ]
    a, b, c = report["per_class"]
    assert (a["rows"], a["loss"]["bits"], a["recall"], a["precision"]) == (2, pytest.approx(1.5), 0.5, 0.5)
    assert b["loss"]["bits"] == pytest.approx((bits[2] + 2) / 2)
    assert (c["rows"], c["loss"], c["recall"], c["precision"]) == (0, None, None, None)
    assert [entry["row"] for entry in report["surprising"]] == [1, 3, 0, 2]
    assert report["surprising"][0] == {
        "row": 1,
        "label": "a",
        "prediction": "b",
        "loss": {"nats": pytest.approx(2 * math.log(2)), "bits": pytest.approx(2)},
        "label_probability": 0.25,
        "prediction_probability": 0.5,
        "cells": None,
        "outlying": None,
    }
    filled = [entry for entry in report["reliability"]["bins"] if entry["rows"]]
    found = [(entry["rows"], entry["confidence"], entry["accuracy"]) for entry in filled]
    assert found == [(3, 0.5, 1 / 3), (1, 0.75, 1)]
    assert report["reliability"]["calibration_error"] == pytest.approx(0.75 * (0.5 - 1 / 3) + 0.25 * 0.25)
    assert report["imbalance"]["ratio"] == 1


def test_fit_is_judged_beside_the_training_prior() -> None:
    rng = np.random.default_rng(0)
    labels = ["a"] * 60 + ["b"] * 20
    result = fit_table(pl.DataFrame({"x": rng.normal(size=80), "y": labels}), "t", "y")
    report = summarize_fit(result)
    test = np.bincount(result.test_codes) / len(result.test)
    train = (np.array([60, 20]) - np.bincount(result.test_codes)) / (80 - len(result.test))
    assert report["loss"]["baseline"]["nats"] == pytest.approx(-float(test @ np.log(train)), rel=1e-12)
    assert "training part" in report["loss"]["baseline"]["is"]
    assert report["imbalance"]["ratio"] == 3
    assert report["optimiser"]["converged"] is True
    history = report["optimiser"]["history"]
    assert history[-1]["objective"] < history[0]["objective"]
    assert [entry["iteration"] for entry in history] == sorted({entry["iteration"] for entry in history})
    assert set(report["surprising"][0]["cells"]) == {"x"}


def test_many_classes_have_no_matrix_but_the_pairs_confused() -> None:
    report = summarize_predictions(judged(random_predictions(300, MATRIX_CLASSES + 1)))
    assert report["confusion"]["matrix"] is None
    assert len(report["confusion"]["most_confused"]) == 10
    means = [entry["loss"]["nats"] for entry in report["per_class"]]
    assert report["costliest_classes"] == sorted(range(len(means)), key=lambda k: -means[k])
    shown = terminal(report)
    assert "The 20 classes of highest loss" in shown
    assert "… and 21 more classes" in shown
    assert "Most often confused" in shown
    render_html(report)


class Tags(HTMLParser):
    """Collects the tags, attributes and visible text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def terminal(report: dict[str, Any], width: int = 80) -> str:
    file = io.StringIO()
    render_terminal(report, Console(file=file, width=width, color_system=None))
    return file.getvalue()


def test_everything_from_the_data_is_escaped() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            f"column {NASTY}": rng.normal(size=40),
            "cell": [f"cell {NASTY}"] * 20 + [f"other {NASTY}"] * 20,
            f"target {NASTY}": [f"class {NASTY}", "plain"] * 20,
        }
    )
    report = summarize_fit(fit_table(frame, f"source {NASTY}", f"target {NASTY}"))
    report["notes"].append(f"note {NASTY}")
    report["warnings"].append(f"warning {NASTY}")
    page = render_html(report)
    assert page.count("<script") == 1  # ours, which holds nothing of the data
    for word in ("column", "cell", "target", "class", "source", "note", "warning"):
        assert html.escape(f"{word} {NASTY}").replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    parsed = Tags()
    parsed.feed(page)
    assert parsed.tags.count("script") == 1
    assert any(f"class {NASTY}" in text for text in parsed.text)


def test_the_page_needs_no_network_and_runs_nothing() -> None:
    page = render_html(fitted())
    parsed = Tags()
    parsed.feed(page)
    pictures = [link for link in parsed.links if not link.startswith("#")]
    assert len(pictures) >= 4
    assert all(link.startswith("data:image/svg+xml;base64,") for link in pictures)
    assert not re.search(r"url\(|@import|<link|\son\w+=", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_shows_the_numbers() -> None:
    report = fitted()
    parsed = Tags()
    parsed.feed(render_html(report))
    text = " ".join(" ".join(parsed.text).split())
    assert f"{report['loss']['nats']:.4f}" in text
    assert f"{report['loss']['bits']:.4f}" in text
    assert f"{report['loss']['baseline']['nats']:.4f}" in text
    assert f"{report['accuracy']['right']} of {report['accuracy']['rows']} rows" in text
    assert str(report["surprising"][0]["row"]) in text


def test_the_same_report_gives_the_same_page() -> None:
    report = fitted()
    assert render_html(report) == render_html(json.loads(json.dumps(report)))


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_the_numbers_within_its_width(width: int) -> None:
    report = fitted()
    shown = terminal(report, width)
    assert max(len(line) for line in shown.splitlines()) <= width
    for number in (report["loss"]["nats"], report["loss"]["bits"], report["loss"]["baseline"]["nats"]):
        assert f"{number:.4f}" in shown
    for entry in report["surprising"]:
        assert str(entry["row"]) in shown


def test_long_and_marked_up_class_names_do_not_break_the_terminal() -> None:
    names = ["[bold red]" + "x" * 60, "[/]", "\x1b[2J\n"]
    frame = pl.DataFrame({"y": names * 2, **{name: [1 / 3] * 6 for name in names}})
    shown = terminal(summarize_predictions(judged(frame)))
    assert "[bold red]" in shown
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_perfect_predictions() -> None:
    frame = pl.DataFrame({"y": ["a", "b"], "a": [1.0, 0.0], "b": [0.0, 1.0]})
    report = summarize_predictions(judged(frame))
    assert report["loss"]["nats"] == 0
    assert report["loss"]["explained"] == 1
    assert report["confusion"]["most_confused"] == []
    assert "No row was confused" in render_html(report)
    assert "100 %" in terminal(report)


def test_predictions_worse_than_the_baseline() -> None:
    frame = pl.DataFrame({"y": ["a", "b"], "a": [0.25, 0.75], "b": [0.75, 0.25]})
    report = summarize_predictions(judged(frame))
    assert report["loss"]["explained"] == pytest.approx(-1)
    assert "Worse than the baseline: the loss is 100 % higher" in terminal(report)
    assert "Worse than the baseline" in render_html(report)


def test_one_label_only_has_a_baseline_of_zero() -> None:
    frame = pl.DataFrame({"y": ["a", "a"], "p_a": [0.5, 0.75], "p_b": [0.5, 0.25]})
    report = summarize_predictions(judged(frame))
    assert report["loss"]["baseline"]["nats"] == 0
    assert report["loss"]["explained"] is None
    assert "The baseline is 0" in terminal(report)
    assert "The baseline is 0" in render_html(report)
