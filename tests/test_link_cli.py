"""`crossent fit --link sigmoid`: one class against the rest, in memory and streamed, and what goes not with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_wine
from typer.testing import CliRunner

import crossent as ce
from crossent.cli import app
from crossent.sklearn import SoftmaxRegression
from crossent.tabular import FitOptions, fit_table, read_model

X, Y = load_wine(return_X_y=True)


def frame(classes: int) -> pl.DataFrame:
    kept = classes > Y
    table = pl.DataFrame({f"x{j}": X[kept, j] for j in range(5)})
    return table.with_columns(kind=pl.Series(["abc"[k] for k in Y[kept]]))


@pytest.mark.parametrize("classes", [2, 3])
def test_predictions_are_those_of_the_estimator(classes: int, tmp_path: Path) -> None:
    table = frame(classes)
    result = fit_table(table, "wine", "kind", FitOptions(link="sigmoid", tolerance=1e-9))
    path = tmp_path / "model.safetensors"
    path.write_bytes(result.model.to_bytes())
    model = read_model(str(path))
    matrix = model.preprocessing.transform(table, "wine")
    training = np.setdiff1d(np.arange(table.height), result.test)
    labels = np.array(table["kind"].to_list())
    estimator = SoftmaxRegression(link="sigmoid", tol=1e-9).fit(matrix[training], labels[training])
    expected = estimator.predict_proba(matrix)
    np.testing.assert_allclose(model.predict_probabilities(table), expected, atol=1e-7)
    np.testing.assert_allclose(ce.softmax(result.test_logits), expected[result.test], atol=1e-7)


@pytest.mark.parametrize("more", [["--no-stream"], ["--stream"], ["--sweep"]])
def test_command(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame(3).write_parquet("wine.parquet")
    call = ["fit", "wine.parquet", "--target", "kind", "--link", "sigmoid", "-o", "out", *more]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    report = json.loads(Path("out/report.json").read_text("utf-8"))
    assert report["loss"]["nats"] < 0.7 * report["loss"]["baseline"]["nats"]
    assert report["calibration"] is None
    assert read_model("out/model.safetensors").link == "sigmoid"
    predicted = CliRunner().invoke(app, ["predict", "out/model.safetensors", "wine.parquet", "-o", "p.csv"])
    assert predicted.exit_code == 0, predicted.output
    sums = pl.read_csv("p.csv").select(pl.selectors.float()).sum_horizontal()
    np.testing.assert_allclose(sums, 1, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--link", "sigmoid", "--calibration-size", "0.2"], "a temperature is fitted to the softmax link only"),
        (["--link", "probit"], "the link must be one of softmax, sigmoid, and is 'probit'"),
    ],
)
def test_what_does_not_go_together(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["fit", "wine", *options])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
