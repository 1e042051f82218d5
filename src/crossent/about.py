"""What the command line says of this installation: its version, which kernels compute, and when they are compiled."""

import logging
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from typing import Annotated

import typer

from ._version import __version__

__all__ = ["add_version_to", "say_once_when_compiling"]


def add_version_to(app: typer.Typer) -> None:
    """Give a command line the options ``--version`` and ``--version --verbose``."""

    @app.callback(invoke_without_command=True)
    def about(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
        verbose: Annotated[
            bool, typer.Option("--verbose", help="With --version: also which kernels compute here.")
        ] = False,
    ) -> None:
        if version:
            lines = [f"crossent {__version__}", *(_surroundings() if verbose else [])]
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            raise typer.Exit
        if context.invoked_subcommand is None:
            raise typer.BadParameter("--verbose goes with --version", context)


def _surroundings() -> Iterator[str]:
    """Yield lines that a report of a problem should have."""
    from .kernels import why_chosen
    from .kernels.threads import get_num_threads

    yield f"Python {platform.python_version()} on {platform.platform()}"
    for name in ("numpy", "numba", "llvmlite", "torch", "jax", "scikit-learn"):
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"
    yield f"kernels: {why_chosen()}"
    yield f"threads: {get_num_threads()}"


class _Once(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say: Callable[[str], None] | None = say

    def emit(self, record: logging.LogRecord) -> None:
        say, self._say = self._say, None
        if say is not None:
            say("compiling kernels for this machine: once, for some seconds")


def say_once_when_compiling(say: Callable[[str], None]) -> None:
    """Say one line when the first kernel is compiled, and none where all are found."""
    progress = logging.getLogger("crossent.compiling")
    progress.setLevel(logging.INFO)
    progress.addHandler(_Once(say))
