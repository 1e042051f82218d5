"""The table ``[tool.crossent.lint]`` of the nearest pyproject.toml."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .rules import RULES

__all__ = ["Refused", "Settings", "check_codes", "find_settings"]

_KEYS = ("select", "ignore", "exclude", "per-file-ignores")


class Refused(ValueError):
    """What the user asked for cannot be done, in one sentence."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Codes or beginnings of codes to use and to leave out, files to leave out, and codes to leave out by file."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    per_file_ignores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    root: str = "."  # the folder of the file they came from

    def is_ignored(self, path: str, code: str) -> bool:
        """Return whether a rule is left out in a file."""
        inside = Path(os.path.relpath(path, self.root))
        return any(inside.match(pattern) and code.startswith(codes) for pattern, codes in self.per_file_ignores)


def find_settings(path: str) -> Settings:
    """Return the settings of the nearest pyproject.toml with the table, from the folder of a path upwards."""
    start = Path(os.path.abspath(path))
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            content = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(f"{file}: cannot be read as TOML ({error})") from error
        tool = content.get("tool", {})
        table = tool.get("crossent", {}).get("lint") if isinstance(tool, dict) else None
        if table is not None:
            return _settings(table, str(file), str(folder))
    return Settings()


def _settings(table: object, file: str, root: str) -> Settings:
    if not isinstance(table, dict):
        raise Refused(f"{file}: [tool.crossent.lint] must be a table")
    for key in table:
        if key not in _KEYS:
            raise Refused(f"{file}: [tool.crossent.lint] knows {', '.join(_KEYS)}, and not {key!r}")
    select, ignore, exclude = (_texts(table.get(key, []), key, file) for key in _KEYS[:3])
    per_file = table.get("per-file-ignores", {})
    if not isinstance(per_file, dict):
        raise Refused(f"{file}: per-file-ignores must be a table of patterns, each with a list of codes")
    pairs = tuple((pattern, check_codes(_texts(codes, pattern, file))) for pattern, codes in per_file.items())
    return Settings(check_codes(select), check_codes(ignore), exclude, pairs, root)


def _texts(value: object, key: str, file: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Refused(f"{file}: {key} must be a list of texts")
    return tuple(value)


def check_codes(codes: Sequence[str]) -> tuple[str, ...]:
    """Return codes in capitals; `Refused` for one that no rule starts with.

    Examples
    --------
    >>> check_codes(["xe1,xe102"])
    ('XE1', 'XE102')
    """
    split = tuple(code.strip().upper() for text in codes for code in text.split(",") if code.strip())
    for code in split:
        if not any(rule.code.startswith(code) for rule in RULES):
            raise Refused(f"no rule has a code that starts with {code!r}; `crossent rule` lists them")
    return split
