"""docs/from-pytorch.md names every keyword of every function and module, with its default, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import crossent.torch as cet

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "from-pytorch.md").read_text(encoding="utf-8")
NAMES = {
    "CE": "cross_entropy",
    "BCE": "binary_cross_entropy_with_logits",
    "focal": "focal_loss",
    "distil": "distillation_loss",
    "linear": "linear_cross_entropy",
    "stats": "linear_statistics",
}
DATA = {"input", "target", "linear_weight", "linear_bias"}


def table(page: str, name: str) -> list[list[str]]:
    """The cells of the rows of a table between its two comments, without its head."""
    part = re.search(rf"<!-- {name} -->(.*?)<!-- /{name} -->", page, re.DOTALL)
    assert part is not None
    rows = [line for line in part[1].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def documented(page: str) -> dict[str, dict[str, str]]:
    """For each function, the keywords that the page's table gives it, with their defaults as they are written."""
    found: dict[str, dict[str, str]] = {name: {} for name in NAMES.values()}
    for keyword, default, taken_by, meaning in table(page, "keywords"):
        assert meaning
        for short in taken_by.split(", "):
            of_function = found[NAMES[short]]
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


def actual() -> dict[str, dict[str, str]]:
    return {name: own(getattr(cet, name)) for name in NAMES.values()}


def test_the_page_knows_every_function() -> None:
    functions = {name for name in cet.__all__ if inspect.isfunction(getattr(cet, name))}
    assert functions == set(NAMES.values())


@pytest.mark.parametrize("function", NAMES.values())
def test_the_table_is_the_signature(function: str) -> None:
    assert documented(PAGE)[function] == actual()[function]


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("| `softcap` | `None` | CE,", "| `softcap` | `None` |"),  # a keyword missing for one function
        ("| `on_empty` | `\"nan\"` |", "| `on_empty` | `\"zero\"` |"),  # another default
        ("| `gamma` | `2.0` | focal", "| `gama` | `2.0` | focal"),  # a keyword that is none
    ],
)  # fmt: skip
def test_a_wrong_table_is_found(written: str, instead: str) -> None:
    assert written in PAGE
    assert documented(PAGE.replace(written, instead)) != actual()


def test_the_page_knows_every_module_and_its_arguments() -> None:
    modules = {name: getattr(cet, name) for name in cet.__all__ if name.endswith("Loss")}
    rows = {name.strip("`"): (function.strip("`"), cells) for name, function, cells in table(PAGE, "modules")}
    assert set(rows) == set(modules)
    for name, module in modules.items():
        function, cells = rows[name]
        passed_on = {keyword.strip("`"): default for keyword, default in actual()[function].items()}
        parameters = {keyword.strip("`"): default for keyword, default in own(module).items()}
        assert [p for p in parameters if p not in passed_on] == re.findall(r"`(\w+)`", cells), name
        shared = {keyword: default for keyword, default in parameters.items() if keyword in passed_on}
        assert shared == {keyword: passed_on[keyword] for keyword in shared}, name
        assert not DATA & set(parameters), name
