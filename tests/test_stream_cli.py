"""`crossent fit` on Parquet files that are never in memory as a whole, and fits that go on after SIGKILL."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from crossent.cli import app
from crossent.regression import plan
from crossent.tabular import FitOptions, Preprocessing, read_model, should_stream, streaming
from crossent.tabular.columns import kinds_in_windows, read_columns
from crossent.tabular.conversions import learn_conversions
from crossent.tabular.preprocessing import Learned, learn
from crossent.tabular.streaming import fit_parquet


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(rows: int = 2000) -> pl.DataFrame:
    """Numbers, some missing; text that is numbers; few and many categories, some missing; ties between categories."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, 3)) * [1, 100, 0.01] + [0, 1000, 1]
    kind = ((X - [0, 1000, 1]) / [1, 100, 0.01] + rng.gumbel(size=(rows, 3)) / 2).argmax(axis=1)
    missing = rng.random((rows, 2)) < 0.1
    return pl.DataFrame(
        {
            "size": [None if gone else value for gone, value in zip(missing[:, 0], X[:, 0], strict=True)],
            "width": X[:, 1],
            "depth": X[:, 2].astype(np.float32),
            "text": [["NA", "", "7.5", "-3"][i] for i in rng.integers(0, 4, rows)],
            "colour": [
                None if gone else "rgb"[(k + (u < 0.3)) % 3]
                for gone, k, u in zip(missing[:, 1], kind, rng.random(rows), strict=True)
            ],
            "town": [f"t{i}" for i in rng.permutation(rows) % 150],
            "flag": rng.random(rows) < 0.5,
            "constant": np.full(rows, 3),
            "nothing": pl.Series([None] * rows, dtype=pl.Float64),
            "kind": [["ant", "bee", "cat"][k] for k in kind],
        }
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def learn_in_windows(features: pl.DataFrame, training: np.ndarray, window: int) -> Learned:
    conversions, left_out, _ = learn_conversions(features)
    features = conversions.apply(features.drop(left_out))
    parts = [(start, features[start : start + window]) for start in range(0, features.height, window)]
    kinds = kinds_in_windows(features.schema, lambda names: (part.select(names) for _, part in parts))
    read = [(start, read_columns(part, [*kinds.values()], start)) for start, part in parts]
    return learn(lambda: read, kinds, training, training, conversions=conversions)


@pytest.mark.parametrize("window", [97, 5000])
def test_what_is_learned_in_windows_is_what_the_whole_teaches(window: int) -> None:
    features = table().drop("kind")
    training = np.random.default_rng(1).random(features.height) < 0.7
    expected = Preprocessing.fit(features, np.flatnonzero(training))
    learned = learn_in_windows(features, training, window)
    found = learned.preprocessing
    assert found.input_names == expected.input_names
    assert found.categories == expected.categories
    assert [c.other for c in found.categories] == [False, True, False]
    for one, other in zip(found.numbers, expected.numbers, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(
            [one.median, one.mean, one.scale], [other.median, other.mean, other.scale], rtol=1e-9, atol=1e-12
        )
    assert learned.missing_cells == sum(features[name].null_count() for name in ("size", "colour", "nothing")) + sum(
        features["text"].is_in(["NA", ""])
    )
    assert any("'nothing' has no value" in note for note in learned.notes)
    assert any("'town' has many categories" in note for note in learned.notes)


def test_a_streamed_fit_is_the_fit_in_memory_on_its_rows() -> None:
    """The model's coefficients are the optimum of the objective on the rows that were drawn to train."""
    from crossent.sklearn import SoftmaxRegression

    whole = table()
    whole[:777].write_parquet("a.parquet", row_group_size=100)
    whole[777:].write_parquet("b.parquet", row_group_size=333)
    result = fit_parquet("*.parquet", "kind", FitOptions(strength=0.01, tolerance=1e-12, seed=3), window_bytes=1 << 17)
    training = streaming.draw_parts(whole.height, 0.25, 0.0, seed=3) == 0
    matrix = result.model.preprocessing.transform(whole)
    codes = pl.Series(whole["kind"]).replace_strict(["ant", "bee", "cat"], [0, 1, 2]).to_numpy()
    expected = SoftmaxRegression(0.01, tol=1e-12).fit(matrix[training], codes[training])
    assert result.estimator.duality_gap_ <= 1e-12
    np.testing.assert_allclose(result.model.coef, expected.coef_, atol=1e-5)
    np.testing.assert_array_equal(result.test, np.flatnonzero(~training))
    np.testing.assert_allclose(result.test_logits, result.model.logits_of(matrix[~training]), rtol=1e-12)
    losses = -np.log(result.model.predict_probabilities(whole)[np.arange(whole.height), codes])
    assert result.training_loss == pytest.approx(losses[training].mean(), rel=1e-9)
    assert result.cells.equals(whole[np.flatnonzero(~training)].select(result.model.preprocessing.column_names))
    assert result.class_counts.tolist() == np.bincount(codes).tolist()


def test_the_command_writes_the_same_files_and_says_how_it_read() -> None:
    table().write_parquet("t.parquet", row_group_size=321)
    result = run("fit", "t.parquet", "--target", "kind", "--stream", "--drop", "width")
    assert (result.exit_code, result.stderr) == (0, "")
    assert files(Path("out")) == {"model.safetensors", "report.json", "report.html", "test.predictions.parquet"}
    report = json.loads(Path("out/report.json").read_text())
    assert report["data"]["rows"] == 2000
    parts = [report["data"][f"{part}_rows"] for part in ("training", "calibration", "test")]
    assert report["accuracy"]["rows"] == parts[2]
    assert sum(parts) <= 2000
    assert any("read window by window" in note for note in report["notes"])
    assert read_model("out/model.safetensors").classes == ("ant", "bee", "cat")
    in_memory = run("fit", "t.parquet", "--target", "kind", "--drop", "width", "-o", "other")
    assert in_memory.exit_code == 0
    other = json.loads(Path("other/report.json").read_text())
    assert report["loss"]["nats"] == pytest.approx(other["loss"]["nats"], rel=0.15)
    assert set(report) == set(other)
    assert run("predict", "out/model.safetensors", "t.parquet").exit_code == 0


def test_a_table_of_numbers_alone_is_read_in_windows() -> None:
    """After the first window the kind of every column is known."""
    table().select("width", "depth", "kind").write_parquet("t.parquet")
    result = fit_parquet("t.parquet", "kind", window_bytes=1 << 13)
    assert [column.name for column in result.model.preprocessing.numbers] == ["width", "depth"]
    assert "read window by window (4 of them)" in result.notes[0]


def test_a_report_of_many_test_rows_judges_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MOST_JUDGED", 100)
    table().write_parquet("t.parquet")
    result = fit_parquet("t.parquet", "kind", FitOptions(calibration_size=0.2))
    assert len(result.test) == len(result.test_logits) == len(result.cells) == 100
    assert any(re.search(r"judges 100 of the \d+ test rows", note) for note in result.notes)


def test_when_a_table_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    table().write_parquet("t.parquet")
    table().write_csv("t.csv")
    assert not should_stream("t.parquet")
    assert should_stream("*.parquet")
    assert should_stream(".")
    monkeypatch.setattr(streaming, "MEMORY_SHARE", 1e-9)
    assert should_stream("t.parquet")
    assert not should_stream("t.csv")
    Path("digits").mkdir()  # built-in data come first, as in `read_table`
    assert not should_stream("digits")


def test_rows_are_drawn_by_the_seed_and_in_the_shares_asked_for() -> None:
    n = 100_000
    one, other = (streaming.draw_parts(n, 0.25, 0.2, seed) for seed in (0, 1))
    assert np.mean(one != other) > 0.3
    np.testing.assert_array_equal(one[:1000], streaming.draw_parts(1000, 0.25, 0.2, 0))
    for which, share in ((0, 0.6), (1, 0.15), (2, 0.25)):
        deviation = math.sqrt(share * (1 - share) / n)
        assert abs(np.mean(one == which) - share) < 5 * deviation
    even = streaming.draw_parts(n, 0.25, 0.2, 0)[::2]
    assert abs(np.mean(even == 2) - 0.25) < 5 * math.sqrt(0.25 * 0.75 * 2 / n)


def bad(name: str) -> pl.DataFrame:
    frame = table(400)
    if name == "nan":
        return frame.with_columns(width=pl.Series([*frame["width"][:303], float("nan"), *frame["width"][304:]]))
    if name == "no label":
        return frame.with_columns(kind=pl.Series([*frame["kind"][:303], None, *frame["kind"][304:]]))
    if name == "missing number":
        labels = [{"ant": "1", "bee": "2", "cat": "3"}[label] for label in frame["kind"]]
        return frame.with_columns(kind=pl.Series([*labels[:303], "NA", *labels[304:]]))
    if name == "constant label":
        return frame.with_columns(kind=pl.lit("ant"))
    if name == "single":
        return frame.with_columns(kind=pl.Series(["dog", *frame["kind"][1:]]))
    if name == "list":
        return frame.with_columns(width=pl.Series([[1, 2]] * 400))
    return frame


BAD = {
    "nan": ([], "column 'width' holds NaN in row 303 (counted from 0)"),
    "no label": ([], "the target column 'kind' has no label in row 303"),
    "missing number": ([], "the target column 'kind' has no label in row 303"),
    "constant label": ([], "the target column 'kind' is constant ('ant')"),
    "single": ([], "class 'dog' of column 'kind' has one row"),
    "list": ([], "column 'width' holds values of type List"),
    "drop": (["--drop", "none"], "there is no column 'none' in 't.parquet'"),
    "drop target": (["--drop", "kind"], "column 'kind' is the target"),
    "test size": (["--test-size", "1.5"], "between 0 and 1"),
    "calibration size": (["--calibration-size", "1"], "from 0 to below 1"),
    "sweep": (["--sweep"], "--sweep needs the table in memory"),
    "interval": (["--checkpoint-interval", "-1"], "--checkpoint-interval must be 0 or more seconds, and is -1"),
    "sweep resume": (["--sweep", "--resume"], "a sweep keeps no checkpoint to resume"),
    "folder": (["--checkpoint", "."], "the checkpoint '.' is a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_status_2(name: str) -> None:
    bad(name).write_parquet("t.parquet")
    arguments, sentence = BAD[name]
    result = run("fit", "t.parquet", "--target", "kind", "--stream", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("crossent: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert files(Path(".")) == {"t.parquet"}


def test_files_that_are_no_parquet_are_refused() -> None:
    Path("t.parquet").write_text("hello")
    for arguments in (["t.parquet", "--stream"], ["none*.parquet"], ["t.csv", "--stream"]):
        result = run("fit", *arguments, "--target", "kind")
        assert result.exit_code == 2
        assert re.search("cannot read 't.parquet' as parquet|there is no Parquet file", result.stderr)
    assert "Pass --target COLUMN" in run("fit", "t.parquet", "--stream").stderr


KILL = """
import os, signal, sys
from dataclasses import replace
import crossent.cli, crossent.tabular.streaming, crossent.regression.objective
from crossent.regression import plan
from crossent.sklearn import SoftmaxRegression
from crossent.regression.data.parquet import ParquetTable
plan.TUNED = replace(plan.TUNED, cache_bytes=1 << 10, block_elements=1 << 12)
crossent.tabular.streaming.fit_parquet.__kwdefaults__["window_bytes"] = 1 << 15
where, path = sys.argv.pop(1), sys.argv.pop(1)
frame, evaluate, seen = ParquetTable.frame, crossent.regression.objective.LinearObjective.rows, []
def count(at):
    if os.path.exists(path):
        seen.append(at)
        if len(seen) > 12 and at:  # some reads after the first checkpoint, in the middle of the table
            os.kill(os.getpid(), signal.SIGKILL)
if where == "window":
    def read(self, start, stop, columns):
        count(start > 500)
        return frame(self, start, stop, columns)
    ParquetTable.frame = read
elif where == "block":
    def rows(self, rows):
        count(rows.start > 500)
        return evaluate(self, rows)
    crossent.regression.objective.LinearObjective.rows = rows
crossent.cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("where", ["window", "block"])
def test_a_fit_that_was_killed_goes_on_to_the_same_answer(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Streamed, killed while a window is read; and in memory, killed in the middle of a pass over its blocks."""
    table().write_parquet("t.parquet", row_group_size=321)
    stream = "--stream" if where == "window" else "--no-stream"
    fit = ["fit", "t.parquet", "--target", "kind", "--drop", "town", stream, "--tol", "1e-9"]
    fit += ["--C", "10", "--checkpoint-interval", "0"]

    command = [sys.executable, "-c", KILL, where, "out/checkpoint.safetensors", *fit]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert {name for name in files(Path("out")) if not name.startswith(".")} == {"checkpoint.safetensors"}
    refused = run(*fit)
    assert refused.exit_code == 2
    assert "pass --resume to go on from it, or remove it" in refused.stderr
    other = run(*fit, "--resume", "--C", "2")
    assert other.exit_code == 2
    assert "a checkpoint must be of this fit" in other.stderr
    monkeypatch.setattr(plan, "TUNED", replace(plan.TUNED, cache_bytes=1 << 10, block_elements=1 << 12))
    monkeypatch.setitem(fit_parquet.__kwdefaults__, "window_bytes", 1 << 15)
    resumed = run(*fit, "--resume")
    assert (resumed.exit_code, resumed.stderr) == (0, "")
    assert files(Path("out")) == {"model.safetensors", "report.json", "report.html", "test.predictions.parquet"}
    assert run(*fit, "-o", "whole").exit_code == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["optimiser"]["duality_gap"] <= 1e-9
    whole = json.loads(Path("whole/report.json").read_text())
    for summary in (report, whole):  # the command lines differ by --resume and the folder
        assert "fit" in summary["card"].pop("command")
        summary["advice"] = [{**advice, "command": None} for advice in summary["advice"]]
    assert report == whole
    for name in ("model.safetensors", "test.predictions.parquet"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def test_damaged_checkpoints_are_refused_and_missing_ones_are_not() -> None:
    table().write_parquet("t.parquet")
    Path("c").write_text("hello")
    result = run("fit", "t.parquet", "--target", "kind", "--checkpoint", "c", "--resume")
    assert result.exit_code == 2
    assert "a checkpoint must be a file that a fit wrote" in result.stderr
    assert result.stderr.count("\n") == 1
    assert Path("c").read_text() == "hello"
    Path("c").unlink()
    result = run("fit", "t.parquet", "--target", "kind", "--checkpoint", "c", "--resume")
    assert result.exit_code == 0
    assert "there is no checkpoint 'c': starting from the beginning" in result.stderr


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_both_zeros_are_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    monkeypatch.chdir(tmp_path)
    y = np.array([0.0, 0.5, -0.0, 1.5] * 30)
    pl.DataFrame({"x": np.random.default_rng(0).normal(size=120), "y": y}).write_parquet("t.parquet")
    assert run("fit", "t.parquet", "--target", "y", stream).exit_code == 0
    assert read_model("out/model.safetensors").classes == ("0.0", "0.5", "1.5")


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_times_as_labels_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    monkeypatch.chdir(tmp_path)
    y = pl.Series([0, 86_400_500_000] * 30).cast(pl.Datetime("us"))
    pl.DataFrame({"x": np.random.default_rng(0).normal(size=60), "y": y}).write_parquet("t.parquet")
    assert run("fit", "t.parquet", "--target", "y").exit_code == 0
    assert run("predict", "out/model.safetensors", "t.parquet", "-o", "p.csv", stream).exit_code == 0
    assert run("report", "p.csv", "--target", "y", "--probabilities", "-o", "judged").exit_code == 0
