"""Which keywords a function or module takes, for those that pass them on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from crossent.errors import refuse

from .tensors import describe

__all__ = ["keywords_of", "refuse_unknown"]

_DATA = ("input", "target", "teacher", "linear_weight", "linear_bias")


def keywords_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a loss's options: its parameters without the data."""
    return tuple(name for name in inspect.signature(function).parameters if name not in _DATA)


def refuse_unknown(caller: str, given: dict[str, Any], known: Iterable[str]) -> None:
    """Refuse keywords that nobody takes, by name.

    Raises
    ------
    TypeError
    """
    for name, value in given.items():
        if name not in known:
            works = f"it takes {', '.join(known)}"
            raise TypeError(refuse(f"{caller}() takes no keyword {name!r}", describe(value), works))
