"""Tables of delimited text: which character separates the columns, which cells are numbers with a decimal comma.

Cells are read as text: what a cell says is for `crossent.tabular.columns`. Only numbers with decimal commas are
changed, into numbers with points.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

import polars as pl

from .errors import InputError, name_list

SEPARATORS = {",": "',' separates", ";": "';' separates", "\t": "tabs separate", "|": "'|' separates"}
"""What may separate columns, and the beginning of a sentence on it."""
_SAMPLE_CHARACTERS, _SAMPLE_ROWS = 1 << 20, 200
_WITH_COMMA = r"^\s*[+-]?(\d+|\d{1,3}(\.\d{3})+)?,\d+([eE][+-]?\d+)?\s*$"
_THOUSANDS = r"^\s*[+-]?[1-9]\d{0,2}(,\d{3})+\s*$"  # or a decimal comma before three digits: it cannot be told
_POINTED = r"^\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*$"
_GROUPED = r"^\s*[+-]?\d{1,3}(\.\d{3})+(,\d+)?\s*$"

Content = Path | bytes
"""UTF-8 text: the file that holds it, or the text itself."""


def read_delimited(name: str, content: Content, usual: str, notes: list[str]) -> pl.DataFrame:
    """Return a table whose columns are text; a column without a name is called after its place ("column 1").

    Parameters
    ----------
    name : str
        What messages call the file.
    content : path or bytes
    usual : str
        The separator that is taken where the text does not tell.
    notes : list of str
        Gets a sentence if another separator or decimal commas are found.

    Raises
    ------
    InputError
        If the text is empty, not UTF-8, or not of a table.

    Examples
    --------
    >>> notes = []
    >>> read_delimited("t.csv", b"x;y\\n1,5;a\\n", ",", notes).rows(), notes
    ([('1.5', 'a')], ["'t.csv': ';' separates the columns; numbers have decimal commas ('1,5' is 1.5)"])
    """
    content = _with_line_feeds(content)
    separator = _separator(content, usual)
    frame = _read(name, content, separator)
    frame, commas = _with_points(frame, separator)
    found = [] if separator == usual else [f"{SEPARATORS[separator]} the columns"]
    if said := "; ".join([*found, *commas]):
        notes.append(f"{name!r}: {said}")
    return frame


def _open(content: Content, errors: str = "strict") -> TextIO:
    file = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline="")


def _with_line_feeds(content: Content) -> Content:
    """Return text whose lines end as polars wants it, where they end with carriage returns alone, as on old Macs."""
    with _open(content, "replace") as file:
        start = file.read(_SAMPLE_CHARACTERS)
    if "\r" not in start or "\n" in start:
        return content
    return (content if isinstance(content, bytes) else content.read_bytes()).replace(b"\r", b"\n")


def _separator(content: Content, usual: str) -> str:
    """Return what separates the columns: that which divides most of the first rows as it divides the header.

    Of several, it is the one that does so most often, that makes the most columns, or the usual one.
    """
    with _open(content, "replace") as file:
        sample = file.read(_SAMPLE_CHARACTERS)
        is_whole = not file.read(1)
    ranks = {}
    for separator in SEPARATORS:
        with _fields_of_any_length():
            rows = list(
                islice(filter(None, csv.reader(io.StringIO(sample, newline=""), delimiter=separator)), _SAMPLE_ROWS)
            )
        if not (is_whole or len(rows) in (1, _SAMPLE_ROWS)):
            rows.pop()  # it may be cut
        widths = [len(row) for row in rows]
        alike = sum(width == widths[0] for width in widths[1:]) / (len(widths) - 1) if len(widths) > 1 else 1.0
        if widths and widths[0] > 1 and alike > 0.5:
            ranks[separator] = (alike, widths[0], separator == usual)
    return max(ranks, key=ranks.__getitem__, default=usual)


def _read(name: str, content: Content, separator: str) -> pl.DataFrame:
    try:
        frame = pl.read_csv(content, separator=separator, infer_schema=False, glob=False)
    except pl.exceptions.NoDataError as error:
        raise InputError(f"{name!r} is empty") from error
    except pl.exceptions.ComputeError as error:
        _refuse_other_encodings(name, content)
        _refuse_ragged(name, content, separator)
        raise error
    # polars leaves doubled quotes in a quoted header as they are, and puts U+FFFD for bytes there that are not UTF-8.
    try:
        with _fields_of_any_length(), _open(content) as file:
            header = column_names(name, next(filter(None, csv.reader(file, delimiter=separator)), []))
    except UnicodeDecodeError:
        _refuse_other_encodings(name, content)
        raise
    if frame.width and frame[:, -1].null_count():  # polars fills short lines with nulls and does not tell
        _refuse_ragged(name, content, separator)
        if frame.width > 1 and (frame[:, 0].is_null() & frame[:, -1].is_null()).any():
            blank = _blank_lines(content, separator)
            frame = frame.filter(~pl.int_range(pl.len()).is_in(blank))
    is_header = len(header) == frame.width and len(set(header)) == len(header)
    return frame.rename(dict(zip(frame.columns, header, strict=True))) if is_header else frame


def column_names(name: str, header: list[str]) -> list[str]:
    """Return the names of columns, after its place of one without; refuse a name that comes twice."""
    names = [column or f"column {place}" for place, column in enumerate(header, 1)]
    repeated = sorted(column for column, count in Counter(names).items() if count > 1)
    if repeated:
        raise InputError(f"{name!r} has more than one column called {name_list(repeated)}: rename all but one")
    return names


def _with_points(frame: pl.DataFrame, separator: str) -> tuple[pl.DataFrame, list[str]]:
    """Return a table whose numbers have decimal points, and what to say of numbers with commas, if there are any.

    "1,234" may be a thousand and more. A number that is none of thousands, such as "1,5", shows that commas are
    decimal, and a number such as "1.5" that they are not. Where ';' separates the columns, they are unless the latter
    alone is there; where tabs or '|' do, only if the former alone is. In a column that has both signs ("1.234,50"),
    points part thousands.
    """
    if separator == ",":
        return frame, []
    with_comma = {column.name: column.str.contains(_WITH_COMMA).fill_null(False) for column in frame}
    with_comma = {name: found for name, found in with_comma.items() if found.any()}
    if not with_comma:
        return frame, []
    first = next(iter(with_comma))
    place = int(with_comma[first].arg_max() or 0)
    shown = frame[first][place].strip()
    is_shown = any((found & ~frame[name].str.contains(_THOUSANDS)).any() for name, found in with_comma.items())
    has_points = any(column.str.contains(_POINTED).any() for column in frame)
    if not ((is_shown or not has_points) if separator == ";" else (is_shown and not has_points)):
        return frame, [f"numbers such as {shown!r} are left as text: their commas may part thousands"]
    changed = []
    for name, found in with_comma.items():
        column = frame[name]
        if (found & column.str.contains(".", literal=True)).any():
            column = column.str.replace_all(".", "", literal=True).zip_with(column.str.contains(_GROUPED), column)
        changed.append(column.str.replace(",", ".", literal=True).zip_with(found, column))
    return frame.with_columns(changed), [f"numbers have decimal commas ({shown!r} is {changed[0][place].strip()})"]


def _refuse_other_encodings(name: str, content: Content) -> None:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data" and not file.read(1):
                    return  # a file cut short inside its last character
                raise InputError(
                    f"{name!r} is not UTF-8 text (byte 0x{line[error.start]:02x} in line {number}): say what it is "
                    "with --encoding (cp1252 and latin-1 are common), or save it as UTF-8"
                ) from error


@contextmanager
def _fields_of_any_length() -> Generator[None]:
    """Let the csv module read fields above 128 KiB; its limit is one for the whole process."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _blank_lines(content: Content, separator: str) -> list[int]:
    """Return the places of blank lines among the lines after the header. They are no rows, though polars makes some."""
    with _fields_of_any_length(), _open(content) as file:
        reader = csv.reader(file, delimiter=separator)
        next(filter(None, reader), [])
        return [place for place, fields in enumerate(reader) if not fields]


def _refuse_ragged(name: str, content: Content, separator: str) -> None:
    with _fields_of_any_length(), _open(content, "replace") as file:
        reader = csv.reader(file, delimiter=separator)
        width = len(next(filter(None, reader), []))
        for fields in reader:
            if fields and len(fields) != width:
                raise InputError(
                    f"line {reader.line_num} of {name!r} has {len(fields)} fields where the header has {width}: "
                    "the file is damaged or cut short"
                )
