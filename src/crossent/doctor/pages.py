"""The page of a rule or a check as text for a terminal and as Markdown for the documentation."""

from __future__ import annotations

import textwrap

from .explained import Explained
from .rules import RULES, Rule
from .runtime import CHECKS

__all__ = ["find", "markdown", "page"]

_FIXES = {
    "none": "There is no fix to apply by itself.",
    "safe": "`--fix` mends it where the call stands in the argument; what the program computes stays the same.",
    "unsafe": "`--unsafe-fixes` mends it where the call stands in the argument; the numbers change, as they should.",
}
_AT_RUN_TIME = "Found in the numbers of a batch by `crossent.doctor.check(logits, target)`."


def find(text: str) -> Explained | None:
    """Return the rule or the check of a code or a name, in any case; None if there is none."""
    every = (*RULES, *CHECKS)
    return next((one for one in every if text.upper() == one.code or text.lower() == one.name), None)


def page(one: Explained) -> str:
    """Return the page of a rule or a check for a terminal."""
    is_rule = isinstance(one, Rule)
    silence = f" Write `# crossent: ignore[{one.code}]` on the line." if is_rule else ""
    parts = [
        f"{one.code} {one.name} ({one.severity})",
        one.summary,
        f"Why it hurts: {one.harm}",
        f"Instead: {one.mend}",
        f"Ignore it when: {one.ignore_when}{silence}",
        _FIXES[one.fix] if isinstance(one, Rule) else _AT_RUN_TIME,
    ]
    text = "\n\n".join(textwrap.fill(part, 100) for part in parts)
    shown = (
        [("The mistake", one.bad), ("Right", one.good)] if isinstance(one, Rule) else [("See it", one.demonstration)]
    )
    return text + "".join(f"\n\n{title}:\n\n{textwrap.indent(code.rstrip(), '    ')}" for title, code in shown) + "\n"


def markdown(one: Explained, printed: str) -> str:
    """Return the section of a rule or a check in Markdown, with what its demonstration printed."""
    wrap = textwrap.TextWrapper(120, break_on_hyphens=False, break_long_words=False)
    demonstration = [
        wrap.fill(f"**Why it hurts.** {one.harm}"),
        f"<!-- requires: {', '.join(_needs(one))} -->\n```python\n{one.demonstration.rstrip()}\n```",
        f"```text\n{printed.rstrip()}\n```",
        wrap.fill(f"**Instead.** {one.mend}"),
    ]
    parts = [f"## {one.code}: {one.name}", wrap.fill(f"*{one.severity.capitalize()}.* {one.summary}")]
    ignore = wrap.fill(f"**Ignore it when.** {one.ignore_when}")
    if isinstance(one, Rule):
        parts += [f"<!-- skip: the mistake -->\n```python\n{one.bad.rstrip()}\n```", *demonstration]
        parts += [f"<!-- skip: an excerpt -->\n```python\n{one.good.rstrip()}\n```", ignore, wrap.fill(_FIXES[one.fix])]
    else:
        parts += [*demonstration, ignore]
    return "\n\n".join(parts) + "\n"


def _needs(one: Explained) -> list[str]:
    tops = [
        line.split()[1].partition(".")[0] for line in one.demonstration.splitlines() if line[:5] in ("impor", "from ")
    ]
    return sorted({*tops} or {"math"})
