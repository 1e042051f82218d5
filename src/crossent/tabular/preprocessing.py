"""From columns to a matrix: fill in what is missing, standardise numbers, one-hot encode the rest.

scikit-learn's transformers are fitted on the training rows; what they learned is kept as plain numbers and words, which
say the same thing in a file that runs no code when it is read. `Preprocessing.transform` is exactly what those
transformers do.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .errors import InputError
from .reading import as_numbers, as_text, check_finite, require_column

# A column with more categories keeps the most common ones; the others share one input.
MAX_CATEGORIES = 100
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")


@dataclass(frozen=True)
class NumberColumn:
    """x becomes (x - mean) / scale, and a missing x the median first."""

    name: str
    median: float
    mean: float
    scale: float


@dataclass(frozen=True)
class CategoryColumn:
    """One input per category, and one for all the others where `other`; a missing cell counts as `fill`."""

    name: str
    fill: str
    categories: tuple[str, ...]
    other: bool

    @property
    def holds_dates(self) -> bool:
        """Whether every category is a date, or a date and a time."""
        return bool(self.categories) and all(map(_DATE.fullmatch, self.categories))


@dataclass
class UnseenCategories:
    """The rows whose category was not there in training, by column, with the first such category of each."""

    rows: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, column: str, categories: pl.Series) -> None:
        """Count categories of a column, one per row."""
        if len(categories):
            self.rows[column] += len(categories)
            self.examples.setdefault(column, categories[0])

    def sentences(self, num_rows: int) -> list[str]:
        """Return one sentence per column of a table of so many rows."""
        return [
            f"column {name!r}: {rows:,} of {num_rows:,} rows hold a category that was not there in training "
            f"({self.examples[name]!r}): they count as none"
            for name, rows in self.rows.items()
        ]


@dataclass(frozen=True)
class Preprocessing:
    """The columns that are read and what is done to them. Number columns come first in the matrix."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]

    @property
    def input_names(self) -> list[str]:
        """One name per column of the matrix."""
        names = [column.name for column in self.numbers]
        for column in self.categories:
            names += [f"{column.name}={category}" for category in column.categories]
            names += [f"{column.name}=(other)"] * column.other
        return names

    @classmethod
    def fit(cls, frame: pl.DataFrame, training: NDArray[np.intp]) -> Preprocessing:
        """Learn from the training rows of `frame`, all of whose columns are features.

        What kind a column is (numbers or categories) is read off the whole table; everything else, off the training
        rows alone.
        """
        numbers: list[pl.Series] = []
        categories: list[pl.Series] = []
        for series in frame.iter_columns():
            refuse_type(series)
            converted = as_numbers(series)
            if converted is None:
                categories.append(as_text(series))
            else:
                check_finite(converted)
                numbers.append(converted)
        return cls(
            _fit_numbers([series.gather(training) for series in numbers]),
            tuple(_fit_category(series.gather(training)) for series in categories),
        )

    @property
    def column_names(self) -> list[str]:
        """The columns of the table that are read."""
        return [number.name for number in self.numbers] + [column.name for column in self.categories]

    def transform(
        self,
        frame: pl.DataFrame,
        source: str = "the table",
        first_row: int = 0,
        unseen: UnseenCategories | None = None,
    ) -> NDArray[np.float64]:
        """Return the matrix (N, D) of a table that has at least the columns this was fitted on.

        Messages count rows from `first_row`, for a part of a table. Rows with a category that was not there in training
        are added to `unseen`.

        Raises
        ------
        InputError
            If a column is missing, a column of numbers holds text, NaN or an infinity, or one of true and false holds
            numbers other than 0 and 1.
        """
        matrix = np.zeros((frame.height, len(self.input_names)))
        for position, number in enumerate(self.numbers):
            series = require_column(frame, number.name, source)
            converted = as_numbers(series)
            if converted is None:
                raise InputError(_not_a_number(series, first_row))
            check_finite(converted, first_row)
            with np.errstate(over="ignore"):  # refused below, by name
                matrix[:, position] = (converted.fill_null(number.median).to_numpy() - number.mean) / number.scale
        position = len(self.numbers)
        for column in self.categories:
            series = require_column(frame, column.name, source)
            refuse_type(series)
            width = len(column.categories) + column.other
            matrix[:, position : position + width] = _one_hot(
                _as_categories(series, column, first_row).fill_null(column.fill), column, unseen
            )
            position += width
        _refuse_overflow(matrix, self.input_names, first_row)
        return matrix


