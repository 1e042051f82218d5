"""Where threads run: off the processor of the thread that calls them; where the system cannot tell, nothing happens.

Linux wakes a thread where it ran last and for milliseconds may not look for an idle processor: a helper that once ran
where its caller runs meets it there again at every call, and the call takes twice as long. So helpers are told to stay
away from the caller's processor before they are woken.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterable

__all__ = ["Place", "current_place", "keep_away"]

Place = tuple[int, set[int]]
"""The processor that a thread runs on, and those that it may run on."""


def _processor_number() -> Callable[[], int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        # PyDLL keeps the GIL: the call takes less time than giving it away.
        function: Callable[[], int] = ctypes.PyDLL(None).sched_getcpu
    except (OSError, AttributeError):
        return None
    return function


_sched_getcpu = _processor_number()


def current_place() -> Place | None:
    """Where the calling thread runs and may run; None where the system does not say."""
    if _sched_getcpu is None:
        return None
    processor = _sched_getcpu()
    try:
        return None if processor < 0 else (processor, os.sched_getaffinity(0))
    except OSError:  # a sandbox may forbid even to ask
        return None


def keep_away(thread_ids: Iterable[int], place: Place) -> None:
    """Let the threads run wherever the caller may run but on its own processor, unless there is no other."""
    processor, allowed = place
    free = allowed - {processor} or allowed
    for thread_id in thread_ids:
        with contextlib.suppress(OSError):  # a sandbox may forbid it: the threads then run where they are woken
            os.sched_setaffinity(thread_id, free)
