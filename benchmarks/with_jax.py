"""`crossent.jax` beside optax under `jit`: dense value and gradient, and the linear head beside its three products.

The module cannot be named after JAX: it lies in the folder that scripts import from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import interleaved_medians

import crossent.jax as cej

SHAPES = ((32, 10), (100_000, 10), (20_000, 1000), (1000, 32_000))
DTYPES = ("float32", "bfloat16")
HEAD = (4096, 512, 32_000)
"""Rows, features, classes."""
PRODUCTS = "three products"

Function = Callable[..., Any]


def _mean(losses: Function) -> Function:
    return lambda *arguments: losses(*arguments).mean()


def _ready(function: Function, *arguments: Any) -> Callable[[], object]:
    return lambda: jax.block_until_ready(function(*arguments))


def dense(rounds: int) -> list[dict[str, Any]]:
    """Return one record a shape, dtype and kind of target: seconds of value and gradient by contender."""
    records = []
    copy = jax.jit(jnp.negative)  # one read and one write of the array
    for num_rows, num_classes in SHAPES:
        for dtype in DTYPES:
            generator = np.random.default_rng(0)
            logits = jnp.asarray(generator.standard_normal((num_rows, num_classes), dtype="float32")).astype(dtype)
            labels = jnp.asarray(generator.integers(0, num_classes, num_rows))
            one_hot = jax.nn.one_hot(labels, num_classes, dtype=dtype)
            for target, given, theirs in (
                ("labels", labels, optax.softmax_cross_entropy_with_integer_labels),
                ("distributions", one_hot, optax.softmax_cross_entropy),
            ):
                calls = {
                    "crossent": _ready(jax.jit(jax.value_and_grad(cej.cross_entropy)), logits, given),
                    "optax": _ready(jax.jit(jax.value_and_grad(_mean(theirs))), logits, given),
                    "copy": _ready(copy, logits),
                }
                seconds = interleaved_medians(calls, rounds, calls=200 if num_rows < 1000 else 1)
                records.append(
                    {"rows": num_rows, "classes": num_classes, "dtype": dtype, "target": target, "seconds": seconds}
                )
                print(records[-1], flush=True)
    return records


def head(rounds: int) -> dict[str, Any]:
    """Return seconds and bytes of the linear head's value and gradients by contender."""
    num_rows, width, num_classes = HEAD
    generator = np.random.default_rng(0)
    source = jnp.asarray(generator.standard_normal((num_rows, width), dtype="float32"))
    weight = jnp.asarray(generator.standard_normal((num_classes, width), dtype="float32") / width**0.5)
    labels = jnp.asarray(generator.integers(0, num_classes, num_rows))
    slopes = jnp.asarray(generator.standard_normal((num_rows, num_classes), dtype="float32"))

    def plain(source: jax.Array, weight: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(source @ weight.T, labels).mean()

    functions: dict[str, tuple[Function, tuple[jax.Array, ...]]] = {
        "crossent": (jax.value_and_grad(cej.linear_cross_entropy, argnums=(0, 1)), (source, weight, labels)),
        "optax on the logits": (jax.value_and_grad(plain, argnums=(0, 1)), (source, weight, labels)),
        PRODUCTS: (lambda x, w, g: (x @ w.T, g @ w, g.T @ x), (source, weight, slopes)),
    }
    compiled = {name: jax.jit(f).lower(*given).compile() for name, (f, given) in functions.items()}
    calls = {name: _ready(compiled[name], *given) for name, (_, given) in functions.items()}
    record = {
        "rows": num_rows,
        "features": width,
        "classes": num_classes,
        "seconds": interleaved_medians(calls, rounds),
        "temporary bytes": {
            name: compiled[name].memory_analysis().temp_size_in_bytes for name in functions if name != PRODUCTS
        },
    }
    print(record, flush=True)
    return record


def run(rounds: int) -> dict[str, Any]:
    """Return the records of both."""
    return {"dense": dense(rounds), "head": head(max(rounds // 2, 1)), "versions": _versions()}


def _versions() -> dict[str, str]:
    return {"jax": jax.__version__, "optax": optax.__version__}
