"""How the Numba kernels are compiled: one place for the options, the disk cache and the notice.

Nothing here sets ``fastmath``: Numba hands a caller's flags to every function it inlines, and reassociation deletes the
two-sums that the accuracy of the kernels rests on. Where a loop needs it, one single operation carries the flag
(`exp.maximum`).
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite.binding import get_host_cpu_features, get_process_triple, parse_assembly
from numba import extending, types
from numba._dynfunc import make_function
from numba.core import event
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, CompileResult, DefaultPassBuilder, Flags
from numba.core.compiler_machinery import register_pass
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.core.typed_passes import NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes

from .levels import best_level, features_of
from .store import Store

__all__ = [
    "COMPILED",
    "INLINED",
    "MACHINE_CODE",
    "OWNING",
    "VERSIONS",
    "WHICH",
    "KeptCode",
    "helper",
    "inlined",
    "kernel",
    "named",
    "owning_helper",
    "part_of_kernels",
    "wide_vectors",
]

logger = logging.getLogger("crossent")
_progress = logging.getLogger("crossent.compiling")
_kernels: dict[int, str] = {}
VERSIONS = (
    f"Numba {numba.__version__}, llvmlite {llvmlite.__version__}, NumPy {'.'.join(np.__version__.split('.')[:2])}, "
    f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
)
"""What compiled code depends on besides the sources, the types of the arguments and the processor."""


class _CompileNotice(event.Listener):
    """Logs one line the first time that a kernel is compiled (and not merely loaded from the cache)."""

    def on_start(self, event: Any) -> None:
        data = event.data
        name = _kernels.get(id(data["dispatcher"])) if isinstance(data, dict) else None
        if name is not None:
            _progress.info("compiling the kernel %s for this machine (a few seconds)", name)

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


_DEFAULT_FLAGS = {name: option.default for name, option in Flags.options.items()}
_HASH_OF_FLAGS = hash(Flags())  # Numba's hash is one for all flags


class _Flags(Flags):
    """Numba's flags, which it compares ten thousand times during a first call, for a tenth of the time."""

    def values(self) -> dict[str, Any]:
        return _DEFAULT_FLAGS | self._values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Flags) and self.values() == other.values()

    def __hash__(self) -> int:
        return _HASH_OF_FLAGS


class _Compiler(Compiler):
    def _compile_core(self) -> Any:
        self.state.flags = _Flags(self.state.flags)
        was_enabled = gc.isenabled()
        gc.disable()  # collections find little, and take a fifteenth of a first call
        try:
            return super()._compile_core()
        finally:
            if was_enabled:
                gc.enable()


class _HelperCompiler(_Compiler):
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


def part_of_kernels(kernel: Any) -> Any:
    """Return what a kernel does as a helper: a kernel cannot call another."""
    function = kernel.py_func
    copy = FunctionType(function.__code__, function.__globals__, function.__name__)
    copy.__module__ = function.__module__
    return owning_helper(named(copy, function.__name__ + "_part"))


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
    """What Numba asks about one kernel's compiled code, answered by stores: found in any, saved in the last.

    Numba's own cache goes by numbered files, whose index two processes overwrite for each other, and by the time of
    the one source file that holds the kernel; and it unpickles whatever it finds.
    """

    def __init__(self, function: Callable[..., Any], *stores: Store) -> None:
        self._label = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._stores = stores

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        for store in self._stores:
            payload = store.load(store.name(self._label, repr(sig)))
            if payload is not None:
                # Not `target_context.refresh()`: what it imports only serves to compile, and takes 0.35 s.
                rtsys.initialize(target_context)
                return CompileResult._rebuild(target_context, *pickle.loads(payload))
        if os.environ.get("CROSSENT_DISABLE_COMPILE", "0") not in ("", "0"):
            raise RuntimeError(f"CROSSENT_DISABLE_COMPILE is set, and {self._label} was never compiled for {sig}")
        return None

    def save_overload(self, sig: Any, cres: Any) -> None:
        if self._stores and not cres.library.has_dynamic_globals:  # an address means nothing to another process
            store = self._stores[-1]
            (name, kind, (machine_code, _)), *others = cres._reduce()
            # LLVM code, two thirds of the bytes, would only serve kernels that call this one, and none may. Numba reads
            # off it which functions the machine code has, of which it looks for one.
            names = parse_assembly(f'define void @"{cres.fndesc.llvm_cpython_wrapper_name}"() {{ unreachable }}')
            library = name, kind, (machine_code, names.as_bitcode())
            store.save(store.name(self._label, repr(sig)), dumps((library, *others)))


_SOURCES = Path(__file__).parents[1]
MACHINE_CODE = _SOURCES / "machine_code"
"""A wheel's kernels: one folder for each level, and a file that names `VERSIONS`."""


def _own_store() -> tuple[Store | None, str]:
    """Return the store in the package for the best level that this machine has; else None and why there is none."""
    if not MACHINE_CODE.is_dir():
        return None, "this installation brings none"
    if "NUMBA_CPU_NAME" in os.environ or "NUMBA_CPU_FEATURES" in os.environ:
        return None, "NUMBA_CPU_NAME or NUMBA_CPU_FEATURES asks for others"
    level = best_level({name for name, is_there in get_host_cpu_features().items() if is_there})
    if level is None:
        return None, "the package's are for other processors"
    built_with = (MACHINE_CODE / "versions.txt").read_text(errors="replace").strip()
    if built_with != VERSIONS:
        return None, f"the package's were compiled with {built_with}, and here is {VERSIONS}"
    store = Store(MACHINE_CODE / level, _SOURCES, _made_for(level, features_of(level)), is_package=True)
    if not store.has_any():
        return None, "the package's were made from other sources"
    return store, f"the package's own, for {level}"


def _made_for(cpu: str, features: str) -> str:
    return repr((get_process_triple(), cpu, features, VERSIONS))


def _users_store() -> Store:
    """Return the store in the folder that Numba's rules choose, the same for all kernels."""
    folder = CompileResultCacheImpl(_users_store).locator.get_cache_path()
    codegen = cpu_target.target_context.codegen()
    return Store(Path(folder) / "machine-code", _SOURCES, _made_for(*codegen.magic_tuple()[1:]))


def _open_stores() -> tuple[list[Store], str]:
    """Return the stores that there are, and in words whose kernels serve."""
    stores = []
    try:
        own, why = _own_store()
        stores += [own] if own is not None else []
    except (OSError, RuntimeError) as error:
        why = f"the package's cannot be read: {error}"
    which = f"{why}; others are compiled" if stores else f"compiled on this machine, since {why}"
    try:
        stores.append(_users_store())
        return stores, f"{which}; kept in {stores[-1].folder}"
    except (OSError, RuntimeError) as error:  # no place to write to, or no sources to go by
        logger.info("compiled kernels are not kept on disk: %s", error)
        return stores, f"{which}; not kept on disk: {error}"


# At once, not when a kernel is first compiled: the sources must be those that are being imported.
_stores, WHICH = _open_stores()
"""`WHICH` says in words whose kernels serve."""


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry point: it releases the GIL and is kept on disk, by its name, where the disk allows it."""
    options: dict[str, Any] = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
    compiled: Any = numba.njit(**options, pipeline_class=_Compiler)(function)
    compiled._cache = KeptCode(function, *_stores)
    compiled.get_call_template = _refuse_call
    _kernels[id(compiled)] = function.__name__
    return compiled


def _refuse_call(*types: Any) -> None:
    raise TypeError("a kernel cannot call another, whose LLVM code is not kept: call its `part_of_kernels`")
