"""Tables from .xlsx workbooks, by openpyxl.

A reader in native code is ten times as fast, but lays out all cells up to the farthest one, and ends the process where
a file of 2 kB has one in the last row and column. Here cells are counted as they come.
"""

from __future__ import annotations

import warnings
from datetime import datetime, time
from pathlib import Path
from typing import Any

import polars as pl

from .delimited import column_names
from .errors import InputError, name_list
from .file_sizes import refuse_too_large, text_bytes

MOST_ROWS = 1 << 20
"""A sheet of Excel has no more."""

Row = tuple[Any, ...]


def read_workbook(path: Path) -> pl.DataFrame:
    """Return the table in a workbook's one sheet that has cells: its first row has the names, and blank rows are none.

    A column whose cells are all numbers or all truth values has that type; any other is text. Of formulas, the values
    that were saved with them are read.

    Raises
    ------
    InputError
        If several sheets or none have cells, they do not fit into memory, or openpyxl is missing.
    """
    try:
        from openpyxl import load_workbook
    except ModuleNotFoundError as error:
        raise InputError("reading .xlsx files needs openpyxl: pip install 'crossent[cli]'") from error
    name = str(path)
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and the like, which are of no use here
        workbook = load_workbook(file, read_only=True, data_only=True)
        sheets = {sheet.title: _rows(sheet, name) for sheet in workbook.worksheets}
    sheets = {title: rows for title, rows in sheets.items() if rows}
    if len(sheets) != 1:
        raise InputError(
            f"{name!r} has {len(sheets)} sheets with cells{f' ({name_list([*sheets])})' if sheets else ''}: a workbook "
            "is read if it has one"
        )
    ((header, *rows),) = sheets.values()
    names = column_names(name, ["" if value is None else str(value) for value in header])
    return pl.DataFrame([_column(title, [row[k] for row in rows]) for k, title in enumerate(names)])


def _rows(sheet: Any, name: str) -> list[Row]:
    """Return the rows of a sheet that are not blank, all of the width of the widest."""
    sheet.reset_dimensions()  # many files say that a sheet is larger than it is
    rows: list[Row] = []
    width = characters = 0
    for number, row in enumerate(sheet.iter_rows(values_only=True)):
        if number >= MOST_ROWS:  # openpyxl makes every row above one that says so of itself
            raise InputError(f"{name!r} is damaged: a sheet has at most {MOST_ROWS:,} rows, and a cell lies below them")
        last = max((place for place, value in enumerate(row, 1) if value is not None), default=0)
        if last:
            rows.append(row[:last])
            width = max(width, last)
            characters += sum(len(value) for value in row if isinstance(value, str))
            if not len(rows) % 1000:
                refuse_too_large(name, text_bytes(characters, width * len(rows)))
    refuse_too_large(name, text_bytes(characters, width * len(rows)))
    return [row + (None,) * (width - len(row)) for row in rows]


def _column(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pl.Series(name, [None if value is None else float(value) for value in values], pl.Float64)
    if kinds == {bool}:
        return pl.Series(name, values)
    return pl.Series(name, [None if value is None else _text(value) for value in values], pl.String)


def _text(value: Any) -> str:
    """Return a cell as CSV has it: 3.0 as "3", and the first moment of a day as the day."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value.date() if isinstance(value, datetime) and value.time() == time() else value)
