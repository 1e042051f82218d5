"""The command line: parse, call, print. What it does lives in `crossent.tabular` and `crossent.report`.

A mistake in the input ends with one sentence on stderr and status 2. Files appear whole or not at all: everything is
computed first, written beside its destination, and then renamed; if a rename fails, what was there is put back. Heavy
imports wait until a command runs.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

try:
    import typer
    import typer.core
except ModuleNotFoundError as error:  # pragma: no cover
    raise SystemExit("the command line needs more packages: pip install 'crossent[cli]'") from error

if TYPE_CHECKING:
    from rich.console import Console

# Of a command line that says what no command takes. Typer does not export it by name.
_UsageError: Any = typer.BadParameter.__base__


class _OneSentence(typer.core.TyperGroup):
    """Commands whose usage errors are one sentence on stderr, as all others are, and not a box of several lines."""

    def main(self, *args: Any, **options: Any) -> Any:
        if not options.get("standalone_mode", True):
            return super().main(*args, **options)
        try:
            sys.exit(super().main(*args, **(options | {"standalone_mode": False})))
        except typer.Abort:
            sys.stderr.write("crossent: interrupted\n")
            sys.exit(130)
        except _UsageError as error:
            message = error.format_message()
            if "\n" in message:  # no command at all: what came is the help
                sys.stderr.write(f"{message}\n")
            else:
                command = "crossent" if error.ctx is None else error.ctx.command_path
                sys.stderr.write(f"crossent: {_one_line(message.rstrip('.'))} (see {command} --help)\n")
            sys.exit(error.exit_code)


app = typer.Typer(
    cls=_OneSentence,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, apply and judge classifiers by cross-entropy.",
)

MODEL_FILE, JSON_FILE, HTML_FILE = "model.safetensors", "report.json", "report.html"


@app.command()
def fit(
    data: Annotated[
        str, typer.Argument(help="CSV, TSV, Parquet, Arrow or NPZ file; or digits, wine, breast_cancer.")
    ] = "digits",
    target: Annotated[str | None, typer.Option(help="Column of labels (built-in data and NPZ name their own).")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model and the report.")] = Path("out"),
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    test_size: Annotated[float, typer.Option(help="Share of the rows to hold out.")] = 0.25,
    calibration_size: Annotated[
        float, typer.Option(help="Share of the other rows to hold out for calibration; 0: none.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the splits.")] = 0,
    strength: Annotated[float, typer.Option("--C", help="Weight of the losses beside the penalty ½‖W‖².")] = 1.0,
    sweep: Annotated[bool, typer.Option("--sweep", help="Choose C by cross-validation instead.")] = False,
    tol: Annotated[float, typer.Option(help="Relative duality gap to stop at.")] = 1e-4,
    max_iter: Annotated[int, typer.Option(help="Most iterations of the optimiser.")] = 1000,
) -> None:
    """Train a softmax regression on a table; write a model file and a report."""
    with _clean_endings():
        from rich.console import Console

        from .report import render_terminal, summarize_fit
        from .tabular import InputError, default_target, fit_table, read_table

        _check_folder(output, MODEL_FILE, JSON_FILE, HTML_FILE)
        for name, value in (("--C", strength), ("--tol", tol), ("--max-iter", max_iter)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number, and is {value}")
        frame = read_table(data)
        column = target if target is not None else default_target(data)
        if column is None:
            raise InputError(_which_target(frame.columns))
        with _progress(tol) as callback:
            result = fit_table(
                frame,
                data,
                column,
                drop=drop,
                test_size=test_size,
                calibration_size=calibration_size,
                seed=seed,
                strength=strength,
                tolerance=tol,
                max_iter=max_iter,
                sweep=sweep,
                callback=callback,
            )
        report = summarize_fit(result)
        files = {output / MODEL_FILE: result.model.to_bytes(), **_report_files(report, output)}
        _write_files(files)
        console = Console()
        render_terminal(report, console)
        _print_files(console, [output / name for name in (MODEL_FILE, JSON_FILE, HTML_FILE)])


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Model file written by fit.")],
    data: Annotated[str, typer.Argument(help="Table with the columns the model was trained on.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV or Parquet file. [default: DATA.predictions.csv]")
    ] = None,
) -> None:
    """Write one probability per row and class."""
    with _clean_endings():
        from rich.console import Console

        from .tabular import InputError, prediction_table, read_model, read_table

        path = Path(f"{Path(data).stem}.predictions.csv") if output is None else output
        if path.suffix.lower() not in (".csv", ".parquet"):
            raise InputError(f"predictions are written as .csv or .parquet, and {str(path)!r} ends in neither")
        if path.is_dir() or (path.exists() and Path(data).exists() and path.samefile(data)):
            raise InputError(f"predictions cannot be written over {str(path)!r}")
        trained = read_model(model)
        table = prediction_table(trained, read_table(data), data)
        _write_files({path: _table_bytes(table, path.suffix.lower())})
        _print_files(Console(), [path])


@app.command()
def report(
    predictions: Annotated[
        list[str],
        typer.Argument(help="Table with the labels and one column of numbers per class, called after it; one for two."),
    ],
    target: Annotated[str | None, typer.Option(help="Column of true labels.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="The numbers are probabilities.")] = False,
    logits: Annotated[bool, typer.Option("--logits", help="The numbers are logits (scores before softmax).")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("out"),
    drop: Annotated[list[str] | None, typer.Option(help="Column that is no class; may be repeated.")] = None,
) -> None:
    """Judge anyone's predictions, or compare two files of them: the report that fit writes, without the training."""
    with _clean_endings():
        from rich.console import Console

        from .report import compare_predictions, render_terminal, summarize_predictions
        from .tabular import InputError, default_target, read_predictions, read_table

        if len(predictions) > 2:
            raise InputError(
                f"report takes one file of predictions or two to compare, and was given {len(predictions)}"
            )
        if probabilities == logits:
            raise InputError("say what the numbers are: pass one of --probabilities and --logits")
        _check_folder(output, JSON_FILE, HTML_FILE)
        scale: Literal["probabilities", "logits"] = "logits" if logits else "probabilities"
        judged = []
        for path in predictions:
            frame = read_table(path)
            column = target if target is not None else default_target(path)
            if column is None:
                raise InputError(_which_target(frame.columns))
            judged.append(read_predictions(frame, path, column, scale, drop=drop))
        summary = summarize_predictions(judged[0]) if len(judged) == 1 else compare_predictions(*judged)
        _write_files(_report_files(summary, output))
        errors = Console(stderr=True)
        for warning in summary["warnings"]:
            errors.print(f"crossent: warning: {_one_line(warning)}", markup=False, highlight=False, soft_wrap=True)
        console = Console()
        render_terminal(summary, console)
        _print_files(console, [output / name for name in (JSON_FILE, HTML_FILE)])


