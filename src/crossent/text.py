"""Text that came from data, a file name or a message, made safe for a terminal. Everything printed passes here."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["plain", "plain_values", "shorten"]

_LONG_NUMBER, _LONG_QUOTE = re.compile(r"(\d{20})\d{20,}"), re.compile(r"('[^']{60})[^']{240,}'")


def plain(text: str) -> str:
    """Return text on one line and without what steers a terminal or turns its reading order round.

    White space of every kind becomes a space. Other characters that are not printable become U+FFFD: control
    characters (C0, C1, DEL), marks of direction and other invisible ones, halves of surrogate pairs.

    Examples
    --------
    >>> plain("red\\x1b[2J\\n\\u202egreen")
    'red�[2J �green'
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def plain_values(value: Any) -> Any:
    """Return a JSON value in which every text, of keys too, is `plain`.

    Examples
    --------
    >>> plain_values({"a\x07": ["b\x1b", 3, None]})
    {'a�': ['b�', 3, None]}
    """
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain_values(entry) for entry in value]
    if isinstance(value, dict):
        return {plain(key): plain_values(entry) for key, entry in value.items()}
    return value


def shorten(sentence: str) -> str:
    """Return a sentence in which numbers of 40 digits or more and quotes of 300 characters or more are cut.

    Examples
    --------
    >>> shorten("temperature must be at most 2; got " + "9" * 400)
    'temperature must be at most 2; got 99999999999999999999…'
    """
    return _LONG_QUOTE.sub(r"\1…'", _LONG_NUMBER.sub(r"\1…", sentence))
