"""One BLAS thread per product while a fit runs, also when several fits overlap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_users = 0
_threads_before: list[int] = []


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS on one thread until the last of all such contexts ends.

    Most pools of threads belong to the process, and contexts of several threads end in any order: one that restores
    what it found would take another's limit for what was there before, and leave it for good.
    """
    global _users, _threads_before
    shared, own = _pools()
    with _lock:
        if _users == 0:
            _threads_before = _limit(shared)
        _users += 1
    own_before = _limit(own)
    try:
        yield
    finally:
        _set(own, own_before)
        with _lock:
            _users -= 1
            if _users == 0:
                _set(shared, _threads_before)


@cache
def _pools() -> tuple[list[Any], list[Any]]:
    """Return the BLAS libraries whose threads the process shares, and those that each thread limits for itself."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in libraries if getattr(library, "threading_layer", None) == "openmp"]
    return [library for library in libraries if library not in own], own


def _limit(libraries: list[Any]) -> list[int]:
    before = [int(library.num_threads) for library in libraries]
    _set(libraries, [1] * len(libraries))
    return before


def _set(libraries: list[Any], counts: list[int]) -> None:
    for library, count in zip(libraries, counts, strict=True):
        # threadpoolctl lets a single thread have a say in a shared pool for as long as it lives; the lock makes that
        # unnecessary here, and it would ignore whoever is not that thread.
        getattr(library, "_real_set_num_threads", library.set_num_threads)(count)
