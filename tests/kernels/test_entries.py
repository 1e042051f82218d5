"""Drawn entries of p and their Hessian products: the compiled twin is the reference, and draws are unbiased."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from crossent.kernels import reference, registry

LEAST = 0.05


def rows(dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(20, 0.1), 300).astype(dtype)
    top = p.argmax(axis=1)
    others = p.copy()
    others[np.arange(300), top] = 0
    return p, top, others.sum(axis=1), rng.uniform(0.1, 1.0, 300)


def draw(twin: ModuleType, dtype: Any, phase: float = 0.3) -> tuple[np.ndarray, ...]:
    p, top, rest, mass = rows(dtype)
    kept, starts = np.empty(len(p), np.int64), np.zeros(len(p) + 1, np.int64)
    classes, values = np.empty(p.size, np.int32), np.empty(p.size, dtype)
    n, m = twin.draw_entries(p, top, rest, mass, LEAST, phase, kept, starts[1:], classes, values)
    return kept[:n], starts[: n + 1], classes[:m], values[:m]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_product_of_entries_is_the_references(dtype: Any) -> None:
    kept, starts, classes, values = draw(reference, dtype)
    rng = np.random.default_rng(1)
    X, V, b = (rng.normal(size=shape).astype(dtype) for shape in ((300, 33), (20, 33), (20,)))
    mass = rows(dtype)[3][kept].astype(dtype)
    found = np.zeros((20, 34), dtype)
    registry.find(dtype).multiply_entries(X, kept, starts, classes, values, mass, V, b, found)
    double = [a.astype(np.float64) for a in (values, mass, V, b)]
    expected = np.zeros((20, 34))
    reference.multiply_entries(X.astype(np.float64), kept, starts, classes, *double, expected)
    np.testing.assert_allclose(found, expected, atol=1e3 * np.finfo(dtype).eps)
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_keep_what_is_large_and_are_unbiased(dtype: Any) -> None:
    p, top, _, mass = rows(dtype)
    twin = registry.find(dtype)
    phases = (np.arange(200) + 0.5) / 200
    mean = np.zeros(p.shape)
    for phase in phases:
        kept, starts, classes, values = draw(twin, dtype, phase)
        assert (np.diff(starts) >= 2).all()
        np.testing.assert_array_equal(classes[starts[:-1]], top[kept])
        dense = np.zeros(p.shape)
        dense[np.repeat(kept, np.diff(starts)), classes] = values
        mean += dense / len(phases)
    large = (p * mass[:, None] >= LEAST) & (np.arange(20) != top[:, None])
    assert large.any()
    np.testing.assert_array_equal(mean[large].round(6), p[large].astype(np.float64).round(6))
    small = ~large & (np.arange(20) != top[:, None])
    # A systematic draw over 200 phases is off by at most two of them.
    assert (np.abs(mean - p)[small] <= 2.1 / 200 * (LEAST / mass)[np.nonzero(small)[0]]).all()
    assert mean[small].max() > 0.01
