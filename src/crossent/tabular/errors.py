"""What a person can mend: bad data, a bad file, a column that is not there."""

from __future__ import annotations

from ..text import shorten

LONGEST_NAME = 60
"""In characters: a longer name is cut in sentences; in damaged files a name can be megabytes."""


class InputError(ValueError):
    """One clear sentence about the input; the command line prints it and exits with status 2."""

    def __init__(self, sentence: str) -> None:
        super().__init__(shorten(sentence))


def name_list(names: list[str], most: int = 8) -> str:
    """Return names for a sentence, the first few of many, and the beginning of a long one.

    Examples
    --------
    >>> name_list(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…") for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
