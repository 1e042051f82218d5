"""Options and questions that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AlarmCost",
    "Encoding",
    "EscapeFormulas",
    "MissCost",
    "Overwrite",
    "Positive",
    "Stream",
    "is_streamed",
    "labels_column",
]

Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Read Parquet in windows, never as a whole. (default: several files, or more than 1/8 of memory)",
        show_default=False,
    ),
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the report of another command or of other data in the folder.")
]

Encoding = Annotated[
    str | None,
    typer.Option(
        help="What text is encoded in, such as cp1252 or latin-1. (default: UTF-8, or UTF-16 with a byte order mark)",
        show_default=False,
    ),
]

EscapeFormulas = Annotated[
    bool,
    typer.Option(
        help="Put an apostrophe before text of a CSV file that a spreadsheet would run as a formula; "
        "crossent report reads it without."
    ),
]

Positive = Annotated[
    str | None, typer.Option("--positive", help="Of two classes, the one that is looked for. (default: the second)")
]
MissCost = Annotated[float, typer.Option("--cost-false-negative", help="What it costs to miss a positive row.")]
AlarmCost = Annotated[float, typer.Option("--cost-false-positive", help="What a false alarm costs.")]


def is_streamed(data: list[str], stream: bool | None) -> bool:
    """Return whether to read in windows, as `--stream` says or, without it, the data."""
    from ..tabular import BUILT_IN, InputError, should_stream
    from ..tabular.reading import SUFFIXES, table_suffix

    if stream is None:
        return should_stream(*data)
    for source in data if stream else ():
        is_other = table_suffix(source) in SUFFIXES and table_suffix(source) != ".parquet"
        if source in BUILT_IN or (is_other and Path(source).is_file()):
            raise InputError(f"--stream reads Parquet files only, and {source!r} is none: leave it out")
    return stream


def labels_column(asked: str | None, data: str, columns: list[str] | None) -> str:
    """Return the column of labels: the one asked for, or the one that the data themselves name."""
    from ..tabular import InputError, default_target
    from ..tabular.errors import name_list

    column = default_target(data) if asked is None else asked
    if column is None:
        known = "" if columns is None else f"; the columns are {name_list(columns)}"
        raise InputError(f"which column holds the labels? Pass --target COLUMN{known}")
    return column
