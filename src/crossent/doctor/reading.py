"""Which files a run reads, and the code in them. A notebook is one text whose lines remember their cell."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

__all__ = ["Source", "Unreadable", "find_files", "has_work", "parse", "read", "split_lines"]

SKIPPED = frozenset(
    [
        ".bzr",
        ".direnv",
        ".eggs",
        ".git",
        ".hg",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".svn",
        ".tox",
        ".venv",
        "__pycache__",
        "__pypackages__",
        "build",
        "dist",
        "node_modules",
        "site-packages",
        "venv",
    ]
)
"""Folders that are not searched unless they are named."""

SUFFIXES = (".py", ".pyi", ".ipynb")
_WORK = (
    *(
        b"softmax",
        b"Softmax",
        b"SOFTMAX",
        b"igmoid",
        b"ntropy",
        b"nll",
        b"NLL",
        b"BCE",
        b"kl_div",
        b"KLDiv",
        b"log_loss",
    ),
    *(b"brier", b"expit", b"log1p", b"focal", b"lightgbm", b"xgboost"),
)
_WORK_IN_FORMULAS = ((b"exp(", re.compile(rb"\bexp\(")), (b"alpha", re.compile(rb"1(?:\.0)? ?- ?(?:self\.)?alpha")))
_LOSS = re.compile(r"ntropy|nll|NLL|BCE|kl_div|KLDiv|log_loss|brier|focal|lightgbm|xgboost")
_FORMULA = re.compile(r"softmax|Softmax|igmoid|expit|log|exp|alpha")
_GLOBAL = re.compile(r"^\s*(?:global|nonlocal)\s+(?P<names>[\w, ]+)", re.MULTILINE)
_NEWLINE = re.compile(r"\r\n|\r|\n")
_MAGIC = re.compile(r"^\s*(?:[%!?]|\w[\w.]*\?\??\s*$)")
_CELL_MAGIC = re.compile(r"^\s*%%(?!time\b|timeit\b|capture\b)\w+")


class Unreadable(Exception):
    """A file that holds no Python, in one sentence."""


@dataclass(slots=True)
class Source:
    """The code of a file.

    Parameters
    ----------
    path
        As the user wrote it.
    text
        The code; of a notebook that of all cells, one after the other.
    cells
        Of a notebook: for each line of the text the cell (from 1) and the line within it.
    notebook
        Of a notebook: the whole content.
    """

    path: str
    text: str
    cells: list[tuple[int, int]] | None = None
    notebook: dict[str, object] | None = None
    lines: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = _NEWLINE.split(self.text)

    def worth_following(self) -> Callable[[int, int], bool]:
        """Return what tells whether a function, given by its lines, can hold a finding.

        In a file that names no loss only formulas are looked for, and those name what they compute.
        """
        if _LOSS.search(self.text):
            return lambda first, last: True
        counts = list(accumulate((_FORMULA.search(line) is not None for line in self.lines), initial=0))
        return lambda first, last: counts[last] > counts[first - 1]

    def assigned_elsewhere(self) -> frozenset[str]:
        """Return the names of all ``global`` and ``nonlocal`` statements."""
        found = (match["names"].split(",") for match in _GLOBAL.finditer(self.text))
        return frozenset(name.strip() for names in found for name in names)

    def characters(self, line: int, column: int) -> int:
        """Return the column of a UTF-8 offset in characters, from 1."""
        text = self.lines[line - 1]
        return column + 1 if text.isascii() else len(text.encode()[:column].decode(errors="replace")) + 1


def find_files(paths: Iterable[str], exclude: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Return the files to read, sorted, each once, and one sentence on each path that is not there."""
    found: dict[str, str] = {}
    problems = []
    for path in paths:
        if os.path.isdir(path):
            for name in _walk(path, exclude):
                found.setdefault(os.path.realpath(name), name)
        elif os.path.isfile(path):
            found.setdefault(os.path.realpath(path), path)
        else:
            problems.append(f"{path}: there is no such file or folder")
    return sorted(found.values()), problems


def _walk(folder: str, exclude: tuple[str, ...]) -> Iterator[str]:
    """Give the Python files and notebooks below a folder. Links to folders are not followed, so there are no cycles."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not _is_excluded(place, name, exclude))
        for name in names:
            if name.endswith(SUFFIXES) and not _is_excluded(place, name, exclude):
                path = os.path.join(place, name)
                yield path[2:] if path.startswith("./") else path


def _is_excluded(place: str, name: str, exclude: tuple[str, ...]) -> bool:
    path = Path(place, name)
    return any(path.match(pattern) or name == pattern for pattern in exclude)


def split_lines(text: str) -> list[str]:
    """Return the lines with their ends, split as Python splits source code.

    Examples
    --------
    >>> split_lines("a\\r\\nb")
    ['a\\r\\n', 'b']
    """
    ends = [match.end() for match in _NEWLINE.finditer(text)]
    return [line for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if (line := text[start:end])]


def has_work(path: str, content: bytes) -> bool:
    """Return whether a file names anything that a rule looks at. One that does not is not parsed, nor is a stub."""
    if path.endswith(".pyi"):
        return False
    is_named = any(word in content for word in _WORK)  # a tenth of the time of one pattern with all words
    return is_named or any(word in content and pattern.search(content) for word, pattern in _WORK_IN_FORMULAS)


def read(path: str) -> bytes:
    """Return the bytes of a file; `Unreadable` if that fails."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror})") from error


def parse(path: str, content: bytes) -> tuple[Source, ast.Module]:
    """Return the code of a file and its syntax tree; `Unreadable` if it holds no Python."""
    source = _notebook(path, content) if path.endswith(".ipynb") else Source(path, _decode(path, content))
    return source, _tree(path, source.text)


def _tree(path: str, text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise Unreadable(f"{path}:{error.lineno or 1}: is no Python ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(f"{path}: is no Python ({str(error) or type(error).__name__})") from error


def _decode(path: str, content: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        return content.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise Unreadable(f"{path}: is no text ({error})") from error


def _notebook(path: str, content: bytes) -> Source:
    try:
        notebook = json.loads(content)
        cells = notebook["cells"]
        codes = [
            (number, "".join(cell["source"])) for number, cell in enumerate(cells, 1) if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"{path}: is no notebook of format 4 ({type(error).__name__}: {error})") from error
    lines: list[str] = []
    places: list[tuple[int, int]] = []
    skipped = []
    for number, code in codes:
        cell = _cell(code)
        if cell is None:
            continue
        try:
            _tree(path, "\n".join(cell))
        except Unreadable as error:
            skipped.append(f"{path}: cell {number} is left out, for it{str(error).rpartition(':')[2]}")
            continue
        lines += cell
        places += [(number, line) for line in range(1, len(cell) + 1)]
    return Source(path, "\n".join(lines), places or [(1, 1)], notebook, skipped=skipped)


def _cell(code: str) -> list[str] | None:
    """Return the lines of a cell with IPython's own commands made harmless, None if it is in another language."""
    if _CELL_MAGIC.match(code):
        return None
    return [
        line[: len(line) - len(line.lstrip())] + "pass" if _MAGIC.match(line) else line for line in _NEWLINE.split(code)
    ]