def main() -> None:
    """Run the command line; `crossent` calls this."""
    app()


@contextmanager
def _clean_endings() -> Iterator[None]:
    """Turn what a person can mend into one sentence and status 2, and Ctrl-C into status 130."""
    try:
        from .tabular import InputError

        try:
            yield
        except InputError as error:
            sys.stderr.write(f"crossent: {_one_line(str(error))}\n")
            raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        sys.stderr.write(f"crossent: the package {error.name} is missing: pip install 'crossent[cli]'\n")
        raise typer.Exit(2) from error
    except OSError as error:
        place = "" if error.filename is None else f" ({str(error.filename)[:200]!r})"
        sys.stderr.write(f"crossent: {error.strerror or error}{place}\n")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        sys.stderr.write("crossent: interrupted\n")
        raise typer.Exit(130) from error


def _one_line(text: str) -> str:
    """Return text on one line and without control characters, which a cell of the data may hold."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def _which_target(columns: list[str]) -> str:
    from .tabular.errors import name_list

    return f"which column holds the labels? Pass --target COLUMN; the columns are {name_list(columns)}"


@contextmanager
def _progress(tolerance: float) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show how far the duality gap has come, on a logarithmic scale, while the optimiser runs."""
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
            text = f"iteration {entry['iteration']}, objective {entry['objective']:.5g}"
            if gap is not None and gap > 0 and math.isfinite(gap):
                first.append(gap)
                text += f", gap {gap:.0e} (goal {tolerance:.0e})"
                if first[0] > tolerance:
                    best[0] = max(best[0], math.log(first[0] / gap) / math.log(first[0] / tolerance))
            progress.update(task, completed=min(1.0, best[0]), description=text)

        yield callback


