"""The command line end to end: files, exit statuses, one sentence for every mistake, nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import rich.progress
from safetensors.numpy import save
from typer.testing import CliRunner, Result

import crossent.tabular
from crossent.cli import app
from crossent.cli.showing import progress
from crossent.tabular import FitOptions, InputError, read_model, read_table

MODEL = "good/model.safetensors"


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


def table(rows: int = 60, **columns: object) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    kind = np.arange(rows) % 3
    frame = {
        "size": rng.normal(size=rows) + 2 * kind,
        "colour": [["red", "green", "blue"][k] for k in rng.permutation(kind)],
        "kind": [["ant", "bee", "cat"][k] for k in kind],
    }
    return pl.DataFrame({**frame, **columns})


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_fit_writes_a_model_and_a_report(tmp_path: Path) -> None:
    table().write_csv("t.csv")
    result = run("fit", "t.csv", "--target", "kind")
    assert result.exit_code == 0
    assert files(tmp_path) == {"t.csv", "out", *(f"out/{name}" for name in OUTPUTS)}
    assert result.stderr == ""
    for words in ("60 rows, 2 columns (1 of numbers, 1 of categories), 3 classes", "Duality gap", "Most surprising"):
        assert words in result.stdout
    assert str(tmp_path / "out" / "report.html") in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if str(tmp_path) not in line) <= 80
    report = json.loads(Path("out/report.json").read_text())
    assert report["schema"] == "crossent.report/1"
    assert read_model("out/model.safetensors").classes == ("ant", "bee", "cat")


def test_sweep_chooses_c_and_says_so(tmp_path: Path) -> None:
    table().write_csv("t.csv")
    result = run("fit", "t.csv", "--target", "kind", "--sweep")
    assert result.exit_code == 0
    assert "has the least held-out log-loss of 13 values" in " ".join(result.output.split())
    assert read_model("out/model.safetensors").training["C"] in np.geomspace(1e-4, 1e4, 13)


def test_the_same_command_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        table().write_csv("t.csv")
        assert run("fit", "t.csv", "--target", "kind").exit_code == 0
        written.append({path.name: path.read_bytes() for path in Path("out").iterdir()})
    assert {"model.safetensors", "report.json", "report.html"} <= written[0].keys()
    assert written[0] == written[1]
    card = json.loads(written[0]["report.json"])["card"]
    assert (card["date"], card["command"]) == ("1970-01-02", ["crossent", "fit", "t.csv", "--target", "kind"])
    assert card["sha256"] == hashlib.sha256(Path("t.csv").read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_fit_predict_report(tmp_path: Path, suffix: str) -> None:
    table().write_parquet("t.parquet")
    assert run("fit", "t.parquet", "--target", "kind", "--seed", "3").exit_code == 0
    result = run("predict", "out/model.safetensors", "t.parquet", "--output", f"p{suffix}")
    assert result.exit_code == 0
    assert str(tmp_path / f"p{suffix}") in result.stdout
    predicted = read_table(f"p{suffix}")
    names = ["probability_ant", "probability_bee", "probability_cat"]
    assert predicted.columns == ["kind", "prediction", *names]
    expected = read_model("out/model.safetensors").predict_probabilities(table())
    np.testing.assert_array_equal(predicted.select(names).cast(pl.Float64).to_numpy(), expected)
    result = run("report", f"p{suffix}", "--target", "kind", "--probabilities", "-o", "judged")
    assert result.exit_code == 0
    judged = json.loads(Path("judged/report.json").read_text())
    truth = np.arange(60) % 3
    assert judged["loss"]["nats"] == pytest.approx(float(np.mean(-np.log(expected[np.arange(60), truth]))), rel=1e-12)
    # The report of fit is the report of predict's own numbers, restricted to the test rows.
    fitted = json.loads(Path("out/report.json").read_text())
    surprising = [entry["row"] for entry in fitted["surprising"]]
    order = np.argsort(expected[np.arange(60), truth], kind="stable")
    assert [row for row in order if row in surprising] == surprising


def test_predict_names_its_output(tmp_path: Path) -> None:
    table().write_csv("t.csv")
    run("fit", "t.csv", "--target", "kind")
    assert run("predict", "out/model.safetensors", "t.csv").exit_code == 0
    assert (tmp_path / "t.predictions.csv").exists()


def test_predict_says_which_categories_it_does_not_know() -> None:
    table().write_csv("t.csv")
    assert run("fit", "t.csv", "--target", "kind").exit_code == 0
    table(colour=["RED", *table()["colour"][1:]]).write_csv("u.csv")
    result = run("predict", "out/model.safetensors", "u.csv")
    assert result.exit_code == 0
    assert result.stderr == (
        "crossent: warning: column 'colour': 1 of 60 rows hold a category that was not there in training ('RED'): "
        "they count as none\ncrossent: warning: 45 of 60 rows are as rows that the model was trained on: their "
        "probabilities say little of new rows\n"
    )
    assert run("predict", "out/model.safetensors", "t.csv").stderr.startswith("crossent: warning: 45 of 60 rows are as")


def test_nan_in_csv_is_a_missing_value() -> None:
    for spelling in ("", "NaN", "nan"):
        size = pl.Series([None, *table()["size"][1:]]).cast(pl.String).fill_null(spelling)
        table(size=size).write_csv("t.csv")
        assert run("fit", "t.csv", "--target", "kind", "-o", spelling or "empty").exit_code == 0
    reports = [json.loads(Path(folder, "report.json").read_text()) for folder in ("empty", "NaN", "nan")]
    assert reports[0]["data"]["missing_cells"] == 1
    assert reports[0]["loss"] == reports[1]["loss"] == reports[2]["loss"]


def test_fit_runs_on_digits_by_default() -> None:
    result = run("fit")
    assert result.exit_code == 0
    assert "1,797 rows, 64 columns" in result.stdout
    assert json.loads(Path("out/report.json").read_text())["accuracy"]["value"] > 0.95


def test_fit_calibrates_by_default_and_shows_before_and_after() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 20))
    y = (2 * x[:, :3] + rng.gumbel(size=(400, 3))).argmax(axis=1)
    pl.DataFrame({**{f"x{k}": x[:, k] for k in range(20)}, "y": y}).write_csv("t.csv")
    result = run("fit", "t.csv", "--target", "y", "--C", "1000")
    assert result.exit_code == 0
    state = json.loads(Path("out/report.json").read_text())["calibration"]
    before, after = state["before"]["loss"]["nats"], state["after"]["loss"]["nats"]
    assert after < before
    assert f"Test loss {before:.4f} → {after:.4f} nats" in " ".join(result.stdout.split())
    assert "300 rows to train and 100 to test" in result.stdout
    page = Path("out/report.html").read_text()
    assert "Before calibration" in page
    assert f">{before:.4f}<" in page
    assert f">{after:.4f}<" in page
    model = read_model("out/model.safetensors")
    assert model.training["temperature"] == state["temperature"] > 1
    assert run("fit", "t.csv", "--target", "y", "--C", "1000", "--calibration-size", "0", "-o", "raw").exit_code == 0
    raw = read_model("raw/model.safetensors")
    assert "temperature" not in raw.training
    np.testing.assert_allclose(model.coef * state["temperature"], raw.coef, rtol=1e-9, atol=1e-12)
    assert json.loads(Path("raw/report.json").read_text())["calibration"] is None


def two_predictions() -> None:
    """a.csv: probabilities, with an id. b.csv: logits of better predictions, with a batch."""
    rng = np.random.default_rng(0)
    truth = 2 * rng.normal(size=(200, 3))
    y = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    bad = np.exp(truth + 2 * rng.normal(size=truth.shape))
    bad /= bad.sum(axis=1, keepdims=True)
    names = np.array(["ant", "bee", "cat"])
    for path, values, extra in (("a.csv", bad, "id"), ("b.csv", truth, "batch")):
        frame = {name: values[:, k] for k, name in enumerate(names)}
        pl.DataFrame({"kind": names[y], extra: np.arange(200), **frame}).write_csv(path)


def test_two_files_are_compared() -> None:
    two_predictions()
    declared = ["--target", "kind", "--drop", "id", "--drop", "batch"]
    result = run("report", "a.csv", "b.csv", "--probabilities", "--logits", *declared)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "b.csv is better: on the same 200 rows" in " ".join(result.stdout.split())
    assert max(len(line) for line in result.stdout.splitlines()[:-2]) <= 80
    found = json.loads(Path("out/report.json").read_text())
    assert (found["kind"], found["sources"]) == ("comparison", ["a.csv", "b.csv"])
    assert [one["declared"] for one in found["reports"]] == ["probabilities", "logits"]
    assert found["paired"]["upper"] < 0
    different = found["paired"]["most_different"][0]
    assert different["cells"] == {"id": str(different["row"])}
    surprising = found["reports"][1]["surprising"][0]
    assert surprising["cells"] == {"batch": str(surprising["row"])}
    page = Path("out/report.html").read_text()
    assert f'id="row-{different["row"]}"' in page
    assert f'id="second-row-{surprising["row"]}"' in page
    # The order of the declarations is that of the files, wherever they stand.
    other = run("report", "--logits", "b.csv", "--probabilities", "a.csv", *declared, "-o", "other")
    assert other.exit_code == 0
    swapped = json.loads(Path("other/report.json").read_text())
    assert swapped["paired"]["difference"] == pytest.approx(-found["paired"]["difference"], rel=1e-12)


def test_one_declaration_is_for_both_files_and_a_dropped_column_must_be_somewhere() -> None:
    two_predictions()
    result = run("report", "b.csv", "b.csv", "--logits", "--target", "kind", "--drop", "batch")
    assert result.exit_code == 0
    assert json.loads(Path("out/report.json").read_text())["paired"]["difference"] == 0
    result = run("report", "a.csv", "b.csv", "--probabilities", "--logits", "--target", "kind", "--drop", "nowhere")
    assert result.exit_code == 2
    assert "there is no column 'nowhere' in 'a.csv'" in result.stderr
    result = run("report", "a.csv", "b.csv", "--target", "kind", "--drop", "id", "--drop", "batch")
    assert result.exit_code == 2
    assert "pass one of --probabilities and --logits" in result.stderr


def test_logits_and_the_warning_that_they_look_like_probabilities() -> None:
    frame = pl.DataFrame({"y": ["a", "b", "b"], "a": [0.25, 0.5, 0.1], "b": [0.75, 0.5, 0.9]})
    frame.write_csv("p.csv")
    result = run("report", "p.csv", "--target", "y", "--logits")
    assert result.exit_code == 0
    assert "use --probabilities" in result.stderr
    assert "use --probabilities" in " ".join(result.stdout.split())
    assert "use --probabilities" in Path("out/report.html").read_text()
    result = run("report", "p.csv", "--target", "y", "--probabilities")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "use --probabilities" not in result.stdout


def test_an_infinite_loss_is_said() -> None:
    pl.DataFrame({"y": ["a", "b"], "a": [0.0, 0.5], "b": [1.0, 0.5]}).write_csv("p.csv")
    result = run("report", "p.csv", "--target", "y", "--probabilities")
    assert result.exit_code == 0
    assert "1 row has a label that was given probability 0" in " ".join(result.stdout.split())
    report = json.loads(Path("out/report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert report["loss"]["nats"] == "inf"
    assert "∞" in Path("out/report.html").read_text()


@pytest.fixture(scope="module")
def good_model() -> bytes:
    return crossent.tabular.fit_table(table(), "good.csv", "kind").model.to_bytes()


def write_bad_inputs(folder: Path, model: bytes) -> None:
    good = table()
    Path("good").mkdir()
    Path(MODEL).write_bytes(model)
    good.write_csv("good.csv")
    good.with_columns(kind=pl.lit("ant")).write_csv("constant.csv")
    good.with_columns(size=pl.lit("-inf")).write_csv("infinity.csv")
    good.with_columns(
        size=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(float("inf"))).otherwise("size")
    ).write_parquet("inf.parquet")
    table(kind=["ant", "bee"] * 29 + ["ant", "cat"]).write_csv("single.csv")
    Path("empty.csv").write_text("")
    Path("short.csv").write_text("size,colour,kind\n1,red,ant\n2,re")
    good.write_parquet("whole.parquet")
    content = Path("whole.parquet").read_bytes()
    Path("cut.parquet").write_bytes(content[: len(content) // 2])
    np.savez("nan.npz", X=np.array([[1.0, np.nan]] * 8), y=np.arange(8) % 2)
    Path("cut.safetensors").write_bytes(model[:-9])
    Path("new.safetensors").write_bytes(
        save({"coef": np.ones(1)}, {"crossent.model": json.dumps({"format_version": 99, "crossent_version": "9.0"})})
    )
    good.drop("size").write_csv("lacking.csv")
    pl.DataFrame({"y": ["a", "b"], "a": [3.0, 0.5], "b": [-1.0, 0.5]}).write_csv("logits.csv")
    pl.DataFrame({"y": ["a", "b"], "a": [0.1, 0.5], "b": [0.1, 0.5]}).write_csv("sums.csv")
    pl.DataFrame({"id": [7, 8], "y": ["a", "b"], "a": [3.0, 0.5], "b": [-1.0, 0.5]}).write_csv("id.csv")
    Path("semicolons.csv").write_text("x;y\n1;a\n2;b\n")
    Path("tabs.csv").write_text("x\ty\n1\ta\n2\tb\n")
    Path("latin.csv").write_bytes("name,y\nRené,1\nZoë,2\n".encode("latin-1"))
    assert (folder / "good.csv").exists()


BAD_COMMANDS = {
    "no such file": (["fit", "nowhere.csv", "--target", "y"], "there is no file 'nowhere.csv'"),
    "no such column": (["fit", "good.csv", "--target", "kin"], "no column 'kin' in 'good.csv'; its columns are 'size'"),
    "no target": (["fit", "good.csv"], "Pass --target COLUMN; the columns are 'size', 'colour', 'kind'"),
    "unknown format": (["fit", MODEL + ".xlsx", "--target", "y"], "there is no file"),
    "constant target": (["fit", "constant.csv", "--target", "kind"], "'kind' is constant ('ant')"),
    "infinity in text": (["fit", "infinity.csv", "--target", "kind"], "column 'size' holds -infinity in row 0"),
    "infinity": (["fit", "inf.parquet", "--target", "kind"], "column 'size' holds infinity in row 7"),
    "nan in npz": (["fit", "nan.npz"], "column '1' holds NaN in row 0"),
    "class with one row": (["fit", "single.csv", "--target", "kind"], "class 'cat' of column 'kind' has one row"),
    "empty file": (["fit", "empty.csv", "--target", "kind"], "'empty.csv' is empty"),
    "cut short": (
        ["fit", "short.csv", "--target", "kind"],
        "line 3 of 'short.csv' has 2 fields where the header has 3",
    ),
    "damaged": (["fit", "cut.parquet", "--target", "kind"], "'cut.parquet' as parquet: it is damaged or cut short"),
    "bad C": (["fit", "good.csv", "--target", "kind", "--C", "-1"], "--C must be a positive number"),
    "bad tol": (["fit", "good.csv", "--target", "kind", "--tol", "nan"], "--tol must be a positive number"),
    "bad test size": (["fit", "good.csv", "--target", "kind", "--test-size", "1.5"], "between 0 and 1"),
    "output is a file": (["fit", "good.csv", "--target", "kind", "-o", "good.csv"], "cannot write to 'good.csv': "),
    "output inside a file": (["fit", "none.csv", "-o", "good.csv/x"], "cannot write to 'good.csv/x': "),
    "predictions inside a file": (["predict", "none", "none", "-o", "good.csv/x/p.csv"], "good.csv' is a file"),
    "checkpoint inside a file": (["fit", "none.csv", "--checkpoint", "good.csv/x"], "good.csv' is a file"),
    "no checkpoint": (
        ["fit", "good.csv", "--target", "kind", "--checkpoint", "sums.csv"],
        "a checkpoint must be a file that a fit wrote; got 'sums.csv', and it is damaged, cut short or not "
        "safetensors; pass another path\n",
    ),
    "sweep and C": (["fit", "good.csv", "--target", "kind", "--sweep", "--C", "1"], "leave out --sweep or --C"),
    "stream of CSV": (["fit", "good.csv", "--target", "kind", "--stream"], "--stream reads Parquet files only"),
    "stream of built-in data": (["fit", "digits", "--stream"], "--stream reads Parquet files only"),
    "folder without Parquet": (
        ["fit", "good", "--target", "kind"],
        "the folder 'good' holds no file that ends in .parquet",
    ),
    "tiny test part": (["fit", "good.csv", "--target", "kind", "--test-size", "0.001"], "holding out 0.1% of 60 rows"),
    "semicolons": (
        ["fit", "semicolons.csv", "--target", "z"],
        "no column 'z' in 'semicolons.csv'; its columns are 'x', 'y'",
    ),
    "tabs": (["fit", "tabs.csv"], "Pass --target COLUMN; the columns are 'x', 'y'"),
    "no model": (["predict", "none.safetensors", "good.csv"], "no model file 'none.safetensors'"),
    "not a model": (["predict", "good.csv", "good.csv"], "damaged, cut short or not safetensors"),
    "model cut short": (["predict", "cut.safetensors", "good.csv"], "damaged, cut short or not safetensors"),
    "newer model": (["predict", "new.safetensors", "good.csv"], "a newer crossent wrote it (format 99"),
    "column lacking": (["predict", MODEL, "lacking.csv"], "no column 'size' in 'lacking.csv'"),
    "bad suffix": (["predict", MODEL, "good.csv", "-o", "p.txt"], "written as .csv or .parquet"),
    "over its data": (["predict", MODEL, "good.csv", "-o", "good.csv"], "cannot be written over 'good.csv'"),
    "not declared": (["report", "sums.csv", "--target", "y"], "pass one of --probabilities and --logits"),
    "both declared": (["report", "sums.csv", "--target", "y", "--logits", "--probabilities"], "pass one of"),
    "a number that is no class": (
        ["report", "id.csv", "--target", "y", "--logits"],
        "column 'id' of 'id.csv'",
    ),
    "drop the target": (["fit", "good.csv", "--target", "kind", "--drop", "kind"], "'kind' is the target"),
    "drop the target of a report": (["report", "id.csv", "--target", "y", "--logits", "--drop", "y"], "is the target"),
    "not UTF-8": (["fit", "latin.csv", "--target", "y"], "'latin.csv' is not UTF-8 text (byte 0xe9 in line 2)"),
    "are logits": (["report", "logits.csv", "--target", "y", "--probabilities"], "holds 3 in row 0"),
    "sums": (["report", "sums.csv", "--target", "y", "--probabilities"], "row 0 (counted from 0) sums to 0.2"),
    "no class column": (["report", "good.csv", "--target", "kind", "--logits"], "no column for label 'ant'"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_bad_input_is_one_sentence_and_status_2(tmp_path: Path, good_model: bytes, name: str) -> None:
    write_bad_inputs(tmp_path, good_model)
    before = files(tmp_path)
    arguments, sentence = BAD_COMMANDS[name]
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("crossent: ")
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert files(tmp_path) == before


def test_control_characters_do_not_reach_the_terminal() -> None:
    table().rename({"kind": "ki\x1b[2Jnd"}).write_csv("t.csv")
    result = run("fit", "t.csv", "--target", "kind")
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    labels = [f"{name}\x1b[31m" for name in table()["kind"]]
    table(kind=labels).write_csv("t.csv")
    result = run("fit", "t.csv", "--target", "kind")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("is_new", [False, True])
def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool) -> None:
    table().write_csv("t.csv")
    if not is_new:
        assert run("fit", "t.csv", "--target", "kind", "-o", "deep/out").exit_code == 0
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    told = refused("fit", "t.csv", "--target", "kind", "--C", "0.01", "-o", "deep/out")
    assert re.fullmatch("crossent: .*No space left on device.*\n", told)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()} == before
    assert (tmp_path / "deep").exists() != is_new


OUTPUTS = ("model.safetensors", "report.json", "report.html", "test.predictions.parquet")


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_folder_in_the_place_of_a_file_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    table().write_csv("t.csv")
    (tmp_path / "out" / name).mkdir(parents=True)
    monkeypatch.setattr(crossent.tabular, "fit_table", lambda *a, **k: pytest.fail("trained for nothing"))
    before = files(tmp_path)
    result = run("fit", "t.csv", "--target", "kind")
    assert result.exit_code == 2
    assert result.stderr == f"crossent: cannot write {str(Path('out') / name)!r}: it is a folder\n"
    assert files(tmp_path) == before


def test_files_are_replaced_and_no_older_one_stays(tmp_path: Path) -> None:
    table().write_csv("t.csv")
    for strength in ("1", "0.01"):
        assert run("fit", "t.csv", "--target", "kind", "--C", strength).exit_code == 0
    assert json.loads(Path("out/report.json").read_text())["kind"] == "fit"
    assert files(tmp_path) == {"t.csv", "out", *(f"out/{name}" for name in OUTPUTS)}


def test_one_column_for_two_labels_is_judged() -> None:
    pl.DataFrame({"y_true": [0.0, 1.0, 1.0], "id": [7, 8, 9], "y_prob": [0.5, 0.5, 0.25]}).write_csv("p.csv")
    result = run("report", "p.csv", "--target", "y_true", "--probabilities")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(Path("out/report.json").read_text())
    assert [entry["label"] for entry in report["classes"]] == ["0", "1"]
    assert report["loss"]["bits"] == pytest.approx(4 / 3)


@pytest.mark.parametrize("names", [("False", "True"), ("p_False", "p_True"), ("prob_FALSE", "prob_TRUE")])
def test_columns_of_truth_values_may_be_written_as_python_does(names: tuple[str, str]) -> None:
    Path("p.csv").write_text(f"y,{names[0]},{names[1]}\nFalse,0.75,0.25\nTrue,0.5,0.5\n")
    result = run("report", "p.csv", "--target", "y", "--probabilities")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(Path("out/report.json").read_text())
    assert [entry["label"] for entry in report["classes"]] == ["false", "true"]
    assert report["loss"]["nats"] == pytest.approx(-np.log(0.75 * 0.5) / 2)


@pytest.mark.parametrize("label", ["0.0", "0"])
@pytest.mark.parametrize("name", ["p_0", "p_0.0", "0", "0.0"])
def test_whole_numbers_may_be_written_as_floats(label: str, name: str) -> None:
    other = name.replace("0", "1", 1)
    Path("p.csv").write_text(f"y,{name},{other}\n{label},0.75,0.25\n{label.replace('0', '1', 1)},0.5,0.5\n")
    result = run("report", "p.csv", "--target", "y", "--probabilities")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(Path("out/report.json").read_text())
    assert [entry["label"] for entry in report["classes"]] == ["0", "1"]
    assert report["loss"]["nats"] == pytest.approx(-np.log(0.75 * 0.5) / 2)


def test_an_output_without_permission_is_refused_before_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission to write in" in refused("fit", "none.csv", "-o", "deep/out")
    assert "no permission to write in" in refused("predict", "none", "none", "-o", "deep/p.csv")


@pytest.mark.filterwarnings("error")
def test_an_enormous_c_is_charted_without_a_warning() -> None:
    table().write_csv("t.csv")
    result = run("fit", "t.csv", "--target", "kind", "--C", "1e300")
    assert (result.exit_code, result.stderr) == (0, "")


def test_months_written_as_words_are_left_as_they_are() -> None:
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 2, 29), eager=True)
    frame = table(day=days, hour=days.cast(pl.Datetime), month=days.dt.strftime("%Y-%m"))
    frame.write_csv("t.csv")
    frame.write_parquet("t.parquet")
    for arguments in (["t.csv"], ["t.parquet"], ["t.parquet", "--stream", "--seed", "1"]):
        assert run("fit", *arguments, "--target", "kind", "--overwrite").exit_code == 0
        notes = json.loads(Path("out/report.json").read_text())["notes"]
        assert not [note for note in notes if "date" in note or "identifier" in note or "left out" in note]


def test_a_column_that_is_no_class_can_be_left_out() -> None:
    pl.DataFrame({"y": ["a", "b"], "id": [7, 8], "a": [3.0, 0.5], "b": [-1.0, 0.5]}).write_csv("p.csv")
    assert run("report", "p.csv", "--target", "y", "--logits", "--drop", "id").exit_code == 0
    assert len(json.loads(Path("out/report.json").read_text())["classes"]) == 2


def test_an_interruption_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().write_csv("t.csv")
    whole = crossent.tabular.fit_table

    def interrupted(frame: pl.DataFrame, source: str, target: str, options: FitOptions, **more: object) -> object:
        def callback(entry: dict) -> None:
            raise KeyboardInterrupt

        return whole(frame, source, target, replace(options, callback=callback), **more)

    monkeypatch.setattr(crossent.tabular, "fit_table", interrupted)
    result = run("fit", "t.csv", "--target", "kind")
    assert result.exit_code == 130
    assert result.stderr == "crossent: interrupted\n"
    assert files(tmp_path) == {"t.csv"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_in_a_real_process_is_clean(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez("t.npz", X=rng.normal(size=(4000, 300)), y=rng.integers(40, size=4000))
    script = (
        "import crossent.cli, crossent.sklearn as t, os, signal\n"
        "fit = t.SoftmaxRegression.fit\n"
        "def stop(self, X, y):\n"
        "    self.callback = lambda entry: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return fit(self, X, y)\n"
        "t.SoftmaxRegression.fit = stop\n"
        "crossent.cli.main()\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, "fit", "t.npz"], capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode in (130, -signal.SIGINT)
    # Without numba, the library says so first.
    assert process.stderr.splitlines()[-1] == "crossent: interrupted"
    assert "Traceback" not in process.stderr
    assert files(tmp_path) == {"t.npz"}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_without_the_reports_characters_gets_the_report(tmp_path: Path, encoding: str) -> None:
    table().write_csv("t.csv")
    command = [sys.executable, "-m", "crossent.cli", "fit", "t.csv", "--target", "kind"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"t.csv ? kind" in done.stdout


def test_a_closed_standard_error_changes_no_status(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m crossent.cli fit none.csv 2>&-", shell=True, capture_output=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_help_is_quick_and_names_the_commands() -> None:
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from crossent.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for word in ("fit", "predict", "report"):
        assert re.search(rf"\b{word}\b", process.stdout)
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert imported.isdisjoint({"sklearn", "polars", "matplotlib", "numba", "torch"})


def refused(*arguments: str) -> str:
    """Run a command that must fail with one sentence; return the sentence."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_logits_that_overflow_are_refused() -> None:
    table().write_csv("t.csv")
    assert run("fit", "t.csv", "--target", "kind", "-o", "good").exit_code == 0
    steep = replace(read_model(MODEL), coef=1e10 * read_model(MODEL).coef)
    far = pl.DataFrame({"size": [0.0, 1e308], "colour": ["red", "red"]})
    with pytest.raises(InputError, match=r"row 1 .* overflow"):
        steep.predict_probabilities(far)


