"""The linear head against the exact logits of its rounded inputs, in one block of rows and in many.

A dot product that rounds is off by ulps of ``c = Σ|x w| + |b|``, not of itself, and so are the logits; errors are in
ulps of what that can do: of a value's magnitude plus ``Σ_k |G_k| c_k``, of a gradient's sum of ``|G|·|w|`` (or
``|G|·|x|``) with each ``|G|`` times ``1 + 2 max_k c_k``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import oracle
from oracle import Options, Row, Term

import crossent as ce
from crossent.core import linear as driver

from .errors import Errors, Key
from .judge import DTYPES, largest_multiplier, slack_of

CE: tuple[Term, ...] = oracle.CROSS_ENTROPY
FOCAL: tuple[Term, ...] = (("focal", 1.0, 2.0),)
PLAIN = ce.CrossEntropy()


@dataclass(frozen=True)
class Setting:
    """A name, a loss, its options, the shape (N, D, K) and how the inputs are drawn."""

    name: str
    loss: ce.Loss = PLAIN
    terms: tuple[Term, ...] = CE
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int] = (6, 8, 5)
    rows_in_block: int | None = None
    """Rows of a block and of a tile of the weight's gradient; None: the library's own."""
    margin: float = 0.0
    offset: float = 0.0
    share: int = 1
    """One of so many repeats is run: the oracle takes its time for many classes."""


SETTINGS = [
    Setting("linear head"),
    Setting("linear head", ce.Focal(2.0), FOCAL),
    Setting("linear head, smoothed", options={"label_smoothing": 0.1}),
    Setting("linear head, weighted", options={"weight": np.array([1e-15, 0.5, 1.0, 30.0, 1e15])}),
    Setting("linear head, confident", margin=40.0),
    Setting("linear head, common offset", offset=1e4),
    Setting("linear head, z-penalty", ce.CrossEntropy() + ce.ZPenalty(0.1), (*CE, ("z_penalty", 0.1, 0.0)), share=3),
    Setting("linear head, sigmoid link", options={"link": "sigmoid"}),
    Setting("linear head, blocks", rows_in_block=2),
    Setting("linear head, blocks, K = 100", shape=(7, 6, 100), rows_in_block=3, share=3),
    Setting("linear head, blocks, K = 300", shape=(5, 3, 300), rows_in_block=2, share=5),
    Setting("linear head, blocks, K = 100", ce.Focal(2.0), FOCAL, shape=(7, 6, 100), rows_in_block=3, share=5),
    Setting(
        "linear head, blocks, K = 100, smoothed",
        options={"label_smoothing": 0.1},
        shape=(7, 6, 100),
        rows_in_block=3,
        share=5,
    ),
]


@contextmanager
def blocks_of(rows: int | None, width: int, classes: int, itemsize: int) -> Iterator[None]:
    """Make the driver take blocks and tiles of few rows."""
    before = driver.BLOCK_BYTES, driver.TILE_BYTES
    if rows is not None:
        driver.BLOCK_BYTES, driver.TILE_BYTES = rows * classes * itemsize, rows * width * itemsize
    try:
        yield
    finally:
        driver.BLOCK_BYTES, driver.TILE_BYTES = before


def _softmax_rows(logits: np.ndarray, y: np.ndarray, given: Options) -> list[Row]:
    exact = oracle.tail_row
    if given.label_smoothing:
        exact = oracle.smoothed_row
    elif any(name == "z_penalty" for name, _, _ in given.terms):
        exact = oracle.softmax_row
    return [exact(list(z), int(label), given) for z, label in zip(logits, y, strict=True)]


def _sigmoid_rows(logits: np.ndarray, y: np.ndarray, given: Options) -> list[Row]:
    rows = []
    for z, labels in zip(logits, y, strict=True):
        parts = [oracle.sigmoid_row(x, int(t), given) for x, t in zip(z, labels, strict=True)]
        gradient, scale = ([p for part in parts for p in getattr(part, n)] for n in ("gradient", "gradient_scale"))
        rows.append(Row(sum(p.value for p in parts), gradient, [], sum(p.value_scale for p in parts), scale))
    return rows


def exact_row(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, given: Options) -> Row:
    """Value and gradients of the summed loss as one row: input, weight and bias, one after the other."""
    with oracle.mp.workdps(oracle.GUARD_DIGITS + 20):
        X, W = (np.array([[oracle.mpf(float(v)) for v in r] for r in a], dtype=object) for a in (x, w))
        bias = np.array([oracle.mpf(float(v)) for v in b], dtype=object)
        rows = (_sigmoid_rows if y.ndim == 2 else _softmax_rows)(X @ W.T + bias, y, given)
        G = np.array([row.gradient for row in rows], dtype=object)
        scale = np.array([row.gradient_scale for row in rows], dtype=object)
        condition = abs(X) @ abs(W).T + abs(bias)
        value_scale = sum(row.value_scale for row in rows) + (scale * condition).sum()
        blurred = scale * (1 + 2 * condition.max(axis=1))[:, None]
        gradient = np.concatenate([(G @ W).ravel(), (G.T @ X).ravel(), G.sum(axis=0)])
        gradient_scale = np.concatenate([(blurred @ abs(W)).ravel(), (blurred.T @ abs(X)).ravel(), blurred.sum(axis=0)])
        return Row(sum(row.value for row in rows), list(gradient), [], value_scale, list(gradient_scale), [])


def measure(repeats: int) -> dict[Key, Errors]:
    """Every setting, `repeats` times over its share."""
    found: dict[Key, Errors] = {}
    for setting in SETTINGS:
        n, d, k = setting.shape
        for dtype in DTYPES:
            key = repr(setting.loss), setting.name, np.dtype(dtype).name
            errors = found.setdefault(key, Errors.of(setting.terms, dtype))
            for seed in range(max(1, repeats // setting.share)):
                rng = np.random.default_rng([seed, 7])
                x = rng.normal(scale=(0.1, 1.0, 4.0)[seed % 3], size=(n, d)).astype(dtype)
                w, b = rng.normal(size=(k, d)).astype(dtype), rng.normal(size=k) + setting.offset
                b[0] += setting.margin
                b = b.astype(dtype)
                link = setting.options.get("link", "softmax")
                y = rng.integers(0, 2, (n, k)) if link == "sigmoid" else rng.integers(0, k, n)
                options = {"linear_bias": b, "loss": setting.loss, "reduction": "sum", **setting.options}
                with blocks_of(setting.rows_in_block, d, k, x.itemsize):
                    result = ce.linear_value_and_grad(x, w, y, **options)
                oracle_options = {name: v for name, v in setting.options.items() if name != "link"}
                row = exact_row(x, w, b, y, Options(terms=setting.terms, **oracle_options))
                got = np.concatenate([np.ravel(g) for g in result.grad])[None]
                weight = setting.options.get("weight", 1.0)
                slack = slack_of(k, dtype, largest_multiplier(setting.terms, x @ w.T + b, weight).max())
                errors.judge(([result.value], got), [row], dtype, slack, n)
    return found
