"""The processors that a wheel's kernels are compiled for, and which of them this machine contains.

A level is a name that LLVM knows and the features that code for it may use.
"""

from __future__ import annotations

import platform
from collections.abc import Collection

__all__ = ["LEVELS", "best_level", "features_of"]

_V3 = ["avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sahf", "sse3", "sse4.1"]
_V3 += ["sse4.2", "ssse3", "xsave"]
_V4 = [*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"]
_OF_MACHINE: dict[str, dict[str, list[str]]] = {
    "x86_64": {"x86-64-v4": _V4, "x86-64-v3": _V3},
    "arm64": {"generic": []},
}
_OTHER_NAMES = {"amd64": "x86_64", "aarch64": "arm64"}

_machine = platform.machine().lower()

LEVELS = _OF_MACHINE.get(_OTHER_NAMES.get(_machine, _machine), {})
"""The levels of this kind of machine with their features, the best first."""


def best_level(features: Collection[str]) -> str | None:
    """Return the best level of which a processor with these features has all; None if there is none."""
    return next((level for level, needed in LEVELS.items() if set(needed) <= set(features)), None)


def features_of(level: str) -> str:
    """Return the features of a level as LLVM and ``NUMBA_CPU_FEATURES`` want them."""
    return ",".join(f"+{feature}" for feature in LEVELS[level])