def test_a_target_with_the_name_of_a_written_column_is_not_judged_against_itself() -> None:
    table().rename({"kind": "prediction"}).write_csv("t.csv")
    assert run("fit", "t.csv", "--target", "prediction", "-o", "good").exit_code == 0
    assert "'prediction'" in refused("predict", MODEL, "t.csv")


def test_repeated_column_names_are_refused() -> None:
    Path("t.csv").write_text("a,y,y\n1,u,u\n2,v,v\n")
    assert "more than one column called 'y'" in refused("fit", "t.csv", "--target", "y")


def test_npz_files_that_hold_no_named_arrays_are_refused() -> None:
    with Path("one.npz").open("wb") as file:
        np.save(file, np.eye(3))
    assert "holds one array" in refused("fit", "one.npz")


def test_durations_and_overlong_names_get_a_sentence() -> None:
    frame = pl.DataFrame({"a": [1.0, 2.0] * 10, "y": pl.Series(range(20)).cast(pl.Duration)})
    frame.write_parquet("t.parquet")
    assert "Duration" in refused("fit", "t.parquet", "--target", "y")
    assert "no file" in refused("fit", "x" * 300 + ".csv", "--target", "y")
    table().write_csv("t.csv")
    assert "too long" in refused("fit", "t.csv", "--target", "kind", "-o", "x" * 300)


