"""`crossent fit --model`: boosted trees on a table, their report, their two files, and predictions from them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

import crossent as ce
from crossent.cli import app
from crossent.report import fit_files, summarize_fit
from crossent.tabular import FitOptions, InputError, TrainedModel, fit_parquet, fit_table, prediction_table, read_model
from crossent.tabular.predictions import PREDICTED_CLASS, PROBABILITY_PREFIX

for library in ("lightgbm", "catboost"):
    pytest.importorskip(library)
xgboost = pytest.importorskip("xgboost")

LIBRARIES = ("xgboost", "lightgbm", "catboost")
SUFFIXES = dict(zip(LIBRARIES, (".ubj", ".txt", ".cbm"), strict=True))
NAMES = dict(zip(LIBRARIES, ("XGBoost", "LightGBM", "CatBoost"), strict=True))


@pytest.fixture(autouse=True)
def on_one_thread_in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    before = ce.get_num_threads()
    ce.set_num_threads(1)
    with xgboost.config_context(nthread=1):  # it wakes threads for each array, whatever n_jobs says
        yield
    ce.set_num_threads(before)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(rows: int = 240, classes: int = 3) -> pl.DataFrame:
    """Classes that a product of two columns and a colour tell apart: no linear model can."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2))
    kind = np.where(x[:, 0] * x[:, 1] > 0, 1, 0)
    if classes == 3:
        kind[rng.uniform(size=rows) < 0.3] = 2
    missing = rng.uniform(size=rows) < 0.05
    return pl.DataFrame(
        {
            "size": pl.Series(np.where(missing, np.nan, x[:, 0]), nan_to_null=True),
            "weight": x[:, 1],
            "colour": [["red", "green", "blue"][k] if k == 2 else "red" for k in kind],
            "kind": [["ant", "bee", "cat"][k] for k in kind],
        }
    )


def fitted(library: str, classes: int = 3, **options: Any) -> TrainedModel:
    chosen = {"model": library, "max_iter": 60, "calibration_size": 0.5} | options
    return fit_table(table(classes=classes), "t", "kind", FitOptions(**chosen))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_fit_writes_trees_beside_a_model_that_predicts_by_them(library: str, classes: int, tmp_path: Path) -> None:
    result = fitted(library, classes)
    report = summarize_fit(result)
    assert report["loss"]["nats"] < 0.8 * report["loss"]["baseline"]["nats"]
    assert report["model"] == f"Boosted trees ({NAMES[library]})"
    assert report["optimiser"] is None
    (rounds,) = [note for note in report["notes"] if "rounds of boosting" in note]
    what = "rounds of boosting, of least loss on 10% of the training rows, held out"
    assert rounds == f"{result.estimator.n_iter_} {what}"
    for path, content in fit_files(report, result, tmp_path).items():
        path.write_bytes(content)
    model = read_model(str(tmp_path / "model.safetensors"))
    trees = tmp_path / f"model{SUFFIXES[library]}"
    assert model.header()["trees"] == {
        "library": library,
        "file": trees.name,
        "sha256": hashlib.sha256(trees.read_bytes()).hexdigest(),
        "temperature": result.calibration.temperature if result.calibration else None,
    }
    cells = table(classes=classes)
    predictions = prediction_table(model, cells, "t")
    probabilities = predictions.select(pl.selectors.starts_with(PROBABILITY_PREFIX)).to_numpy()
    np.testing.assert_array_equal(probabilities[result.test], ce.softmax(result.test_logits))
    # The start and the trees are the estimator's, divided by the temperature.
    matrix = model.preprocessing.transform(cells, "t")
    expected = ce.softmax(result.estimator.logits(matrix) / model.trees.temperature)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_seed_gives_the_same_trees(library: str) -> None:
    one, two = (fitted(library, max_iter=5, calibration_size=0.0).model for _ in range(2))
    assert one.trees.content == two.trees.content
    assert one.to_bytes() == two.to_bytes()


def test_the_command_line_trains_reports_and_predicts(tmp_path: Path) -> None:
    table().write_csv("t.csv")
    result = run("fit", "t.csv", "--target", "kind", "--model", "lightgbm", "--max-iter", "20")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("out").iterdir()} == {
        *("model.safetensors", "model.txt", "report.json", "report.html", "test.predictions.parquet")
    }
    assert f"trees       {tmp_path / 'out' / 'model.txt'}" in result.stdout
    report = json.loads(Path("out/report.json").read_text())
    assert report["run"] == read_model("out/model.safetensors").training["run"]
    assert "Boosted trees (LightGBM) for <b>kind</b>" in Path("out/report.html").read_text()
    result = run("predict", "out/model.safetensors", "t.csv", "-o", "p.csv")
    assert result.exit_code == 0, result.output
    predicted = pl.read_csv("p.csv")
    assert (predicted["kind"] == predicted[PREDICTED_CLASS]).mean() > 0.8

    trees = Path("out/model.txt")
    trees.write_bytes(trees.read_bytes() + b"\n")
    result = run("predict", "out/model.safetensors", "t.csv", "-o", "q.csv")
    assert result.exit_code == 2
    assert "the booster's file 'model.txt' beside it is not the one that was saved with it" in result.stderr
    trees.unlink()
    assert (
        "the booster's file 'model.txt' beside it cannot be read"
        in run("predict", "out/model.safetensors", "t.csv").stderr
    )
    assert not Path("q.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--C", "2"], "--C is of the softmax regression: leave it out, or leave out --model xgboost"),
        (["--sweep"], "--sweep is of the softmax regression"),
        (["--link", "sigmoid"], "--link is of the softmax regression"),
        (["--resume"], "--resume is of the softmax regression"),
        (["--stream"], "--model xgboost needs the table in memory: pass --no-stream"),
    ],
)
def test_what_boosted_trees_do_not_take_is_refused(arguments: list[str], message: str) -> None:
    table().write_parquet("t.parquet")
    result = run("fit", "t.parquet", "--target", "kind", "--model", "xgboost", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_from_python_the_same_is_refused() -> None:
    with pytest.raises(InputError, match=r"the model must be one of 'softmax', .* and is 'forest'"):
        fitted("forest")
    with pytest.raises(InputError, match="a link and a sweep of C are of the softmax regression"):
        fitted("xgboost", sweep=True)
    with pytest.raises(InputError, match="--model xgboost needs the table in memory"):
        fit_parquet("t.parquet", "kind", FitOptions(model="xgboost"))


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = fitted("lightgbm", max_iter=2, calibration_size=0.0)
    for path, content in fit_files(summarize_fit(result), result, tmp_path).items():
        path.write_bytes(content)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    table().write_csv("t.csv")
    for command in (
        ["fit", "t.csv", "--target", "kind", "--model", "lightgbm"],
        ["predict", "model.safetensors", "t.csv"],
    ):
        answer = run(*command)
        assert answer.exit_code == 2
        assert answer.stderr == "crossent: the package lightgbm is missing: pip install lightgbm\n"


def test_few_rows_train_without_early_stopping() -> None:
    result = fit_table(table(18), "t", "kind", FitOptions(model="xgboost"))
    assert result.estimator.n_iter_ == 100
    assert "100 rounds of boosting: too few rows to hold some out and stop early" in result.notes


def test_a_column_that_says_nothing_is_refused_by_lightgbm_in_one_sentence() -> None:
    frame = pl.DataFrame({"x": [1.0] * 60, "kind": ["a", "b"] * 30})
    with pytest.raises(InputError, match=r"LGBMClassifier refuses the rows: .*num_features"):
        fit_table(frame, "t", "kind", FitOptions(model="lightgbm"))
