"""The law of prediction: what a model says of a row does not depend on the other rows of its file, nor on the format.

Tables are drawn: columns of every kind, with spellings of every sort. What they were trained on and what they are
predicted on are different draws, and the model goes through its file in between.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from attack import draws
from test_cli import run
from test_stream_cli import learn_in_windows

from crossent.tabular import (
    InputError,
    Model,
    ParquetPredictions,
    Preprocessing,
    UnseenCategories,
    fit_table,
    predicting,
    prediction_table,
    read_model,
    read_table,
)

Draw = Callable[[np.random.Generator], str | None]


def one_of(*cells: str | None) -> Draw:
    return lambda rng: cells[rng.integers(len(cells))]


# How a cell of each kind of column may be written, in training and later.
COLUMNS: dict[str, Draw] = {
    "integers": lambda rng: str(rng.integers(-9, 9)),
    "floats": lambda rng: repr(float(rng.normal())),
    "whole floats": lambda rng: f"{rng.integers(9)}.0",
    "exponents": one_of("1e3", "-2.5E-1", "+1e0", ".5", "7."),
    "large": lambda rng: str(2**53 + int(rng.integers(9))),
    "huge": lambda rng: "1" + str(rng.integers(10)) * 25,
    "spaced": lambda rng: " " * int(rng.integers(3)) + str(rng.integers(9)) + " " * int(rng.integers(3)),
    "gaps": one_of("1", "2.5", "NA", "nan", "NaN", "?", "", " ", None),
    "zip": lambda rng: f"{rng.integers(100):05d}",
    "codes": one_of("1", "01", "x", "1.0"),
    "mixed": one_of("1", "2", "two", "1.0", "1e0", ""),
    "spelled": one_of("True", "TRUE", "false", "False", "", None),
    "maybe": one_of("True", "False", "Maybe"),
    "answers": one_of("yes", "yes ", "no", "NA", None),
    "truth or number": one_of("true", "1", "0", "false", "x"),
    "dates": lambda rng: f"2024-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}",
    "times": one_of("2024-01-31 09:30:00", "2024-01-31T09:30:00.000000", "09:30", ""),
    "empty": one_of("", " ", None),
    "words": one_of("red", 'say "hi"', "a,b", "a\tb", "café", "cafe\u0301", "-inf", "0x10"),
}
# Cells that a later table may hold beside those.
LATER: dict[str, Draw] = {
    "integers": one_of("007", "1.50", "NA", ""),
    "zip": one_of("1", "1.0", "98765"),
    "spelled": one_of("1", "0.0", "yes", " TRUE "),
    "maybe": one_of("true", "1", "perhaps"),
    "codes": one_of("2", "001", ""),
}


def draw(rng: np.random.Generator, rows: int, names: Sequence[str], later: bool = False) -> pl.DataFrame:
    def cell(name: str) -> str | None:
        return LATER[name](rng) if later and name in LATER and rng.random() < 0.3 else COLUMNS[name](rng)

    columns = {name: pl.Series([cell(name) for _ in range(rows)], dtype=pl.String) for name in names}
    return pl.DataFrame({**columns, "y": pl.Series([str(k % 3) for k in range(rows)])})


def write(frame: pl.DataFrame, path: str) -> str:
    if path.endswith(".parquet"):
        frame.write_parquet(path)
    else:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.endswith(".tsv") else ",")
            writer.writerows([frame.columns, *frame.rows()])
    return path


def train(frame: pl.DataFrame, rng: np.random.Generator) -> Model:
    """A model with this preprocessing and any coefficients, read from its file."""
    features = frame.drop("y")
    preprocessing = Preprocessing.fit(features, np.arange(0, frame.height, 2))
    coef = rng.normal(size=(3, len(preprocessing.input_names)))
    model = Model(preprocessing, coef, rng.normal(size=3), ("0", "1", "2"), "y", {})
    Path("model").write_bytes(model.to_bytes())
    return read_model("model")


def predict(model: Model, path: str) -> pl.DataFrame:
    return prediction_table(model, read_table(path), path)


def stream(model: Model, path: str) -> pl.DataFrame:
    ParquetPredictions(model, path, window_bytes=1).write(Path("streamed.parquet"), ".parquet")
    return pl.read_parquet("streamed.parquet")


def assert_same(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """The matrices are the same to the bit; BLAS may sum a row's products in another order among other rows."""
    assert found.columns == expected.columns
    for one, other in zip(found.iter_columns(), expected.iter_columns(), strict=True):
        if one.dtype == pl.Float64:
            np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=1e-12)
        else:
            assert one.to_list() == other.to_list()


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.attack
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_file_is_predicted_as_its_rows_one_by_one(suffix: str) -> None:
    for rng in draws(4):
        rows_one_by_one(rng, suffix)


