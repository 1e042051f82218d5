"""`crossent report`: predictions in, a report out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from .endings import clean_endings, print_warnings, say
from .options import AlarmCost, Encoding, MissCost, Overwrite, Positive, labels_column
from .showing import print_report

__all__ = ["report"]

Scale = Literal["probabilities", "logits"]
_DECLARED = "crossent.scales"


def _declare(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> bool:
    """Note what the numbers are declared to be, in the order in which the options stand on the command line."""
    if value:
        context.meta.setdefault(_DECLARED, []).append(parameter.name)
    return value


def report(
    predictions: Annotated[
        list[str],
        typer.Argument(
            help="Table with the labels and one column of numbers per class, called after it; one for two. Several "
            "tables are compared."
        ),
    ],
    target: Annotated[str | None, typer.Option(help="Column of true labels.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", callback=_declare, help="The numbers are probabilities.")
    ] = False,
    logits: Annotated[
        bool,
        typer.Option(
            "--logits",
            callback=_declare,
            help="The numbers are logits (scores before softmax). Of several files, each may be either: "
            "pass the options in the order of the files.",
        ),
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("out"),
    drop: Annotated[list[str] | None, typer.Option(help="Column that is no class; may be repeated.")] = None,
    id: Annotated[
        str | None, typer.Option(help="Column of ids by which rows of several files are joined, whatever their order.")
    ] = None,
    encoding: Encoding = None,
    positive: Positive = None,
    cost_false_negative: MissCost = 1.0,
    cost_false_positive: AlarmCost = 1.0,
    overwrite: Overwrite = False,
    *,
    context: typer.Context,
) -> None:
    """Judge anyone's predictions, or compare files of them: the report that fit writes, without the training."""
    with clean_endings():
        from .. import report as reports
        from .. import tabular
        from ..tabular import InputError, spreadsheets, writing

        scales: list[Scale] = context.meta.get(_DECLARED, [])
        if len(scales) not in (1, len(predictions)):
            raise InputError("say what the numbers are: pass one of --probabilities and --logits")
        outputs = [output / name for name in reports.REPORT_FILES]
        writing.refuse_outputs(output, outputs)
        writing.refuse_over(outputs, predictions)
        notes: list[str] = []
        frames = [tabular.read_table(path, encoding=encoding, notes=notes) for path in predictions]
        if id is not None:
            frames, left_out = tabular.join_by(frames, predictions, id)
            notes += left_out
        judged = []
        for k, (path, frame) in enumerate(zip(predictions, frames, strict=True)):
            column = labels_column(target, path, frame.columns)
            # A column to leave out may be in one of two files only.
            elsewhere = {name for other in frames if other is not frame for name in other.columns} - {*frame.columns}
            here = [name for name in [*(drop or []), *([] if id is None else [id])] if name not in elsewhere]
            frame = spreadsheets.name_target(frame, column)
            judged.append(tabular.read_predictions(frame, path, column, scales[k % len(scales)], drop=here))
        decision = reports.Decision(positive, cost_false_negative, cost_false_positive)
        if len(judged) == 1:
            read = replace(judged[0], notes=[*notes, *judged[0].notes])
            summary = reports.summarize_predictions(read, decision, context.obj or ())
        else:
            for note in notes:
                say(f"note: {note}")
            two = len(judged) == 2
            summary = (
                reports.compare_predictions(judged[0], judged[1], decision) if two else reports.rank_predictions(judged)
            )
        with writing.alone_in(output, reports.JSON_FILE):
            if not overwrite:
                reports.refuse_other_report(outputs, summary["kind"], predictions)
            writing.write_files(reports.report_files(summary, output))
        print_warnings(summary["warnings"])
        print_report(summary, outputs)
