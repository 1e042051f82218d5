"""From the columns people have to columns of numbers and words: text for "no value", dates, ids, prose.

`learn_conversions` decides once, from all rows of a table, what its columns are converted to. The model keeps the
decision, and every later table is converted by it. A cell is read by itself, never by what other cells hold.

- **No value.** Text that says so, in any case and with any white space around it, is an empty cell: `MISSING_WORDS`.
  Where a column also holds "+", "-" is no such word.
- **Numbers.** A column of text whose cells are numbers, but for at most one in twenty, is a column of numbers. Its
  other cells hold no value.
- **Dates.** Text such as 2024-01-31, 31.1.2024 or 1/31/2024, with or without a time, becomes year, month, day of the
  week, days since 1970 (with the part of the day), and sine and cosine of the place in the year. So do typed dates.
- **Prose**, where it is asked for, becomes counts of its words and pairs of words, hashed into 256 numbers (Weinberger
  et al. 2009), of Euclidean length 1.
- **Ids** are left out: an index, integers of which no two are equal though they lie so close that some would be by
  chance, or that a name calls an id; hashes; and text that is different in nearly every row.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ..sealed import require
from .columns import CODE, as_text, code_among_numbers
from .errors import InputError, name_list

MISSING_WORDS = (
    *("na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "none", "nil", "?", "-", "--"),
    *("unknown", "missing", "not available", "not applicable"),
)
"""Text that means "no value", in lower case."""
TEXT_INPUTS = 256
_ODD_SHARE = 0.05
_SHOWN = 3
# Fewer rows show nothing about whether a column is an id.
_FEW_ROWS = 20
_TIME = r"(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?)?$"
_YEAR_FIRST, _YEAR_LAST = r"^(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})"
# Where year, month and day stand in a date.
ORDERS = {"ymd": (_YEAR_FIRST, (1, 2, 3)), "dmy": (_YEAR_LAST, (3, 2, 1)), "mdy": (_YEAR_LAST, (3, 1, 2))}
_ID_NAME = re.compile(
    r"(?i)(^|.*[_\s.-])(id|ids|uid|uuid|guid|key|index|idx|nr|row|row[_ ]?number|hash)$|.*[a-z](Id|ID)$"
)
_INDEX_NAMES = ("index", "Unnamed: 0")
_HASH = r"^(?:[0-9a-fA-F]{16,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$"


@dataclass
class OddCells:
    """Cells that were taken for empty because their column's kind does not allow them, by column."""

    rows: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, column: str, cells: pl.Series) -> None:
        """Count cells of a column."""
        if len(cells):
            self.rows[column] = self.rows.get(column, 0) + len(cells)
            known = self.examples.setdefault(column, [])
            known += [word for word in cells.unique(maintain_order=True)[:_SHOWN].to_list() if word not in known]

    def sentences(self, num_rows: int) -> list[str]:
        """Return one sentence per column of a table of so many rows."""
        return [
            f"column {name!r}: {name_list(self.examples[name][:_SHOWN])} (in {rows:,} of {num_rows:,} rows) is treated "
            "as missing, among numbers or dates"
            for name, rows in self.rows.items()
        ]


@dataclass(frozen=True)
class ColumnOptions:
    """What a person says of the columns.

    Attributes
    ----------
    missing : tuple of str
        Words for "no value", in any case.
    keep : collection of str
        Columns that are no ids, whatever they look like.
    text : collection of str
        Columns of prose, to be hashed.
    """

    missing: tuple[str, ...] = MISSING_WORDS
    keep: Collection[str] = ()
    text: Collection[str] = ()

    def check(self, columns: Collection[str]) -> None:
        """Refuse a column that is not there."""
        for option, names in (("--keep", self.keep), ("--text", self.text)):
            wrong = [name for name in names if name not in columns]
            if wrong:
                raise InputError(f"{option} names column {wrong[0]!r}, which is no feature of the table")


