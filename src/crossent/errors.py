"""How crossent says no: one sentence with what was asked, what came, and what would work."""

from __future__ import annotations

import math
from typing import Any

from .text import plain, shorten


def refuse(asked: str, got: object, works: str = "") -> str:
    """Return the text of an error: what was asked, what came and, where it helps, what would work.

    Examples
    --------
    >>> refuse("temperature must be a positive number", -1)
    'temperature must be a positive number; got -1'
    """
    text = f"{asked}; got {got}"
    return shorten(f"{text}; {works}" if works else text)


def check_number(
    name: str, value: Any, *, minimum: float = -math.inf, maximum: float = math.inf, above: float = -math.inf
) -> float:
    """Return a finite number in [minimum, maximum] and greater than `above` as a float.

    Raises
    ------
    ValueError
        If it is not.
    """
    is_number = isinstance(value, int | float) or (hasattr(value, "__float__") and getattr(value, "shape", None) == ())
    number = math.nan
    if is_number and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise ValueError(refuse(f"{name} must be a finite number", _written(value)))
    if number < minimum:
        raise ValueError(refuse(f"{name} must be at least {minimum:g}", _written(value)))
    if number > maximum:
        raise ValueError(refuse(f"{name} must be at most {maximum:g}", _written(value)))
    if number <= above:
        raise ValueError(refuse(f"{name} must be greater than {above:g}", _written(value)))
    return number


def _written(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a longer integer"


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of another library's error, printable and not too long, for the end of a sentence.

    Examples
    --------
    >>> first_line(ValueError("bad\\x07 cell.\\nhint: look again"))
    'bad� cell'
    """
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".") or type(error).__name__
    shown = plain(text)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def describe(array: object) -> str:
    """Return shape and dtype of an array in words, or the type and value of anything else.

    Examples
    --------
    >>> describe(3)
    'int 3'
    """
    shape = getattr(array, "shape", None)
    dtype = getattr(array, "dtype", None)
    if shape is None or dtype is None:
        return f"{type(array).__name__} {array!r}"
    return f"an array of shape {tuple(shape)} and dtype {dtype}"
