"""The command line: parse, call, print. What it does lives in `crossent.tabular` and `crossent.report`.

A mistake in the input ends with one sentence on stderr and status 2. Files appear whole or not at all
(`crossent.files`), and no output takes the place of an input. What is printed passes `crossent.text.plain`, since names
and cells of the data, paths and messages may hold what steers a terminal. Heavy imports wait until a command runs.
"""

from __future__ import annotations

import io
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import typer
    import typer.core
except ModuleNotFoundError as error:  # pragma: no cover
    raise SystemExit("the command line needs more packages: pip install 'crossent[cli]'") from error

from .about import add_version_to, say_once_when_compiling
from .doctor.commands import register
from .text import plain

# The error of a command line that no command understands. Typer does not export it by name.
_UsageError: Any = typer.BadParameter.__base__


class _OneSentence(typer.core.TyperGroup):
    """Commands whose usage errors are one sentence on stderr, as all others are, and not a box of several lines."""

    def main(self, *args: Any, **extra: Any) -> Any:
        is_program = extra.pop("standalone_mode", True)
        extra["standalone_mode"] = False
        if not is_program:
            return super().main(*args, **extra)
        try:
            sys.exit(super().main(*args, **extra))
        except typer.Abort:
            _say("interrupted")
            sys.exit(130)
        except _UsageError as error:
            message = error.format_message()
            if "\n" in message:  # there was no command at all, and the message is the help
                sys.stderr.write(f"{message}\n")
            elif message:  # else the help has been printed
                command = "crossent" if error.ctx is None else error.ctx.command_path
                _say(f"{message.rstrip('.')} (see {command} --help)")
            sys.exit(error.exit_code)


app = typer.Typer(
    cls=_OneSentence,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, apply and judge classifiers by cross-entropy.",
)
add_version_to(app)

CHECKPOINT_FILE = "checkpoint.safetensors"

Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Read Parquet in windows, never as a whole. (default: several files, or more than 1/8 of memory)",
        show_default=False,
    ),
]

Positive = Annotated[
    str | None, typer.Option("--positive", help="Of two classes, the one that is looked for. (default: the second)")
]
MissCost = Annotated[float, typer.Option("--cost-false-negative", help="What it costs to miss a positive row.")]
AlarmCost = Annotated[float, typer.Option("--cost-false-positive", help="What a false alarm costs.")]


