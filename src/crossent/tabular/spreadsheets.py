"""Text of CSV files that a spreadsheet would run as a formula: written after an apostrophe, and read without it.

A cell or a column name is such text if it begins with ``=``, ``+``, ``-``, ``@`` (or their wide forms), a tab or a line
break, and is neither a plain number nor a lone ``-``. Text that begins with apostrophes and then such a sign gets one
more, so that every text can be read back.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import polars as pl

_SIGN = "[=+@\uff1d\uff0b\uff0d\uff20\t\r\n-]"
_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


def escape_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose text and column names are those of a CSV file in which no formula starts.

    Examples
    --------
    >>> escape_formulas(pl.DataFrame({"=y": ["=1+1", "-1", "'@", "a-b"], "n": [-1, 2, 3, 4]})).to_dict(as_series=False)
    {"'=y": ["'=1+1", '-1', "''@", 'a-b'], 'n': [-1, 2, 3, 4]}
    """
    names = dict(zip(table.columns, _escape(pl.Series(table.columns, dtype=pl.String)), strict=True))
    text = [column for column in table if column.dtype in (pl.String, pl.Categorical, pl.Enum)]
    return table.with_columns([_escape(column.cast(pl.String)) for column in text]).rename(names)


def name_target(frame: pl.DataFrame, target: str) -> pl.DataFrame:
    """Return a table in which the target column has its own name, if it was written as one that starts no formula."""
    written = _escape(pl.Series([target]))[0]
    is_escaped = target not in frame.columns and written in frame.columns
    return frame.rename({written: target}) if is_escaped else frame


def read_labels(labels: list[str], classes: Collection[str]) -> list[str]:
    """Return labels without the apostrophes that `escape_formulas` put before them.

    They are taken off only where a class is called so, and in no file that holds a label that would have got one:
    others write files too, and may mean the apostrophe.

    Examples
    --------
    >>> read_labels(["'=x", "y"], {"=x", "y"}), read_labels(["'=x", "y"], {"'=x", "y"})
    (['=x', 'y'], ["'=x", 'y'])
    """
    text = pl.Series(labels, dtype=pl.String)
    if (_escape(text) != text).filter(~text.str.starts_with("'")).any():
        return labels
    read = [re.sub(f"^'(?='*{_SIGN})", "", label) for label in labels]
    changed = {label for label, written in zip(read, labels, strict=True) if label != written}
    return read if changed <= set(classes) else labels


def _escape(text: pl.Series) -> pl.Series:
    starts_formula = text.str.contains(f"^'*{_SIGN}") & ~text.str.contains(f"^({_NUMBER}|-)$")
    return ("'" + text).zip_with(starts_formula.fill_null(False), text).alias(text.name)