def _report_files(summary: dict[str, Any], folder: Path) -> dict[Path, bytes]:
    from .report import render_html

    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    return {
        folder / JSON_FILE: (text + "\n").encode("utf-8", "replace"),
        folder / HTML_FILE: render_html(summary).encode("utf-8", "replace"),
    }


def _table_bytes(table: Any, suffix: str) -> bytes:
    import io

    file = io.BytesIO()
    if suffix == ".csv":
        table.write_csv(file)
    else:
        table.write_parquet(file)
    return file.getvalue()


def _check_folder(folder: Path, *names: str) -> None:
    from .tabular import InputError

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file, and the report needs a folder")
    _refuse_folders([folder / name for name in names])


def _refuse_folders(paths: Iterable[Path]) -> None:
    from .tabular import InputError

    for path in paths:
        if path.is_dir():
            raise InputError(f"cannot write {str(path)!r}: it is a folder")


def _write_files(files: dict[Path, bytes]) -> None:
    """Write all files or none: beside their destinations first, then renamed; older files are kept until all are in."""
    from .tabular import InputError

    created: list[Path] = []
    temporary: dict[Path, Path] = {}
    older: dict[Path, Path] = {}
    placed: list[Path] = []
    current = Path()
    try:
        for current, content in files.items():
            _refuse_folders([current])
            _make_folder(current.parent, created)
            temporary[current] = current.with_name(f".{current.name}.{os.getpid()}.tmp")
            temporary[current].write_bytes(content)
        for current, beside in temporary.items():
            if os.path.lexists(current):
                older[current] = current.with_name(f".{current.name}.{os.getpid()}.old")
                current.replace(older[current])
            placed.append(current)
            beside.replace(current)
    except BaseException as error:
        stuck = _put_back(temporary, older, placed)
        for folder in reversed(created):
            if not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError):
            kept = "".join(f"; the older {path.name!r} is kept as {str(older[path])!r}" for path in stuck)
            raise InputError(f"cannot write {str(current)!r}: {error.strerror}{kept}") from error
        raise
    for path in older.values():
        with suppress(OSError):
            path.unlink()


def _put_back(temporary: dict[Path, Path], older: dict[Path, Path], placed: list[Path]) -> list[Path]:
    """Undo what was done, however far it came; return the destinations whose older file could not be put back.

    `older` and `placed` name what was about to be renamed; the folder tells whether it was.
    """
    stuck = []
    for path, beside in temporary.items():
        try:
            if path in older:
                if os.path.lexists(older[path]):
                    older[path].replace(path)
            elif path in placed and not os.path.lexists(beside):
                path.unlink(missing_ok=True)
        except OSError:
            stuck.append(path)
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return [path for path in stuck if path in older]


def _make_folder(folder: Path, created: list[Path]) -> None:
    if folder.exists():
        return
    _make_folder(folder.parent, created)
    folder.mkdir()
    created.append(folder)


def _print_files(console: Console, paths: list[Path]) -> None:
    from rich.text import Text

    from .report.words import plain

    console.print()
    for path in paths:
        name = {".html": "report", ".json": "numbers", ".safetensors": "model"}.get(path.suffix, "predictions")
        console.print(Text(f"{name:<12}{plain(str(path.resolve()))}"), soft_wrap=True)


if __name__ == "__main__":
    main()