DEFAULT_COLUMNS = ColumnOptions()


@dataclass(frozen=True)
class Conversions:
    """What the columns of a table are converted to.

    Attributes
    ----------
    missing : tuple of str
        Words for "no value", in any case.
    numbers : tuple of str
        Columns of text that hold numbers and a few other cells.
    dates : tuple of (str, str)
        Columns of dates, and the order of year, month and day where they are text: a key of `ORDERS`.
    texts : tuple of str
        Columns of prose.
    """

    missing: tuple[str, ...] = MISSING_WORDS
    numbers: tuple[str, ...] = ()
    dates: tuple[tuple[str, str], ...] = ()
    texts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, list[Any]]:
        """Return the entry of a model file."""
        dates = [list(date) for date in self.dates]
        return {"missing": [*self.missing], "numbers": [*self.numbers], "dates": dates, "texts": [*self.texts]}

    @classmethod
    def of_json(cls, entry: dict[str, list[Any]]) -> Conversions:
        """Return the conversions of such an entry, or refuse it.

        Raises
        ------
        SealError
            If it makes no sense.
        KeyError, TypeError
            If it is not of this shape.
        """
        require(all(len(date) == 2 for date in entry["dates"]), "a date has not a name and an order")
        dates = tuple((name, order) for name, order in entry["dates"])
        lists = (entry["missing"], entry["numbers"], [name for name, _ in dates], entry["texts"])
        for words in lists:
            are_words = all(isinstance(word, str) for word in words) and len({*words}) == len(words)
            require(are_words, "its conversions are not of different words")
        columns = [name for words in lists[1:] for name in words]
        require(len({*columns}) == len(columns), "a column is converted twice")
        require(all(order in ORDERS for _, order in dates), "the order of a date is none")
        return cls(tuple(lists[0]), tuple(lists[1]), dates, tuple(lists[3]))

    def sources(self, cells: Iterable[str]) -> list[str]:
        """Return the columns of the table that cells of these names are made of."""
        made = {f"{name}: {part}": name for name, _ in self.dates for part in _DATE_PARTS}
        made |= {f"{name}: hash {k}": name for name in self.texts for k in range(TEXT_INPUTS)}
        return [*dict.fromkeys(made.get(name, name) for name in cells)]

    def apply(self, frame: pl.DataFrame, odd: OddCells | None = None) -> pl.DataFrame:
        """Return a table whose columns are of numbers, truth values and words; add cells that do not fit to `odd`.

        Raises
        ------
        InputError
            If a column to be made has the name of one that is there.
        """
        orders = dict(self.dates)
        columns: list[pl.Series] = []
        for column in blank_missing(frame, self.missing).iter_columns():
            if column.name in self.texts:
                columns += _hashed(column)
            elif column.name in orders:
                dates = _dates(column, orders[column.name])
                _note_odd(column, dates, odd)
                columns += _date_parts(dates)
            elif column.name in self.numbers and column.dtype == pl.String:
                numbers = _numbers(column)
                _note_odd(column, numbers, odd)
                columns.append(numbers)
            else:
                columns.append(column)
        names = [column.name for column in columns]
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"column {twice!r} has the name that a part of a date or text gets: rename it")
        return pl.DataFrame(columns)


NO_CONVERSIONS = Conversions()


def blank_missing(frame: pl.DataFrame, missing: Sequence[str]) -> pl.DataFrame:
    """Return a table in which words for "no value" are no value.

    Examples
    --------
    >>> blank_missing(pl.DataFrame({"a": ["Unknown", "x"], "sign": ["+", "-"]}), MISSING_WORDS).to_dict(as_series=False)
    {'a': [None, 'x'], 'sign': ['+', '-']}
    """
    spoken = [word.lower() for word in missing]
    columns = []
    for column in frame.iter_columns():
        if isinstance(column.dtype, pl.Categorical | pl.Enum):
            column = column.cast(pl.String)
        if column.dtype == pl.String:
            words = column.str.strip_chars().str.to_lowercase()
            absent = words.is_in(spoken).fill_null(False)
            if absent.any() and (words == "+").any():
                absent &= words != "-"
            column = column.set(absent, None)
        columns.append(column)
    return pl.DataFrame(columns)


