"""What everything that the doctor can find has: a code, a severity, and the texts of a page."""

from __future__ import annotations

from typing import ClassVar

__all__ = ["SEVERITIES", "Explained"]

SEVERITIES = ("error", "warning", "advice")


class Explained:
    """A mistake with the texts that explain it. A subclass sets them.

    Parameters
    ----------
    code, name, severity
        ``XE101``, ``softmax-before-cross-entropy``, and ``error`` (the number is wrong or the call fails),
        ``warning`` (it is most probably not what was meant) or ``advice`` (it is right, and can be better).
    summary
        What is found, in one sentence.
    harm
        Why it hurts, with a number.
    mend
        What to do.
    ignore_when
        When it is right as it is.
    demonstration
        Code that shows the harm; `docs/common-mistakes.md` runs it and shows what it prints.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[str]
    summary: ClassVar[str]
    harm: ClassVar[str]
    mend: ClassVar[str]
    ignore_when: ClassVar[str]
    demonstration: ClassVar[str]
