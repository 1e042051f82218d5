"""Which backend computes: found by array library, device and dtype.

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

__all__ = ["find", "why_refused"]

logger = logging.getLogger("crossent")

Key = tuple[str, str, str]
"""Array library, device, dtype."""

_TWINS: dict[Key, str] = {
    ("numpy", "cpu", "float32"): "crossent.kernels.cpu",
    ("numpy", "cpu", "float64"): "crossent.kernels.cpu",
}
_REFERENCE = "crossent.kernels.reference"

_found: dict[Any, ModuleType] = {}
_refused: dict[str, str] = {}


def find(dtype: Any, library: str = "numpy", device: str = "cpu") -> ModuleType:
    """The module that computes for arrays of this kind.

    Parameters
    ----------
    dtype : numpy.dtype or its name
    library, device : str
        Name of the array library and kind of device.

    Returns
    -------
    module
        The fastest backend that works here, else `crossent.kernels.reference`.
    """
    try:
        return _found[dtype, library, device]
    except KeyError:
        module = _load((library, device, np.dtype(dtype).name))
        _found[dtype, library, device] = module
        return module


def why_refused() -> dict[str, str]:
    """Backends that were asked for and cannot be used here, each with the reason.

    Examples
    --------
    >>> from crossent.kernels import registry
    >>> all(isinstance(reason, str) for reason in registry.why_refused().values())
    True
    """
    return dict(_refused)


def _load(key: Key) -> ModuleType:
    name = _TWINS.get(key)
    if name is not None and name not in _refused:
        switches = ("CROSSENT_DISABLE_NUMBA", "NUMBA_DISABLE_JIT")
        if found := [switch for switch in switches if os.environ.get(switch, "0") not in ("", "0")]:
            _refuse(name, f"{found[0]} is set")
        else:
            try:
                return importlib.import_module(name)
            except Exception as error:  # a broken numba must not take the library down with it
                _refuse(name, f"{type(error).__name__}: {error}")
    return importlib.import_module(_REFERENCE)


def _refuse(name: str, reason: str) -> None:
    _refused[name] = reason
    logger.warning("crossent computes with plain NumPy, correct but slower: %s is not used (%s)", name, reason)


def _forget() -> None:
    """Ask again at the next call (for tests that change the environment)."""
    _found.clear()
    _refused.clear()
