"""The doctor: wrong pairings and wrong numbers, found in code that is not run, in a batch, and while a model trains.

`check` looks at arrays, and `watch` at the losses of a training loop. `crossent lint` and `crossent rule` read code:
only the standard library is used for that, and Typer for the commands. Files are parsed by `ast`, whose positions are
exact to the byte, so a fix is a text put in the place of another, and nothing else in the file moves.
"""

from typing import Any

from .runtime import Diagnosis, Symptom, check
from .training import Diary, watch

__all__ = ["Diagnosis", "Diary", "KerasCallback", "Symptom", "check", "watch"]


def __getattr__(name: str) -> Any:
    if name == "KerasCallback":  # which needs Keras
        from .keras import KerasCallback

        return KerasCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
