"""The doctor: wrong pairings and wrong numbers, found in code that is not run and in the numbers of a batch.

`check` looks at arrays. `crossent lint` and `crossent rule` read code: only the standard library is used for that, and
Typer for the commands. Files are parsed by `ast`, whose positions are exact to the byte, so a fix is a text put in the
place of another, and nothing else in the file moves.
"""

from .runtime import Diagnosis, Symptom, check

__all__ = ["Diagnosis", "Symptom", "check"]
