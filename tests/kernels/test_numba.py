"""The parts of Numba that crossent uses and that Numba does not promise to keep, and the version that was tried.

After a newer Numba has passed all tests, its version goes into `TRIED` and the bound of pyproject.toml above it.
"""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

numba = pytest.importorskip("numba")

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

TRIED = "0.68.1"
"""The newest version that all tests passed with."""

# Names that crossent relies on and that Numba's manual does not document, and what for.
PRIVATE = {
    "numba.core.caching.NullCache": "kept machine code stands in its place",
    "numba.core.caching.CompileResultCacheImpl": "chooses the folder of kept machine code",
    "numba.core.caching.CompileResultCacheImpl.locator": "the same",
    "numba.core.compiler.CompileResult._reduce": "machine code to bytes",
    "numba.core.compiler.CompileResult._rebuild": "and back",
    "numba.core.serialize.dumps": "pickles them",
    "numba.core.compiler.DefaultPassBuilder.define_nopython_pipeline": "the steps that helpers are compiled in",
    "numba.core.typed_passes.NativeLowering.run_pass": "the last of them, which leaves out machine code",
    "numba.core.typed_passes.NopythonRewrites": "a step that is left out",
    "numba.core.untyped_passes.InlineClosureLikes": "another",
    "numba.core.codegen.JITCodeLibrary._optimize_final_module": "left to the kernel that calls a helper",
    "numba.core.codegen.JITCodeLibrary._finalize_final_module": "the same",
    "numba.core.codegen.JITCodeLibrary._finalize_dynamic_globals": "what is left of it",
    "numba._dynfunc.make_function": "the key under which Numba finds a helper's code",
    "numba.core.codegen.JITCPUCodegen.magic_tuple": "the processor that machine code is for",
    "numba.core.codegen.CodeLibrary.has_dynamic_globals": "machine code that holds for one process only",
    "numba.core.codegen.CodeLibrary.codegen": "the code generator of a result",
    "numba.core.runtime.rtsys.initialize": "before machine code is loaded",
    "numba.core.compiler.Flags.values": "compared in less time",
    "numba.core.compiler.Compiler._compile_core": "the same",
    "numba.core.registry.cpu_target.target_context": "the processor that is compiled for",
    "numba.core.dispatcher.Dispatcher.get_call_template": "refused: a kernel cannot call another",
    "numba.core.event.register": "a line in the log when a kernel is compiled",
    "numba.core.event.Listener": "the same",
}


def find(name: str) -> object:
    """What stands under a dotted name: a module's, or a class's in a module."""
    parts = name.split(".")
    depth = next(depth for depth in range(len(parts), 0, -1) if is_module(".".join(parts[:depth])))
    value: object = import_module(".".join(parts[:depth]))
    for part in parts[depth:]:
        value = getattr(value, part)
    return value


def is_module(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("name", PRIVATE)
def test_the_private_parts_are_there(name: str) -> None:
    try:
        find(name)
    except AttributeError as error:
        have = f"Numba {numba.__version__} has no {name}"
        pytest.fail(f"{have} ({PRIVATE[name]}); crossent was tried with {TRIED}: {error}")


def test_the_cache_is_where_it_is_replaced() -> None:
    compiled = numba.njit(abs_of)
    assert type(compiled._cache) is find("numba.core.caching.NullCache")
    source = inspect.getsource(type(compiled).compile)
    assert "self._cache.load_overload(sig, self.targetctx)" in source
    assert "self._cache.save_overload(sig, cres)" in source


def abs_of(x: float) -> float:
    return abs(x)


def test_the_bound_is_the_next_version_after_the_tried_one() -> None:
    requirements = map(Requirement, tomllib.loads(PROJECT.read_text())["project"]["dependencies"])
    (bounds,) = [requirement.specifier for requirement in requirements if requirement.name == "numba"]
    tried, installed = Version(TRIED), Version(numba.__version__)
    assert {str(bound) for bound in bounds if bound.operator == "<"} == {f"<{tried.major}.{tried.minor + 1}"}
    assert installed in bounds, (
        f"Numba {installed} is outside {bounds} of pyproject.toml: crossent was tried with {TRIED}; run all tests with "
        "this one, then raise TRIED and the bound"
    )
