"""docs/from-pytorch.md names every keyword of every function and module, with its default, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from keyword_tables import actual, documented, own, table

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


def test_the_page_knows_every_function() -> None:
    functions = {name for name in cet.__all__ if inspect.isfunction(getattr(cet, name))}
    assert functions == set(NAMES.values())


@pytest.mark.parametrize("function", NAMES.values())
def test_the_table_is_the_signature(function: str) -> None:
    assert documented(PAGE, NAMES)[function] == actual(cet, NAMES)[function]


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
    assert documented(PAGE.replace(written, instead), NAMES) != actual(cet, NAMES)


def test_the_page_knows_every_module_and_its_arguments() -> None:
    modules = {name: getattr(cet, name) for name in cet.__all__ if name.endswith("Loss")}
    rows = {name.strip("`"): (function.strip("`"), cells) for name, function, cells in table(PAGE, "modules")}
    assert set(rows) == set(modules)
    for name, module in modules.items():
        function, cells = rows[name]
        passed_on = {keyword.strip("`"): default for keyword, default in actual(cet, NAMES)[function].items()}
        parameters = {keyword.strip("`"): default for keyword, default in own(module).items()}
        assert [p for p in parameters if p not in passed_on] == re.findall(r"`(\w+)`", cells), name
        shared = {keyword: default for keyword, default in parameters.items() if keyword in passed_on}
        assert shared == {keyword: passed_on[keyword] for keyword in shared}, name
        assert not DATA & set(parameters), name
