"""From columns to a matrix: fill in what is missing, standardise numbers, one-hot encode the rest.

What a cell says is for `columns.read_columns`, by the kind that training found the column to be of. What the training
rows teach is what they teach scikit-learn's `SimpleImputer`, `StandardScaler` and `OneHotEncoder`. It is kept as plain
numbers and words, which say the same thing in a file that runs no code when it is read. `Preprocessing.transform` is
exactly what those transformers do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from .columns import MISSING_NUMBERS, Kind, code_among_numbers, count_words, first_kind, possible_kinds, read_columns
from .errors import InputError
from .reading import require_columns

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
    kind: Kind = "categories"  # or "booleans", whose categories are "false" and "true"

    @classmethod
    def learned(cls, name: str, counts: Mapping[str | None, int], kind: Kind) -> CategoryColumn:
        """Return what scikit-learn's imputer and encoder make of a column of so many rows of each word, None included.

        What is missing counts as the most common word, the first in order of several.

        Examples
        --------
        >>> CategoryColumn.learned("x", {"b": 2, "a": 2, None: 1}, "categories")
        CategoryColumn(name='x', fill='a', categories=('a', 'b'), other=False, kind='categories')
        """
        rows = {word: count for word, count in counts.items() if word is not None}
        if not rows:
            return cls(name, "", (), False, kind)
        most = max(rows.values())
        fill = min(word for word, count in rows.items() if count == most)
        rows[fill] += counts.get(None, 0)
        words = sorted(rows)
        if len(words) <= MAX_CATEGORIES:
            return cls(name, fill, tuple(words), False, kind)
        by_rows = np.argsort([rows[word] for word in words], kind="stable")
        return cls(name, fill, tuple(words[i] for i in sorted(by_rows[-(MAX_CATEGORIES - 1) :])), True, kind)

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
    """The columns that are read and what is done to them. Number columns come first in the matrix.

    `missing` are the words that are no value in a column of numbers.
    """

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    missing: tuple[str, ...] = MISSING_NUMBERS

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

        What kind a column is (`columns.possible_kinds`) is read off the whole table; everything else, off the training
        rows alone.
        """
        kinds = [first_kind(kinds) for kinds in possible_kinds(frame)]
        numbers: list[pl.Series] = []
        categories: list[CategoryColumn] = []
        for cells, kind in zip(read_columns(frame, kinds)[training], kinds, strict=True):
            if kind == "numbers":
                numbers.append(cells)
            else:
                categories.append(CategoryColumn.learned(cells.name, count_words(cells), kind))
        return cls(_fit_numbers(numbers), tuple(categories))

    @property
    def column_names(self) -> list[str]:
        """The columns of the table that are read."""
        return [number.name for number in self.numbers] + [column.name for column in self.categories]

    def read(self, frame: pl.DataFrame, source: str = "the table", first_row: int = 0) -> pl.DataFrame:
        """Return the columns that are read, each as its kind has it (`columns.read_columns`).

        Raises
        ------
        InputError
            If a column is missing, one of numbers holds text, NaN or an infinity, or one of true and false holds
            numbers other than 0 and 1.
        """
        require_columns(frame.columns, self.column_names, source)
        kinds: list[Kind] = ["numbers" for _ in self.numbers]
        kinds += [column.kind for column in self.categories]
        return read_columns(frame[self.column_names], kinds, first_row, self.missing)

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
            As `read`, and if a number is too large to standardise.
        """
        return self.encode(self.read(frame, source, first_row), first_row, unseen)

    def encode(
        self, cells: pl.DataFrame, first_row: int = 0, unseen: UnseenCategories | None = None
    ) -> NDArray[np.float64]:
        """Return the matrix (N, D) of cells that `read` returned."""
        matrix = np.zeros((cells.height, len(self.input_names)))
        columns = cells.iter_columns()
        for position, number in enumerate(self.numbers):
            values = next(columns).to_numpy()  # null: NaN
            filled = np.where(np.isnan(values), number.median, values)
            with np.errstate(over="ignore"):  # refused below, by name
                matrix[:, position] = (filled - number.mean) / number.scale
        position = len(self.numbers)
        for column in self.categories:
            width = len(column.categories) + column.other
            words = next(columns).fill_null(column.fill)
            matrix[:, position : position + width] = _one_hot(words, column, unseen)
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


def category_notes(column: CategoryColumn, words: pl.Series, rows: int, of: str = "rows") -> list[str]:
    """Return what a person should know about a column that holds these different words, null included, in its rows."""
    if column.holds_dates:
        return [
            f"column {column.name!r} holds dates, and each date is a category of its own: leave it out with --drop, or "
            "put columns of numbers (year, month, days since …) in its place"
        ]
    notes = []
    code = code_among_numbers(words)
    if code is not None:
        notes.append(
            f"column {column.name!r} holds digits that begin with 0 ({code!r}): they are codes, not numbers, and each "
            "is a category of its own"
        )
    if len(words) > 0.9 * rows and rows > 20:
        notes.append(
            f"column {column.name!r} has {len(words)} different values in {rows} {of}: if it is an identifier, leave "
            "it out with --drop"
        )
    elif column.other:
        notes.append(
            f"column {column.name!r} has many categories: the {len(column.categories)} most common have an input of "
            "their own, the others share one"
        )
    return notes


def word_notes(preprocessing: Preprocessing, words: Iterable[pl.Series], rows: int, of: str = "rows") -> list[str]:
    """Return the `category_notes` of all columns of words."""
    columns = zip(preprocessing.categories, words, strict=True)
    return [note for column, different in columns for note in category_notes(column, different, rows, of)]


def no_value_notes(preprocessing: Preprocessing, numbers: list[str]) -> list[str]:
    """Return a note on each column without a value in the training part: those of words, and these of numbers."""
    names = [column.name for column in preprocessing.categories if not column.categories] + numbers
    return [f"column {name!r} has no value in the training part and has no influence" for name in names]


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


def _refuse_overflow(matrix: NDArray[np.float64], names: list[str], first_row: int) -> None:
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise InputError(
            f"column {names[column]!r} holds a number too large to standardise in row {first_row + row} (counted "
            "from 0)"
        )
