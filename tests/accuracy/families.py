"""Families of rows that break careless code: each has a parameter, a seed and a sentence about what it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """Rows of logits, a target (labels or distributions) and the options of the call."""

    logits: np.ndarray
    target: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_hard(self) -> bool:
        return self.target.dtype.kind in "iu"


Draw = Callable[[np.random.Generator, Any, int, float], Problem]
"""From a generator, a dtype, a number of rows and a value of the family's parameter."""


@dataclass(frozen=True)
class Family:
    """A name, what its parameter is, the parameter's values by dtype, and how to draw rows for one of them."""

    name: str
    parameter: str
    values: Callable[[Any], Sequence[float]]
    draw: Draw
    num_classes: int = 5
    most: float = np.inf
    """The largest parameter for losses judged by series, whose oracle needs as many digits as logits are apart."""

    def problems(self, dtype: Any, num_rows: int, seed: int = 0, limited: bool = False) -> Iterable[Problem]:
        """One problem a value of the parameter, about `num_rows` rows together."""
        values = [v for v in self.values(dtype) if not limited or abs(v) <= self.most]
        for i, value in enumerate(values):
            rng = np.random.default_rng([seed, i, *self.name.encode()])
            yield self.draw(rng, dtype, max(1, round(num_rows / len(values))), value)


