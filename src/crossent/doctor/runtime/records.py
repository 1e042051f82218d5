"""What `check` returns: symptoms, and what was looked at."""

from __future__ import annotations

import html
import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

from ..explained import SEVERITIES

__all__ = ["SILENCE", "Diagnosis", "Symptom"]

SILENCE = "Silence is not approval: only what is listed here was looked at, in these rows."


@dataclass(frozen=True)
class Symptom:
    """One thing that the numbers of a batch show.

    Attributes
    ----------
    code : str
        As ``XE802``; ``crossent rule XE802`` explains it.
    severity : {"error", "warning", "advice"}
        A wrong number or a call that fails; most probably not what was meant; right, and can be better.
    message : str
        What was seen, in one sentence.
    numbers : dict of str to int or float
        The numbers of that sentence. Losses are in nats, rows and classes count from 0.
    advice : str
        What to do.

    Examples
    --------
    >>> print(Symptom("XE821", "advice", "the loss is 2.5", {"loss": 2.5}, "Look."))
    XE821 advice: the loss is 2.5. Look.
    """

    code: str
    severity: str
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.severity}: {self.message}. {self.advice}".rstrip()


@dataclass(frozen=True, repr=False)
class Diagnosis(Sequence[Symptom]):
    """The symptoms of a batch, worst first, and what was looked at. It is true if there is a symptom.

    Attributes
    ----------
    symptoms : tuple of Symptom
    shape, dtype : tuple of int, str
        Of the logits as they came.
    num_rows : int
        How many rows were looked at; the rows of a large batch are drawn, always the same ones.
    link : {"softmax", "sigmoid"}
    link_from : str
        Why this link.
    loss : str
        The loss that was looked at.
    ran : tuple of str
        Codes of the checks that ran.
    left_out : dict of str to str
        Codes of the others, and why they could not run.

    Examples
    --------
    >>> from crossent.doctor import check
    >>> found = check([[0.1, 0.9], [0.8, 0.2]], [1, 0])
    >>> bool(found), [symptom.code for symptom in found], found.link
    (True, ['XE802'], 'softmax')
    """

    symptoms: tuple[Symptom, ...]
    shape: tuple[int, ...]
    dtype: str
    num_rows: int
    link: str
    link_from: str
    loss: str
    ran: tuple[str, ...]
    left_out: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.symptoms)

    @overload
    def __getitem__(self, index: int) -> Symptom: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Symptom, ...]: ...
    def __getitem__(self, index: int | slice) -> Symptom | tuple[Symptom, ...]:
        return self.symptoms[index]

    @property
    def looked_at(self) -> str:
        """What was looked at, in one sentence."""
        rows = f"{self.num_rows} row{'s' * (self.num_rows != 1)}"
        return f"{rows} of {self.dtype} logits of shape {self.shape}, {self.link} link ({self.link_from}), {self.loss}"

    @property
    def summary(self) -> str:
        """How many symptoms of each severity there are."""
        counts = Counter(symptom.severity for symptom in self)
        parts = [
            f"{counts[severity]} {severity}{'s' * (counts[severity] != 1 and severity != 'advice')}"
            for severity in SEVERITIES
            if counts[severity]
        ]
        return f"Found {', '.join(parts)}." if parts else "Nothing found."

    def __str__(self) -> str:
        fill = textwrap.TextWrapper(100, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False).fill
        reasons = dict.fromkeys(self.left_out.values())
        left = [f"{', '.join(c for c, r in self.left_out.items() if r == reason)} ({reason})" for reason in reasons]
        lines = [
            *map(str, self),
            f"{self.summary} Looked at {self.looked_at}.",
            f"Ran {', '.join(self.ran) or 'no check'}." + (f" Left out {'; '.join(left)}." if left else ""),
            SILENCE,
        ]
        return "\n".join(fill(line) for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{symptom.code}</td><td>{symptom.severity}</td>"
            f"<td style='text-align:left'>{html.escape(symptom.message)}. {html.escape(symptom.advice)}</td></tr>"
            for symptom in self
        )
        left = "".join(f"<li>{code}: {html.escape(reason)}</li>" for code, reason in self.left_out.items())
        return (
            f"<div><p><b>{self.summary}</b> Looked at {html.escape(self.looked_at)}.</p>"
            + (f"<table>{rows}</table>" if rows else "")
            + f"<details><summary>{len(self.ran)} checks ran, {len(self.left_out)} were left out. {SILENCE}</summary>"
            + f"<p>Ran: {', '.join(self.ran)}</p><ul>{left}</ul></details></div>"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it; a number that is not finite is None."""
        symptoms = [
            asdict(one) | {"numbers": {key: x if math.isfinite(x) else None for key, x in one.numbers.items()}}
            for one in self
        ]
        return vars(self) | {
            "symptoms": symptoms,
            "shape": list(self.shape),
            "ran": list(self.ran),
            "left_out": dict(self.left_out),
        }