USAGE = {
    "option": (["fit", "--targt", "kind"], "--targt"),
    "value": (["fit", "--test-size", "many"], "--test-size"),
    "argument": (["predict"], "Missing argument"),
    "command": (["train"], "train"),
    "range": (["fit", "--seed", "-1"], "--seed"),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_usage_error_is_one_sentence(name: str) -> None:
    arguments, told = USAGE[name]
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.fullmatch(r"crossent: .*\(see .* --help\)\n", result.stderr), result.stderr
    assert told in result.stderr


def test_no_command_is_answered_with_the_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Train a softmax regression" in result.output
    assert "crossent: " not in result.output
    assert run("--help").exit_code == 0
    fit = run("fit", "--help")
    assert fit.exit_code == 0
    text = re.sub(r"[│\s]", "", fit.output)  # wrapped at 80 columns
    for default in ("1.0", "OUTPUT/", "severalfiles"):
        assert f"(default:{default}" in text


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_progress_bar_follows_the_gap(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: iteration, objective, gap and a bar that is full at the goal; elsewhere: nothing."""
    stream = _Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    seen = []
    with progress(1e-4) as callback:
        monkeypatch.setattr(rich.progress.Progress, "update", lambda self, task, **state: seen.append(state))
        for i, gap in enumerate([None, 1.0, 1e-2, 1e-1, 1e-4, 1e-6]):
            callback({"iteration": i, "objective": 2.5, "duality_gap": gap})
    assert [state["completed"] for state in seen] == pytest.approx([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    assert seen[2]["description"] == "iteration 2, objective 2.5, gap 1e-02 (goal 1e-04)"
    assert seen[0]["description"] == "iteration 0, objective 2.5"
    assert ("Training" in stream.getvalue()) == is_terminal


def test_the_progress_bar_of_a_sweep_counts_its_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry says which fit of how many it is of, and the bar never goes back."""
    entries: list[dict] = []
    crossent.tabular.fit_table(table(), "t.csv", "kind", FitOptions(sweep=True, callback=entries.append))
    assert {entry["fits"] for entry in entries} == {5 * 13 + 1}  # folds, values of C, and the fit to all rows
    assert [entry["fit"] for entry in entries if entry["iteration"] == 0] == list(range(1, 67))
    assert [entry["fit"] for entry in entries] == sorted(entry["fit"] for entry in entries)
    seen = []
    with progress(1e-4) as callback:
        monkeypatch.setattr(rich.progress.Progress, "update", lambda self, task, **state: seen.append(state))
        for entry in entries:
            callback(entry)
        callback({"iteration": 0, "objective": 2.5, "duality_gap": 1e-5, "fit": 2, "fits": 4})
        callback({"iteration": 1, "objective": 2.5, "duality_gap": 1e-5})
    bar = [state["completed"] for state in seen[:-2]]
    assert bar == sorted(bar)
    assert bar[-1] == pytest.approx(1.0, abs=1 / 66)
    assert seen[-2]["description"] == "fit 2 of 4, iteration 0, objective 2.5, gap 1e-05 (goal 1e-04)"
    assert seen[-1]["description"].startswith("iteration 1,")


def test_labels_that_numbers_would_merge_stay_apart_from_fit_to_report() -> None:
    labels = [["01", "1", "2"][k % 3] for k in range(60)]
    table(kind=labels).write_csv("t.csv")
    assert run("fit", "t.csv", "--target", "kind", "-o", "good").exit_code == 0
    assert read_model(MODEL).classes == ("01", "1", "2")
    table(kind=labels).filter(pl.col("kind") != "1").write_csv("some.csv")  # nothing here tells that 01 is no number
    for data, kept in (("t.csv", labels), ("some.csv", [label for label in labels if label != "1"])):
        assert run("predict", MODEL, data, "-o", "p.csv").exit_code == 0
        assert Path("p.csv").read_text().splitlines()[1].startswith("01,")
        assert run("report", "p.csv", "--target", "kind", "--probabilities").exit_code == 0
        counts = {one["label"]: one["rows"] for one in json.loads(Path("out/report.json").read_text())["classes"]}
        assert counts == {label: kept.count(label) for label in ("01", "1", "2")}