def rows_one_by_one(rng: np.random.Generator, suffix: str) -> None:
    names = [*COLUMNS]
    model = train(read_table(write(draw(rng, 40, names), f"train{suffix}")), rng)
    table = draw(rng, 12, names, later=True)
    matrix = model.preprocessing.transform(read_table(write(table, f"whole{suffix}")))
    whole = predict(model, f"whole{suffix}")
    shuffled = rng.permutation(table.height)
    groups = [[k] for k in range(table.height)] + [sorted(shuffled[:5]), shuffled.tolist()]
    for rows in groups:
        some = read_table(write(table[rows], f"some{suffix}"))
        np.testing.assert_array_equal(model.preprocessing.transform(some), matrix[rows])
        assert_same(predict(model, f"some{suffix}"), whole[rows])


@pytest.mark.parametrize("seed", range(4))
def test_a_streamed_file_is_predicted_as_its_rows_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    model = train(read_table(write(draw(rng, 40, [*COLUMNS]), "train.csv")), rng)
    table = draw(rng, 12, [*COLUMNS], later=True)
    whole = predict(model, write(table, "whole.csv"))
    for block in (1, 5):
        monkeypatch.setattr(predicting, "BLOCK_LOGITS", block * max(model.coef.shape))
        assert_same(stream(model, write(table, "whole.parquet")), whole)
    rows = rng.permutation(table.height)
    assert_same(stream(model, write(table[rows], "some.parquet")), whole[rows])


@pytest.mark.parametrize("name", COLUMNS)
def test_each_kind_of_column_by_itself(name: str) -> None:
    """A file of every row, and of each: the same inputs, and unseen categories in the same rows."""
    rng = np.random.default_rng(5)
    preprocessing = train(read_table(write(draw(rng, 40, [name, "floats"]), "train.csv")), rng).preprocessing
    table = draw(rng, 20, [name, "floats"], later=True)
    unseen = UnseenCategories()
    matrix = preprocessing.transform(read_table(write(table, "whole.csv")), unseen=unseen)
    each = UnseenCategories()
    for row in range(table.height):
        one = read_table(write(table[[row]], "one.csv"))
        np.testing.assert_array_equal(preprocessing.transform(one, unseen=each), matrix[[row]])
    assert each == unseen


