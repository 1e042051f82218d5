"""`crossent fit`: a table in, a model and a report out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from .endings import clean_endings, say
from .options import AlarmCost, Encoding, MissCost, Overwrite, Positive, Stream, is_streamed, labels_column
from .showing import print_report, progress

__all__ = ["fit"]

CHECKPOINT_FILE = "checkpoint.safetensors"
TOLERANCE = 1e-4


def fit(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tables with the same columns: CSV, TSV or TXT (or these as .gz or .zip), JSON lines, XLSX, Parquet, "
            "Arrow or NPZ files; folder or pattern of Parquet files; customers, digits, wine, breast_cancer",
            show_default="digits",
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column of labels (built-in data and NPZ name their own).")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model and the report.")] = Path("out"),
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to keep though it looks like an id; may be repeated.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Column of prose to make inputs of, by its words; may be repeated.")
    ] = None,
    na: Annotated[
        list[str] | None, typer.Option("--na", help='Word for "no value" beside NA, null, ? and such; may be repeated.')
    ] = None,
    no_na: Annotated[bool, typer.Option("--no-na", help='Take no words for "no value" but those of --na.')] = False,
    test_size: Annotated[float, typer.Option(help="Share of the rows to hold out.")] = 0.25,
    test: Annotated[str | None, typer.Option(help="Table of test rows, instead of a share of the rows.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column of groups, none of which is split between training and test; no feature."),
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column of times, whose latest rows are the test rows.")] = None,
    id: Annotated[str | None, typer.Option(help="Column that names a row: no feature, and in predictions.")] = None,
    drop_unlabelled: Annotated[bool, typer.Option("--drop-unlabelled", help="Leave rows without a label out.")] = False,
    min_class_rows: Annotated[int, typer.Option(min=0, help="Classes of fewer rows become one, 'other'.")] = 0,
    rare: Annotated[
        Literal["merge", "drop"], typer.Option(help="What to do with such classes: merge them, or drop their rows.")
    ] = "merge",
    calibration_size: Annotated[
        float | None,
        typer.Option(help="Share of the rest in a fold that finds a temperature; 0: none. (default: 0.2; sigmoid: 0)"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the splits.")] = 0,
    model: Annotated[
        Literal["softmax", "xgboost", "lightgbm", "catboost"],
        typer.Option(help="Softmax regression, or trees that a library boosts."),
    ] = "softmax",
    strength: Annotated[
        float | None, typer.Option("--C", help="Weight of the losses beside the penalty ½‖W‖². (default: 1.0)")
    ] = None,
    link: Annotated[str, typer.Option(help="softmax, or sigmoid: each class against the rest.")] = "softmax",
    sweep: Annotated[bool, typer.Option("--sweep", help="Choose C by cross-validation instead.")] = False,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Also fit to a quarter and half of the rows: would more help?")
    ] = False,
    tol: Annotated[float, typer.Option(help="Relative duality gap to stop at.")] = TOLERANCE,
    max_iter: Annotated[
        int, typer.Option(max=2**31 - 1, help="Most iterations of the optimiser, or rounds of boosting.")
    ] = 1000,
    encoding: Encoding = None,
    stream: Stream = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File that the state of the fit is kept in. (default: OUTPUT/checkpoint.safetensors)"),
    ] = None,
    checkpoint_interval: Annotated[float, typer.Option(help="Seconds between two checkpoints.")] = 60.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")] = False,
    positive: Positive = None,
    cost_false_negative: MissCost = 1.0,
    cost_false_positive: AlarmCost = 1.0,
    overwrite: Overwrite = False,
    *,
    context: typer.Context,
) -> None:
    """Train a softmax regression, or boosted trees, on a table; write a model file and a report."""
    with clean_endings():
        from .. import report as reports
        from .. import tabular
        from ..tabular import InputError, writing
        from ..tabular.boosted import require_model, trees_file

        data = tabular.table_files(data or ["digits"])
        source = tabular.source_name(data)
        decision = reports.Decision(positive, cost_false_negative, cost_false_positive)
        decision.check_costs()
        require_model(model)
        outputs = [output / name for name in (*reports.FIT_FILES, *trees_file(model))]
        writing.refuse_outputs(output, outputs)
        writing.refuse_over(outputs, data if test is None else [*data, test])
        own = {"--C": strength is not None, "--link": link != "softmax", "--sweep": sweep, "--resume": resume}
        own |= {"--tol": tol != TOLERANCE, "--checkpoint": checkpoint is not None}
        given = [name for name, is_given in own.items() if is_given]
        if model != "softmax" and given:
            raise InputError(f"{given[0]} is of the softmax regression: leave it out, or leave out --model {model}")
        keeps = model == "softmax" and not sweep
        if sweep and strength is not None:
            raise InputError("--sweep chooses C itself: leave out --sweep or --C")
        strength = 1.0 if strength is None else strength
        if calibration_size is None:
            calibration_size = 0.2 if link == "softmax" else 0.0
        for name, value in (("--C", strength), ("--tol", tol), ("--max-iter", max_iter)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, and is {value}")
        kept = output / CHECKPOINT_FILE if checkpoint is None else checkpoint
        if keeps:
            writing.refuse_checkpoint(kept, data, outputs)
        with writing.alone_in(output, reports.JSON_FILE):
            if not overwrite:
                reports.refuse_other_report(outputs, "fit", [source])
            if not checkpoint_interval >= 0:
                raise InputError(f"--checkpoint-interval must be 0 or more seconds, and is {checkpoint_interval}")
            if sweep and resume:
                raise InputError("a sweep keeps no checkpoint to resume: leave out --sweep or --resume")
            if resume and not kept.exists():
                say(f"there is no checkpoint {str(kept)!r}: starting from the beginning")
            if keeps:
                writing.refuse_to_lose(kept, resume)
            streamed = is_streamed(data, stream)
            for name, is_asked in (
                ("--sweep", sweep),
                ("--test", test is not None),
                ("--learning-curve", learning_curve),
            ):
                if streamed and is_asked:
                    raise InputError(f"{name} needs the table in memory: leave it out, or pass --no-stream")
            notes: list[str] = []
            frame = None if streamed else tabular.read_tables(data, encoding=encoding, notes=notes)
            test_rows = None if test is None else tabular.read_tables([test], encoding=encoding, notes=notes)
            column = labels_column(target, source, None if frame is None else frame.columns)
            with progress(tol) as callback:
                words = (*(() if no_na else tabular.MISSING_WORDS), *(na or ()))
                options = tabular.FitOptions(
                    columns=tabular.ColumnOptions(words, keep or (), text or ()),
                    drop=drop or (),
                    test_size=test_size,
                    calibration_size=calibration_size,
                    link=link,
                    seed=seed,
                    group=group,
                    time=time,
                    id=id,
                    drop_unlabelled=drop_unlabelled,
                    min_class_rows=min_class_rows,
                    rare=rare,
                    strength=strength,
                    tolerance=tol,
                    max_iter=max_iter,
                    model=model,
                    sweep=sweep,
                    learning_curve=learning_curve,
                    callback=callback,
                    checkpoint=kept if keeps else None,
                    checkpoint_interval=checkpoint_interval,
                )
                if frame is None:
                    result = tabular.fit_parquet(data, column, options)
                else:
                    result = tabular.fit_table(frame, source, column, options, test=test_rows)
            result = replace(result, notes=[*notes, *result.notes])
            try:
                summary = reports.summarize_fit(result, decision, context.obj or ())
            except InputError as error:  # the model is worth more than the costs
                say(f"warning: {error}: the report takes the default costs")
                summary = reports.summarize_fit(result, command=context.obj or ())
            writing.write_files(reports.fit_files(summary, result, output))
            if keeps:
                writing.remove_checkpoint(kept)
        print_report(summary, outputs)
