"""The model card: what was run on what, and what became of each column. Mitchell et al., FAT* (2019), name the idea."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .._version import __version__
from ..tabular import Preprocessing, TrainedModel

__all__ = ["columns", "fit_card", "run_card"]

PACKAGES = ("numpy", "scipy", "scikit-learn", "polars")


def run_card(source: str, command: Sequence[str]) -> dict[str, Any]:
    """Return what any report can say of its making; `command` is the command line, empty where there was none.

    The date is that of the day in UTC, or of ``SOURCE_DATE_EPOCH`` (reproducible-builds.org). The digest is SHA-256 of
    the file as `sha256sum` prints it; None where the source is no file of this machine.
    """
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime(seconds)),
        "command": list(command),
        "sha256": _sha256(Path(source)),
        "versions": {"crossent": __version__, "python": platform.python_version(), **_versions()},
    }


def fit_card(result: TrainedModel, command: Sequence[str]) -> dict[str, Any]:
    """Return the card of a model just trained."""
    options = result.options
    own: dict[str, Any] = {"rounds": result.estimator.n_iter_}
    if result.model.trees is None:
        own = {"C": options.strength, "C_chosen": options.sweep, "link": options.link, "tolerance": options.tolerance}
    return {
        **run_card(result.source, command),
        **own,
        "seed": options.seed,
        "columns": columns(result.model.preprocessing, result.unused_columns),
    }


def columns(preprocessing: Preprocessing, unused: Sequence[str]) -> list[dict[str, str]]:
    """Return each column of the table beside what became of it."""
    became = {
        number.name: f"number: (x - {number.mean:.4g}) / {number.scale:.4g}, a missing one is {number.median:.4g}"
        for number in preprocessing.numbers
    }
    for column in preprocessing.categories:
        size = len(column.categories)
        more = ", the others share an input" if column.other else ""
        became[column.name] = f"{column.kind}: {size}{more}; a missing one is {column.fill!r}"
    became |= dict.fromkeys(unused, "not read")
    return [{"column": name, "became": text} for name, text in became.items()]


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
