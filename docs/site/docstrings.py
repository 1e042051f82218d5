"""What griffe reads of a docstring: numpydoc's reStructuredText as Markdown, types kept as they were written."""

from __future__ import annotations

import re
from typing import Any

import griffe

MATH = re.compile(r":math:`([^`]+)`")
CITED = re.compile(r"(?<!\w)\[(\d+)\]_")
REFERENCE = re.compile(r"^( *)\.\. \[(\d+)\] ", re.MULTILINE)
TYPE = re.compile(r"^( *)([\w*, ]+) : (.+)$", re.MULTILINE)
A_SPACE = "\u2005"  # no space of Python: griffe would rewrite "array (N, K), float32" as if it were code


class Markdown(griffe.Extension):
    """Rewrite every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = CITED.sub(r"[\1]", MATH.sub(r"$\1$", obj.docstring.value))
            text = REFERENCE.sub(r"\1\\[\2\\] ", text)
            obj.docstring.value = TYPE.sub(_of_type, text)


def _of_type(found: re.Match[str]) -> str:
    indent, names, kind = found.groups()
    return f"{indent}{names} : {kind if kind.startswith('{') else kind.replace(' ', A_SPACE)}"
