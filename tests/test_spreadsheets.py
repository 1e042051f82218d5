"""Predictions that a spreadsheet opens: no text of them starts a formula, and the report reads what was meant."""

from __future__ import annotations

import csv
import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_cli import run

from crossent.tabular import read_table
from crossent.tabular.spreadsheets import escape_formulas, name_target, read_labels

SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
PLAIN = ("", "a", "a=b", "'", "'a", " =1", "-1", "+1", "-.5", "-1.5e-3", "1", "-", "''")
FORMULAS = (
    "=1+1",
    "=LINK(A1)",
    "+a",
    "-a",
    "-1a",
    "-1.2.3",
    "--1",
    "@A1",
    "\t=1",
    "'=1",
    "'-1",
    "''=1",
    "-inf",
    "=",
    "+",
)


def escaped(*texts: str) -> list[str]:
    return escape_formulas(pl.DataFrame({"c": [*texts]}))["c"].to_list()


def starts_formula(cell: str) -> bool:
    return cell.startswith(SIGNS) and not NUMBER.fullmatch(cell) and cell != "-"


def test_formulas_get_an_apostrophe_and_nothing_else_does() -> None:
    assert escaped(*PLAIN) == [*PLAIN]
    assert escaped(*FORMULAS) == [f"'{text}" for text in FORMULAS]
    assert escaped(*(sign + "a" for sign in SIGNS)) == [f"'{sign}a" for sign in SIGNS]
    frame = pl.DataFrame({"=n": [-1.5], "=t": [None], "c": pl.Series(["=a"], dtype=pl.Categorical)})
    assert escape_formulas(frame).to_dict(as_series=False) == {"'=n": [-1.5], "'=t": [None], "c": ["'=a"]}


def test_every_set_of_labels_is_read_back() -> None:
    """Labels of up to four characters, among which are the apostrophe and the signs: one, and one another escaped."""
    rng = random.Random(0)
    every = ["".join(letters) for n in range(5) for letters in itertools.product("'=-1", repeat=n)]
    assert all(not starts_formula(text) for text in escaped(*every))
    for _ in range(500):
        labels = rng.sample(every, rng.randint(1, 6))
        classes = {*labels, *rng.sample(every, 3)}
        assert read_labels(escaped(*labels), classes) == labels
    assert len({*escaped(*every)}) == len(every)


def test_labels_that_others_wrote_stay() -> None:
    assert read_labels(["'=x", "y"], {"'=x", "y"}) == ["'=x", "y"]
    assert read_labels(["'=x", "=x"], {"'=x", "=x"}) == ["'=x", "=x"]
    assert read_labels(["'=x", "'-1"], {"=x"}) == ["'=x", "'-1"]
    frame = pl.DataFrame({"'=y": [1], "=z": [2], "'=z": [3]})
    assert name_target(frame, "=y").columns == ["=y", "=z", "'=z"]
    for target in ("'=y", "=z", "'=z", "none"):
        assert name_target(frame, target) is frame


HOSTILE = ["=cmd|' /C calc'!A0", "@SUM(1)", "-1", "+1+1", "-", "'=1", "=1", "\t=2", "bee"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """A table, also as t.parquet, whose target and labels are formulas."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    kind = rng.permutation(90) % len(HOSTILE)
    frame = pl.DataFrame({"x": rng.normal(size=90) + kind, "=1+1": [HOSTILE[k] for k in kind]})
    frame.write_parquet("t.parquet")
    assert run("fit", "t.parquet", "--target", "=1+1", "--no-na").exit_code == 0
    return frame


def rows_by_label(predictions: str) -> dict[str, int]:
    result = run("report", predictions, "--target", "=1+1", "--probabilities", "-o", "judged", "--overwrite")
    assert (result.exit_code, result.stderr) == (0, "")
    return {one["label"]: one["rows"] for one in json.loads(Path("judged/report.json").read_text())["classes"]}


@pytest.mark.parametrize("way", ["--stream", "--no-stream"])
def test_from_predict_to_report_no_formula_and_no_label_lost(data: pl.DataFrame, way: str) -> None:
    predict = ("predict", "out/model.safetensors", "t.parquet", way, "-o")
    counts = {label: data["=1+1"].to_list().count(label) for label in HOSTILE}
    assert run(*predict, "p.csv").exit_code == 0
    with Path("p.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.reader(file))
    assert cells[0][:2] == ["'=1+1", "prediction"]
    assert not [cell for row in cells for cell in row if starts_formula(cell)]
    assert {row[0] for row in cells[1:]} == {*escaped(*HOSTILE)}
    assert rows_by_label("p.csv") == counts
    # A part of the rows, in which nothing but the columns tells what was escaped.
    part = pl.read_csv("p.csv", infer_schema=False).filter(pl.col("'=1+1") == "'=1")
    part.write_csv("part.csv")
    assert {label: n for label, n in rows_by_label("part.csv").items() if n} == {"=1": counts["=1"]}

    assert run(*predict, "raw.csv", "--no-escape-formulas").exit_code == 0
    assert Path("raw.csv").read_text().startswith("=1+1,")
    assert rows_by_label("raw.csv") == counts
    assert run(*predict, "p.parquet").exit_code == 0
    assert read_table("p.parquet")["=1+1"].to_list() == data["=1+1"].to_list()
    assert rows_by_label("p.parquet") == counts


def test_both_ways_write_the_same_bytes(data: pl.DataFrame) -> None:
    for way in ("--stream", "--no-stream"):
        assert run("predict", "out/model.safetensors", "t.parquet", way, "-o", f"p{way}.csv").exit_code == 0
    assert Path("p--stream.csv").read_bytes() == Path("p--no-stream.csv").read_bytes()