def _normal(rng: np.random.Generator, n: int, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(scale=rng.choice([0.1, 1.0, 4.0], size=(n, 1)), size=(n, k)), rng.integers(0, k, n)


def _cast(z: np.ndarray, dtype: Any) -> np.ndarray:
    return z.astype(dtype)


def _lead(rng: np.random.Generator, dtype: Any, n: int, margin: float, right: bool) -> Problem:
    z, y = _normal(rng, n)
    leader = y if right else (y + 1) % z.shape[1]
    z[np.arange(n), leader] = z.max(axis=1) + margin
    return Problem(_cast(z, dtype), y)


def _offset(rng: np.random.Generator, dtype: Any, n: int, offset: float) -> Problem:
    z, y = _normal(rng, n)
    # Far from 0 logits are many ulps apart or equal: some of both.
    step = np.spacing(np.asarray(abs(offset), dtype)).astype(np.float64)
    z = np.where(rng.random((n, 1)) < 0.5, z, np.rint(z) * step)
    return Problem(_cast(offset + z, dtype), y)


def _ties(rng: np.random.Generator, dtype: Any, n: int, spread: float) -> Problem:
    z = np.round(rng.normal(scale=spread, size=(n, 5)))
    return Problem(_cast(z, dtype), rng.integers(0, 5, n))


def _neighbours(rng: np.random.Generator, dtype: Any, n: int, size: float) -> Problem:
    z = np.full((n, 5), size, dtype)
    for _ in range(2):
        up = rng.random(z.shape) < 0.4
        z[up] = np.nextafter(z[up], np.asarray(np.inf, dtype))
    return Problem(z, rng.integers(0, 5, n))


def _subnormal(rng: np.random.Generator, dtype: Any, n: int, share: float) -> Problem:
    """Logits below the normal range, and probabilities around its edge."""
    info = np.finfo(dtype)
    z = rng.normal(size=(n, 5)) * float(info.smallest_normal) * share
    edge = rng.random(n) < 0.5
    z[edge] = rng.uniform(np.log(float(info.smallest_subnormal)), np.log(float(info.smallest_normal)) + 3, (n, 5))[edge]
    z[edge, rng.integers(0, 5)] = 0.0
    return Problem(_cast(z, dtype), rng.integers(0, 5, n))


def _huge(rng: np.random.Generator, dtype: Any, n: int, size: float) -> Problem:
    z, y = _normal(rng, n)
    where = np.where(rng.random(n) < 0.5, y, (y + 1) % 5)
    z[np.arange(n), where] = size
    return Problem(_cast(z, dtype), y)


def _classes(rng: np.random.Generator, dtype: Any, n: int, k: float) -> Problem:
    n = max(1, min(n, 4000 // int(k)))
    z, y = _normal(rng, n, int(k))
    y = np.where(rng.random(n) < 0.5, z.argmax(axis=1), y)
    return Problem(_cast(z, dtype), y)


def _decay(rng: np.random.Generator, dtype: Any, n: int, rate: float) -> Problem:
    """p_k proportional to e^(-rate k), in a random order: most classes are far from the largest."""
    n = max(1, n // 8)
    z = -rate * np.arange(40) + rng.uniform(0, 0.1, (n, 40))
    return Problem(_cast(rng.permuted(z, axis=1), dtype), rng.integers(0, 40, n))


def _masked(rng: np.random.Generator, dtype: Any, n: int, share: float) -> Problem:
    z, y = _normal(rng, n)
    hidden = rng.random(z.shape) < share
    hidden[np.arange(n), np.where(rng.random(n) < 0.9, y, (y + 1) % 5)] = False  # one true class in ten may be masked
    return Problem(_cast(np.where(hidden, -np.inf, z), dtype), y)


def _weights(rng: np.random.Generator, dtype: Any, n: int, orders: float) -> Problem:
    z, y = _normal(rng, n)
    return Problem(_cast(z, dtype), y, {"weight": 10.0 ** rng.uniform(-orders / 2, orders / 2, 5)})


def _weights_and_smoothing(rng: np.random.Generator, dtype: Any, n: int, orders: float) -> Problem:
    problem = _weights(rng, dtype, n, orders)
    return Problem(problem.logits, problem.target, problem.options | {"label_smoothing": 10.0 ** rng.uniform(-6, 0)})


def _smoothing(rng: np.random.Generator, dtype: Any, n: int, epsilon: float) -> Problem:
    z, y = _normal(rng, n)
    z[: n // 2, 0] += 30.0
    return Problem(_cast(z, dtype), y, {"label_smoothing": epsilon})


def _soft(rng: np.random.Generator, dtype: Any, n: int, tiny: float) -> Problem:
    """Zeros, masses as small as `tiny`, sums that are not 1."""
    z, _ = _normal(rng, n)
    z[: n // 2, 0] += 30.0
    t = rng.dirichlet(np.full(5, 0.5), n)
    t *= np.where(rng.random(t.shape) < 0.3, tiny, 1.0)
    t[rng.random(t.shape) < 0.2] = 0.0
    t *= rng.uniform(0.1, 3.0, (n, 1))
    t[:, 0] += t.sum(axis=1) == 0
    return Problem(_cast(z, dtype), _cast(t, dtype))


def _distributions(rng: np.random.Generator, dtype: Any, n: int, concentration: float) -> Problem:
    z, _ = _normal(rng, n)
    z[: n // 2, 0] += 30.0
    t = rng.dirichlet(np.full(5, concentration), n).astype(dtype)
    return Problem(_cast(z, dtype), (t / t.sum(axis=1, keepdims=True)).astype(dtype))


def _masked_distributions(rng: np.random.Generator, dtype: Any, n: int, share: float) -> Problem:
    """Masked classes, which have no mass: 0 times infinity in careless code."""
    problem = _distributions(rng, dtype, n, 0.5)
    hidden = rng.random(problem.logits.shape) < share
    hidden[:, 0] = False
    target = np.where(hidden, dtype(0), problem.target)
    z = np.where(hidden, -np.inf, problem.logits)
    return Problem(_cast(z, dtype), _cast(target / target.sum(axis=1, keepdims=True), dtype))


def _smoothed_distributions(rng: np.random.Generator, dtype: Any, n: int, epsilon: float) -> Problem:
    """Distributions, half of them a single class, smoothed."""
    problem = _distributions(rng, dtype, n, 0.5)
    single = np.eye(5, dtype=dtype)[rng.integers(0, 5, n)]
    target = np.where(rng.random((n, 1)) < 0.5, single, problem.target)
    return Problem(problem.logits, target, {"label_smoothing": epsilon})


def _same(*values: float) -> Callable[[Any], Sequence[float]]:
    return lambda dtype: values


def _powers(float32: Sequence[int], float64: Sequence[int], signs: Sequence[int] = (1,)) -> Any:
    def values(dtype: Any) -> list[float]:
        return [sign * 10.0**e for e in (float32 if dtype == np.float32 else float64) for sign in signs]

    return values


MARGINS = _same(1.0, 5.0, 12.0, 17.0, 37.0, 80.0, 86.5, 100.0, 300.0, 707.5, 800.0, 3000.0, 1e4)

HARD = [
    Family("confident, right", "margin", MARGINS, lambda r, d, n, v: _lead(r, d, n, v, True), most=1000.0),
    Family("confident, wrong", "margin", MARGINS, lambda r, d, n, v: _lead(r, d, n, v, False), most=1000.0),
    Family(
        "common offset",
        "offset",
        _powers((2, 4, 6, 12, 30), (2, 4, 8, 15, 100, 300), (1, -1)),
        _offset,
        most=1e15,
    ),
    Family("ties", "spread", _same(0.0, 0.5, 2.0, 10.0), _ties),
    Family("one ulp apart", "size", _same(1e-3, 1.0, 77.0, 1e5), _neighbours),
    Family("subnormal", "share of the smallest normal", _same(1e-3, 0.1, 1.0), _subnormal),
    Family("one huge logit", "logit", _powers((2, 5, 20, 37), (2, 5, 20, 100, 307), (1, -1)), _huge, most=1000.0),
    Family("classes", "K", _same(1, 2, 3, 10, 16, 17, 33, 64, 65, 257, 1000), _classes, most=3.0),
    Family("geometric decay", "rate", _same(0.5, 2.0, 5.0, 20.0), _decay, most=0.0),
    Family("masked classes", "share", _same(0.2, 0.6), _masked),
]
"""Hard labels without weights: what peers can be given too."""

WEIGHTED = [Family("class weights", "orders of magnitude", _same(2.0, 15.0, 30.0), _weights)]
SMOOTHED = [
    Family("label smoothing", "epsilon", _same(1e-30, 1e-20, 1e-10, 1e-3, 0.1, 0.9, 1.0), _smoothing),
    Family("distributions", "concentration", _same(0.1, 1.0, 10.0), _distributions),
    Family("smoothed distributions", "epsilon", _same(1e-20, 1e-3, 0.5), _smoothed_distributions),
]
WEIGHTED_AND_SMOOTHED = [
    Family("class weights, smoothed", "orders of magnitude", _same(2.0, 15.0, 30.0), _weights_and_smoothing)
]
SOFT = [Family("soft targets", "smallest mass", _same(1e-30, 1e-10, 1.0), _soft)]
MASKED_SOFT = Family("distributions, masked classes", "share", _same(0.2, 0.6), _masked_distributions)
EVERY = [*HARD, *WEIGHTED, *SMOOTHED, *WEIGHTED_AND_SMOOTHED, *SOFT, MASKED_SOFT]


def many_classes(dtype: Any, num_classes: int, seed: int = 0) -> Problem:
    """One row of very many classes, for the number of classes alone."""
    rng = np.random.default_rng([seed, num_classes])
    return Problem(rng.normal(scale=3.0, size=(1, num_classes)).astype(dtype), rng.integers(0, num_classes, 1))
