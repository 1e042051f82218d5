"""Results as tables: a data frame to compute with, and HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["data_frame", "html_table"]


def data_frame(columns: Mapping[str, Iterable[Any]]) -> Any:
    """Return a pandas DataFrame.

    Raises
    ------
    ModuleNotFoundError
        If pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("to_frame needs pandas: pip install pandas", name=error.name) from error
    return pandas.DataFrame(dict(columns))


def html_table(columns: Mapping[str, Iterable[Any]]) -> str:
    """Return a table of HTML; numbers have four digits, and text is escaped.

    Examples
    --------
    >>> html_table({"name": ["<b>"], "p": [0.123456]})
    '<table><thead><tr><th>name</th><th>p</th></tr></thead><tbody><tr><td>&lt;b&gt;</td><td>0.1235</td></tr></tbody></table>'
    """
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = ["".join(f"<td>{_cell(value)}</td>" for value in line) for line in zip(*columns.values(), strict=True)]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    return html.escape(value) if isinstance(value, str) else f"{value:.4g}" if value == value else "–"
