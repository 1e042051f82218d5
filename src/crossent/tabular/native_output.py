"""Standard error for Python alone."""

from __future__ import annotations

import faulthandler
import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def python_alone_on_stderr() -> Generator[None]:
    """Let file descriptor 2 lead nowhere, while `sys.stderr` still leads to where it led.

    polars prints the backtrace of every panic of its Rust code there, even of a panic that becomes an exception and
    then one sentence. All of it is shown where Python's fault handler is on (``PYTHONFAULTHANDLER=1``), as it is for a
    person who looks into a crash.
    """
    try:
        copy = None if faulthandler.is_enabled() else os.dup(2)
    except OSError:  # it is closed
        copy = None
    if copy is None:
        yield
        return
    shown = sys.stderr
    with os.fdopen(
        copy, "w", encoding=getattr(shown, "encoding", None), errors="backslashreplace", buffering=1
    ) as kept:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        if _leads_to(shown, 2):
            sys.stderr = kept
        try:
            yield
        finally:
            sys.stderr = shown
            kept.flush()
            os.dup2(kept.fileno(), 2)


def _leads_to(stream: object, descriptor: int) -> bool:
    try:
        return isinstance(stream, io.TextIOBase) and stream.fileno() == descriptor
    except OSError:  # a stream in memory
        return False
