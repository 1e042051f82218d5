"""Each rule of "what to do next" fires on predictions that call for it, and not on those beside them."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from crossent.report import evaluate, render_html, summarize_fit, summarize_predictions
from crossent.report.advice import advice
from crossent.tabular import FitOptions, Predictions, fit_table

from .test_sections import predictions, rules, table


def made(codes: Any, probabilities: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The report on labels and probabilities."""
    codes, probabilities = np.asarray(codes), np.asarray(probabilities, dtype=float)
    losses = -np.log(probabilities[np.arange(len(codes)), codes])
    return summarize_predictions(
        Predictions("p.csv", "y", "probabilities", names, codes, losses, probabilities, [], [])
    )


def item(report: dict[str, Any], rule: str) -> dict[str, Any]:
    (found,) = [entry for entry in report["advice"] if entry["rule"] == rule]
    render_html(report)
    return found


def test_nothing_to_do() -> None:
    report = summarize_predictions(predictions(60))
    assert rules(report) == ["nothing"]
    assert item(report, "nothing")["title"] == "Nothing stands out"


def hits_and_misses(counts: dict[tuple[int, int], int], sure: float) -> tuple[Any, Any]:
    """Labels, and probabilities that put `sure` on the prediction, for so many rows of each (label, prediction)."""
    codes, rows = [], []
    for (label, prediction), number in counts.items():
        for _ in range(number):
            codes.append(label)
            rows.append([sure if k == prediction else (1 - sure) / 2 for k in range(3)])
    return codes, rows


def test_collect_more_of_a_rare_class_that_costs_much() -> None:
    common = {(0, 0): 90, (0, 1): 5, (0, 2): 5, (1, 1): 90, (1, 0): 5, (1, 2): 5}
    report = made(*hits_and_misses({**common, (2, 0): 15, (2, 1): 15}, 0.9), names=("a", "b", "rare"))
    found = item(report, "collect")
    assert found["title"] == "Collect more rows of rare"
    assert "30 rows" in found["reason"]
    as_common = {(2, 0): 60, (2, 1): 60}
    assert "collect" not in rules(made(*hits_and_misses({**common, **as_common}, 0.9), names=("a", "b", "c")))
    learned = {(2, 2): 27, (2, 0): 1, (2, 1): 2}
    assert "collect" not in rules(made(*hits_and_misses({**common, **learned}, 0.9), names=("a", "b", "rare")))


def test_two_classes_that_are_taken_for_each_other() -> None:
    right = {(0, 0): 80, (1, 1): 80, (2, 2): 80}
    report = made(*hits_and_misses({**right, (0, 1): 15, (1, 2): 3}, 0.9), names=("cat", "dog", "emu"))
    found = item(report, "confusion")
    assert found["title"] == "Tell cat from dog"
    assert "83.3 % of all mistakes" in found["reason"]
    spread = {(0, 1): 3, (1, 0): 3, (0, 2): 3, (2, 0): 3, (1, 2): 3, (2, 1): 3}
    assert "confusion" not in rules(made(*hits_and_misses({**right, **spread}, 0.9), names=("cat", "dog", "emu")))


def test_a_model_that_knows_its_training_rows_by_heart() -> None:
    report = summarize_fit(fit_table(table(300), "t", "y", FitOptions(strength=1e3)))
    found = item(report, "overfitting")
    assert "nats lower; lower --C, or let --sweep choose it" in found["reason"]
    assert report["loss"]["nats"] > 1.5 * report["training_loss"]["nats"]
    many = summarize_fit(fit_table(table(4000)[["x0", "x1", "x2", "y"]], "t", "y"))
    assert "overfitting" not in rules(many)


def test_what_no_temperature_mends() -> None:
    # Right less often than said where unsure, more often where sure: a temperature mends one and spoils the other.
    rng = np.random.default_rng(0)
    sure = rng.random(3000) < 0.5
    hit = rng.random(3000) < np.where(sure, 0.97, 0.45)
    said = np.where(sure, 0.8, 0.7)
    report = made((~hit).astype(int), np.column_stack([said, 1 - said]), ("a", "b"))
    assert report["honesty"]["p_value"] < 0.01
    found = item(report, "recalibrate-further")
    assert "no single temperature repairs that" in found["reason"]
    assert "recalibrate" not in rules(report)
    mended = np.where(sure, 0.97, 0.45)
    kept = made((~hit).astype(int), np.column_stack([mended, 1 - mended]), ("a", "b"))
    assert "recalibrate-further" not in rules(kept)


