"""`crossent calibrate`: every row by a map that did not see it, the method of least held-out loss, the same format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from test_cli import run

from crossent.calibration.classifier import METHODS
from crossent.tabular import InputError, read_predictions, recalibrate

ANIMALS = np.array(["ant", "bee", "cat"])


def predictions(rows: int = 600, sharp: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by a factor, and labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 3))
    codes = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return sharp * logits, codes


def frame(values: np.ndarray, codes: np.ndarray, prefix: str) -> pl.DataFrame:
    columns = {f"{prefix}{name}": values[:, k] for k, name in enumerate(ANIMALS)}
    return pl.DataFrame({"id": np.arange(len(codes)), "y": ANIMALS[codes], **columns})


def judged(values: np.ndarray, codes: np.ndarray):
    return read_predictions(frame(values, codes, "logit_"), "p", "y", "logits")


def test_no_row_is_calibrated_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle refits each fold's temperature with scipy from the other folds alone."""
    logits, codes = predictions()
    dealt = []

    def watched(*arguments: object):
        from crossent.tabular.splitting import deal_folds

        dealt.extend(deal_folds(*arguments))  # type: ignore[arg-type]
        return dealt

    monkeypatch.setattr("crossent.tabular.recalibrating.deal_folds", watched)
    found = recalibrate(judged(logits, codes), "temperature")
    assert sorted(np.concatenate([held_out for _, held_out in dealt])) == [*range(600)]
    for kept, held_out in dealt:
        assert not {*kept} & {*held_out}

        def loss(t: float, kept: np.ndarray = kept) -> float:
            return -log_softmax(logits[kept] / t, axis=1)[np.arange(len(kept)), codes[kept]].mean()

        t = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9}).x
        np.testing.assert_allclose(found.probabilities[held_out], softmax(logits[held_out] / t, axis=1), atol=1e-6)
    expected = -np.log(found.probabilities[np.arange(600), codes])
    np.testing.assert_allclose(found.row_losses, expected, rtol=1e-12)


def test_auto_tries_every_method_and_takes_the_least_loss() -> None:
    found = recalibrate(judged(*predictions()))
    assert {*found.losses} == {"none", *METHODS}
    assert found.losses[found.method] == min(found.losses.values())
    assert found.losses["none"] > found.losses["temperature"] + 0.1
    honest = recalibrate(judged(*predictions(4000, sharp=1.0)))
    assert honest.losses[honest.method] > honest.losses["none"] - 0.002  # there was nothing to gain


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("scale", ["probabilities", "logits"])
def test_the_command_writes_the_same_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, scale: str
) -> None:
    monkeypatch.chdir(tmp_path)
    logits, codes = predictions()
    values = softmax(logits, axis=1) if scale == "probabilities" else logits
    table = frame(values, codes, "p_").with_columns(prediction=pl.lit("ant"))
    getattr(table, "write_csv" if suffix == ".csv" else "write_parquet")(f"p{suffix}")
    result = run("calibrate", f"p{suffix}", "--target", "y", f"--{scale}", "--method", "vector")
    assert (result.exit_code, result.stderr) == (0, "")
    name = f"p.calibrated{suffix}"
    written = pl.read_csv(name) if suffix == ".csv" else pl.read_parquet(name)
    assert written.columns == table.columns
    assert written.select("id", "y").equals(table.select("id", "y"))
    again = read_predictions(written, name, "y", scale)  # type: ignore[arg-type]
    expected = recalibrate(read_predictions(table, "p", "y", scale), "vector")  # type: ignore[arg-type]
    np.testing.assert_allclose(again.probabilities, expected.probabilities, rtol=1e-12)
    assert (written["prediction"].to_numpy() == ANIMALS[expected.probabilities.argmax(axis=1)]).all()
    before, after = expected.losses["none"], expected.losses["vector"]
    assert f"calibrated by vector: loss {before:.4f} before, {after:.4f} after" in " ".join(result.stdout.split())


@pytest.mark.parametrize("scale", ["probabilities", "logits"])
def test_one_column_of_two_classes_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: str) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logit = rng.normal(size=400)
    y = (rng.random(400) < 1 / (1 + np.exp(-logit))).astype(int)
    p = 1 / (1 + np.exp(-4 * logit))
    pl.DataFrame({"y": y, "p": p if scale == "probabilities" else 4 * logit}).write_parquet("p.parquet")
    assert run("calibrate", "p.parquet", "--target", "y", f"--{scale}", "-o", "c.parquet").exit_code == 0
    written = pl.read_parquet("c.parquet")
    assert written.columns == ["y", "p"]
    q = written["p"].to_numpy() if scale == "probabilities" else 1 / (1 + np.exp(-written["p"].to_numpy()))
    loss = [-(y * np.log(r) + (1 - y) * np.log1p(-r)).mean() for r in (p, q)]
    assert loss[1] < loss[0] - 0.2


def test_impossible_labels_do_not_stop_it_and_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logits, codes = predictions()
    p = softmax(logits, axis=1)
    p[0] = np.eye(3)[(codes[0] + 1) % 3]
    frame(p, codes, "").write_csv("p.csv")
    result = run("calibrate", "p.csv", "--target", "y", "--probabilities", "--drop", "id")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "loss ∞ before" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "y"], "pass one of --probabilities and --logits"),
        (["--target", "y", "--logits", "--probabilities"], "pass one of --probabilities and --logits"),
        (["--target", "y", "--logits", "--method", "magic"], "the method must be one of auto, temperature, "),
        (["--target", "y", "--logits", "-o", "p.csv"], "'p.csv' cannot be written over 'p.csv', which is read"),
        (["--target", "y", "--logits", "-o", "p.txt"], "written as .csv or .parquet"),
        (["--target", "y", "--logits"], "class 'cat' has one row"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = np.array([0, 0, 1, 1, 2])
    frame(np.zeros((5, 3)) - codes[:, None], codes, "logit_").write_csv("p.csv")
    result = run("calibrate", "p.csv", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"p.csv"}


def test_a_method_that_refuses_the_rows_says_so_and_auto_goes_on() -> None:
    logits, codes = predictions()
    logits[:, 0] = -np.inf
    codes = np.where(codes == 0, 1, codes)
    values = judged(logits, np.r_[codes])
    with pytest.raises(InputError):
        recalibrate(values, "matrix")
    assert "matrix" not in recalibrate(values).losses
