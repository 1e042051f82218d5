"""How the Numba kernels are compiled: one place for the options, the disk cache and the notice.

Nothing here sets ``fastmath``: Numba hands a caller's flags to every function it inlines, and reassociation deletes the
two-sums that the accuracy of the kernels rests on. Where a loop needs it, one single operation carries the flag
(`exp.maximum`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import event

__all__ = ["helper", "kernel"]

logger = logging.getLogger("crossent")
_kernels: dict[int, str] = {}


def _source_digest() -> tuple[tuple[str, float, int], ...]:
    """Time and size of every source file of the kernels.

    Numba looks only at the file that holds the cached function, so an edit of a helper in another file would leave
    stale machine code behind.
    """
    stamps = []
    for path in sorted(Path(__file__).parent.glob("*.py")):
        status = os.stat(path)
        stamps.append((path.name, status.st_mtime, status.st_size))
    return tuple(stamps)


_DIGEST = _source_digest()


class _CompileNotice(event.Listener):
    """Logs one line the first time that a kernel is compiled (and not merely loaded from the cache)."""

    def on_start(self, event: Any) -> None:
        data = event.data
        name = _kernels.get(id(data["dispatcher"])) if isinstance(data, dict) else None
        if name is not None:
            logger.info("compiling the kernel %s for this machine (a few seconds, kept for later runs)", name)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompileNotice())


def helper(function: Callable[..., Any]) -> Any:
    """Compile a function that is only called by other compiled functions."""
    return numba.njit(error_model="numpy", nogil=True)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a small scalar function that must be inlined, so that the loop around it becomes vector code."""
    return numba.njit(error_model="numpy", nogil=True, forceinline=True)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry point: it releases the GIL and is cached on disk where the disk allows it."""
    try:
        compiled = numba.njit(error_model="numpy", nogil=True, cache=True)(function)
        # The stamp lives in a private attribute: without it the cache still works, only less carefully.
        cache_file = getattr(compiled._cache, "_cache_file", None)
        if hasattr(cache_file, "_source_stamp"):
            cache_file._source_stamp = (cache_file._source_stamp, _DIGEST)
    except RuntimeError as error:
        logger.info("compiled kernels are not kept on disk: %s", error)
        compiled = numba.njit(error_model="numpy", nogil=True)(function)
    _kernels[id(compiled)] = function.__name__
    return compiled
