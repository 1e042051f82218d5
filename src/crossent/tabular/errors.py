"""What a person can mend: bad data, a bad file, a column that is not there."""

from __future__ import annotations


class InputError(ValueError):
    """One clear sentence about the input; the command line prints it and exits with status 2."""


def name_list(names: list[str], most: int = 8) -> str:
    """Return names for a sentence, the first few of many.

    Examples
    --------
    >>> name_list(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
