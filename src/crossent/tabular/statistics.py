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

from .columns import KINDS, Kind, first_kind, possible_kinds, read_column, refuse_type
from .errors import InputError
from .preprocessing import MAX_CATEGORIES, CategoryColumn, NumberColumn, Preprocessing, category_notes

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
        self._numbers = _Numbers([c.name for c in self._columns if c.typed])
        self.missing_cells = 0

    def add(self, frame: pl.DataFrame, training: Mask, sampled: Mask, first_row: int) -> None:
        """Take in a piece: all rows say of what kind a column is, the training rows all else, some of them medians.

        Raises
        ------
        InputError
            If a cell of a column of numbers is NaN or infinite, or a column cannot be used.
        """
        sampled = sampled & training
        typed = []
        undecided = [column for column in self._columns if len(column.kinds) > 1]
        allowed = possible_kinds(frame[[column.name for column in undecided]])
        for column, kinds in zip(undecided, allowed, strict=True):
            column.kinds &= kinds
        in_order = frame[[column.name for column in self._columns]]
        for column, series in zip(self._columns, in_order.iter_columns(), strict=True):
            refuse_type(series)
            numbers = column.read_numbers(series, first_row)
            if column.typed:
                typed.append(numbers)
                continue
            if numbers is not None:
                column.numbers.add([numbers], training, sampled)
            words = read_column(series, "categories")
            column.missing_words += words.null_count()
            column.count(words.filter(pl.Series(training)))
        if typed:
            self._numbers.add(typed, training, sampled)

    def preprocessing(self) -> Preprocessing:
        """Return what was learned.

        Raises
        ------
        InputError
            If a column of numbers holds an infinite one or some that are too large to standardise, or another
            column more than `MAX_DISTINCT` different words.
        """
        typed = {number.name: number for number in self._numbers.finish()}
        numbers, categories = [], []
        for column in self._columns:
            if column.kind == "numbers":
                if column.refusal is not None:
                    raise column.refusal
                self.missing_cells += column.missing_numbers
                numbers.append(typed[column.name] if column.typed else column.numbers.finish()[0])
            else:
                self.missing_cells += column.missing_words
                categories.append(column.category())
        return Preprocessing(tuple(numbers), tuple(categories))

    def notes(self, preprocessing: Preprocessing, training_rows: int) -> list[str]:
        """Return what a person should know about the columns."""
        counted = [column.counts for column in self._columns if column.kind != "numbers"]
        notes = [
            note
            for column, counts in zip(preprocessing.categories, counted, strict=True)
            for note in category_notes(column, pl.Series([*counts], dtype=pl.String), training_rows, "training rows")
        ]
        filled = [c.name for c in self._columns if c.kind == "numbers" and c.missing_numbers]
        if filled and not self._numbers.sampled_all:
            notes.append(
                f"missing numbers were filled in with medians of {self._numbers.sampled_rows:,} training rows, drawn "
                "by the seed"
            )
        empty = [c.name for c in preprocessing.categories if not c.categories]
        without = self._without_value()
        empty += [number.name for number in preprocessing.numbers if number.name in without]
        return notes + [f"column {name!r} has no value in the training part and has no influence" for name in empty]

    def _without_value(self) -> set[str]:
        groups = [self._numbers, *(c.numbers for c in self._columns if c.kind == "numbers" and not c.typed)]
        return {name for group in groups for name in group.empty}


# How many values, their mean, and their sum of squared deviations from it.
Moments = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


