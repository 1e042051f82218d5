"""`crossent predict`: a model and a table in, probabilities out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .endings import clean_endings, print_warnings
from .options import Stream, is_streamed
from .showing import print_files

__all__ = ["predict"]


def predict(
    model: Annotated[str, typer.Argument(help="Model file written by fit.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Table with the columns the model was trained on; folder or pattern of Parquet files with them"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV or Parquet file. (default: DATA.predictions.csv)")
    ] = None,
    stream: Stream = None,
    escape_formulas: Annotated[
        bool,
        typer.Option(
            help="Put an apostrophe before text of a CSV file that a spreadsheet would run as a formula; "
            "crossent report reads it without."
        ),
    ] = True,
) -> None:
    """Write one probability per row and class."""
    with clean_endings():
        from .. import tabular
        from ..report import other_run
        from ..tabular import InputError, writing

        if output is None and not os.path.lexists(data) and set("*?[") & set(Path(data).stem):
            raise InputError("predictions of a pattern's files need a name: pass --output FILE")
        path = Path(f"{Path(os.path.abspath(data)).stem}.predictions.csv") if output is None else output
        suffix = path.suffix.lower()
        if suffix not in (".csv", ".parquet"):
            raise InputError(f"predictions are written as .csv or .parquet, and {str(path)!r} ends in neither")
        writing.refuse_folders([path])
        writing.refuse_over([path], [data, model])
        writing.refuse_unwritable(path.parent)
        trained = tabular.read_model(model)
        if is_streamed(data, stream):
            predictions = tabular.ParquetPredictions(trained, data)
            writing.refuse_over([path], predictions.paths)
            writing.refuse_among(path, data)
            writing.write_files({path: lambda beside: predictions.write(beside, suffix, escape=escape_formulas)})
            unseen, num_rows = predictions.unseen, predictions.num_rows
        else:
            unseen = tabular.UnseenCategories()
            table = tabular.prediction_table(trained, tabular.read_table(data), data, unseen)
            writing.write_files({path: tabular.prediction_bytes(table, suffix, escape=escape_formulas)})
            num_rows = table.height
        mixed = other_run(trained, model)
        print_warnings([*unseen.sentences(num_rows), *([mixed] if mixed else [])])
        print_files([path])
