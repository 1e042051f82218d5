"""The labelled snippets of `corpus/*.txt`: ``### name`` starts one, ``# !XE101`` ends a line that must be reported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")
LABEL = re.compile(r"  # !(?P<codes>XE\d+(?:,XE\d+)*)$")


@dataclass(frozen=True)
class Snippet:
    name: str
    text: str
    expected: frozenset[tuple[str, int]]  # code and line


def snippets() -> list[Snippet]:
    """Every snippet of the corpus."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        for part in path.read_text("utf-8").split("### ")[1:]:
            title, _, body = part.partition("\n")
            expected, lines = set(), []
            for number, line in enumerate(body.splitlines(), 1):
                label = LABEL.search(line)
                if label is not None:
                    expected |= {(code, number) for code in label["codes"].split(",")}
                    line = line[: label.start()]
                lines.append(line)
            found.append(Snippet(f"{path.stem}: {title}", "\n".join(lines) + "\n", frozenset(expected)))
    return found
