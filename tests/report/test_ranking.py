"""Three models and more as a table, and files joined by ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax
from scipy.stats import norm
from test_cli import run

CLASSES = np.array(["a", "b", "<c>"])
JUDGE = ("--target", "y", "--probabilities")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels drawn from the second model's probabilities; the third is worse, the first is like the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(400, 3))
    codes = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((400, 1))).sum(axis=1)
    made = {}
    for name, z in (("one", logits + 0.02 * rng.normal(size=logits.shape)), ("two", logits), ("three", 3 * logits)):
        p = softmax(z, axis=1)
        made[name] = p, codes
        columns = {f"p_{label}": p[:, k] for k, label in enumerate(CLASSES)}
        rows = pl.DataFrame({"who": np.arange(400), "y": CLASSES[codes], **columns})
        rows.write_parquet(f"{name}.parquet")
        rows.sample(fraction=1, shuffle=True, seed=1).write_parquet(f"{name}_shuffled.parquet")
    return made


def report() -> dict:
    return json.loads(Path("out/report.json").read_text())


def test_three_models_are_ranked_with_paired_intervals(files: dict) -> None:
    result = run("report", "one.parquet", "three.parquet", "two.parquet", *JUDGE)
    assert (result.exit_code, result.stderr) == (0, "")
    found = report()
    assert found["sources"] == ["one.parquet", "three.parquet", "two.parquet"]
    losses = {name: -np.log(p[np.arange(400), codes]) for name, (p, codes) in files.items()}
    order = sorted(losses, key=lambda name: losses[name].mean())
    assert [model["source"] for model in found["models"]] == [f"{name}.parquet" for name in order]
    assert order[2] == "three"
    for model, name in zip(found["models"], order, strict=True):
        p, codes = files[name]
        assert model["loss"]["nats"] == pytest.approx(losses[name].mean(), rel=1e-12)
        assert model["brier_score"] == pytest.approx(((p - np.eye(3)[codes]) ** 2).sum(axis=1).mean(), rel=1e-12)
        assert model["accuracy"] == np.mean(p.argmax(axis=1) == codes)
        if name == order[0]:
            assert model["more_than_best"] is None
            continue
        more = losses[name] - losses[order[0]]
        half = norm.ppf(0.975) * more.std() / 20
        interval = model["more_than_best"]["loss"]
        assert interval["lower"] == pytest.approx(more.mean() - half, rel=1e-9)
        assert interval["upper"] == pytest.approx(more.mean() + half, rel=1e-9)
    told = {line.split()[0]: line for line in result.stdout.splitlines() if ".parquet" in line}
    assert told["three.parquet"].rstrip().endswith("worse")
    assert told[f"{order[1]}.parquet"].rstrip().endswith("not told apart from the first")
    page = Path("out/report.html").read_text()
    assert "three.parquet" in page
    assert found["run"] in page


def test_rows_are_joined_by_id_and_not_by_order(files: dict) -> None:
    assert run("report", "one.parquet", "three.parquet", *JUDGE).exit_code == 0
    ordered = report()["paired"]
    assert run("report", "one.parquet", "three_shuffled.parquet", *JUDGE, "-o", "by-order").exit_code == 0
    assert json.loads(Path("by-order/report.json").read_text())["paired"] is None
    refused = run("report", "one.parquet", "two.parquet", "three_shuffled.parquet", *JUDGE)
    assert refused.exit_code == 2
    assert "have different labels in row" in refused.stderr
    assert "pass --id COLUMN to join rows" in refused.stderr
    arguments = ("report", "one.parquet", "three_shuffled.parquet", *JUDGE, "--id", "who")
    assert run(*arguments).exit_code == 2  # of other files than the report that is there
    assert run(*arguments, "--overwrite").exit_code == 0
    assert report()["paired"] == ordered


def test_only_rows_of_every_file_are_compared_and_the_others_are_told() -> None:
    pl.read_parquet("three_shuffled.parquet").filter(pl.col("who") >= 100).write_csv("part.csv")
    result = run("report", "one.parquet", "two.parquet", "part.csv", *JUDGE, "--id", "who")
    assert result.exit_code == 0
    assert "100 of 400 rows of 'one.parquet' have ids that are not in every file" in result.stderr
    assert report()["rows"] == 300


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop("who"), "there is no column 'who' in 'b.parquet'"),
        (lambda t: t.with_columns(who=pl.lit(3)), "id '3' of column 'who' is in several rows of 'b.parquet'"),
        (lambda t: t.with_columns(who=pl.lit(None, pl.Int64)), "column 'who' of 'b.parquet' has no id in row 0"),
        (lambda t: t.with_columns(pl.col("who") + 1000), "no id of column 'who' is in 'one.parquet' and 'b.parquet'"),
    ],
)
def test_ids_that_join_nothing_are_one_sentence(change, sentence: str) -> None:
    change(pl.read_parquet("two.parquet")).write_parquet("b.parquet")
    result = run("report", "one.parquet", "b.parquet", *JUDGE, "--id", "who")
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
