"""`crossent --version`: the version from its one place, and with --verbose which kernels compute."""

from __future__ import annotations

import logging
import re

import pytest

pytest.importorskip("typer")
from typer.testing import CliRunner

import crossent
from crossent.about import say_once_when_compiling
from crossent.cli import app
from crossent.kernels import why_chosen


def test_the_version_is_printed() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"crossent {crossent.__version__}\n")


def test_with_verbose_the_kernels_are_named() -> None:
    result = CliRunner().invoke(app, ["--version", "--verbose"])
    assert f"\nkernels: {why_chosen()}\n" in result.stdout
    assert re.search(r"^numpy \d", result.stdout, re.MULTILINE)
    assert CliRunner().invoke(app, ["--verbose"]).exit_code == 2


def test_one_line_says_that_kernels_are_compiled() -> None:
    said: list[str] = []
    progress = logging.getLogger("crossent.compiling")
    level, handlers = progress.level, list(progress.handlers)
    try:
        say_once_when_compiling(said.append)
        for name in ("a", "b"):
            progress.info("compiling the kernel %s", name)
    finally:
        progress.setLevel(level)
        progress.handlers[:] = handlers
    assert len(said) == 1
