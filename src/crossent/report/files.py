"""The files of a report, and the run id by which files of one run are known.

A run writes ``report.json``, ``report.html`` and, where it trained a model, its predictions of the test rows and the
model. All of them carry the same run id: "run" of the JSON object, ``<meta name="crossent-run">`` and the last line of
the page, ``crossent-run`` of the predictions' metadata, "run" of what the model says of its training. It is a digest of
all that the run wrote, so equal runs have equal ids. The model is put in its place last: whoever finds a new model
finds its report and, of a boosted one, the trees that it names by digest. If the run is killed between two files, their
ids differ, and `crossent predict` says so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..tabular import InputError, Model, TrainedModel, held_out_predictions, prediction_bytes
from .html import render_html

MODEL_FILE, JSON_FILE, HTML_FILE = "model.safetensors", "report.json", "report.html"
TEST_FILE = "test.predictions.parquet"
FIT_FILES = (MODEL_FILE, TEST_FILE, JSON_FILE, HTML_FILE)
REPORT_FILES = (JSON_FILE, HTML_FILE)

Summary = dict[str, Any]
_COMMANDS = {"fit": "crossent fit", **dict.fromkeys(("predictions", "comparison", "ranking"), "crossent report")}


def report_files(report: Summary, folder: Path) -> dict[Path, bytes]:
    """Return the files of a report, in the order in which they are to be replaced."""
    return _pages({**report, "run": _run_id(_without_card(report))}, folder)


def fit_files(report: Summary, result: TrainedModel, folder: Path) -> dict[Path, bytes]:
    """Return the files of a report on a model, of its predictions and the model, in the order to replace them in."""
    model = result.model
    run = _run_id(_without_card(report), model.to_bytes())
    marked = replace(model, training={**model.training, "run": run})
    table = prediction_bytes(held_out_predictions(result), ".parquet", metadata={"crossent-run": run})
    trees = {} if model.trees is None else {folder / model.trees.file: model.trees.content}
    return {
        folder / TEST_FILE: table,
        **_pages({**report, "run": run}, folder),
        **trees,
        folder / MODEL_FILE: marked.to_bytes(),
    }


def refuse_other_report(outputs: Iterable[Path], kind: str, sources: list[str]) -> None:
    """Refuse to write over files that are not the report of the same command on the same data.

    Raises
    ------
    InputError
        If there are such files, with the options that write all the same.
    """
    there = [path for path in outputs if os.path.lexists(path)]
    if not there:
        return
    folder = there[0].parent
    report = _report_in(folder)
    found, read = report.get("kind"), report.get("sources", [report.get("source")])
    if (found, read) == (kind, sources):
        return
    what = f"{there[0].name!r} of another origin"
    if found in _COMMANDS:
        what = f"the report of {_COMMANDS[found]} on {', '.join(map(repr, read))}"
    raise InputError(
        f"{str(folder)!r} holds {what}: pass --overwrite to replace it, or --output FOLDER to write elsewhere"
    )


def other_run(model: Model, path: str) -> str | None:
    """Return a warning if the report beside a model file is on another model, as a run that was killed leaves them."""
    beside = Path(path).parent / JSON_FILE
    report = _report_in(beside.parent)
    run = report.get("run") if report.get("kind") == "fit" else None
    if run is None or run == model.training.get("run"):
        return None
    return f"{str(beside)!r} is the report of another run than the one that trained {path!r}"


def _report_in(folder: Path) -> Summary:
    """Return the report in a folder; an empty one, if there is none that can be read."""
    if not (folder / JSON_FILE).is_file():
        return {}
    try:
        report = json.loads((folder / JSON_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}


def _pages(report: Summary, folder: Path) -> dict[Path, bytes]:
    return {folder / JSON_FILE: _to_json(report), folder / HTML_FILE: render_html(report).encode("utf-8", "replace")}


def _without_card(report: Summary) -> bytes:
    """Return what the id of a run is made of: the same results have the same id, on whatever day and in any folder."""
    return _to_json({**report, "card": None})


def _to_json(report: Summary) -> bytes:
    return (json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def _run_id(*contents: bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for content in contents:
        digest.update(hashlib.blake2b(content).digest())
    return digest.hexdigest()