def _fit_numbers(columns: list[pl.Series]) -> tuple[NumberColumn, ...]:
    if not columns:
        return ()
    matrix = np.column_stack([series.to_numpy() for series in columns]).astype(np.float64)  # null becomes NaN
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers whose square overflows are refused below, by name
        scaler = StandardScaler().fit(imputer.fit_transform(matrix))
    for series, mean, scale in zip(columns, scaler.mean_, scaler.scale_, strict=True):
        if not (np.isfinite(mean) and np.isfinite(scale)):
            raise InputError(f"column {series.name!r} holds numbers too large to standardise")
    return tuple(
        NumberColumn(series.name, float(median), float(mean), float(scale))
        for series, median, mean, scale in zip(columns, imputer.statistics_, scaler.mean_, scaler.scale_, strict=True)
    )


def _fit_category(series: pl.Series) -> CategoryColumn:
    if series.null_count() == len(series):
        return CategoryColumn(series.name, "", (), False)
    cells = np.array(series.to_list(), dtype=object).reshape(-1, 1)
    imputer = SimpleImputer(missing_values=None, strategy="most_frequent")
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False)
    encoder.fit(imputer.fit_transform(cells))
    infrequent = encoder.infrequent_categories_[0]
    rare = set() if infrequent is None else set(infrequent)
    kept = tuple(str(category) for category in encoder.categories_[0] if category not in rare)
    return CategoryColumn(series.name, str(imputer.statistics_[0]), kept, bool(rare))


def date_notes(categories: tuple[CategoryColumn, ...]) -> list[str]:
    """Return what a person should know about columns of dates."""
    return [
        f"column {column.name!r} holds dates, and each date is a category of its own: leave it out with --drop, or put "
        "columns of numbers (year, month, days since …) in its place"
        for column in categories
        if column.holds_dates
    ]


def _as_categories(series: pl.Series, column: CategoryColumn, first_row: int) -> pl.Series:
    """Return the column as text; numbers 0 and 1 are false and true where training knew these words alone."""
    if series.dtype.is_numeric() and column.categories and {"false", "true"}.issuperset(column.categories):
        bad = ((series != 0) & (series != 1)).fill_null(False)
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise InputError(
                f"column {column.name!r} held true and false in training and holds {series[row]} in row "
                f"{first_row + row} (counted from 0)"
            )
        series = series.cast(pl.Boolean)
    return as_text(series)


def _one_hot(cells: pl.Series, column: CategoryColumn, unseen: UnseenCategories | None) -> NDArray[np.float64]:
    block = np.zeros((len(cells), len(column.categories) + column.other))
    if not block.shape[1]:
        return block
    codes = cells.cast(pl.Enum(column.categories), strict=False).to_physical()  # a category not seen in training: null
    if column.other:
        codes = codes.cast(pl.Int64).fill_null(len(column.categories))
    elif unseen is not None:
        unseen.add(column.name, cells.filter(codes.is_null()))
    known = codes.is_not_null().to_numpy()
    block[np.flatnonzero(known), codes.drop_nulls().to_numpy()] = 1.0
    return block


def refuse_type(series: pl.Series) -> None:
    """Refuse a column of a type that is neither numbers nor words."""
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        raise InputError(
            f"column {series.name!r} holds values of type {series.dtype}, which crossent cannot use: leave it out "
            "with --drop"
        )


def _not_a_number(series: pl.Series, first_row: int) -> str:
    if series.dtype != pl.String:
        return f"column {series.name!r} held numbers in training and is of type {series.dtype} here"
    cells = [None if as_numbers(series.slice(row, 1)) is not None else row for row in range(len(series))]
    row = next(row for row in cells if row is not None)
    return (
        f"column {series.name!r} held numbers in training and holds {series[row]!r} in row {first_row + row} (counted "
        "from 0)"
    )


def _refuse_overflow(matrix: NDArray[np.float64], names: list[str], first_row: int) -> None:
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(
            f"column {names[column]!r} holds a number too large to standardise in row {first_row + row} (counted "
            "from 0)"
        )
