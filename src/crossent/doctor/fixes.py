"""Puts the edits of findings into files: text for text, so that everything else in the file stays as it is."""

from __future__ import annotations

import difflib
import io
import json
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..files import write_together
from .reading import Source, parse, read, split_lines
from .records import Edit, Finding

__all__ = ["difference", "fixed", "write"]


def fixed(path: str, findings: Iterable[Finding], *, unsafe: bool) -> tuple[bytes, bytes, int]:
    """Return the content of a file, the content with the findings' edits, and how many findings they mend.

    Of two edits that overlap the first is made; what is left is found in the next pass.
    """
    content = read(path)
    source, _ = parse(path, content)
    chosen: list[Edit] = []
    count = 0
    for finding in findings:
        edits = finding.edits
        if not edits or not (unsafe or all(edit.is_safe for edit in edits)):
            continue
        if any(_overlap(edit, other) for edit in edits for other in chosen):
            continue
        chosen += edits
        count += 1
    if not chosen:
        return content, content, 0
    if source.notebook is not None:
        return content, _notebook(source, content, chosen), count
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content, _applied(source.text, chosen).encode(encoding), count


def _overlap(a: Edit, b: Edit) -> bool:
    return a.start < b.end and b.start < a.end


def _applied(text: str, edits: Sequence[Edit]) -> str:
    lines = [line.encode() for line in split_lines(text)]
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        (first, start), (last, end) = edit.start, edit.end
        whole = lines[first - 1][:start] + edit.text.encode() + lines[last - 1][end:]
        lines[first - 1 : last] = [whole]
    return b"".join(lines).decode()


def _notebook(source: Source, content: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a notebook with edited cells, written as Jupyter writes it."""
    notebook = json.loads(content)
    by_cell: dict[int, list[Edit]] = defaultdict(list)
    for edit in edits:
        cell, first = (source.cells or [])[edit.start[0] - 1]
        last = first + edit.end[0] - edit.start[0]
        by_cell[cell].append(replace(edit, start=(first, edit.start[1]), end=(last, edit.end[1])))
    for number, own in by_cell.items():
        cell = notebook["cells"][number - 1]
        text = _applied("".join(cell["source"]), own)
        cell["source"] = split_lines(text) if isinstance(cell["source"], list) else text
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def write(path: str, content: bytes) -> None:
    """Put the content into the file, whole or not at all."""
    write_together({Path(path).resolve(): content})


def difference(path: str, before: bytes, after: bytes) -> str:
    """Return a unified diff."""
    texts = [content.decode("utf-8", "replace").splitlines(keepends=True) for content in (before, after)]
    lines = difflib.unified_diff(texts[0], texts[1], path, path)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
