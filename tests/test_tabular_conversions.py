"""What people's columns are converted to, and which are left out: each case as a file showed it."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from crossent.tabular import ColumnOptions, InputError, UnseenCategories, fit_table, prediction_table, read_model
from crossent.tabular.conversions import MISSING_WORDS, Conversions, OddCells, blank_missing, learn_conversions
from crossent.tabular.leaks import leak_notes

ROWS = 60
RNG = np.random.default_rng(0)


def learned(cells: object, name: str = "x", **options: object) -> tuple[Conversions, list[str], list[str]]:
    return learn_conversions(pl.DataFrame({name: cells}), ColumnOptions(**options))  # type: ignore[arg-type]


def penguins() -> pl.DataFrame:
    """As palmerpenguins has them: "NA" among the sexes, and a measurement that nobody took."""
    species = ["Adelie", "Gentoo", "Chinstrap"] * 40
    sex = ["male", "female", "NA", "female"] * 30
    mass = [str(3000 + 500 * (k % 3) + 7 * (k * 31 % 50)) for k in range(119)] + ["unknown"]
    return pl.DataFrame({"species": species, "sex": sex, "mass": mass})


@pytest.mark.parametrize("word", [*MISSING_WORDS, "NA", " None ", "Unknown"])
def test_words_for_no_value_in_every_column(word: str) -> None:
    frame = pl.DataFrame({"a": [word, "red"], "b": [word, "1"]})
    assert blank_missing(frame, MISSING_WORDS)[0].row(0) == (None, None)
    assert blank_missing(frame, MISSING_WORDS)[1].row(0) == ("red", "1")
    assert blank_missing(frame, ()).equals(frame)


def test_a_minus_beside_a_plus_is_a_word() -> None:
    frame = pl.DataFrame({"sign": ["+", "-", "?"], "other": ["x", "-", "y"]})
    assert blank_missing(frame, MISSING_WORDS).rows() == [("+", "x"), ("-", None), (None, "y")]


def test_penguins() -> None:
    """NA is no sex, and one word among numbers makes no column of words of them; a model file keeps both."""
    result = fit_table(penguins(), "penguins", "species")
    assert [(column.name, column.categories) for column in result.model.preprocessing.categories] == [
        ("sex", ("female", "male"))
    ]
    assert [column.name for column in result.model.preprocessing.numbers] == ["mass"]
    assert "119 of 120 cells of column 'mass' are numbers; 'unknown' is treated as missing" not in result.notes
    frame = penguins().with_columns(mass=pl.Series([*penguins()["mass"][:-1], "12 or so"]))
    result = fit_table(frame, "penguins", "species")
    assert "119 of 120 cells of column 'mass' are numbers; '12 or so' is treated as missing" in result.notes


def test_no_label_in_the_target() -> None:
    with pytest.raises(
        InputError, match=r"no label in row 2 .*: it holds 'NA', and 29 other rows have none: .* --no-na"
    ):
        fit_table(penguins(), "penguins", "sex")
    assert fit_table(penguins().drop("species"), "p", "sex", _options(missing=())).model.classes == (
        "NA",
        "female",
        "male",
    )


def test_a_word_of_ones_own_counts_in_any_case_in_the_target_too() -> None:
    frame = pl.DataFrame({"x": ["1", "ABSENT", "3"] * 20, "y": ["a", "b", "Absent"] * 20})
    options = _options(missing=(*MISSING_WORDS, "ABSENT"))
    with pytest.raises(InputError, match=r"no label in row 2 .* 'Absent'"):
        fit_table(frame, "t", "y", options)
    found = fit_table(frame.filter(pl.col("y") != "Absent"), "t", "y", options).model.preprocessing
    assert [column.name for column in found.numbers] == ["x"]


def _options(**columns: object):  # type: ignore[no-untyped-def]
    from crossent.tabular import FitOptions

    return FitOptions(columns=ColumnOptions(**columns))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("odd", "is_number"), [(["x"] * 3, True), (["x"] * 4, False), (["007"], False), (["inf"], True), ([""] * 20, True)]
)
def test_how_many_cells_may_be_no_numbers(odd: list[str], is_number: bool) -> None:
    conversions, _, notes = learned([*map(str, np.arange(ROWS).tolist() * 1), *odd])
    kept = blank_missing(pl.DataFrame({"x": [*map(str, range(ROWS)), *odd]}), MISSING_WORDS)
    assert (conversions.numbers == ("x",)) == (is_number and odd[0] != "")
    assert any("are numbers; " in note for note in notes) == bool(conversions.numbers)
    if conversions.numbers:
        assert conversions.apply(kept)["x"].null_count() == len(odd)


@pytest.mark.parametrize(
    ("cells", "order"),
    [
        (["2024-01-31", "2023-12-01"], "ymd"),
        (["2024/1/31 09:30", "2023/12/1"], "ymd"),
        (["2024-01-31T09:30:15.25Z", "2024-01-31T09:30:15+01:00"], "ymd"),
        (["31.1.2024", "01.12.2023"], "dmy"),
        (["01.02.2024", "03.04.2023"], "dmy"),
        (["1/31/2024", "12/1/2023"], "mdy"),
        (["31/1/2024", "1/12/2023"], "dmy"),
        ([datetime(2024, 1, 31, 9, 30), None], "ymd"),
    ],
)
def test_dates(cells: list[object], order: str) -> None:
    conversions, left_out, notes = learned(cells)
    assert (conversions.dates, left_out, notes) == ((("x", order),), [], [])
    found = conversions.apply(pl.DataFrame({"x": cells}))
    day = datetime(2024, 1, 31) if cells[0] != "01.02.2024" else datetime(2024, 2, 1)
    assert found["x: year"][0] == 2024
    assert int(found["x: days"][0]) == (day - datetime(1970, 1, 1)).days
    assert (found["x: month"][0], found["x: weekday"][0]) == (day.strftime("%B"), day.strftime("%A"))
    angle = 2 * np.pi * (day.timetuple().tm_yday - 1) / 365.25
    np.testing.assert_allclose([found["x: sine"][0], found["x: cosine"][0]], [np.sin(angle), np.cos(angle)])


@pytest.mark.parametrize(
    "cells", [["1/2/2024", "3/4/2023"], ["2024-01", "2024-02"], ["2024-13-01"], ["1.5", "2.5"], [""]]
)
def test_what_is_no_date(cells: list[str]) -> None:
    conversions, left_out, notes = learned(cells)
    assert (conversions.dates, left_out) == ((), [])
    assert [("day and month cannot be told apart" in note) for note in notes] == [True] * (cells[0] == "1/2/2024")


def test_a_later_cell_that_is_no_date_is_named() -> None:
    conversions, _, _ = learned(["2024-01-31", "2023-12-01"])
    odd = OddCells()
    found = conversions.apply(pl.DataFrame({"x": ["never", "2024-02-01", None]}), odd)
    assert found["x: year"].to_list() == [None, 2024, None]
    assert odd.sentences(3) == ["column 'x': 'never' (in 1 of 3 rows) is treated as missing, among numbers or dates"]


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("Unnamed: 0", range(ROWS), "counts the rows"),
        ("n", range(1, ROWS + 1), "counts the rows"),
        ("n", RNG.permutation(ROWS) + 100, "has another whole number in every row"),
        ("n", RNG.permutation(2 * ROWS)[:ROWS], "has another whole number in every row"),
        ("customer_id", RNG.permutation(10**6)[:ROWS], "has an id's name"),
        ("customerId", RNG.permutation(10**6)[:ROWS], "has an id's name"),
        ("key", [f"{k:032x}" for k in range(ROWS)], "holds hashes"),
        ("name", [f"n{k}" for k in range(ROWS)], "has another value in nearly every row"),
    ],
)
def test_ids_are_left_out(name: str, cells: object, reason: str) -> None:
    column = pl.Series(name, list(cells))  # type: ignore[call-overload]
    _, left_out, (note,) = learned(column, name)
    assert (left_out, note) == ([name], f"column {name!r} {reason}" + note[len(f"column {name!r} {reason}") :])
    assert note.endswith(f"is left out: --keep {name!r} keeps it")
    assert learned(column, name, keep=[name])[1:] == ([], [])


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("population", RNG.permutation(10**6)[:ROWS]),
        ("paid", np.arange(ROWS) % 50),
        ("price", RNG.normal(size=ROWS)),
        ("grid", [f"g{k % 40}" for k in range(ROWS)]),
        ("year", np.arange(1960, 1960 + ROWS) // 2),
        ("id", range(10)),
        ("colour", ["red", "blue"] * 30),
    ],
)
def test_what_tells_more_than_the_row_stays(name: str, cells: object) -> None:
    assert learned(pl.Series(name, list(cells)), name)[1:] == ([], [])  # type: ignore[call-overload]


def test_prose_is_left_out_or_hashed() -> None:
    cells = [f"{'good' if k % 2 else 'bad'} thing number {k} I bought" for k in range(ROWS)]
    _, left_out, (note,) = learned(cells)
    assert (left_out, note) == (["x"], "column 'x' holds text and is left out: --text 'x' makes inputs of its words")
    frame = pl.DataFrame({"x": cells, "y": ["no", "yes"] * 30})
    result = fit_table(frame, "t", "y", _options(text=["x"]))
    assert result.model.preprocessing.column_names == ["x"]
    assert float(np.mean(np.argmax(result.test_logits, 1) == result.test_codes)) == 1.0
    with pytest.raises(InputError, match="--text names column 'z', which is no feature"):
        fit_table(frame, "t", "y", _options(text=["z"]))


def test_a_part_that_has_the_name_of_a_column_is_refused() -> None:
    conversions = Conversions(dates=(("x", "ymd"),))
    with pytest.raises(InputError, match="column 'x: year' has the name that a part"):
        conversions.apply(pl.DataFrame({"x": ["2024-01-31"], "x: year": [1]}))


def test_a_file_keeps_the_conversions(tmp_path: object) -> None:
    """Trained and applied from its file: dates, odd numbers and prose of a later table are read as in training."""
    frame = pl.DataFrame(
        {
            "joined": [f"{k % 28 + 1}.{k % 12 + 1}.20{k % 5 + 10}" for k in range(120)],
            "age": [*map(str, (20 + k % 40 for k in range(118))), "forty", "n/a"],
            "y": ["a", "b", "b"] * 40,
        }
    )
    result = fit_table(frame, "t", "y")
    path = f"{tmp_path}/model.safetensors"
    with open(path, "wb") as file:
        file.write(result.model.to_bytes())
    again = read_model(path)
    assert again.preprocessing == result.model.preprocessing
    unseen = UnseenCategories()
    later = frame[:4].with_columns(age=pl.Series(["1", "old", "", "NA"]))
    table = prediction_table(again, later, "later", unseen)
    assert table.equals(prediction_table(result.model, later, "later"))
    assert unseen.sentences(4) == ["column 'age': 'old' (in 1 of 4 rows) is treated as missing, among numbers or dates"]


def test_an_index_without_a_name_is_left_out() -> None:
    frame = pl.DataFrame({"": range(60), "x": [0.5, 1.5] * 30, "y": ["a", "b"] * 30})
    assert "the first column has no name and counts the rows: it is left out" in fit_table(frame, "t", "y").notes


def test_a_column_that_knows_the_answer_is_named() -> None:
    y = RNG.integers(0, 2, 400)
    frame = pl.DataFrame(
        {
            "noise": RNG.normal(size=400),
            "refund": np.where(y == 1, RNG.uniform(1, 90, 400), 0.0),
            "y": [("kept", "sent back")[k] for k in y],
        }
    )
    notes = fit_table(frame, "orders", "y").notes
    assert [note.split(" alone")[0] for note in notes if "likely a leak" in note] == ["column 'refund'"]
    assert not [note for note in fit_table(frame.drop("refund"), "orders", "y").notes if "leak" in note]


def test_a_score_that_is_too_good_is_named() -> None:
    """Two columns whose sum is the answer, neither of them alone."""
    x = RNG.normal(size=(400, 2))
    cells = pl.DataFrame({"a": x[:, 0], "b": x[:, 1]})
    codes = (x.sum(1) > 0).astype(np.intp)
    rows = np.arange(400)
    (note,) = leak_notes(cells, codes, rows[:300], rows[300:], 0.001)
    assert note.startswith("the score is nearly perfect (0.1% of the log-loss of the class shares is left)")
    assert leak_notes(cells, codes, rows[:300], rows[300:], 0.3) == []
    assert leak_notes(cells, codes, rows[:390], rows[390:], 0.001) == []


def test_rows_of_training_are_counted(tmp_path: object) -> None:
    """The rows trained on and no others, also where a model file lies between; rows that were tested are new."""
    frame = pl.DataFrame({"x": RNG.normal(size=200), "c": ["u", "v"] * 100, "y": ["a", "b", "b", "a"] * 50})
    result = fit_table(frame, "t", "y")
    path = f"{tmp_path}/model.safetensors"
    with open(path, "wb") as file:
        file.write(result.model.to_bytes())
    test = set(result.test.tolist())
    for rows in (range(200), range(7), sorted(test), [*test][:3]):
        unseen = UnseenCategories()
        prediction_table(read_model(path), frame[[*rows]], "t", unseen)
        trained_on = sum(row not in test for row in rows)
        assert unseen.trained_on == trained_on
        assert len(unseen.sentences(len(rows))) == (trained_on > 0)
    shifted = UnseenCategories()
    prediction_table(read_model(path), frame.with_columns(pl.col("x") + 1e-9), "t", shifted)
    assert shifted.trained_on == 0
