"""How the Numba kernels are compiled: one place for the options, the disk cache and the notice.

Nothing here sets ``fastmath``: Numba hands a caller's flags to every function it inlines, and reassociation deletes the
two-sums that the accuracy of the kernels rests on. Where a loop needs it, one single operation carries the flag
(`exp.maximum`).
"""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import extending, types
from numba._dynfunc import make_function
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, CompileResult, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.serialize import dumps
from numba.core.typed_passes import NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes

from .store import Store

__all__ = [
    "COMPILED",
    "INLINED",
    "OWNING",
    "KeptCode",
    "helper",
    "inlined",
    "kernel",
    "named",
    "owning_helper",
    "recursive_helper",
    "wide_vectors",
]

logger = logging.getLogger("crossent")
_kernels: dict[int, str] = {}
# What compiled code depends on besides the sources, the types of the arguments and the processor.
_VERSIONS = (
    numba.__version__,
    llvmlite.__version__,
    np.__version__,
    sys.implementation.cache_tag,
    getattr(sys, "abiflags", ""),
)


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


class _HelperCode(JITCodeLibrary):
    """LLVM code of a helper, which each kernel that calls it optimises and turns into machine code with its own."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerHelper(NativeLowering):
    _name = "lower_helper"

    def run_pass(self, state: Any) -> bool:
        state.library = _HelperCode(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags = state.flags.copy()
        state.flags.no_compile = True
        super().run_pass(state)
        key = make_function(state.func_id.module, state.func_id.func_name, "", 0, state.cr.env, (state.library,))
        state.targetctx.insert_user_function(key, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=key)
        return True


class _HelperCompiler(CompilerBase):
    """What compiles a helper: to LLVM code alone, and without steps that find nothing in it.

    Machine code of each helper, which nobody calls, was a fifth of the first call's time.
    """

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        kept = [step for step in pipeline.passes if step[0] not in (NopythonRewrites, InlineClosureLikes)]
        pipeline.passes = [(_LowerHelper if kind is NativeLowering else kind, why) for kind, why in kept]
        pipeline.finalize()
        return [pipeline]


COMPILED: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False, "pipeline_class": _HelperCompiler}
"""Options of functions that neither allocate nor return arrays. Counting references would cost two atomic operations a
call for each array argument, a third of the time of a row of 200 classes."""

INLINED: dict[str, Any] = {**COMPILED, "forceinline": True}

OWNING: dict[str, Any] = {**INLINED, "_nrt": True}
"""Options of functions that allocate or return arrays. Only kernels may call them: they count references, too."""

# Without the wrappers by which Python and C would call them, which a sixth of the first call's time went into.
_NO_WRAPPERS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def helper(function: Callable[..., Any]) -> Any:
    """Compile a function that is only called by other compiled functions, and neither allocates nor returns arrays."""
    return extending.register_jitable(**COMPILED, **_NO_WRAPPERS)(function)


def owning_helper(function: Callable[..., Any]) -> Any:
    """Compile a function that is only called by kernels, and may allocate or return arrays."""
    return extending.register_jitable(**OWNING, **_NO_WRAPPERS)(function)


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Name a function that a factory makes.

    Machine code is found by names, also across kernels that different processes compiled and kept on disk: two
    functions of one name could be taken for each other.
    """
    function.__name__ = function.__qualname__ = name
    return function


def recursive_helper(function: Callable[..., Any]) -> Any:
    """Compile a helper that calls itself, as no overload of Numba's can."""
    return numba.njit(error_model="numpy", nogil=True)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a small scalar function that must be inlined, so that the loop around it becomes vector code."""
    return extending.register_jitable(**INLINED, **_NO_WRAPPERS)(function)


# Numba's own annotations do not know that an intrinsic is called without its typing context.
intrinsic: Any = extending.intrinsic


@intrinsic
def wide_vectors(typingctx: Any) -> Any:
    """Let LLVM use the widest vectors in the function that calls this.

    It prefers half of an AVX-512 register on many processors, for the sake of code that mixes both; our long loops are
    a fifth faster with the whole. A kernel calls this too: a helper that is inlined takes the kernel's width.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Through `set`: llvmlite's own `add` knows no attributes that are strings.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


class KeptCode(NullCache):
    """What Numba asks about one kernel's compiled code, answered by a store.

    Numba's own cache goes by numbered files, whose index two processes overwrite for each other, and by the time of
    the one source file that holds the kernel; and it unpickles whatever it finds.
    """

    def __init__(self, function: Callable[..., Any], store: Store) -> None:
        self._label = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._store = store

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        payload = self._store.load(self._name(sig, target_context.codegen()))
        return None if payload is None else CompileResult._rebuild(target_context, *pickle.loads(payload))

    def save_overload(self, sig: Any, cres: Any) -> None:
        if not cres.library.has_dynamic_globals:  # an address would mean nothing to another process
            self._store.save(self._name(sig, cres.library.codegen), dumps(cres._reduce()))

    def _name(self, sig: Any, codegen: Any) -> str:
        return self._store.name(self._label, repr((sig, codegen.magic_tuple(), _VERSIONS)))


def _open_store() -> Store | None:
    """Return the store in the folder that Numba's rules choose, the same for all kernels; None if there is none."""
    try:
        folder = CompileResultCacheImpl(_open_store).locator.get_cache_path()
        return Store(Path(folder) / "machine-code", Path(__file__).parents[1])
    except (OSError, RuntimeError) as error:  # no place to write to, or no sources to go by
        logger.info("compiled kernels are not kept on disk: %s", error)
        return None


# At once, not when a kernel is first compiled: the sources must be those that are being imported.
_store = _open_store()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry point: it releases the GIL and is kept on disk, by its name, where the disk allows it."""
    compiled: Any = numba.njit(error_model="numpy", nogil=True)(function)
    if _store is not None:
        compiled._cache = KeptCode(function, _store)
    _kernels[id(compiled)] = function.__name__
    return compiled
