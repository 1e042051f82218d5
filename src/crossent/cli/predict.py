"""`crossent predict`: a model and a table in, probabilities out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .endings import clean_endings, print_warnings, say
from .options import Encoding, EscapeFormulas, Stream, is_streamed
from .showing import print_files

__all__ = ["predict"]


def predict(
    model: Annotated[str, typer.Argument(help="Model file written by fit.")],
    data: Annotated[
        list[str],
        typer.Argument(
            help="Tables with the columns the model was trained on; folder or pattern of Parquet files with them"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV or Parquet file. (default: DATA.predictions.csv)")
    ] = None,
    encoding: Encoding = None,
    stream: Stream = None,
    escape_formulas: EscapeFormulas = True,
) -> None:
    """Write one probability per row and class."""
    with clean_endings():
        from .. import tabular
        from ..report import other_run
        from ..tabular import InputError, writing
        from ..tabular.reading import table_stem

        data = tabular.table_files(data)
        is_pattern = not os.path.lexists(data[0]) and bool(set("*?[") & set(Path(data[0]).stem))
        if output is None and (len(data) > 1 or is_pattern):
            raise InputError("predictions of several files need a name: pass --output FILE")
        path = Path(f"{table_stem(os.path.abspath(data[0]))}.predictions.csv") if output is None else output
        suffix = writing.prediction_suffix(path)
        writing.refuse_folders([path])
        writing.refuse_over([path], [*data, model])
        writing.refuse_unwritable(path.parent)
        trained = tabular.read_model(model)
        if is_streamed(data, stream):
            predictions = tabular.ParquetPredictions(trained, data)
            writing.refuse_over([path], predictions.paths)
            for source in data:
                writing.refuse_among(path, source)
            writing.write_files({path: lambda beside: predictions.write(beside, suffix, escape=escape_formulas)})
            unseen, num_rows = predictions.unseen, predictions.num_rows
        else:
            unseen = tabular.UnseenCategories()
            notes: list[str] = []
            frame = tabular.read_tables(data, encoding=encoding, notes=notes)
            table = tabular.prediction_table(trained, frame, tabular.source_name(data), unseen)
            for note in notes:
                say(f"note: {note}")
            writing.write_files({path: tabular.prediction_bytes(table, suffix, escape=escape_formulas)})
            num_rows = table.height
        mixed = other_run(trained, model)
        print_warnings([*unseen.sentences(num_rows), *([mixed] if mixed else [])])
        print_files([path])
