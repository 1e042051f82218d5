"""From columns to a matrix: fill in what is missing, standardise numbers, one-hot encode the rest.

`conversions` makes columns of numbers and words of what people have, and `columns.read_columns` says what a cell of
these means, by the kind that training found for its column. `learn` learns from the training rows of a table, which may
come in windows. It learns what scikit-learn's `SimpleImputer`, `StandardScaler` and `OneHotEncoder` would learn. This
is kept as plain numbers and words, so that a model file runs no code when it is read, and `Preprocessing.transform`
does exactly what those transformers do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from .columns import Kind, code_among_numbers, count_words, first_kind, possible_kinds, read_columns
from .conversions import DEFAULT_COLUMNS, NO_CONVERSIONS, ColumnOptions, Conversions, OddCells, learn_conversions
from .errors import InputError
from .reading import require_columns

# A column with more categories keeps the most common ones; the others share one input.
MAX_CATEGORIES = 100
MAX_DISTINCT = 100_000
"""Different words of one column that are counted in a table of many windows; a column of more is an identifier."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")

Mask = NDArray[np.bool_]
Windows = Callable[[], Iterable[tuple[int, pl.DataFrame]]]
"""Reads a table from its beginning: the first row of each window, and its cells as `read_columns` returns them."""


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
    """The rows whose category was not there in training, by column, with the first such category of each.

    `odd` are the cells that were taken for empty, and `trained_on` is the number of rows that the model was trained on.
    """

    rows: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    odd: OddCells = field(default_factory=OddCells)
    trained_on: int = 0

    def add(self, column: str, categories: pl.Series) -> None:
        """Count categories of a column, one per row."""
        if len(categories):
            self.rows[column] += len(categories)
            self.examples.setdefault(column, categories[0])

    def sentences(self, num_rows: int) -> list[str]:
        """Return what a person should know of a table of so many rows, a sentence each."""
        sentences = [
            f"column {name!r}: {rows:,} of {num_rows:,} rows hold a category that was not there in training "
            f"({self.examples[name]!r}): they count as none"
            for name, rows in self.rows.items()
        ]
        if self.trained_on:
            sentences.append(
                f"{self.trained_on:,} of {num_rows:,} rows are as rows that the model was trained on: their "
                "probabilities say little of new rows"
            )
        return sentences + self.odd.sentences(num_rows)


@dataclass(frozen=True)
class Preprocessing:
    """The columns that are read and what is done to them. Number columns come first in the matrix."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    conversions: Conversions = NO_CONVERSIONS

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

        What a column is converted to and its kind (`columns.possible_kinds`) are read off the whole table; everything
        else, off the training rows alone.
        """
        return learn_table(frame, training)[0].preprocessing

    @property
    def cell_names(self) -> list[str]:
        """The columns of numbers and of words that the matrix is made of."""
        return [number.name for number in self.numbers] + [column.name for column in self.categories]

    @property
    def column_names(self) -> list[str]:
        """The columns of the table that are read."""
        return self.conversions.sources(self.cell_names)

    def read(
        self,
        frame: pl.DataFrame,
        source: str = "the table",
        first_row: int = 0,
        unseen: UnseenCategories | None = None,
    ) -> pl.DataFrame:
        """Return the columns of numbers and of words, each as its kind has it (`columns.read_columns`).

        Raises
        ------
        InputError
            If a column is missing, one of numbers holds text, NaN or an infinity, or one of true and false holds
            numbers other than 0 and 1.
        """
        require_columns(frame.columns, self.column_names, source)
        kinds: list[Kind] = ["numbers" for _ in self.numbers]
        kinds += [column.kind for column in self.categories]
        converted = self.conversions.apply(frame[self.column_names], None if unseen is None else unseen.odd)
        return read_columns(converted[self.cell_names], kinds, first_row)

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
        return self.encode(self.read(frame, source, first_row, unseen), first_row, unseen)

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


@dataclass(frozen=True)
class Learned:
    """What a table taught: what to do to its columns, how many cells have no value, and what a person should know."""

    preprocessing: Preprocessing
    missing_cells: int
    notes: list[str]


def learn_table(
    frame: pl.DataFrame, training: NDArray[np.intp], columns: ColumnOptions = DEFAULT_COLUMNS
) -> tuple[Learned, pl.DataFrame]:
    """Return what the training rows of a table in memory teach, and the cells of all rows, to be encoded."""
    conversions, left_out, notes = learn_conversions(frame, columns)
    converted = conversions.apply(frame.drop(left_out))
    kinds = {name: first_kind(kinds) for name, kinds in zip(converted.columns, possible_kinds(converted), strict=True)}
    cells = read_columns(converted, [*kinds.values()])
    mask = np.zeros(frame.height, bool)
    mask[training] = True
    learned = learn(lambda: [(0, cells)], kinds, mask, mask, conversions=conversions)
    learned = replace(learned, notes=[*notes, *learned.notes])
    return learned, cells[learned.preprocessing.cell_names]


