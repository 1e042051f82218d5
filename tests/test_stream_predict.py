"""`crossent predict` on Parquet files that are never in memory as a whole: the bytes of the way that reads them so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_stream_cli import files, run, table

import crossent.tabular
from crossent.regression.data.parquet import ParquetTable
from crossent.tabular import (
    FitOptions,
    Model,
    ParquetPredictions,
    fit_table,
    predicting,
    prediction_bytes,
    prediction_table,
    read_model,
)

MODEL = "model.safetensors"
BLOCK = 53  # rows that are predicted together
SUFFIXES = (".csv", ".parquet")


@pytest.fixture(scope="module")
def model() -> Model:
    trained = fit_table(table(), "t.parquet", "kind", FitOptions(tolerance=1e-2)).model
    return replace(trained, seen=np.empty(0, np.uint64))  # else each prediction here has a warning


@pytest.fixture(autouse=True)
def small_pieces(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Blocks of 53 rows, windows of four, row groups of 700 rows, and the files `t.parquet` and `model.safetensors`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(predicting, "BLOCK_LOGITS", BLOCK * max(model.coef.shape))
    monkeypatch.setattr(predicting, "ROW_GROUP_ROWS", 700)
    columns = len(model.preprocessing.column_names) + 1
    monkeypatch.setattr(ParquetPredictions.__init__, "__defaults__", (4 * BLOCK * columns * 8,))
    Path(MODEL).write_bytes(model.to_bytes())
    table().write_parquet("t.parquet", row_group_size=321)


def predict(data: str, *arguments: str) -> bytes:
    """Return what the command wrote, and remove it."""
    output = arguments[arguments.index("-o") + 1]
    result = run("predict", MODEL, data, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    content = Path(output).read_bytes()
    Path(output).unlink()
    return content


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_bytes_streamed_and_not(suffix: str) -> None:
    output = ("-o", f"p{suffix}")
    whole = predict("t.parquet", *output, "--no-stream")
    assert predict("t.parquet", *output, "--stream") == whole
    assert predict("t.parquet", *output) == whole
    Path("parts").mkdir()
    for name, rows in (("a", slice(0, 777)), ("b", slice(777, 778)), ("c", slice(778, 2000))):
        table()[rows].write_parquet(f"parts/{name}.parquet")
    for source in ("parts", "parts/*.parquet"):
        assert predict(source, *output) == whole
    unlabelled = table().drop("kind")
    unlabelled.write_parquet("t.parquet")
    assert predict("t.parquet", *output, "--stream") == predict("t.parquet", *output, "--no-stream") != whole


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_threads_of_its_own(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = ("-o", f"p{suffix}")
    whole = predict("t.parquet", *output, "--stream")

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert predict("t.parquet", *output, "--stream") == whole


def test_unknown_categories_are_counted_over_all_windows() -> None:
    colour = pl.when(pl.int_range(pl.len()) % 500 == 499).then(pl.lit("RED")).otherwise("colour")
    table().with_columns(colour=colour, flag=pl.col("flag").cast(pl.Int8)).write_parquet("u.parquet")
    expected = (
        "crossent: warning: column 'colour': 4 of 2,000 rows hold a category that was not there in training ('RED'): "
        "they count as none\n"
    )
    for way in ("--stream", "--no-stream"):
        result = run("predict", MODEL, "u.parquet", way, "-o", "p.csv")
        assert (result.exit_code, result.stderr) == (0, expected)


def test_the_bytes_do_not_depend_on_the_window(model: Model, tmp_path: Path) -> None:
    """Whatever BLAS does with the rows of a product: a window is whole blocks, down to one and up to all of them."""
    expected = prediction_table(model, table(), "t.parquet")
    for window_bytes in (1, 100_000, 1 << 30):
        ParquetPredictions(model, "t.parquet", window_bytes).write(tmp_path / "p", ".parquet")
        assert Path("p").read_bytes() == prediction_bytes(expected, ".parquet")
    assert pl.read_parquet("p").equals(expected)
    assert expected.height == 2000
    probabilities = expected.select(pl.col("^probability_.*$")).to_numpy()
    np.testing.assert_allclose(probabilities, model.predict_probabilities(table()), rtol=1e-12)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["ant", "bee", "cat"]), pl.Binary, pl.Int8, pl.Date])
def test_labels_of_any_type_come_along(suffix: str, kind: pl.DataType) -> None:
    words = table()["kind"]
    is_word = kind in (pl.Categorical, pl.Binary) or isinstance(kind, pl.Enum)
    labels = words.cast(kind) if is_word else pl.Series([None, *range(1, 100)] * 20).cast(kind)
    table().with_columns(kind=labels).write_parquet("t.parquet")
    output = ("-o", f"p{suffix}")
    if suffix == ".csv" and kind == pl.Binary:
        labels = words  # no text form: whether it can be written is not for this test
        table().with_columns(kind=labels).write_parquet("t.parquet")
    assert predict("t.parquet", *output, "--stream") == predict("t.parquet", *output, "--no-stream")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_more_than_a_window_is_read_and_a_block_predicted(
    monkeypatch: pytest.MonkeyPatch, model: Model, suffix: str
) -> None:
    """Rows in memory are bounded: those read at a time, and those that were read but are not yet written."""
    read, predicted, waiting = [], [], []
    frame, probabilities = ParquetTable.frame, Model.predict_probabilities

    def reading(self: ParquetTable, start: int, stop: int, columns: list[str]) -> pl.DataFrame:
        read.append(stop - start)
        waiting.append(sum(read) - sum(predicted))
        return frame(self, start, stop, columns)

    def predicting_rows(self: Model, rows: pl.DataFrame, *arguments: object) -> np.ndarray:
        predicted.append(rows.height)
        return probabilities(self, rows, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ParquetTable, "frame", reading)
    monkeypatch.setattr(Model, "predict_probabilities", predicting_rows)
    monkeypatch.setattr(
        crossent.tabular, "read_tables", lambda sources, **options: pytest.fail(f"{sources} were read as a whole")
    )
    table().write_parquet("u.parquet")
    predict("[tu].parquet", "-o", f"p{suffix}")
    assert sum(read) == sum(predicted) == 4000
    assert max(predicted) == BLOCK
    assert max(read) == 4 * BLOCK
    assert max(waiting) <= 3 * 4 * BLOCK  # one window is worked on, one waits, one is read


BAD = {
    "nan": ("width", float("nan"), "column 'width' holds NaN in row 1503 (counted from 0)"),
    "text": ("text", "many", "column 'text' held numbers in training and holds 'many' in row 1503 (counted from 0)"),
    "too large": ("width", 1e308, "the logits of row 1503 (counted from 0) overflow"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_in_the_middle_is_named_and_nothing_is_left(suffix: str, name: str, model: Model) -> None:
    column, value, sentence = BAD[name]
    frame = table()
    cells = frame[column].to_list()
    cells[1503] = value
    frame.with_columns(pl.Series(column, cells, dtype=frame[column].dtype)).write_parquet("t.parquet")
    if name == "too large":
        Path(MODEL).write_bytes(replace(model, coef=1e10 * model.coef).to_bytes())
    told = []
    for way in ("--stream", "--no-stream"):
        Path(f"p{suffix}").write_text("older")
        result = run("predict", MODEL, "t.parquet", "-o", f"p{suffix}", way)
        assert result.exit_code == 2
        assert result.stderr.startswith("crossent: ")
        assert result.stderr.count("\n") == 1
        assert sentence in result.stderr
        told.append(result.stderr)
        assert Path(f"p{suffix}").read_text() == "older"
        assert files(Path(".")) == {"t.parquet", MODEL, f"p{suffix}"}
        result = run("predict", MODEL, "t.parquet", "-o", f"new/p{suffix}", way)
        assert result.exit_code == 2
        assert files(Path(".")) == {"t.parquet", MODEL, f"p{suffix}"}
    assert told[0] == told[1]


def test_what_cannot_be_read_or_written_gets_a_sentence() -> None:
    table().drop("width").write_parquet("lacking.parquet")
    table().rename({"width": "prediction"}).write_parquet("other.parquet")
    Path("none.parquet").write_text("hello")
    before = files(Path("."))
    for arguments, sentence in (
        (["lacking.parquet", "--stream"], "no column 'width' in 'lacking.parquet'; its columns are 'size', 'depth'"),
        (["lacking.parquet", "--no-stream"], "no column 'width' in 'lacking.parquet'; its columns are 'size', 'depth'"),
        (["none.parquet", "--stream"], "cannot read 'none.parquet' as parquet"),
        (["nothing*.parquet", "-o", "p.csv"], "there is no Parquet file 'nothing*.parquet'"),
        (["[tl]*.parquet", "-o", "p.csv"], "all files must have the same columns"),
        (["*.parquet"], "several files need a name: pass --output FILE"),
        (["t.parquet", "-o", "t.parquet", "--stream"], "cannot be written over 't.parquet'"),
        (["[t].parquet", "-o", "t.parquet"], "cannot be written over 't.parquet'"),
        (["t.parquet", "-o", "t.parquet/p.csv", "--stream"], "cannot write to 't.parquet': "),
    ):
        result = run("predict", MODEL, *arguments)
        assert result.exit_code == 2
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
        assert files(Path(".")) == before


def test_a_target_with_the_name_of_a_written_column_is_refused(model: Model) -> None:
    Path(MODEL).write_bytes(replace(model, target="prediction").to_bytes())
    table().rename({"kind": "prediction"}).write_parquet("t.parquet")
    for way in ("--stream", "--no-stream"):
        assert "the target column 'prediction'" in run("predict", MODEL, "t.parquet", way).stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_gets_a_sentence(suffix: str) -> None:
    predictions = ParquetPredictions(read_model(MODEL), "t.parquet")
    with pytest.raises(crossent.tabular.InputError, match=r"cannot write the predictions: .*No space left on device"):
        predictions.write(Path("/dev/full"), suffix)


def test_a_folder_gives_its_name_to_the_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("clicks").mkdir()
    Path("t.parquet").rename("clicks/t.parquet")
    assert run("predict", MODEL, "clicks").exit_code == 0
    assert files(Path(".")) == {"clicks", "clicks/t.parquet", MODEL, "clicks.predictions.csv"}
    monkeypatch.chdir("clicks")
    assert run("predict", f"../{MODEL}", ".").exit_code == 0
    assert files(Path(".")) == {"t.parquet", "clicks.predictions.csv"}


INTERRUPT = """
import os, signal, sys
import crossent.cli, crossent.tabular.predicting as predicting
from crossent.regression.data.parquet import ParquetTable
predicting.BLOCK_LOGITS = 1 << 12
predicting.ParquetPredictions.__init__.__defaults__ = (1,)
frame = ParquetTable.frame
def read(self, start, stop, columns):
    if start > 1500:
        os.kill(os.getpid(), signal.SIGINT)
    return frame(self, start, stop, columns)
ParquetTable.frame = read
crossent.cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ctrl_c_leaves_nothing_behind(suffix: str) -> None:
    command = [sys.executable, "-c", INTERRUPT, "predict", MODEL, "t.parquet", "--stream", "-o", f"new/p{suffix}"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode in (130, -signal.SIGINT)
    assert process.stderr.splitlines()[-1] == "crossent: interrupted"
    assert "Traceback" not in process.stderr
    assert files(Path(".")) == {"t.parquet", MODEL}
