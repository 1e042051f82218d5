"""What was found while a model trained: each thing once, printed when it is found."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO

from ...text import plain
from ..runtime.records import SILENCE, Symptom

__all__ = ["Diary", "Entry", "Seen"]


@dataclass(frozen=True)
class Entry:
    """A finding with its place in the program, and the call or the epoch, from 1, that showed it."""

    place: str
    when: str
    symptom: Symptom

    def __str__(self) -> str:
        return f"{self.place}: {self.symptom} (seen at {self.when})"


@dataclass
class Seen:
    """How often a loss was called in one place of the program, and looked at."""

    name: str
    place: str
    calls: int = 0
    looks: int = 0
    is_broken: bool = False  # it returned NaN or infinity
    unit: str = "call"

    def __str__(self) -> str:
        return f"{self.looks} of {self.calls} {self.unit}{'s' * (self.calls != 1)} of {self.name} ({self.place})"


class Diary:
    """What `watch` found. It is true if it holds a finding; printing it says what was looked at as well.

    Attributes
    ----------
    entries : list of Entry
        In the order of finding.
    seen : list of Seen
        Every place that called a loss.
    problems : list of str
        Why something could not be looked at.
    """

    def __init__(self, file: TextIO | None = None, start: Any = None):
        self.entries: list[Entry] = []
        self.seen: list[Seen] = []
        self.problems: list[str] = []
        self._file = file
        self._start = start
        self._watching: Any = None

    def __enter__(self) -> Diary:
        if self._watching is not None:
            raise RuntimeError("this diary is in use: start one `with` block with each `watch`")
        if self._start is not None:
            self._watching = self._start(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching is not None:
            self._watching.close()
            self._watching = None
            self.finish()

    def finish(self) -> None:
        """Print what was looked at."""
        self._print(self.summary)

    def loss(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss that `watch` was given, watched; for a function that no module holds under a name."""
        if self._watching is None:
            raise RuntimeError("diary.loss works inside the `with` block of `watch`")
        return self._watching.call(*args, **kwargs)

    def note(self, seen: Seen, symptom: Symptom) -> None:
        """Take a finding; the same one in the same place is taken and printed once."""
        if any(entry.place == seen.place and entry.symptom.code == symptom.code for entry in self.entries):
            return
        self.entries.append(Entry(seen.place, f"{seen.unit} {max(1, seen.calls)}", symptom))
        self._print(str(self.entries[-1]))

    def add_problem(self, text: str) -> None:
        """Take the reason why something could not be looked at; the same one once."""
        if text not in self.problems:
            self.problems.append(text)

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def summary(self) -> str:
        """What was found, and what was looked at, in one paragraph."""
        number = len(self.entries)
        found = f"{number} finding{'s' * (number != 1)}" if number else "nothing found"
        if not self.seen:
            return f"{found}: no loss that the doctor knows was called."
        problems = f" Not looked at: {'; '.join(self.problems)}." if self.problems else ""
        return f"{found}; looked at {', '.join(map(str, self.seen))}.{problems} {SILENCE}"

    def __str__(self) -> str:
        return "\n".join([*map(str, self.entries), self.summary])

    __repr__ = __str__

    def _print(self, text: str) -> None:
        file = sys.stderr if self._file is None else self._file
        if file is not None:  # stderr may be closed
            print(f"crossent.doctor: {plain(text)}", file=file)
