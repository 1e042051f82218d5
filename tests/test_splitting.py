"""Which rows train and which test: groups, times, another file, rows without a label and rare classes; and ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_cli import run, table

from crossent.tabular import FitOptions, InputError, fit_parquet, fit_table, held_out_predictions, read_model

Options = dict[str, object]


def fit(frame: pl.DataFrame, test: pl.DataFrame | None = None, **options: object):
    return fit_table(frame, "t.csv", "kind", FitOptions(calibration_size=0.2, **options), test=test)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sweep", [False, True])
def test_groups_are_never_split(monkeypatch: pytest.MonkeyPatch, seed: int, sweep: bool) -> None:
    dealt = []
    monkeypatch.setattr(
        "crossent.tabular.splitting.StratifiedGroupKFold", _watch(dealt) if (seed, sweep) == (0, True) else _watch([])
    )
    group = np.random.default_rng(3).integers(12, size=120)
    result = fit(table(120, who=[f"g{k}" for k in group]), group="who", seed=seed, sweep=sweep)
    tested = np.zeros(120, bool)
    tested[result.test] = True
    assert not {*group[tested]} & {*group[~tested]}
    assert 12 < tested.sum() < 48  # a quarter, as far as groups allow
    assert "who" not in result.model.preprocessing.column_names
    assert not result.stratified
    if dealt:  # the test part, the folds of the sweep, and those of the calibration
        assert len(dealt) == 3
        for groups, parts in dealt:
            for kept, held_out in parts:
                assert not {*groups[kept]} & {*groups[held_out]}


def _watch(dealt: list) -> Callable:
    from sklearn.model_selection import StratifiedGroupKFold

    class Watched(StratifiedGroupKFold):
        def split(self, X, y, groups):
            parts = list(super().split(X, y, groups))
            dealt.append((groups, parts))
            return iter(parts)

    return Watched


@pytest.mark.parametrize("as_time", [lambda d: d, lambda d: d.dt.strftime("%Y-%m-%d"), lambda d: d.dt.epoch("d")])
def test_the_latest_rows_are_the_test(as_time: Callable[[pl.Series], pl.Series]) -> None:
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 1, 30), eager=True)
    drawn = np.random.default_rng(0).permutation(60) // 2  # each day twice
    result = fit(table(when=as_time(days[drawn])), time="when", test_size=0.24)
    assert sorted(drawn[result.test]) == sorted([*range(22, 30)] * 2)  # 15 of 60 rows, and the other row of that day
    assert result.notes[0].startswith("the test rows are the latest: those from ")


def test_rows_of_another_table_are_tested_and_counted_there() -> None:
    frame, test = table(90)[:60], table(90)[60:].select("colour", "kind", "size")
    result = fit(frame, test.with_columns(more=pl.lit(1)))
    assert result.test.tolist() == [*range(30)]
    assert result.training_counts.sum() == 60
    assert result.cells.equals(test.select("size", "colour"))
    alone = fit(frame.vstack(frame[:0]), frame)  # what is tested does not matter to what is learned
    assert np.array_equal(alone.model.coef, result.model.coef)


def test_rows_without_a_label_are_left_out_and_counted_as_they_stand() -> None:
    frame = table(66)
    without = np.arange(66) % 11 == 0
    frame = frame.with_columns(kind=pl.when(pl.Series(~without)).then("kind"))
    result = fit(frame, drop_unlabelled=True)
    assert result.notes[0] == "6 of 66 rows have no label and were left out"
    assert not without[result.test].any()
    assert frame["kind"][result.test].to_list() == [result.model.classes[k] for k in result.test_codes]
    with pytest.raises(InputError, match="no label in row 0"):
        fit(frame)


def test_rare_classes_are_merged_or_dropped() -> None:
    kinds = ["ant"] * 30 + ["bee"] * 24 + ["cat"] * 3 + ["dog"] * 3
    frame = table().with_columns(kind=pl.Series(kinds))
    merged = fit(frame, min_class_rows=5)
    assert merged.model.classes == ("ant", "bee", "other")
    assert merged.class_counts.tolist() == [30, 24, 6]
    told = "2 of 4 classes have fewer than 5 rows ('cat', 'dog'): "
    assert merged.notes[0] == told + "they are one class, 'other'"
    dropped = fit(frame, min_class_rows=5, rare="drop")
    assert dropped.model.classes == ("ant", "bee")
    assert dropped.notes[0] == told + "their rows were left out"
    assert dropped.test.max() < 54
    two = fit(frame.with_columns(kind=pl.Series([*kinds[:57], *["other"] * 3])), min_class_rows=5)
    assert two.model.classes == ("ant", "bee", "other")


REFUSED: list[tuple[Options, str]] = [
    ({"group": "size", "time": "size"}, "leave out --time, or --group and --test"),
    ({"group": "nobody"}, "there is no column 'nobody'"),
    ({"id": "kind"}, "'kind' is the target"),
    ({"time": "colour"}, "column 'colour' holds '.*' in row 0 .*, which cannot be put in order"),
    ({"time": "same"}, "all rows from 1 of column 'same' on, leaves none to train"),
    ({"group": "same"}, "1 groups of column 'same' cannot be dealt into 4 parts"),
    ({"group": "gap"}, "column 'gap' names no group in row 7"),
    ({"time": "gap"}, "column 'gap' has no time in row 7"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_what_cannot_be_split_is_refused(options: Options, sentence: str) -> None:
    gap = [None if k == 7 else k for k in range(60)]
    with pytest.raises(InputError, match=sentence):
        fit(table(same=[1] * 60, gap=gap), **options)


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda t: t.drop("size"), {}, "there is no column 'size' in 'the test table'"),
        (lambda t: t.with_columns(kind=pl.lit("emu")), {}, "class 'emu' of the test table has no row to train on"),
        (lambda t: t, {"group": "colour"}, "group '.*' is both in the table and in the test table"),
        (lambda t: t.with_columns(kind=pl.lit(None, pl.String)), {}, r"the test table has no label in row 0"),
        (lambda t: t.with_columns(size=pl.lit([1])), {}, "'size' holds Float64 in the table and List"),
    ],
)
def test_a_test_table_that_does_not_fit_is_refused(change: Callable, options: Options, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        fit(table(), change(table()), **options)


@pytest.mark.parametrize("options", [{"group": "g"}, {"time": "g"}, {"drop_unlabelled": True}, {"min_class_rows": 2}])
def test_a_streamed_fit_refuses_what_needs_the_table(options: Options) -> None:
    with pytest.raises(InputError, match="needs the table in memory: leave it out, or pass --no-stream"):
        fit_parquet("t.parquet", "kind", FitOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_ids_stay_with_predictions_and_test_predictions_are_judged_as_the_fit_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = table(300, name=[f"n{k:03}" for k in range(300)])
    frame.write_parquet("t.parquet")
    assert run("fit", "t.parquet", "--target", "kind", "--id", "name", stream).exit_code == 0
    assert "name" not in read_model("out/model.safetensors").preprocessing.column_names
    written = pl.read_parquet("out/test.predictions.parquet")
    assert written.columns[:3] == ["name", "kind", "prediction"]
    told = frame.filter(pl.col("name").is_in(written["name"].implode()))
    assert written.select("name", "kind").equals(told.select("name", "kind"))
    assert run("predict", "out/model.safetensors", "t.parquet", "-o", "p.parquet", stream).exit_code == 0
    again = pl.read_parquet("p.parquet")
    assert again["name"].equals(frame["name"])
    np.testing.assert_allclose(
        again.filter(pl.col("name").is_in(written["name"].implode()))["probability_ant"],
        written["probability_ant"],
        rtol=1e-12,
    )
    judge = ("report", "out/test.predictions.parquet", "--target", "kind", "--probabilities", "-o")
    assert run(*judge, "judged").exit_code == 0
    losses = [json.loads(Path(name, "report.json").read_text())["loss"]["nats"] for name in ("out", "judged")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert (
        pl.read_parquet_metadata("out/test.predictions.parquet")["crossent-run"]
        == read_model("out/model.safetensors").training["run"]
    )
    refused = run(*judge, "out")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "crossent: 'out' holds the report of crossent fit on 't.parquet': pass --overwrite to replace it, or "
        "--output FOLDER to write elsewhere\n"
    )
    assert run(*judge, "out", "--overwrite").exit_code == 0
    assert run(*judge, "out").exit_code == 0  # its own


def test_row_numbers_stand_for_ids_and_no_name_takes_another_ones_place() -> None:
    result = fit(table())
    assert held_out_predictions(result)["row"].to_list() == result.test.tolist()
    clash = replace(result, model=replace(result.model, target="prediction"))
    assert held_out_predictions(clash).columns[:3] == ["row", "label", "prediction"]