def learn(
    windows: Windows,
    kinds: Mapping[str, Kind],
    training: Mask,
    sampled: Mask,
    most_words: int | None = None,
    conversions: Conversions = NO_CONVERSIONS,
) -> Learned:
    """Return what the training rows of a table teach; its windows are read twice.

    The first pass counts words and collects numbers for the medians, the second standardises the numbers.

    Parameters
    ----------
    windows : callable
    kinds : mapping
        The kind of each column.
    training, sampled : array of bool (N,)
        The rows to learn from, and those of them that medians are taken of.
    most_words : int, optional
        How many different words a column may have.
    conversions : Conversions
        What the columns were converted by.

    Raises
    ------
    InputError
        If a cell cannot be read, numbers are too large to standardise, or a column has too many words.
    """
    numbers = [name for name, kind in kinds.items() if kind == "numbers"]
    counts: dict[str, Counter[str | None]] = {name: Counter() for name, kind in kinds.items() if kind != "numbers"}
    samples: list[list[NDArray[np.float64]]] = [[] for _ in numbers]
    missing_cells, has_gaps = 0, False
    for start, cells in windows():
        here = slice(start, start + cells.height)
        missing_cells += sum(series.null_count() for series in cells)
        chosen = pl.Series(training[here])
        for name, counted in counts.items():
            counted.update(count_words(cells[name].filter(chosen)))
            if most_words is not None and len(counted) > most_words:
                raise InputError(
                    f"column {name!r} has more than {most_words:,} different values: leave it out with --drop"
                )
        in_sample = sampled[here][training[here]]
        for name, sample in zip(numbers, samples, strict=True):
            values = cells[name].filter(chosen).to_numpy()  # null: NaN
            is_known = ~np.isnan(values)
            has_gaps |= not is_known.all()
            # One known value of each window at least, so that a column with a value has a median.
            sample.append(values[is_known & in_sample] if (is_known & in_sample).any() else values[is_known][:1])
    known = [np.concatenate([*sample, np.empty(0)]) for sample in samples]
    medians = [float(np.median(values)) if len(values) else 0.0 for values in known]
    preprocessing = Preprocessing(
        _standardised(windows, numbers, medians, training),
        tuple(CategoryColumn.learned(name, counted, kinds[name]) for name, counted in counts.items()),
        conversions,
    )
    rows, of_median = int(np.count_nonzero(training)), int(np.count_nonzero(training & sampled))
    notes = [
        note
        for column, counted in zip(preprocessing.categories, counts.values(), strict=True)
        for note in category_notes(column, pl.Series([*counted], dtype=pl.String), rows)
    ]
    if has_gaps and of_median < rows:
        notes.append(f"missing numbers were filled in with medians of {of_median:,} training rows, drawn by the seed")
    empty = [column.name for column in preprocessing.categories if not column.categories]
    empty += [name for name, values in zip(numbers, known, strict=True) if not len(values)]
    notes += [f"column {name!r} has no value in the training part and has no influence" for name in empty]
    return Learned(preprocessing, missing_cells, notes)


def _standardised(
    windows: Windows, numbers: list[str], medians: list[float], training: Mask
) -> tuple[NumberColumn, ...]:
    """Return what is done to the columns of numbers: means and scales of the training rows, medians filled in."""
    if not numbers:
        return ()
    scaler = StandardScaler()
    for start, cells in windows():
        rows = cells.select(numbers).filter(pl.Series(training[start : start + cells.height])).to_numpy(order="c")
        if len(rows):
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below, by name
                scaler.partial_fit(np.where(np.isnan(rows), medians, rows))
    for name, mean, scale in zip(numbers, scaler.mean_, scaler.scale_, strict=True):
        if not (np.isfinite(mean) and np.isfinite(scale)):
            raise InputError(f"column {name!r} holds numbers too large to standardise")
    return tuple(map(NumberColumn, numbers, medians, scaler.mean_.tolist(), scaler.scale_.tolist()))


def category_notes(column: CategoryColumn, words: pl.Series, rows: int) -> list[str]:
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
            f"column {column.name!r} has {len(words)} different values in {rows} training rows: if it is an "
            "identifier, leave it out with --drop"
        )
    elif column.other:
        notes.append(
            f"column {column.name!r} has many categories: the {len(column.categories)} most common have an input of "
            "their own, the others share one"
        )
    return notes


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
