"""The page of a rule as text for a terminal and as Markdown for the documentation."""

from __future__ import annotations

import textwrap

from .rules import Rule

__all__ = ["markdown", "page"]

_FIXES = {
    "none": "There is no fix to apply by itself.",
    "safe": "`--fix` mends it where the call stands in the argument; what the program computes stays the same.",
    "unsafe": "`--unsafe-fixes` mends it where the call stands in the argument; the numbers change, as they should.",
}


def page(rule: Rule) -> str:
    """Return the page of a rule for a terminal."""
    parts = [
        f"{rule.code} {rule.name} ({rule.severity})",
        rule.summary,
        f"Why it hurts: {rule.harm}",
        f"Instead: {rule.mend}",
        f"Ignore it when: {rule.ignore_when} Write `# crossent: ignore[{rule.code}]` on the line.",
        _FIXES[rule.fix],
    ]
    text = "\n\n".join(textwrap.fill(part, 100) for part in parts)
    bad, good = (textwrap.indent(code.rstrip(), "    ") for code in (rule.bad, rule.good))
    return f"{text}\n\nThe mistake:\n\n{bad}\n\nRight:\n\n{good}\n"


def markdown(rule: Rule, printed: str) -> str:
    """Return the section of a rule in Markdown, with what its demonstration printed."""
    wrap = textwrap.TextWrapper(120, break_on_hyphens=False, break_long_words=False)
    parts = [
        f"## {rule.code}: {rule.name}",
        wrap.fill(f"*{rule.severity.capitalize()}.* {rule.summary}"),
        f"<!-- skip: the mistake -->\n```python\n{_body(rule.bad)}\n```",
        wrap.fill(f"**Why it hurts.** {rule.harm}"),
        f"<!-- requires: {', '.join(_needs(rule))} -->\n```python\n{rule.demonstration.rstrip()}\n```",
        f"```text\n{printed.rstrip()}\n```",
        wrap.fill(f"**Instead.** {rule.mend}"),
        f"<!-- skip: an excerpt -->\n```python\n{_body(rule.good)}\n```",
        wrap.fill(f"**Ignore it when.** {rule.ignore_when}"),
        wrap.fill(_FIXES[rule.fix]),
    ]
    return "\n\n".join(parts) + "\n"


def _body(code: str) -> str:
    return code.rstrip()


def _needs(rule: Rule) -> list[str]:
    tops = [
        line.split()[1].partition(".")[0] for line in rule.demonstration.splitlines() if line[:5] in ("impor", "from ")
    ]
    return sorted({*tops} or {"math"})
