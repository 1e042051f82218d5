"""Tables from .xlsx workbooks: what cells are, which sheet is read, and what a file may cost."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest

from crossent.tabular import InputError, file_sizes, read_table

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def workbook(path: Path, **sheets: list[list[Any]]) -> str:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return str(path)


def test_cells_have_types_and_blank_rows_are_none(tmp_path: Path) -> None:
    rows = [
        [],
        ["size", None, "flag", "day", "moment", "mixed", 2024],
        [1, "red", True, date(2024, 1, 31), datetime(2024, 1, 31, 9, 30), 3.0, "x"],
        [],
        [2.5, "01", None, date(2024, 2, 1), datetime(2024, 2, 1), "NA"],
        [None, None, False, None, time(1, 2), True],
    ]
    expected = pl.DataFrame(
        {
            "size": [1.0, 2.5, None],
            "column 2": ["red", "01", None],
            "flag": [True, None, False],
            "day": ["2024-01-31", "2024-02-01", None],
            "moment": ["2024-01-31 09:30:00", "2024-02-01", "01:02:00"],
            "mixed": ["3", "NA", "true"],
            "2024": ["x", None, None],
        }
    )
    assert read_table(workbook(tmp_path / "t.xlsx", empty=[], data=rows, blank=[[None, None]])).equals(expected)


@pytest.mark.parametrize(
    ("sheets", "message"),
    [
        ({"a": [["x"], [1]], "b": [["x"], [1]]}, r"has 2 sheets with cells \('a', 'b'\)"),
        ({"a": []}, "has 0 sheets with cells: a workbook is read if it has one"),
        ({"a": [["x", "y", "x"], [1, 2, 3]]}, "more than one column called 'x'"),
        ({"a": [["x", "y"]]}, "has no rows"),
    ],
)
def test_workbooks_that_are_refused(tmp_path: Path, sheets: dict[str, list[list[Any]]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(workbook(tmp_path / "t.xlsx", **sheets))


def far(path: Path) -> None:
    """Two cells, 1.6 billion apart."""
    book = openpyxl.Workbook()
    book.active["A1"] = "x"
    book.active["XFD100000"] = 1
    book.save(path)


def wide(path: Path) -> None:
    """A cell in the last column, and many in the first."""
    workbook(path, a=[["x"] + [None] * 16_382 + ["y"], *([1] for _ in range(300))])


def shared(path: Path) -> None:
    """Many cells of one long text, which the file holds once, as Excel does and openpyxl does not."""
    workbook(path, a=[[0]] * 300)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace('t="n"', 't="s"')
    parts["xl/sharedStrings.xml"] = f'<sst xmlns="{MAIN}"><si><t>{"long " * 6000}</t></si></sst>'
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
    parts["[Content_Types].xml"] = parts["[Content_Types].xml"].replace("</Types>", part)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    assert sum(map(len, parts.values())) < 10**5


def packed(path: Path) -> None:
    """Text that unpacks to a thousand times as much."""
    workbook(path, a=[["x"], *([f"{k}" + "0" * 32_000] for k in range(300))])


@pytest.mark.parametrize("write", [wide, shared, packed])
def test_a_workbook_that_would_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "t.xlsx"
    write(path)
    assert path.stat().st_size < 10**5
    monkeypatch.setattr(file_sizes, "free_memory", lambda: 10**7)
    with pytest.raises(InputError, match=r"takes about .* GB in memory"):
        read_table(str(path))


def test_a_cell_far_away_costs_what_two_rows_do(tmp_path: Path) -> None:
    far(tmp_path / "t.xlsx")
    assert read_table(str(tmp_path / "t.xlsx")).shape == (1, 16_384)


def test_a_cell_below_the_last_row_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row may say that it is the two billionth: openpyxl would make all those above it."""
    path = workbook(tmp_path / "t.xlsx", a=[["x"], [1], *([[]] * 8), [2]])
    assert read_table(path).height == 2
    monkeypatch.setattr("crossent.tabular.workbooks.MOST_ROWS", 10)
    with pytest.raises(InputError, match="a sheet has at most 10 rows, and a cell lies below them"):
        read_table(path)


def test_without_openpyxl_a_sentence_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "t.xlsx", a=[["x"], [1]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"needs openpyxl: pip install 'crossent\[cli\]'"):
        read_table(path)