def learn_conversions(
    frame: pl.DataFrame, options: ColumnOptions = DEFAULT_COLUMNS
) -> tuple[Conversions, list[str], list[str]]:
    """Return what the columns of a table are converted to, which are left out, and what a person should know."""
    options.check(frame.columns)
    keep, texts = options.keep, options.text
    numbers, dates, left_out, notes = [], [], [], []
    first = next(iter(frame.columns), None)
    for column in blank_missing(frame, options.missing).iter_columns():
        name = column.name
        if name in texts:
            continue
        order = _date_order(column)
        if order == "ambiguous":
            notes.append(
                f"column {name!r} holds dates whose day and month cannot be told apart, each a category of its own: "
                "write them as 2024-01-31"
            )
        elif order is not None:
            dates.append((name, order))
        elif name not in keep and (reason := _why_an_id(column, first=name == first)):
            left_out.append(name)
            notes.append(f"column {name!r} {reason} and is left out: --keep {name!r} keeps it")
        elif column.dtype != pl.String:
            continue
        elif _is_mostly_numbers(cells := as_text(column).drop_nulls()):
            wrong = cells.filter(_numbers(cells).is_null())
            if len(wrong):
                numbers.append(name)
                examples = wrong.unique(maintain_order=True)[:_SHOWN].to_list()
                notes.append(
                    f"{len(cells) - len(wrong):,} of {len(cells):,} cells of column {name!r} are numbers; "
                    f"{name_list(examples)} {'is' if len(examples) == 1 else 'are'} treated as missing"
                )
        elif _is_prose(column):
            left_out.append(name)
            notes.append(f"column {name!r} holds text and is left out: --text {name!r} makes inputs of its words")
        elif name not in keep and _is_different(column) and code_among_numbers(column) is None:
            left_out.append(name)
            notes.append(
                f"column {name!r} has another value in nearly every row and is left out: --keep {name!r} keeps it"
            )
    return Conversions(options.missing, (*numbers,), (*dates,), (*texts,)), left_out, notes


def typed_conversions(schema: Mapping[str, pl.DataType], options: ColumnOptions) -> Conversions:
    """Return what columns are converted to whose types alone are known: typed dates are dates."""
    options.check(schema)
    are_dates = {name: isinstance(type_, pl.Date | pl.Datetime) for name, type_ in schema.items()}
    dates = tuple((name, "ymd") for name, is_date in are_dates.items() if is_date and name not in options.text)
    return Conversions(options.missing, (), dates, (*options.text,))


def _note_odd(column: pl.Series, read: pl.Series, odd: OddCells | None) -> None:
    if odd is not None:
        text = as_text(column)
        odd.add(column.name, text.filter(read.is_null() & text.is_not_null()))


def _numbers(column: pl.Series) -> pl.Series:
    found = column.str.strip_chars().cast(pl.Float64, strict=False)
    return found.set(~found.is_finite(), None)


def _is_mostly_numbers(cells: pl.Series) -> bool:
    if not len(cells) or cells.str.strip_chars().str.contains(CODE).any():
        return False
    return _numbers(cells).null_count() <= _ODD_SHARE * len(cells)


def _date_order(column: pl.Series) -> str | None:
    """Return the order of year, month and day in a column of dates, "ambiguous", or None for another column."""
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return "ymd"
    if column.dtype != pl.String:
        return None
    words = as_text(column).drop_nulls().unique()
    fitting = [order for order in ORDERS if len(words) and not _dates(words[:1], order).null_count()]
    fitting = [order for order in fitting if not _dates(words, order).null_count()]
    if len(fitting) == 2 and not words.str.contains(".", literal=True).all():
        return "ambiguous"
    return fitting[0] if fitting else None


