"""What kind a column is, and what a cell of each kind says. A cell is read by itself, never by what other cells hold.

Training decides the kind of each column once, from all of its cells. The model keeps it, and every table is read by it:

- **numbers**: text counts as the number it writes in decimal digits, with or without sign, point, exponent and
  surrounding white space ("1", "+1.50", " 1e3 "). Blank text, NaN in text and the words `MISSING_NUMBERS` are no value.
- **booleans**: true and false. Text says so in any case ("True", "FALSE"); numbers, typed or in text, say so by 1 and 0
  ("1", "0.0"). Blank text is no value, and other words are categories that were not there in training.
- **categories**: text is the category as it is written, white space and all; blank text is no value. A typed value
  counts as its text: 1 and 1.0 are "1", 2.5 is "2.5", true is "true", a date is "2024-01-31", a time of a day
  "2024-01-31 09:30:00", with as many decimals of a second as it needs.

A typed column of numbers or of booleans is of that kind, and one of another type holds categories. A column of text
holds numbers or booleans if every cell can be one. Digits that begin with 0, as in zip code "01234", are no number but
a code, whose zeros matter: a single one makes a column one of categories.

NaN and infinity in typed columns are refused, because they come from a computation that went wrong. `check_finite`
names the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from .errors import InputError

Kind = Literal["numbers", "booleans", "categories"]
KINDS: tuple[Kind, ...] = ("numbers", "booleans", "categories")
"""A column is of the first kind that all of its cells allow."""
TRUTH_VALUES = ("false", "true")
# These words mean "no value" among numbers wherever numbers are read; `conversions` knows those of whole tables.
MISSING_NUMBERS = ("NA", "N/A", "n/a", "null", "NULL", "None", "?", "-")
# Above this number not every integer is a float, so a float there is written as it is.
EXACT_INTEGERS = 2.0**53
CODE = "^0[0-9]+$"


def possible_kinds(frame: pl.DataFrame) -> list[set[Kind]]:
    """Return, for each column or part of one, the kinds that all of its cells allow.

    Examples
    --------
    >>> frame = pl.DataFrame({"a": ["True", ""], "b": ["1.5", "NA"], "c": ["01234", "98765"], "d": [1, 2]})
    >>> [sorted(kinds) for kinds in possible_kinds(frame)]
    [['booleans', 'categories'], ['categories', 'numbers'], ['categories'], ['numbers']]
    """
    text = frame.select(pl.selectors.string())
    cells = text.select(pl.all().str.strip_chars())
    are_codes = cells.select(pl.all().str.contains(CODE).any())
    are_booleans = cells.select(pl.all().str.to_lowercase().is_in(["", *TRUTH_VALUES]).all())
    of_text: dict[str, set[Kind]] = {}
    for name, is_number in zip(text.columns, _parsed(text)[1], strict=True):
        of_text[name] = {"categories"}
        if is_number and not are_codes[name][0]:
            of_text[name].add("numbers")
        if are_booleans[name][0]:
            of_text[name].add("booleans")
    return [of_text.get(name) or {_kind_of(type_)} for name, type_ in frame.schema.items()]


def kinds_in_windows(
    schema: Mapping[str, pl.DataType], read: Callable[[list[str]], Iterable[pl.DataFrame]]
) -> dict[str, Kind]:
    """Return the kind of each column of a table whose columns of text, if there are any, are read window by window."""
    allowed = dict(zip(schema, possible_kinds(pl.DataFrame(schema=schema)), strict=True))
    text = [name for name, type_ in schema.items() if type_ == pl.String]
    for frame in read(text) if text else ():
        for name, kinds in zip(text, possible_kinds(frame), strict=True):
            allowed[name] &= kinds
    return {name: first_kind(kinds) for name, kinds in allowed.items()}


def _kind_of(type_: pl.DataType) -> Kind:
    """Return the kind of a column that is not of text."""
    if type_.is_numeric() or type_ == pl.Null:
        return "numbers"
    return "booleans" if type_ == pl.Boolean else "categories"


def code_among_numbers(words: pl.Series) -> str | None:
    """Return the first word of digits that begin with 0, if such words alone keep a column from being of numbers.

    Examples
    --------
    >>> code_among_numbers(pl.Series(["98765", "01234", "1.5", "NA"]))
    '01234'
    """
    if as_numbers(words) is None:
        return None
    codes = words.filter(words.str.strip_chars().str.contains(CODE)).to_list()
    return min(codes, default=None)


def first_kind(kinds: set[Kind]) -> Kind:
    """Return the kind of a column whose cells allow these."""
    return next(kind for kind in KINDS if kind in kinds)


def read_columns(frame: pl.DataFrame, kinds: Sequence[Kind], first_row: int = 0) -> pl.DataFrame:
    """Return every column as `read_column` does; text is parsed for all columns at once, which may be thousands."""
    columns = frame.get_columns()
    places = [k for k, kind in enumerate(kinds) if kind == "numbers" and columns[k].dtype == pl.String]
    numbers, are_numbers = _parsed(pl.DataFrame([columns[k] for k in places]))
    for k, series, is_number in zip(places, numbers.iter_columns(), are_numbers, strict=True):
        if is_number:  # else read_column says which cell is no number
            columns[k] = series
    return pl.DataFrame([read_column(series, kind, first_row) for series, kind in zip(columns, kinds, strict=True)])


def read_column(series: pl.Series, kind: Kind, first_row: int = 0) -> pl.Series:
    """Return a column as its kind has it: Float64 of numbers, else String; null where there is no value.

    Messages count rows from `first_row`.

    Raises
    ------
    InputError
        If a cell cannot be of this kind, or a number is NaN or infinite.

    Examples
    --------
    >>> read_column(pl.Series(["1.5", "NA", " 2 "]), "numbers").to_list()
    [1.5, None, 2.0]
    >>> read_column(pl.Series(["TRUE", "0", ""]), "booleans").to_list()
    ['true', 'false', None]
    >>> read_column(pl.Series([1.0, 2.5, None]), "categories").to_list()
    ['1', '2.5', None]
    """
    refuse_type(series)
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    if kind == "numbers":
        return _read_numbers(series, first_row)
    if kind == "booleans":
        return _read_booleans(series, first_row)
    if series.dtype.is_decimal():
        series = series.cast(pl.Float64)
    if series.dtype.is_float():
        check_finite(series, first_row)
        whole = (series == series.round()) & (series.abs() <= EXACT_INTEGERS)
        return as_text(series).zip_with(~whole.fill_null(False), series.cast(pl.Int64, strict=False).cast(pl.String))
    return as_text(series)


def _read_numbers(series: pl.Series, first_row: int) -> pl.Series:
    numbers = as_numbers(series)
    if numbers is not None:
        check_finite(numbers, first_row)
        return numbers
    if series.dtype != pl.String:
        raise InputError(f"column {series.name!r} held numbers in training and is of type {series.dtype} here")
    cells = series.str.strip_chars()
    wrong = cells.cast(pl.Float64, strict=False).is_null() & ~cells.is_in(["", *MISSING_NUMBERS])
    raise InputError(_held(series, "numbers", int(wrong.arg_max() or 0), first_row))


def _read_booleans(series: pl.Series, first_row: int) -> pl.Series:
    text = as_text(series)
    words = text.str.strip_chars().str.to_lowercase()
    numbers = words.cast(pl.Float64, strict=False).fill_nan(None)
    if series.dtype.is_numeric():
        numbers = series.cast(pl.Float64)
    wrong = ((numbers != 0) & (numbers != 1)).fill_null(False)
    if wrong.any():
        raise InputError(_held(series, "true and false", int(wrong.arg_max() or 0), first_row))
    words = words.set(numbers == 0, "false").set(numbers == 1, "true")
    return words.zip_with(words.is_in(TRUTH_VALUES).fill_null(True), text)


def _held(series: pl.Series, what: str, row: int, first_row: int) -> str:
    cell = repr(series[row]) if series.dtype == pl.String else series[row]
    return f"column {series.name!r} held {what} in training and holds {cell} in row {first_row + row} (counted from 0)"


def refuse_type(series: pl.Series) -> None:
    """Refuse a column of a type that is neither numbers nor words."""
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        raise InputError(
            f"column {series.name!r} holds values of type {series.dtype}, which crossent cannot use: leave it out "
            "with --drop"
        )


def is_pattern(name: str) -> bool:
    """Return whether polars takes a name for a pattern of names: "*" and "^…$"."""
    return name == "*" or (name.startswith("^") and name.endswith("$"))


def refuse_names(columns: Iterable[str], source: str, drop: Iterable[str] | None = None) -> None:
    """Refuse a column whose name is empty or a pattern of names, unless it is to be dropped."""
    for name in dict.fromkeys(columns).keys() - {*(drop or ())}:
        if not name:
            raise InputError(f"a column of {source!r} has no name: give it one, or leave it out with --drop ''")
        if is_pattern(name):
            raise InputError(f"the name {name!r} of a column of {source!r} is a pattern of names to polars: rename it")


def as_text(series: pl.Series) -> pl.Series:
    """Return the column as text, with null where the cell is null or blank.

    Times have no more decimals of a second than they need, whatever unit the column counts in.

    Examples
    --------
    >>> as_text(pl.Series([True, None])).to_list()
    ['true', None]
    >>> as_text(pl.Series([0, 1500]).cast(pl.Datetime("ms"))).to_list()
    ['1970-01-01 00:00:00', '1970-01-01 00:00:01.5']
    """
    if series.dtype == pl.Boolean:
        text = pl.select(pl.when(series).then(pl.lit("true")).when(~series).then(pl.lit("false"))).to_series()
        return text.alias(series.name)
    if series.dtype.is_float():
        series = series.set(series == 0, 0.0)  # -0.0 is 0.0
    try:
        text = series.cast(pl.String)
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ) as error:  # such as a date beyond what polars can write
        raise InputError(f"column {series.name!r} holds {series.dtype}, which has no text form: convert it") from error
    if series.dtype.is_temporal():
        return text.str.replace(r"(\.\d*?)0+(\D|$)", "${1}${2}").str.replace(r"\.(\D|$)", "${1}")
    return text.set(text.str.strip_chars() == "", None)


def count_words(words: pl.Series) -> dict[str | None, int]:
    """Return how many cells hold each word, and None for those that hold none.

    Examples
    --------
    >>> sorted(count_words(pl.Series(["b", "a", "b"])).items())
    [('a', 1), ('b', 2)]
    """
    counted = words.alias("word").value_counts(name="rows")
    return dict(zip(counted["word"].to_list(), counted["rows"].to_list(), strict=True))


def as_numbers(series: pl.Series) -> pl.Series | None:
    """Return the column as Float64 with null where it is missing, or None if it is not a column of numbers.

    Text counts as numbers when every cell is a number, blank, NaN, or one of `MISSING_NUMBERS`.

    Examples
    --------
    >>> as_numbers(pl.Series(["1.5", "NA", "nan", ""])).to_list()
    [1.5, None, None, None]
    >>> as_numbers(pl.Series(["1.5", "red"])) is None
    True
    """
    if series.dtype.is_numeric() or series.dtype == pl.Null:
        return series.cast(pl.Float64)
    if series.dtype != pl.String:
        return None
    numbers, (is_number,) = _parsed(series.to_frame())
    return numbers.to_series() if is_number else None


def _parsed(text: pl.DataFrame) -> tuple[pl.DataFrame, list[bool]]:
    """Return columns of text as numbers, null where there is none, and which columns hold nothing else."""
    cells = text.select(pl.all().str.strip_chars().replace(["", *MISSING_NUMBERS], None))
    numbers = cells.select(pl.all().cast(pl.Float64, strict=False))
    lost = [one.null_count() > other.null_count() for one, other in zip(numbers, cells, strict=True)]
    return numbers.select(pl.all().fill_nan(None)), [not some for some in lost]


def check_finite(numbers: pl.Series, first_row: int = 0) -> None:
    """Refuse NaN and infinity, naming the first; `first_row` is where in the table the column begins."""
    if np.count_nonzero(~np.isfinite(numbers.to_numpy())) == numbers.null_count():  # null: NaN
        return
    bad = (~numbers.is_finite()).fill_null(False)
    if bad.any():
        row = int(bad.arg_max() or 0)
        value = "NaN" if np.isnan(numbers[row]) else "infinity" if numbers[row] > 0 else "-infinity"
        raise InputError(
            f"column {numbers.name!r} holds {value} in row {first_row + row} (counted from 0); "
            "a missing value is an empty cell, and is filled in"
        )
