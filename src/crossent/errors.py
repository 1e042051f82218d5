"""How crossent says no: one sentence with what was asked, what came, and what would work."""

from __future__ import annotations

from .text import plain


def refuse(asked: str, got: object, works: str = "") -> str:
    """Return the text of an error: what was asked, what came and, where it helps, what would work.

    Examples
    --------
    >>> refuse("temperature must be a positive number", -1)
    'temperature must be a positive number; got -1'
    """
    text = f"{asked}; got {got}"
    return f"{text}; {works}" if works else text


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