def test_rare_positives_that_are_missed_are_no_suspect_labels() -> None:
    # Ten of 25 frauds get less than 2 %, the others are found; then one of 25.
    for missed in (10, 1):
        p = np.concatenate([np.full(missed, 0.005), np.full(25 - missed, 0.9), np.full(975, 0.004)])
        report = made([1] * 25 + [0] * 975, np.column_stack([1 - p, p]), ("no", "fraud"))
        assert ("suspect-labels" in rules(report)) == (missed == 1)


def run(*arguments: str) -> dict[str, Any]:
    """The report that a command writes."""
    from typer.testing import CliRunner

    from crossent.cli import app

    done = CliRunner().invoke(app, [*arguments])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(Path("out/report.json").read_text())
    return found


def test_commands_can_be_pasted_and_are_not_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(80).write_csv("a table.csv")
    first = run("fit", "a table.csv", "--target", "y", "--C", "1000")
    command = item(first, "overfitting")["command"]
    assert command == "crossent fit 'a table.csv' --target y --sweep"
    followed = {**first, "card": {**first["card"], "C_chosen": True, "command": shlex.split(command)}}
    (again,) = [entry for entry in advice(followed) if entry["rule"] == "overfitting"]
    assert again["command"] == f"{command} --learning-curve"
    assert "--sweep" not in again["reason"]


def test_the_rows_of_an_advice_are_printed_by_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    port, y = rng.choice(["Q", "S"], 400, p=[0.2, 0.8]), rng.integers(2, size=400)
    p = np.where((port == "Q") == (y == 1), 0.2, 0.8)
    pl.DataFrame({"port": port, "y": y, "p_1": p}).write_csv("it's.csv")
    report = run("report", "it's.csv", "--target", "y", "--probabilities")
    found = item(report, "slice")
    assert (found["title"], len(found["rows"])) == ("Look at the rows where port = Q", 10)
    program, flag, code = shlex.split(found["command"])
    assert (program, flag) == ("python", "-c")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue().count("Q") == 10


def test_advice_from_python_is_python() -> None:
    rng = np.random.default_rng(0)
    z = 4 * rng.normal(size=(800, 2))
    y = (z + 4 * rng.gumbel(size=z.shape)).argmax(axis=1)
    command = item(evaluate(y, z, scale="logits").to_dict(), "recalibrate")["command"]
    calibrated = eval(command, {"crossent": __import__("crossent.sklearn"), "logits": z, "y": y})
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_reasons_are_escaped_and_cut() -> None:
    common = {(0, 0): 90, (0, 1): 5, (0, 2): 5, (1, 1): 90, (1, 0): 5, (1, 2): 5, (2, 0): 15, (2, 1): 15}
    name = "<b>" + 500 * "x"
    report = made(*hits_and_misses(common, 0.9), names=("a", "b", name))
    assert len(item(report, "collect")["title"]) < 100
    assert "<b>x" not in render_html(report)


@pytest.mark.parametrize("value", [9999.0, 3.0])
def test_a_value_far_outside_is_named_before_a_wrong_label(value: float) -> None:
    """Two classes that x tells apart; one row of the test part holds another x."""
    rng = np.random.default_rng(0)
    codes = np.arange(400) % 2
    x = rng.normal(size=400) + 6 * codes
    frame = pl.DataFrame({"x": x, "y": [("a", "b")[k] for k in codes]})
    row = int(fit_table(frame, "t", "y").test[0])
    x[row] = value if codes[row] == 0 else 6 - value
    result = fit_table(frame.with_columns(x=x), "t", "y")
    report = summarize_fit(result)
    if value == 9999:
        found = item(report, "outlying-values")
        assert found["rows"] == [row]
        assert f"column x holds {x[row]:.6g} in row {row}" in found["reason"]
    assert ("outlying-values" in rules(report)) == (value == 9999)
    assert [row] != [n for entry in report["advice"] if entry["rule"] == "suspect-labels" for n in entry["rows"]]


def test_every_rule_is_fired_by_some_test() -> None:
    import re

    import crossent.report.advice as module

    written = set(re.findall(r'_rule\(\s*"([\w-]+)"', Path(module.__file__).read_text())) | {"nothing"}
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert {rule for rule in written if f'"{rule}"' not in tests} == set()
    assert len(written) == 13


def test_a_frame_without_mistakes_has_no_advice_on_classes() -> None:
    frame = pl.DataFrame({"x": [0.0, 1.0] * 40, "y": ["a", "b"] * 40})
    assert not {"collect", "confusion", "suspect-labels"} & set(rules(summarize_fit(fit_table(frame, "t", "y"))))
