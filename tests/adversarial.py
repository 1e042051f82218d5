"""Rows of logits that break careless code, in any dtype and number of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

# by dtype: a margin whose exponential is below an ulp of 1, in the middle, at the edge of underflow, and beyond
MARGINS = {
    np.float32: (5.0, 17.0, 40.0, 86.5, 95.0, 103.5, 120.0),
    np.float64: (12.0, 37.0, 300.0, 707.5, 740.0, 800.0),
}


def rows(num_classes: int, dtype: Any, seed: int = 0, repeats: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) and labels (N,): right, wrong and uncertain answers at every scale."""
    rng = np.random.default_rng([seed, num_classes])
    k = num_classes
    logits: list[np.ndarray] = []
    labels: list[int] = []

    def add(z: np.ndarray, y: int) -> None:
        logits.append(z.astype(dtype))
        labels.append(int(y))

    for _ in range(repeats):
        for scale in (1e-3, 1.0, 8.0):
            z = rng.normal(scale=scale, size=k)
            add(z, rng.integers(k))
            add(z, z.argmax())
        for margin in MARGINS[dtype]:
            z = rng.normal(size=k)
            top = rng.integers(k)
            z[top] = z.max() + margin
            add(z, top)  # confident and right
            add(z, (top + 1) % k)  # confident and wrong
        for offset in (1e4, -1e4, 12345.678):
            add(offset + rng.normal(scale=4, size=k), rng.integers(k))
        add(rng.uniform(-MARGINS[dtype][4], 0, k), rng.integers(k))  # probabilities of every size
        add(np.full(k, rng.normal()), rng.integers(k))  # all tied
        z = np.round(rng.normal(size=k))
        add(z, rng.integers(k))  # whole numbers, ties among them
        z = np.full(k, rng.normal()).astype(dtype)
        z[rng.integers(k)] = np.nextafter(z[0], dtype(np.inf))
        add(z, z.argmax())  # one ulp apart
    return np.stack(logits), np.array(labels)


def entries(dtype: Any, seed: int = 0) -> np.ndarray:
    """Logits of a sigmoid: both signs of every size, from the smallest normal number up."""
    rng = np.random.default_rng(seed)
    tiny = float(np.finfo(dtype).smallest_normal)
    sizes = np.concatenate(
        [[0.0, tiny, 1e-20, 1e-8, 1e-3], rng.uniform(0, 3, 6), MARGINS[dtype], rng.uniform(3, 30, 5)]
    )
    return np.concatenate([sizes, -sizes]).astype(dtype)
