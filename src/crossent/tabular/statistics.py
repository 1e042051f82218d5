"""What `Preprocessing` learns, from one pass over a table in pieces.

Means and scales are scikit-learn's, by `StandardScaler.partial_fit`; categories are counted. A median needs all values
at once: it is taken of a sample of the rows, and it only matters where cells are missing. On a table whose rows are all
in the sample the result is that of `Preprocessing.fit`, up to rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from .errors import InputError
from .preprocessing import MAX_CATEGORIES, CategoryColumn, NumberColumn, Preprocessing, date_notes, refuse_type
from .reading import as_numbers, as_text, check_finite

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
        self._numeric = [c for c in self._columns if c.type.is_numeric() or c.type == pl.Null]
        self._numbers = _Numbers([c.name for c in self._numeric])
        self.missing_cells = 0

    def add(self, frame: pl.DataFrame, training: Mask, sampled: Mask, first_row: int) -> None:
        """Take in a piece: all rows say of what kind a column is, the training rows all else, some of them medians.

        Raises
        ------
        InputError
            If a cell of a column of numbers is NaN or infinite, or a column cannot be used.
        """
        sampled = sampled & training
        numeric = []
        for column in self._columns:
            series = frame[column.name]
            refuse_type(series)
            numbers = as_numbers(series) if column.may_be_numbers else None
            column.may_be_numbers = numbers is not None
            if numbers is not None:
                check_finite(numbers, first_row)
                column.missing_numbers += numbers.null_count()
            if column in self._numeric:
                numeric.append(numbers)
                continue
            if numbers is not None:
                column.numbers.add([numbers], training, sampled)
            text = as_text(series)
            column.missing_words += text.null_count()
            column.count(text.filter(pl.Series(training)))
        if numeric:
            self._numbers.add(numeric, training, sampled)

    def preprocessing(self) -> Preprocessing:
        """Return what was learned.

        Raises
        ------
        InputError
            If a column holds numbers too large to standardise, or more than `MAX_DISTINCT` different words.
        """
        numeric = {number.name: number for number in self._numbers.finish()}
        numbers, categories = [], []
        for column in self._columns:
            if column.may_be_numbers:
                self.missing_cells += column.missing_numbers
                numbers.append(numeric[column.name] if column.name in numeric else column.numbers.finish()[0])
            else:
                self.missing_cells += column.missing_words
                categories.append(column.category())
        return Preprocessing(tuple(numbers), tuple(categories))

    def notes(self, preprocessing: Preprocessing, training_rows: int) -> list[str]:
        """Return what a person should know about the columns."""
        notes = date_notes(preprocessing.categories)
        words = {column.name: len(column.counts) for column in self._columns}
        for category in preprocessing.categories:
            if category.holds_dates:
                continue
            distinct = words[category.name]
            if distinct > 0.9 * training_rows:
                notes.append(
                    f"column {category.name!r} has {distinct} different values in {training_rows} training rows: if "
                    "it is an identifier, leave it out with --drop"
                )
            elif category.other:
                notes.append(
                    f"column {category.name!r} has many categories: the {len(category.categories)} most common have "
                    "an input of their own, the others share one"
                )
        filled = [c.name for c in self._columns if c.may_be_numbers and c.missing_numbers]
        if filled and not self._numbers.sampled_all:
            notes.append(
                f"missing numbers were filled in with medians of {self._numbers.sampled_rows:,} training rows, drawn "
                "by the seed"
            )
        empty = [c.name for c in preprocessing.categories if not c.categories]
        empty += [n.name for n in preprocessing.numbers if n.name in self._without_value()]
        return notes + [f"column {name!r} has no value in the training part and has no influence" for name in empty]

    def _without_value(self) -> set[str]:
        groups = [self._numbers, *(c.numbers for c in self._columns if c.may_be_numbers and c not in self._numeric)]
        return {name for group in groups for name in group.empty}


class _Numbers:
    """Columns of numbers, together."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._scaler = StandardScaler()
        self._rows = 0
        self._sample: list[NDArray[np.float64]] = []
        self.empty: list[str] = []

    def add(self, columns: list[pl.Series | None], training: Mask, sampled: Mask) -> None:
        matrix = np.column_stack([c.to_numpy() for c in columns if c is not None]).astype(np.float64)  # null: NaN
        self._sample.append(matrix[sampled])
        if training.any():
            rows = matrix[training]
            self._rows += len(rows)
            with np.errstate(over="ignore", invalid="ignore"):  # refused at the end, by name
                self._scaler.partial_fit(rows)

    @property
    def sampled_rows(self) -> int:
        return sum(map(len, self._sample))

    @property
    def sampled_all(self) -> bool:
        return self.sampled_rows == self._rows

    def finish(self) -> list[NumberColumn]:
        if not self._names:
            return []
        seen = np.broadcast_to(self._scaler.n_samples_seen_, len(self._names))
        sample = np.concatenate(self._sample)
        return [self._column(j, name, int(seen[j]), sample[:, j]) for j, name in enumerate(self._names)]

    def _column(self, j: int, name: str, present: int, sample: NDArray[np.float64]) -> NumberColumn:
        if present == 0:
            self.empty.append(name)
            return NumberColumn(name, 0.0, 0.0, 1.0)
        mean, variance, scale = self._scaler.mean_[j], self._scaler.var_[j], self._scaler.scale_[j]
        known = sample[~np.isnan(sample)]
        median = float(np.median(known)) if len(known) else float(mean)
        missing = self._rows - present
        if missing:  # as if the median stood in their place
            whole = (present * mean + missing * median) / self._rows
            spread = present * (variance + (mean - whole) ** 2) + missing * (median - whole) ** 2
            mean, variance = whole, spread / self._rows
            rounding = self._rows * np.finfo(np.float64).eps
            scale = 1.0 if variance <= rounding * variance + (mean * rounding) ** 2 else math.sqrt(variance)
        if not (np.isfinite(mean) and np.isfinite(scale)):
            raise InputError(f"column {name!r} holds numbers too large to standardise")
        return NumberColumn(name, median, float(mean), float(scale))


@dataclass(eq=False)
class _Column:
    """One column: words are counted; if it is text, and as long as it may be numbers in spite of it, these too."""

    name: str
    type: pl.DataType
    counts: Counter[str | None] = field(default_factory=Counter)
    missing_numbers: int = 0
    missing_words: int = 0

    def __post_init__(self) -> None:
        self.may_be_numbers = self.type.is_numeric() or self.type in (pl.Null, pl.String)
        self.numbers = _Numbers([self.name])

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
        if not counts:
            return CategoryColumn(self.name, "", (), False)
        most = max(counts.values())
        fill = min(word for word, rows in counts.items() if rows == most)
        counts[fill] += self.counts.get(None, 0)
        words = sorted(counts)
        if len(words) <= MAX_CATEGORIES:
            return CategoryColumn(self.name, fill, tuple(words), False)
        by_rows = np.argsort([counts[word] for word in words], kind="stable")
        kept = sorted(by_rows[-(MAX_CATEGORIES - 1) :])
        return CategoryColumn(self.name, fill, tuple(words[i] for i in kept), True)
