"""`crossent calibrate`: predictions in, calibrated predictions out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .endings import clean_endings, print_warnings
from .options import Encoding, EscapeFormulas, labels_column
from .showing import print_calibrated, print_files

__all__ = ["calibrate"]


def calibrate(
    predictions: Annotated[
        str, typer.Argument(help="Table with the labels and one column of numbers per class, called after it.")
    ],
    target: Annotated[str | None, typer.Option(help="Column of true labels.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="The numbers are probabilities.")] = False,
    logits: Annotated[bool, typer.Option("--logits", help="The numbers are logits (scores before softmax).")] = False,
    method: Annotated[
        str,
        typer.Option(
            help="auto: the one of least held-out loss; or temperature, bias-corrected-temperature, vector, matrix, "
            "dirichlet, platt, beta, isotonic, histogram."
        ),
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="CSV or Parquet file. (default: PREDICTIONS.calibrated.csv or .parquet)"),
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column that is no class; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds.")] = 0,
    encoding: Encoding = None,
    escape_formulas: EscapeFormulas = True,
) -> None:
    """Calibrate anyone's predictions: each row by a map fitted to other rows. Writes a table of the same columns."""
    with clean_endings():
        from .. import tabular
        from ..tabular import InputError, spreadsheets, writing

        if probabilities == logits:
            raise InputError("say what the numbers are: pass one of --probabilities and --logits")
        scale: Literal["probabilities", "logits"] = "logits" if logits else "probabilities"
        read = Path(predictions)
        ending = ".parquet" if read.suffix.lower() == ".parquet" else ".csv"
        path = Path(f"{read.name.split('.csv')[0] if ending == '.csv' else read.stem}.calibrated{ending}")
        path = path if output is None else output
        suffix = writing.prediction_suffix(path)
        writing.refuse_folders([path])
        writing.refuse_over([path], [predictions])
        writing.refuse_unwritable(path.parent)
        notes: list[str] = []
        frame = tabular.read_table(predictions, encoding=encoding, notes=notes)
        column = labels_column(target, predictions, frame.columns)
        frame = spreadsheets.name_target(frame, column)
        judged = tabular.read_predictions(frame, predictions, column, scale, drop=drop)
        print_warnings(judged.warnings)
        result = tabular.recalibrate(judged, method, seed)
        table = tabular.replace_predictions(frame, judged, result.probabilities)
        writing.write_files({path: tabular.prediction_bytes(table, suffix, escape=escape_formulas)})
        print_calibrated([*notes, *judged.notes], judged.losses, result)
        print_files([path])
