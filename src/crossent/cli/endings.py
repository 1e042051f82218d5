"""How a command ends: what a person can mend becomes one sentence on stderr and a status."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer

from ..text import plain, shorten

__all__ = ["clean_endings", "print_warnings", "say"]


@contextmanager
def clean_endings() -> Iterator[None]:
    """Turn what a person can mend into one sentence and status 2, Ctrl-C into status 130, and warnings into lines."""
    try:
        from ..tabular import InputError
        from ..tabular.native_output import python_alone_on_stderr

        with python_alone_on_stderr():
            try:
                with warnings.catch_warnings():
                    warnings.showwarning = _print_warning  # type: ignore[assignment]
                    yield
            except InputError as error:
                say(str(error))
                raise typer.Exit(2) from error
    except ModuleNotFoundError as error:
        say(f"the package {error.name} is missing: pip install 'crossent[cli]'")
        raise typer.Exit(2) from error
    except OSError as error:
        place = "" if error.filename is None else f" ({str(error.filename)[:200]!r})"
        say(f"{error.strerror or error}{place}")
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        say("interrupted")
        raise typer.Exit(130) from error


def say(text: str) -> None:
    if sys.stderr is not None:  # it may be closed
        sys.stderr.write(f"crossent: {plain(shorten(text))}\n")


def _print_warning(message: Warning | str, *_: object) -> None:
    say(f"warning: {message}")


def print_warnings(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        _print_warning(sentence)