class _Numbers:
    """Columns of numbers, together."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._moments: Moments = (np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names)))
        self._rows = 0
        self._sample: list[NDArray[np.float64]] = []
        self.empty: list[str] = []

    def add(self, columns: list[pl.Series | None], training: Mask, sampled: Mask) -> None:
        matrix = np.column_stack([c.to_numpy() for c in columns if c is not None]).astype(np.float64)  # null: NaN
        self._sample.append(matrix[sampled])
        rows = matrix[training]
        self._rows += len(rows)
        with np.errstate(over="ignore", invalid="ignore"):  # refused at the end, by name
            counts = np.count_nonzero(~np.isnan(rows), axis=0).astype(np.float64)
            means = np.nansum(rows, axis=0) / np.maximum(counts, 1)
            self._moments = _merged(self._moments, (counts, means, np.nansum((rows - means) ** 2, axis=0)))

    @property
    def sampled_rows(self) -> int:
        return sum(map(len, self._sample))

    @property
    def sampled_all(self) -> bool:
        return self.sampled_rows == self._rows

    def finish(self) -> list[NumberColumn]:
        if not self._names:
            return []
        sample = np.concatenate(self._sample)
        return [self._column(j, name, sample[:, j]) for j, name in enumerate(self._names)]

    def _column(self, j: int, name: str, sample: NDArray[np.float64]) -> NumberColumn:
        count, mean, spread = (moment[j] for moment in self._moments)
        if count == 0:
            self.empty.append(name)
            return NumberColumn(name, 0.0, 0.0, 1.0)
        known = sample[~np.isnan(sample)]
        median = float(np.median(known)) if len(known) else float(mean)
        with np.errstate(over="ignore", invalid="ignore"):
            filled = (self._rows - count, np.float64(median), np.float64(0))  # the median stands in the place of others
            _, mean, spread = _merged((count, mean, spread), filled)
            variance = spread / self._rows
            rounding = self._rows * np.finfo(np.float64).eps
            constant = variance <= rounding * variance + (mean * rounding) ** 2
        if not (np.isfinite(mean) and np.isfinite(variance)):
            raise InputError(f"column {name!r} holds numbers too large to standardise")
        return NumberColumn(name, median, float(mean), 1.0 if constant else math.sqrt(variance))


def _merged(one: Any, other: Any) -> Any:
    """Return the moments of two groups of values together."""
    (count, mean, spread), (more, other_mean, other_spread) = one, other
    share = more / np.maximum(count + more, 1)
    apart = other_mean - mean
    return count + more, mean + share * apart, spread + other_spread + count * share * apart**2


@dataclass(eq=False)
class _Column:
    """One column: words are counted; if it is text, and as long as it may be numbers in spite of it, these too."""

    name: str
    type: pl.DataType
    counts: Counter[str | None] = field(default_factory=Counter)
    kinds: set[Kind] = field(default_factory=lambda: {*KINDS})
    missing_numbers: int = 0
    missing_words: int = 0
    refusal: InputError | None = None  # of the first number that is none, in text that may turn out to be words

    def __post_init__(self) -> None:
        self.numbers = _Numbers([self.name])
        self.typed = self.type.is_numeric() or self.type == pl.Null

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

    def count(self, text: pl.Series) -> None:
        """Count words, None for a missing one; columns of numbers written as text have many, and lose count."""
        if len(self.counts) <= MAX_DISTINCT:
            values = text.value_counts(name="rows")
            self.counts.update(dict(zip(values[self.name].to_list(), values["rows"].to_list(), strict=True)))

    def category(self) -> CategoryColumn:
        """Return what scikit-learn's imputer and encoder make of these counts."""
        if len(self.counts) > MAX_DISTINCT:
            raise InputError(
                f"column {self.name!r} has more than {MAX_DISTINCT:,} different values: leave it out with --drop"
            )
        counts = {word: rows for word, rows in self.counts.items() if word is not None}
        if self.kind == "booleans":
            spelled = Counter[str]()
            for word, truth in zip(counts, read_column(pl.Series([*counts], dtype=pl.String), "booleans"), strict=True):
                spelled[truth] += counts[word]
            counts = dict(spelled)
        if not counts:
            return CategoryColumn(self.name, "", (), False, self.kind)
        most = max(counts.values())
        fill = min(word for word, rows in counts.items() if rows == most)
        counts[fill] += self.counts.get(None, 0)
        words = sorted(counts)
        if len(words) <= MAX_CATEGORIES:
            return CategoryColumn(self.name, fill, tuple(words), False, self.kind)
        by_rows = np.argsort([counts[word] for word in words], kind="stable")
        kept = sorted(by_rows[-(MAX_CATEGORIES - 1) :])
        return CategoryColumn(self.name, fill, tuple(words[i] for i in kept), True, self.kind)
