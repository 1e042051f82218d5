"""Which backend computes: found by dtype.

A backend is a module with the functions of `crossent.kernels.reference`, the first of them; `crossent.kernels.protocol`
says what they are. The reference computes what no other backend serves, so nothing here can make a result unavailable:
it can only make it slower, and then says so once. Numba is imported when its backend is first asked for, never before.
"""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["find", "why_chosen", "why_refused"]

logger = logging.getLogger("crossent")

_REFERENCE, _COMPILED = "crossent.kernels.reference", "crossent.kernels.cpu"
_COMPILER = "crossent.kernels.numba.compile"

_found: dict[Any, ModuleType] = {}
_refused: dict[str, str] = {}


def find(dtype: Any) -> ModuleType:
    """The module that computes for NumPy arrays of this dtype.

    Parameters
    ----------
    dtype : numpy.dtype or its name

    Returns
    -------
    module
        The fastest backend that works here, else `crossent.kernels.reference`.
    """
    try:
        return _found[dtype]
    except KeyError:
        module = _found[dtype] = _load(np.dtype(dtype).name)
        return module


def why_chosen() -> str:
    """Say in a few words which kernels compute here, and why.

    They are the package's own, which a wheel brings, or compiled on this machine, or plain NumPy.

    Examples
    --------
    >>> from crossent.kernels import why_chosen
    >>> why_chosen().split()[0] in ("plain", "compiled", "the")
    True
    """
    if find("float32").__name__ == _REFERENCE:
        return f"plain NumPy, since compiled kernels are refused: {_refused[_COMPILED]}"
    which: str = importlib.import_module(_COMPILER).WHICH
    return which


def why_refused() -> dict[str, str]:
    """Backends that were asked for and cannot be used here, each with the reason.

    Examples
    --------
    >>> from crossent.kernels import registry
    >>> all(isinstance(reason, str) for reason in registry.why_refused().values())
    True
    """
    return dict(_refused)


def _load(dtype: str) -> ModuleType:
    if dtype in ("float32", "float64") and _COMPILED not in _refused:
        switches = ("CROSSENT_DISABLE_NUMBA", "NUMBA_DISABLE_JIT")
        found = [f"{switch} is set" for switch in switches if os.environ.get(switch, "0") not in ("", "0")]
        try:
            if not found:
                return importlib.import_module(_COMPILED)
        except Exception as error:  # a broken numba must not take the library down with it
            found = [f"{type(error).__name__}: {error}"]
        _refused[_COMPILED] = found[0]
        logger.warning(
            "crossent computes with plain NumPy, correct but slower: %s is not used (%s)", _COMPILED, found[0]
        )
    return importlib.import_module(_REFERENCE)


def _forget() -> None:
    """Ask again at the next call (for tests that change the environment)."""
    _found.clear()
    _refused.clear()