def typed(rng: np.random.Generator, rows: int) -> pl.DataFrame:
    def some(values: Sequence[object], dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
        return pl.Series([None if rng.random() < 0.1 else value for value in values], dtype=dtype)

    return pl.DataFrame(
        {
            "integers": some(rng.integers(-9, 9, rows).tolist(), pl.Int64),
            "large": some((2**53 + rng.integers(0, 99, rows)).tolist(), pl.UInt64),
            "floats": some(rng.normal(size=rows).tolist(), pl.Float64),
            "whole": some(rng.integers(0, 9, rows).astype(float).tolist(), pl.Float64),
            "flag": some((rng.random(rows) < 0.5).tolist(), pl.Boolean),
            "word": some(rng.choice(["red", "01", "True", "1.0"], rows).tolist(), pl.String),
            "colour": some(rng.choice(["red", "blue"], rows).tolist(), pl.Categorical),
            "day": some(rng.integers(19_000, 19_009, rows).tolist(), pl.Date),
            "y": pl.Series([k % 3 for k in range(rows)]),
        }
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_format_of_a_file_does_not_matter(seed: int) -> None:
    """Trained on one format and applied to another: the same preprocessing and the same inputs, to the bit."""
    rng = np.random.default_rng(seed)
    training, later = typed(rng, 60), typed(rng, 20)
    formats = (".csv", ".tsv", ".parquet", ".arrow")
    for suffix in formats:
        for frame, name in ((training, "train"), (later, "later")):
            frame.write_ipc(f"{name}{suffix}") if suffix == ".arrow" else write(frame, f"{name}{suffix}")
    models = [train(read_table(f"train{suffix}"), np.random.default_rng(seed)) for suffix in formats]
    expected = predict(models[0], "later.csv").drop("y")
    for model in models:
        assert model.preprocessing == models[0].preprocessing
        for suffix in formats:
            assert predict(model, f"later{suffix}").drop("y").equals(expected)
        assert stream(model, "later.parquet").drop("y").equals(expected)


@pytest.mark.parametrize("window", [1, 7, 100])
@pytest.mark.parametrize("seed", range(3))
def test_kinds_and_categories_do_not_depend_on_the_window(seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    features = draw(rng, 60, [*COLUMNS]).drop("y")
    training = rng.random(60) < 0.7
    expected = Preprocessing.fit(features, np.flatnonzero(training))
    found = learn_in_windows(features, training, window).preprocessing
    assert found.categories == expected.categories
    for one, other in zip(found.numbers, expected.numbers, strict=True):
        assert one.name == other.name
        learned = [[n.median, n.mean, n.scale] for n in (one, other)]
        np.testing.assert_allclose(*learned, rtol=1e-12, atol=1e-12)
    assert {column.kind for column in found.categories} == {"booleans", "categories"}


def test_an_infinite_number_in_a_window_is_refused_where_the_column_is_of_numbers() -> None:
    everything = np.ones(2, bool)
    words = learn_in_windows(pl.DataFrame({"a": ["inf", "x"]}), everything, 1).preprocessing.categories
    assert words[0].categories == ("inf", "x")
    with pytest.raises(InputError, match="column 'a' holds infinity in row 0"):
        learn_in_windows(pl.DataFrame({"a": ["inf", "2"]}), everything, 1)


def test_what_a_column_of_codes_says_from_fit_to_predict() -> None:
    """Codes 1, 01 and x, of three classes: "01" in a file without an x is still no 1."""
    codes = ["1", "01", "x"] * 30
    frame = pl.DataFrame({"code": codes, "zip": [f"0123{k % 9}" for k in range(90)], "y": [*"ABC"] * 30})
    write(frame, "t.csv")
    assert run("fit", "t.csv", "--target", "y").exit_code == 0
    for rows in ([0, 1], [1], [2], [1, 2]):
        write(frame[rows], "some.csv")
        result = run("predict", "out/model.safetensors", "some.csv", "-o", "p.csv")
        assert (result.exit_code, result.stderr.count("\n")) == (0, 1)
        assert f"{len(rows)} of {len(rows)} rows are as rows that the model was trained on" in result.stderr
        assert read_table("p.csv")["prediction"].to_list() == frame["y"].gather(rows).to_list()


def test_numbers_in_the_place_of_words_are_told() -> None:
    """Zip codes that another program made numbers of have lost their zeros: they are new categories, with a warning."""
    frame = pl.DataFrame({"zip": ["01234", "00501"] * 20, "x": [0.5] * 40, "y": ["a", "b"] * 20})
    model = fit_table(frame, "t", "y").model
    unseen = UnseenCategories()
    prediction_table(model, pl.DataFrame({"zip": [1234, 501], "x": [0.5, 0.5]}), "later", unseen)
    assert unseen.sentences(2) == [
        "column 'zip': 2 of 2 rows hold a category that was not there in training ('1234'): they count as none"
    ]


def test_the_words_for_no_value_are_those_of_the_model() -> None:
    frame = pl.DataFrame({"x": ["1", "NA", "3"], "y": ["a", "b", "a"]})
    preprocessing = Preprocessing.fit(frame.select("x"), np.arange(3))
    other = replace(preprocessing, conversions=replace(preprocessing.conversions, missing=("absent",)))
    assert other.read(pl.DataFrame({"x": ["Absent ", "", "2"]}))["x"].to_list() == [None, None, 2.0]
    with pytest.raises(InputError, match="holds 'unknown' in row 0"):
        other.read(pl.DataFrame({"x": ["unknown"]}))
