"""Turn the JAX and Keras parts of results/speed.json into docs/performance.md's tables, and missed goals into words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Record = dict[str, Any]
DENSE_HEADER = ("rows × classes", "dtype", "target", "crossent, ms", "optax, ms", "optax / crossent", "crossent / copy")
HEAD_HEADER = ("linear head", "seconds", "of its products", "temporary memory, MiB")
KERAS_HEADER = ("rows × classes", "backend", "crossent, ms", "Keras, ms", "Keras / crossent")
PRODUCTS = "three products"


def _shape(record: Record) -> str:
    return f"{record['rows']} × {record['classes']}"


def dense(records: Iterable[Record], milliseconds: Callable[[float], str]) -> list[list[str]]:
    """Return the rows of the table of dense value and gradient."""
    return [
        [
            _shape(record),
            record["dtype"],
            record["target"],
            milliseconds(record["seconds"]["crossent"]),
            milliseconds(record["seconds"]["optax"]),
            f"{record['seconds']['optax'] / record['seconds']['crossent']:.2f}",
            f"{record['seconds']['crossent'] / record['seconds']['copy']:.2f}",
        ]
        for record in records
    ]


def head(record: Record) -> list[list[str]]:
    """Return the rows of the table of the linear head."""
    seconds = record["seconds"]
    return [
        [
            name,
            f"{spent:.2f}",
            f"{spent / seconds[PRODUCTS]:.2f}",
            f"{record['temporary bytes'][name] / 2**20:.0f}" if name in record["temporary bytes"] else "",
        ]
        for name, spent in seconds.items()
    ]


def keras(records: Iterable[Record], milliseconds: Callable[[float], str]) -> list[list[str]]:
    """Return the rows of the table of Keras."""
    return [
        [
            _shape(record),
            record["backend"],
            milliseconds(record["seconds"]["crossent"]),
            milliseconds(record["seconds"]["Keras"]),
            f"{record['seconds']['Keras'] / record['seconds']['crossent']:.2f}",
        ]
        for record in records
    ]


def missed(found: Record) -> list[str]:
    """Return a sentence for each goal that was not reached."""
    sentences = []
    for record in found["dense"]:
        if record["dtype"] != "float32" or record["target"] != "labels":
            continue
        gain = record["seconds"]["optax"] / record["seconds"]["crossent"]
        goal = 3.0 if record["classes"] >= 1000 else 1 / 1.1
        if gain < goal:
            sentences.append(f"crossent.jax, {_shape(record)}: {gain:.2f} × optax's speed (goal {goal:.2g} ×)")
    spent = found["head"]["seconds"]["crossent"] / found["head"]["seconds"][PRODUCTS]
    if spent > 1.25:
        sentences.append(f"crossent.jax, linear head: {spent:.2f} × its products (goal 1.25 ×)")
    return sentences
