"""Kinds of columns, and what a cell of each kind says, of text and of every type."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import polars as pl
import pytest

from crossent.tabular import InputError
from crossent.tabular.columns import (
    Kind,
    as_numbers,
    as_text,
    check_finite,
    count_words,
    first_kind,
    possible_kinds,
    read_column,
    read_columns,
    refuse_type,
)


def test_text_that_is_numbers() -> None:
    assert as_numbers(pl.Series([" 1 ", "NA", "2.5", None, ""])).to_list() == [1.0, None, 2.5, None, None]  # type: ignore[union-attr]
    assert as_numbers(pl.Series(["NA", "Africa"])) is None
    assert as_numbers(pl.Series([True, False])) is None
    assert as_text(pl.Series([True, None, False])).to_list() == ["true", None, "false"]
    assert as_text(pl.Series(["a", " ", "", None, "NA"])).to_list() == ["a", None, None, None, "NA"]


@pytest.mark.parametrize(
    ("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinity"), (-float("inf"), "-infinity")]
)
def test_check_finite_names_the_first(value: float, word: str) -> None:
    check_finite(pl.Series("x", [1.0, None, 2.0]))
    with pytest.raises(InputError, match=f"column 'x' holds {word} in row 2 "):
        check_finite(pl.Series("x", [1.0, None, value, value]))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", "+3"], "numbers"),
        (["1.0", ".5", "5.", "1e5", "-1E-5", " 7 "], "numbers"),
        (["0", "0.5", "-01", "00.5", ""], "numbers"),
        (["9007199254740993", "NA", "nan", "-", None], "numbers"),
        (["", None, "  "], "numbers"),
        (["inf", "1"], "numbers"),
        (["1", "01", "2"], "categories"),
        (["01234", "98765"], "categories"),
        ([" 007 ", "1"], "categories"),
        (["1", "x"], "categories"),
        (["1,5", "2"], "categories"),
        (["1_000", "2"], "categories"),
        (["0x10", "1"], "categories"),
        (["2024-01-31", "2024-02-01"], "categories"),
        (["True", "FALSE", "true ", ""], "booleans"),
        (["True", "False", "Maybe"], "categories"),
        (["True", "1"], "categories"),
        (["yes", "no"], "categories"),
    ],
)
def test_the_kind_of_a_column_of_text(cells: list[str | None], kind: Kind) -> None:
    series = pl.Series("x", cells, dtype=pl.String)
    (kinds,) = possible_kinds(series.to_frame())
    assert first_kind(kinds) == kind
    # What a column allows is what each of its cells allows.
    assert set.intersection(*(possible_kinds(series[k : k + 1].to_frame())[0] for k in range(len(series)))) == kinds


@pytest.mark.parametrize("name", ["rows", "word", ""])
def test_words_of_a_column_of_any_name_are_counted(name: str) -> None:
    assert count_words(pl.Series(name, ["a", None, "a"])) == {"a": 2, None: 1}


DAY, TIME = date(2024, 1, 31), datetime(2024, 1, 31, 9, 30)


@pytest.mark.parametrize(
    ("kind", "cells", "read"),
    [
        ("numbers", pl.Series([1, None, -3], dtype=pl.Int8), [1.0, None, -3.0]),
        ("numbers", pl.Series([2**53 + 1, 2**64 - 1], dtype=pl.UInt64), [2.0**53, 2.0**64]),
        ("numbers", pl.Series(["9007199254740993", "18446744073709551615"]), [2.0**53, 2.0**64]),
        ("numbers", pl.Series(["1.50"]).cast(pl.Decimal(10, 2)), [1.5]),
        ("numbers", pl.Series(["007", " 1e3 ", "?"]), [7.0, 1000.0, None]),
        ("numbers", pl.Series(["7", "NA", None], dtype=pl.Categorical), [7.0, None, None]),
        ("numbers", pl.Series([None], dtype=pl.Null), [None]),
        ("booleans", pl.Series([True, None, False]), ["true", None, "false"]),
        ("booleans", pl.Series([1, 0, None], dtype=pl.UInt8), ["true", "false", None]),
        ("booleans", pl.Series([1.0, -0.0], dtype=pl.Float32), ["true", "false"]),
        ("booleans", pl.Series(["TRUE", " False", "1", "0.0", " "]), ["true", "false", "true", "false", None]),
        ("booleans", pl.Series(["yes", "nan"]), ["yes", "nan"]),
        ("booleans", pl.Series([None], dtype=pl.Null), [None]),
        ("categories", pl.Series(["01", " x ", "NA", "True", ""]), ["01", " x ", "NA", "True", None]),
        ("categories", pl.Series([1, -2, None]), ["1", "-2", None]),
        ("categories", pl.Series([2**63 + 1], dtype=pl.UInt64), ["9223372036854775809"]),
        ("categories", pl.Series([1.0, -0.0, 2.5, None]), ["1", "0", "2.5", None]),
        ("categories", pl.Series([2.0**53, 1e300]), ["9007199254740992", "1e+300"]),
        ("categories", pl.Series([0.1, 3.0], dtype=pl.Float32), ["0.1", "3"]),
        ("categories", pl.Series(["1.00", "2.50"]).cast(pl.Decimal(10, 2)), ["1", "2.5"]),
        ("categories", pl.Series([True, False]), ["true", "false"]),
        ("categories", pl.Series(["a", None], dtype=pl.Enum(["a"])), ["a", None]),
        ("categories", pl.Series([DAY]), ["2024-01-31"]),
        ("categories", pl.Series([TIME], dtype=pl.Datetime("ms")), ["2024-01-31 09:30:00"]),
        ("categories", pl.Series([TIME], dtype=pl.Datetime("ns")), ["2024-01-31 09:30:00"]),
        ("categories", pl.Series([TIME.replace(microsecond=120_000)]), ["2024-01-31 09:30:00.12"]),
    ],
)
def test_what_a_cell_says(kind: Kind, cells: pl.Series, read: list[Any]) -> None:
    assert read_column(cells, kind).to_list() == read
    for k, value in enumerate(read):
        assert read_column(cells[k : k + 1], kind).to_list() == [value]
    beside = pl.DataFrame([cells.alias("a"), pl.Series("b", ["7"] * len(read)), cells.alias("c")])
    for series in read_columns(beside, [kind, "numbers", kind]).select("a", "c"):
        assert series.to_list() == read


@pytest.mark.parametrize(
    ("kind", "cells", "message"),
    [
        ("numbers", pl.Series("x", ["1", "red"]), "column 'x' held numbers in training and holds 'red' in row 8 "),
        ("numbers", pl.Series("x", ["NaN", "red"]), "column 'x' held numbers in training and holds 'red' in row 8 "),
        ("numbers", pl.Series("x", [None, "red"]), "column 'x' held numbers in training and holds 'red' in row 8 "),
        ("numbers", pl.Series("x", ["1", "inf"]), "column 'x' holds infinity in row 8 "),
        ("numbers", pl.Series("x", [1.0, float("nan")]), "column 'x' holds NaN in row 8 "),
        ("numbers", pl.Series("x", [True]), "column 'x' held numbers in training and is of type Boolean here"),
        ("numbers", pl.Series("x", [DAY]), "column 'x' held numbers in training and is of type Date here"),
        ("booleans", pl.Series("x", [1, 2]), "column 'x' held true and false in training and holds 2 in row 8 "),
        ("booleans", pl.Series("x", ["1", "2"]), "column 'x' held true and false in training and holds '2' in row 8 "),
        ("booleans", pl.Series("x", [0.0, float("nan")]), "held true and false in training and holds nan in row 8 "),
        ("categories", pl.Series("x", [1.0, float("nan")]), "column 'x' holds NaN in row 8 "),
        ("categories", pl.Series("x", [[1]]), "column 'x' holds values of type List"),
        ("categories", pl.Series("x", [TIME - TIME]), "column 'x' holds Duration.*, which has no text form"),
    ],
)
def test_what_no_cell_of_a_kind_may_say(kind: Kind, cells: pl.Series, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_column(cells, kind, first_row=7)


def test_types_that_are_neither_numbers_nor_words() -> None:
    for series in (pl.Series("x", [[1]]), pl.Series("x", [b"1"]), pl.Series("x", [{"a": 1}])):
        with pytest.raises(InputError, match="leave it out with --drop"):
            refuse_type(series)