@app.command()
def fit(
    data: Annotated[
        str,
        typer.Argument(
            help="CSV, TSV, Parquet, Arrow or NPZ file; folder or pattern of Parquet files; digits, wine, breast_cancer"
        ),
    ] = "digits",
    target: Annotated[str | None, typer.Option(help="Column of labels (built-in data and NPZ name their own).")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model and the report.")] = Path("out"),
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    test_size: Annotated[float, typer.Option(help="Share of the rows to hold out.")] = 0.25,
    calibration_size: Annotated[
        float | None,
        typer.Option(help="Share of the rest in a fold that finds a temperature; 0: none. (default: 0.2; sigmoid: 0)"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the splits.")] = 0,
    strength: Annotated[
        float | None, typer.Option("--C", help="Weight of the losses beside the penalty ½‖W‖². (default: 1.0)")
    ] = None,
    link: Annotated[str, typer.Option(help="softmax, or sigmoid: each class against the rest.")] = "softmax",
    sweep: Annotated[bool, typer.Option("--sweep", help="Choose C by cross-validation instead.")] = False,
    tol: Annotated[float, typer.Option(help="Relative duality gap to stop at.")] = 1e-4,
    max_iter: Annotated[int, typer.Option(help="Most iterations of the optimiser.")] = 1000,
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
) -> None:
    """Train a softmax regression on a table; write a model file and a report."""
    with _clean_endings():
        from . import report as reports
        from . import tabular
        from .tabular import InputError, writing

        decision = reports.Decision(positive, cost_false_negative, cost_false_positive)
        decision.check_costs()
        outputs = [output / name for name in (reports.MODEL_FILE, reports.JSON_FILE, reports.HTML_FILE)]
        writing.refuse_outputs(output, outputs)
        writing.refuse_over(outputs, [data])
        if sweep and strength is not None:
            raise InputError("--sweep chooses C itself: leave out --sweep or --C")
        strength = 1.0 if strength is None else strength
        if calibration_size is None:
            calibration_size = 0.2 if link == "softmax" else 0.0
        for name, value in (("--C", strength), ("--tol", tol), ("--max-iter", max_iter)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, and is {value}")
        kept = output / CHECKPOINT_FILE if checkpoint is None else checkpoint
        if not sweep:
            writing.refuse_checkpoint(kept, data, outputs)
        with writing.alone_in(output, reports.JSON_FILE):
            if not checkpoint_interval >= 0:
                raise InputError(f"--checkpoint-interval must be 0 or more seconds, and is {checkpoint_interval}")
            if sweep and resume:
                raise InputError("a sweep keeps no checkpoint to resume: leave out --sweep or --resume")
            if resume and not kept.exists():
                _say(f"there is no checkpoint {str(kept)!r}: starting from the beginning")
            if not sweep:
                writing.refuse_to_lose(kept, resume)
            streamed = _is_streamed(data, stream)
            if streamed and sweep:
                raise InputError("--sweep needs the table in memory: leave it out, or pass --no-stream")
            frame = None if streamed else tabular.read_table(data)
            column = _target(target, data, None if frame is None else frame.columns)
            with _progress(tol) as callback:
                options = tabular.FitOptions(
                    drop=drop or (),
                    test_size=test_size,
                    calibration_size=calibration_size,
                    link=link,
                    seed=seed,
                    strength=strength,
                    tolerance=tol,
                    max_iter=max_iter,
                    sweep=sweep,
                    callback=callback,
                    checkpoint=None if sweep else kept,
                    checkpoint_interval=checkpoint_interval,
                )
                if frame is None:
                    result = tabular.fit_parquet(data, column, options)
                else:
                    result = tabular.fit_table(frame, data, column, options)
            try:
                summary = reports.summarize_fit(result, decision)
            except InputError as error:  # the model is worth more than the costs
                _say(f"warning: {error}: the report takes the default costs")
                summary = reports.summarize_fit(result)
            writing.write_files(reports.fit_files(summary, result.model, output))
            if not sweep:
                writing.remove_checkpoint(kept)
        _print_report(summary, outputs)


@app.command()
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
    with _clean_endings():
        from . import tabular
        from .report import other_run
        from .tabular import InputError, writing

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
        if _is_streamed(data, stream):
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
        _print_warnings([*unseen.sentences(num_rows), *([mixed] if mixed else [])])
        _print_files([path])


def _is_streamed(data: str, stream: bool | None) -> bool:
    """Return whether to read in windows, as `--stream` says or, without it, the data."""
    from .tabular import BUILT_IN, InputError, should_stream
    from .tabular.reading import SUFFIXES

    if stream is None:
        return should_stream(data)
    path = Path(data)
    is_other = path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".parquet"
    if stream and (data in BUILT_IN or (is_other and path.is_file())):
        raise InputError(f"--stream reads Parquet files only, and {data!r} is none: leave it out")
    return stream


Scale = Literal["probabilities", "logits"]
_DECLARED = "crossent.scales"


def _declare(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> bool:
    """Note what the numbers are declared to be, in the order in which the options stand on the command line."""
    if value:
        context.meta.setdefault(_DECLARED, []).append(parameter.name)
    return value


@app.command()
def report(
    predictions: Annotated[
        list[str],
        typer.Argument(help="Table with the labels and one column of numbers per class, called after it; one for two."),
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
            help="The numbers are logits (scores before softmax). Of two files, one may be the one and one the other: "
            "pass both options in the order of the files.",
        ),
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("out"),
    drop: Annotated[list[str] | None, typer.Option(help="Column that is no class; may be repeated.")] = None,
    positive: Positive = None,
    cost_false_negative: MissCost = 1.0,
    cost_false_positive: AlarmCost = 1.0,
    *,
    context: typer.Context,
) -> None:
    """Judge anyone's predictions, or compare two files of them: the report that fit writes, without the training."""
    with _clean_endings():
        from . import report as reports
        from . import tabular
        from .tabular import InputError, spreadsheets, writing

        if len(predictions) > 2:
            raise InputError(
                f"report takes one file of predictions or two to compare, and was given {len(predictions)}"
            )
        scales: list[Scale] = context.meta.get(_DECLARED, [])
        if len(scales) not in (1, len(predictions)):
            raise InputError("say what the numbers are: pass one of --probabilities and --logits")
        outputs = [output / name for name in (reports.JSON_FILE, reports.HTML_FILE)]
        writing.refuse_outputs(output, outputs)
        writing.refuse_over(outputs, predictions)
        frames = [tabular.read_table(path) for path in predictions]
        judged = []
        for k, (path, frame) in enumerate(zip(predictions, frames, strict=True)):
            column = _target(target, path, frame.columns)
            # A column to leave out may be in one of two files only.
            elsewhere = {name for other in frames if other is not frame for name in other.columns} - {*frame.columns}
            here = [name for name in drop or [] if name not in elsewhere]
            frame = spreadsheets.name_target(frame, column)
            judged.append(tabular.read_predictions(frame, path, column, scales[k % len(scales)], drop=here))
        decision = reports.Decision(positive, cost_false_negative, cost_false_positive)
        if len(judged) == 1:
            summary = reports.summarize_predictions(judged[0], decision)
        else:
            summary = reports.compare_predictions(judged[0], judged[1], decision)
        with writing.alone_in(output, reports.JSON_FILE):
            writing.write_files(reports.report_files(summary, output))
        _print_warnings(summary["warnings"])
        _print_report(summary, outputs)


register(app)


def main() -> None:
    """Run the command line; `crossent` calls this."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a report is worth more than an arrow that the encoding lacks
    say_once_when_compiling(_say)
    try:
        app()
    except Exception:  # nobody foresaw it, and its message may quote data
        for line in traceback.format_exc().split("\n"):
            sys.stderr.write(f"{plain(line)}\n")
        sys.exit(1)


@contextmanager
def _clean_endings() -> Iterator[None]:
    """Turn what a person can mend into one sentence and status 2, Ctrl-C into status 130, and warnings into lines."""
    try:
        from .tabular import InputError
        from .tabular.native_output import python_alone_on_stderr

        with python_alone_on_stderr():
            try:
                with warnings.catch_warnings():
                    warnings.showwarning = _print_warning  # type: ignore[assignment]
                    yield
            except InputError as error:
                _say(str(error))
                raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        _say(f"the package {error.name} is missing: pip install 'crossent[cli]'")
        raise typer.Exit(2) from error
    except OSError as error:
        place = "" if error.filename is None else f" ({str(error.filename)[:200]!r})"
        _say(f"{error.strerror or error}{place}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        _say("interrupted")
        raise typer.Exit(130) from error


def _say(text: str) -> None:
    if sys.stderr is not None:  # it may be closed
        sys.stderr.write(f"crossent: {plain(text)}\n")


def _print_warning(message: Warning | str, *_: object) -> None:
    _say(f"warning: {message}")


def _print_warnings(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        _print_warning(sentence)


def _target(asked: str | None, data: str, columns: list[str] | None) -> str:
    """Return the column of labels: the one asked for, or the one that the data themselves name."""
    from .tabular import InputError, default_target
    from .tabular.reading import columns_list

    column = default_target(data) if asked is None else asked
    if column is None:
        known = "" if columns is None else f"; the columns are {columns_list(columns)}"
        raise InputError(f"which column holds the labels? Pass --target COLUMN{known}")
    return column


@contextmanager
def _progress(tolerance: float) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show how far the duality gap has come, on a logarithmic scale, and of a sweep how many fits, while it runs."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("Training"), BarColumn(30), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0)
        first: list[float] = []
        best = [0.0]

        def callback(entry: dict[str, Any]) -> None:
            gap = entry.get("duality_gap")
            fit, fits = entry.get("fit", 1), entry.get("fits", 1)
            if entry["iteration"] == 0:  # another fit of a sweep
                first.clear()
                best[0] = 0.0
            text = f"fit {fit} of {fits}, " if fits > 1 else ""
            text += f"iteration {entry['iteration']}, objective {entry['objective']:.5g}"
            if gap is not None and gap > 0 and math.isfinite(gap):
                first.append(gap)
                text += f", gap {gap:.0e} (goal {tolerance:.0e})"
                if first[0] > tolerance:
                    best[0] = max(best[0], math.log(first[0] / gap) / math.log(first[0] / tolerance))
            progress.update(task, completed=(fit - 1 + min(1.0, best[0])) / fits, description=text)

        yield callback


def _print_report(summary: dict[str, Any], outputs: list[Path]) -> None:
    from rich.console import Console

    from .report import render_terminal

    render_terminal(summary, Console())
    _print_files(outputs)


def _print_files(paths: list[Path]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print()
    for path in paths:
        name = {".html": "report", ".json": "numbers", ".safetensors": "model"}.get(path.suffix, "predictions")
        console.print(Text(f"{name:<12}{plain(str(path.resolve()))}"), soft_wrap=True)


if __name__ == "__main__":
    main()