def _dates(column: pl.Series, order: str) -> pl.Series:
    """Return a column as times, null where a cell is none."""
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.replace_time_zone(None)
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return column.cast(pl.Datetime("us"))
    if column.dtype != pl.String:
        return pl.Series(column.name, [None] * len(column), pl.Datetime("us"))
    pattern, (year, month, day) = ORDERS[order]
    parts = column.str.strip_chars().str.extract_groups(pattern + _TIME).struct
    hour, minute = parts.field("4").fill_null("0"), parts.field("5").fill_null("0")
    written = parts.field(str(year)) + "-" + parts.field(str(month)) + "-" + parts.field(str(day))
    return (written + " " + hour + ":" + minute).str.to_datetime("%Y-%m-%d %H:%M", strict=False).alias(column.name)


_DATE_PARTS = ("year", "days", "sine", "cosine", "month", "weekday")


def _date_parts(times: pl.Series) -> list[pl.Series]:
    """Return what is learned of times: numbers, and the month and the day of the week as words."""
    angle = 2 * np.pi * (times.dt.ordinal_day().cast(pl.Float64) - 1) / 365.25
    parts = (
        times.dt.year().cast(pl.Float64),
        times.dt.epoch("s").cast(pl.Float64) / 86_400,
        angle.sin(),
        angle.cos(),
        times.dt.strftime("%B"),
        times.dt.strftime("%A"),
    )
    return [part.alias(f"{times.name}: {name}") for name, part in zip(_DATE_PARTS, parts, strict=True)]


def _hashed(column: pl.Series) -> list[pl.Series]:
    """Return the hashed words and pairs of words of prose; an empty cell has none."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counter = HashingVectorizer(n_features=TEXT_INPUTS, ngram_range=(1, 2))
    matrix = counter.transform(as_text(column).fill_null("").to_list()).toarray()
    return [pl.Series(f"{column.name}: hash {k}", matrix[:, k]) for k in range(TEXT_INPUTS)]


def _why_an_id(column: pl.Series, first: bool) -> str:
    """Return why a column tells rows apart and nothing else; "" if it may tell more."""
    name, rows = column.name, len(column)
    if rows < _FEW_ROWS or column.null_count():
        return ""
    if column.dtype.is_integer():
        if counts_rows(column) and (column[0] in (0, 1) or (first and name in _INDEX_NAMES)):
            return "counts the rows"
        if column.n_unique() < rows:
            return ""
        extent = int(column.max()) - int(column.min()) + 1  # type: ignore[arg-type]
        if rows**2 > 20 * extent:  # drawn by chance, two of them would be equal with probability 1 - exp(-10)
            return "has another whole number in every row"
        return "has an id's name and another number in every row" if _ID_NAME.match(name) else ""
    if column.dtype == pl.String and column.str.strip_chars().str.contains(_HASH).all():
        return "holds hashes" if column.n_unique() > 0.5 * rows else ""
    return ""


def counts_rows(column: pl.Series) -> bool:
    """Return whether each cell is one more than the one before it."""
    return column.dtype.is_integer() and len(column) > 1 and bool((column.diff().drop_nulls() == 1).all())


def _is_different(column: pl.Series) -> bool:
    """Whether nearly every row of a column of text has a value of its own."""
    words = column.drop_nulls()
    return len(words) >= _FEW_ROWS and words.n_unique() > 0.9 * len(words)


def _is_prose(column: pl.Series) -> bool:
    """Whether text is of several words and mostly different: three words or more in half of the rows."""
    words = column.drop_nulls()
    if len(words) < _FEW_ROWS or words.n_unique() <= 0.5 * len(words):
        return False
    return bool((words.str.count_matches(r"\S+") >= 3).sum() > 0.5 * len(words))
