"""The files of a report, and the run id by which files of one run are known.

A run writes ``report.json``, ``report.html`` and, where it trained a model, the model. All of them carry the same run
id: "run" of the JSON object, ``<meta name="crossent-run">`` and the last line of the page, "run" of what the model says
of its training. It is a digest of all that the run wrote, so equal runs have equal ids. The model is put in its place
last: whoever finds a new model finds its report. If the run is killed between two files, their ids differ, and
`crossent predict` says so.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..tabular import Model
from .html import render_html

MODEL_FILE, JSON_FILE, HTML_FILE = "model.safetensors", "report.json", "report.html"

Summary = dict[str, Any]


def report_files(report: Summary, folder: Path) -> dict[Path, bytes]:
    """Return the files of a report, in the order in which they are to be replaced."""
    return _pages({**report, "run": _run_id(_without_card(report))}, folder)


def fit_files(report: Summary, model: Model, folder: Path) -> dict[Path, bytes]:
    """Return the files of a report on a model and of the model, in the order in which they are to be replaced."""
    run = _run_id(_without_card(report), model.to_bytes())
    marked = replace(model, training={**model.training, "run": run})
    return {**_pages({**report, "run": run}, folder), folder / MODEL_FILE: marked.to_bytes()}


def other_run(model: Model, path: str) -> str | None:
    """Return a warning if the report beside a model file is on another model, as a run that was killed leaves them."""
    beside = Path(path).parent / JSON_FILE
    if not beside.is_file():
        return None
    try:
        report = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # no report: nothing that could be taken for one of this model
    run = report.get("run") if isinstance(report, dict) and report.get("kind") == "fit" else None
    if run is None or run == model.training.get("run"):
        return None
    return f"{str(beside)!r} is the report of another run than the one that trained {path!r}"


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
