"""What `Preprocessing` learns, from one pass over a table in pieces.

Means and squared deviations of pieces are merged by the update of Chan, Golub and LeVeque (1979), and scales are those
of scikit-learn's `StandardScaler`, whose `partial_fit` ends in NaN where a piece has no value. Categories are counted.
A median needs all values at once: it is taken of a sample of the rows, and it only matters where cells are missing. On
a table whose rows are all in the sample the result is that of `Preprocessing.fit`, up to rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .columns import KINDS, Kind, count_words, first_kind, possible_kinds, read_column, refuse_type
from .errors import InputError
from .preprocessing import CategoryColumn, NumberColumn, Preprocessing, no_value_notes, word_notes

MAX_DISTINCT = 100_000
"""Words of one column that are counted; a column of more is an identifier."""

Mask = NDArray[np.bool_]


class TableStatistics:
    """Columns, seen a piece of the table at a time.

    Parameters
    ----------
    schema : dict
        Feature -> polars type.
    """

    def __init__(self, schema: dict[str, pl.DataType]) -> None:
        self._columns = [_Column(name, type_) for name, type_ in schema.items()]
        self._training_rows = self._sampled_rows = 0

    def add(self, frame: pl.DataFrame, training: Mask, sampled: Mask, first_row: int) -> None:
        """Take in a piece: all rows say of what kind a column is, the training rows all else, some of them medians.

        Raises
        ------
        InputError
            If a cell of a column of numbers is NaN or infinite, or a column cannot be used.
        """
        sampled = sampled & training
        self._training_rows += int(np.count_nonzero(training))
        self._sampled_rows += int(np.count_nonzero(sampled))
        undecided = [column for column in self._columns if len(column.kinds) > 1]
        allowed = possible_kinds(frame.select([column.name for column in undecided]))
        for column, kinds in zip(undecided, allowed, strict=True):
            column.kinds &= kinds
        in_order = frame.select([column.name for column in self._columns])
        for column, series in zip(self._columns, in_order.iter_columns(), strict=True):
            refuse_type(series)
            numbers = column.read_numbers(series, first_row)
            if numbers is not None:
                column.numbers.add(numbers.to_numpy().astype(np.float64), training, sampled)  # null: NaN
            if not column.is_typed:
                column.count(read_column(series, "categories"), training)

    def preprocessing(self) -> Preprocessing:
        """Return what was learned.

        Raises
        ------
        InputError
            If a column of numbers holds an infinite one or some that are too large to standardise, or another
            column more than `MAX_DISTINCT` different words.
        """
        numbers, categories = [], []
        for column in self._columns:
            if column.kind != "numbers":
                categories.append(column.category())
            elif column.refusal is not None:
                raise column.refusal
            else:
                numbers.append(column.numbers.learned(column.name))
        return Preprocessing(tuple(numbers), tuple(categories))

    @property
    def missing_cells(self) -> int:
        """How many cells of the columns have no value."""
        return sum(c.missing_numbers if c.kind == "numbers" else c.missing_words for c in self._columns)

    def notes(self, preprocessing: Preprocessing) -> list[str]:
        """Return what a person should know about the columns."""
        words = (pl.Series([*c.counts], dtype=pl.String) for c in self._columns if c.kind != "numbers")
        notes = word_notes(preprocessing, words, self._training_rows, "training rows")
        numbers = [column for column in self._columns if column.kind == "numbers"]
        if any(column.missing_numbers for column in numbers) and self._sampled_rows < self._training_rows:
            rows = f"{self._sampled_rows:,} training rows"
            notes.append(f"missing numbers were filled in with medians of {rows}, drawn by the seed")
        return notes + no_value_notes(preprocessing, [c.name for c in numbers if not c.numbers.count])


class _Numbers:
    """The numbers of a column: how many, their mean, the sum of their squared deviations from it, and a sample."""

    def __init__(self) -> None:
        self._moments: Any = (0, 0.0, 0.0)
        self._rows = 0
        self._sample: list[NDArray[np.float64]] = []

    @property
    def count(self) -> int:
        """How many rows have a number."""
        return int(self._moments[0])

    def add(self, numbers: NDArray[np.float64], training: Mask, sampled: Mask) -> None:
        """Take in a piece of the column, in which NaN is no number."""
        self._sample.append(_known(numbers[sampled]))
        rows = numbers[training]
        self._rows += len(rows)
        known = _known(rows)
        with np.errstate(over="ignore", invalid="ignore"):  # refused at the end, by name
            mean = known.sum() / max(len(known), 1)
            self._moments = _merged(self._moments, (len(known), mean, np.sum((known - mean) ** 2)))

    def learned(self, name: str) -> NumberColumn:
        """Return what is done to the column, in which the median stands in the place of what is missing."""
        count, mean, _ = self._moments
        if count == 0:
            return NumberColumn(name, 0.0, 0.0, 1.0)
        sample = np.concatenate(self._sample)
        median = float(np.median(sample)) if len(sample) else float(mean)
        with np.errstate(over="ignore", invalid="ignore"):
            _, mean, spread = _merged(self._moments, (self._rows - count, np.float64(median), np.float64(0)))
            variance = spread / self._rows
            rounding = self._rows * np.finfo(np.float64).eps
            constant = variance <= rounding * variance + (mean * rounding) ** 2
        if not (np.isfinite(mean) and np.isfinite(variance)):
            raise InputError(f"column {name!r} holds numbers too large to standardise")
        return NumberColumn(name, median, float(mean), 1.0 if constant else math.sqrt(variance))


def _known(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return numbers[~np.isnan(numbers)]


def _merged(one: Any, other: Any) -> Any:
    """Return the moments of two groups of values together."""
    (count, mean, spread), (more, other_mean, other_spread) = one, other
    share = more / max(count + more, 1)
    apart = other_mean - mean
    return count + more, mean + share * apart, spread + other_spread + count * share * apart**2


@dataclass(eq=False)
class _Column:
    """One column: words are counted; if it is text, and as long as it may be numbers in spite of it, these too."""

    name: str
    type: pl.DataType
    counts: Counter[str | None] = field(default_factory=Counter)
    kinds: set[Kind] = field(default_factory=lambda: {*KINDS})
    numbers: _Numbers = field(default_factory=_Numbers)
    missing_numbers: int = 0
    missing_words: int = 0
    refusal: InputError | None = None  # of the first number in text that is refused; the text may turn out to be words

    @property
    def is_typed(self) -> bool:
        """Whether the file says that the column is of numbers."""
        return self.type.is_numeric() or self.type == pl.Null

    @property
    def kind(self) -> Kind:
        """What kind the column is by the cells seen so far."""
        return first_kind(self.kinds)

    def read_numbers(self, series: pl.Series, first_row: int) -> pl.Series | None:
        """Return a piece of the column as numbers, or None if it is none of numbers or one of them is refused."""
        if self.kind != "numbers" or self.refusal is not None:
            return None
        try:
            numbers = read_column(series, "numbers", first_row)
        except InputError as error:
            if self.type != pl.String:
                raise
            self.refusal = error
            return None
        self.missing_numbers += numbers.null_count()
        return numbers

    def count(self, words: pl.Series, training: Mask) -> None:
        """Count words, None for a missing one; columns of numbers written as text have many, and lose count."""
        self.missing_words += words.null_count()
        if len(self.counts) <= MAX_DISTINCT:
            self.counts.update(count_words(words.filter(pl.Series(training))))

    def category(self) -> CategoryColumn:
        """Return what is learned of the words counted."""
        if len(self.counts) > MAX_DISTINCT:
            raise InputError(
                f"column {self.name!r} has more than {MAX_DISTINCT:,} different values: leave it out with --drop"
            )
        counts = self.counts
        if self.kind == "booleans":
            words = [word for word in counts if word is not None]
            counts = Counter({None: counts[None]})
            for word, truth in zip(words, read_column(pl.Series(words, dtype=pl.String), "booleans"), strict=True):
                counts[truth] += self.counts[word]
        return CategoryColumn.learned(self.name, counts, self.kind)
