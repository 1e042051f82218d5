"""Masked arrays are refused: what lies under a mask is no number, and NumPy's conversions bring it to light."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossent.errors import refuse

__all__ = ["refuse_masked"]


def refuse_masked(value: Any, name: str) -> None:
    """Refuse a masked array, and a list, tuple, dictionary or array of objects that holds one at any depth.

    Parameters
    ----------
    value : object
        What was passed. Anything else than these is not looked at.
    name : str
        The argument's name.

    Raises
    ------
    TypeError
        Also where nothing is masked: whether something is must not decide whether a program runs.

    Examples
    --------
    >>> refuse_masked([[1.0, 2.0], [3.0, 4.0]], "logits")
    >>> refuse_masked([np.ma.masked, 2.0], "sample_weight")
    Traceback (most recent call last):
        ...
    TypeError: sample_weight must be plain numbers; got a masked array; fill it, or leave its rows out
    """
    if _holds_mask(value):
        raise TypeError(refuse(f"{name} must be plain numbers", "a masked array", "fill it, or leave its rows out"))


def _holds_mask(value: Any) -> bool:
    if isinstance(value, np.ma.MaskedArray):
        return True
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, np.ndarray):
        if value.dtype != object:
            return False
        value = value.ravel().tolist()
    elif not isinstance(value, list | tuple):
        return False
    kinds = set(map(type, value))  # a million numbers have one type: much faster than to look at each number
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    return any(issubclass(kind, list | tuple | np.ndarray) for kind in kinds) and any(map(_holds_mask, value))
