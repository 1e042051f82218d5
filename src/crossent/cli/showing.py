"""What a command shows on the terminal: progress, a report, the files written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import plain

if TYPE_CHECKING:
    from ..tabular import Recalibrated

__all__ = ["print_calibrated", "print_files", "print_report", "progress"]

NAMES = {
    ".html": "report",
    ".json": "numbers",
    ".safetensors": "model",
    ".ubj": "trees",
    ".txt": "trees",
    ".cbm": "trees",
}


@contextmanager
def progress(tolerance: float) -> Iterator[Callable[[dict[str, Any]], None]]:
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


def print_report(summary: dict[str, Any], outputs: list[Path]) -> None:
    from rich.console import Console

    from ..report import render_terminal

    render_terminal(summary, Console())
    print_files(outputs)


def print_calibrated(notes: list[str], before: Any, result: Recalibrated) -> None:
    """Show what calibration did to the loss of rows that the map was not fitted to."""
    from rich.console import Console
    from rich.text import Text

    from ..report.compare import mean_difference

    lines = [f"note: {note}" for note in notes]
    for name, value in sorted(result.losses.items(), key=lambda entry: entry[1]):
        lines.append(f"{name:<28}{_nats(value)} nats a row")
    lines.append("")
    if result.method == "none":
        lines.append("no method has less loss on rows held out of its map: the predictions stay as they are")
    else:
        change = result.row_losses - before
        text = f"calibrated by {result.method}: loss {_nats(float(before.mean()))} before, "
        text += f"{_nats(result.losses[result.method])} after, on rows held out of the map"
        if math.isfinite(change.sum()):
            mean = mean_difference(change)
            text += f"; change {mean['difference']:+.4f} ({mean['lower']:+.4f} to {mean['upper']:+.4f}, 95 % interval)"
        lines.append(text)
    console = Console()
    for line in lines:
        console.print(Text(plain(line)), soft_wrap=True)


def _nats(value: float) -> str:
    return "∞" if value == math.inf else f"{value:.4f}"


def print_files(paths: list[Path]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print()
    for path in paths:
        name = NAMES.get(path.suffix, "predictions")
        console.print(Text(f"{name:<12}{plain(str(path.resolve()))}"), soft_wrap=True)
