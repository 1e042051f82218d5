"""docs/from-optax.md names every keyword of every function of `crossent.jax`, with its default, and no other."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from keyword_tables import actual, documented

import crossent.jax as cej

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "from-optax.md").read_text(encoding="utf-8")
NAMES = {
    "CE": "cross_entropy",
    "BCE": "binary_cross_entropy_with_logits",
    "focal": "focal_loss",
    "distil": "distillation_loss",
    "linear": "linear_cross_entropy",
    "stats": "statistics",
    "linear stats": "linear_statistics",
}


def test_the_page_knows_every_function() -> None:
    assert {name for name in cej.__all__ if inspect.isfunction(getattr(cej, name))} == set(NAMES.values())


@pytest.mark.parametrize("function", NAMES.values())
def test_the_table_is_the_signature(function: str) -> None:
    assert documented(PAGE, NAMES)[function] == actual(cej, NAMES)[function]


def test_the_page_names_every_loss_of_optax() -> None:
    assert [name for name in cej.optax.__all__ if f"`{name}`" not in PAGE] == []
