"""The tables of keywords in the pages of the front ends, read, beside the signatures that they describe."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import ModuleType


def table(page: str, name: str) -> list[list[str]]:
    """The cells of the rows of a table between its two comments, without its head."""
    part = re.search(rf"<!-- {name} -->(.*?)<!-- /{name} -->", page, re.DOTALL)
    assert part is not None
    rows = [line for line in part[1].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def documented(page: str, names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """For each function, the keywords that the page's table gives it, with their defaults as they are written.

    `names` has the function's name for each short name in the table's column "taken by".
    """
    found: dict[str, dict[str, str]] = {name: {} for name in names.values()}
    for keyword, default, taken_by, meaning in table(page, "keywords"):
        assert meaning
        for short in taken_by.split(", "):
            of_function = found[names[short]]
            assert keyword not in of_function, f"{keyword} of {short} is there twice"
            of_function[keyword] = default
    return found


def own(function: object) -> dict[str, str]:
    """A function's keywords with their defaults as the page writes them; those behind ** are left out."""
    found = {}
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            default = parameter.default
            text = f'"{default}"' if isinstance(default, str) else str(default)
            found[f"`{parameter.name}`"] = "required" if default is inspect.Parameter.empty else f"`{text}`"
    return found


def actual(module: ModuleType, names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The keywords of the functions of a module as the page writes them."""
    return {name: own(getattr(module, name)) for name in names.values()}
