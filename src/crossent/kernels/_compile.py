"""How the Numba kernels are compiled: one place for the options, the disk cache and the notice.

Nothing here sets ``fastmath``: Numba hands a caller's flags to every function it inlines, and reassociation deletes the
two-sums that the accuracy of the kernels rests on. Where a loop needs it, one single operation carries the flag
(`exp.maximum`).
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import extending, types
from numba.core import event
from numba.core.caching import IndexDataCacheFile

__all__ = ["helper", "inlined", "kernel", "recursive_helper", "wide_vectors"]

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
            logger.info("compiling the kernel %s for this machine (a few seconds)", name)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _CompileNotice())

# Without the wrappers by which Python and C would call them, which a sixth of the first call's time went into.
_CALLED_BY_COMPILED: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def helper(function: Callable[..., Any]) -> Any:
    """Compile a function that is only called by other compiled functions."""
    return extending.register_jitable(**_CALLED_BY_COMPILED)(function)


def recursive_helper(function: Callable[..., Any]) -> Any:
    """Compile a helper that calls itself, as no overload of Numba's can."""
    return numba.njit(error_model="numpy", nogil=True)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a small scalar function that must be inlined, so that the loop around it becomes vector code."""
    return extending.register_jitable(**_CALLED_BY_COMPILED, forceinline=True)(function)


# Numba's own annotations do not know that an intrinsic is called without its typing context.
intrinsic: Any = extending.intrinsic


@intrinsic
def wide_vectors(typingctx: Any) -> Any:
    """Let LLVM use the widest vectors in the function that calls this.

    It prefers half of an AVX-512 register on many processors, for the sake of code that mixes both; our long loops are
    a fifth faster with the whole.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Through `set`: llvmlite's own `add` knows no attributes that are strings.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


class _CacheFile(IndexDataCacheFile):
    """Numba's index of compiled functions, with data files named after what they hold.

    Numba numbers the files. Two processes that compile at the same time for different dtypes then both choose number 1,
    and the index of one comes to point at the machine code of the other, which runs and returns nonsense.
    """

    def save(self, key: Any, data: Any) -> None:
        identity = repr((key, self._source_stamp, self._version))
        name = f"{self._base}.{hashlib.sha256(identity.encode()).hexdigest()[:24]}.nbc"
        try:
            overloads = self._load_index()
            if not overloads:
                self._remove_outdated()
            self._save_data(name, data)
            overloads[key] = name
            self._save_index(overloads)
        except OSError as error:
            logger.info("a compiled kernel could not be kept on disk: %s", error)

    # A truncated file must cost no more than the time to compile again.
    def load(self, key: Any) -> Any:
        try:
            return super().load(key)
        except Exception as error:
            logger.info("a kept kernel could not be read: %s", error)
            return None

    def _load_index(self) -> dict[Any, str]:
        try:
            return dict(super()._load_index())
        except Exception as error:
            logger.info("the index of the kept kernels could not be read: %s", error)
            return {}

    @property
    def _base(self) -> str:
        return str(self._index_name).removesuffix(".nbi")

    def _remove_outdated(self) -> None:
        for path in Path(self._cache_path).glob(f"{glob.escape(self._base)}.*.nbc"):
            with contextlib.suppress(OSError):
                path.unlink()


def _cached(function: Callable[..., Any]) -> Any:
    compiled: Any = numba.njit(error_model="numpy", nogil=True, cache=True)(function)
    cache = compiled._cache
    cache._cache_file = _CacheFile(
        cache_path=cache._cache_path,
        filename_base=cache._impl.filename_base,
        source_stamp=(cache._impl.locator.get_source_stamp(), _DIGEST),
    )
    return compiled


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry point: it releases the GIL and is cached on disk where the disk allows it."""
    try:
        compiled = _cached(function)
    except (RuntimeError, AttributeError, TypeError) as error:  # no place to write to, or another Numba's internals
        if not _kernels:
            logger.info("compiled kernels are not kept on disk: %s", error)
        compiled = numba.njit(error_model="numpy", nogil=True)(function)
    _kernels[id(compiled)] = function.__name__
    return compiled
