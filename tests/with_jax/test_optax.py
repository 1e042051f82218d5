"""optax's cases of its losses of classification, as cases of `crossent.jax.optax`; and where we differ on purpose."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crossent.jax import optax

Z = np.array([[10.0, 1.0, -2.0], [1.0, 4.0, 0.2]], np.float32)
T = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], np.float32)
MIXED = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], np.float32)
LOG_P = np.log(np.exp(Z) / np.exp(Z).sum(1, keepdims=True))


def close(got: Any, want: Any, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-7)


def test_softmax_cross_entropy() -> None:
    """One row, a batch, a gradient, an axis that is not the last, and several axes."""
    close(optax.softmax_cross_entropy(Z[0], T[0]), 9.00013)
    close(jax.jit(optax.softmax_cross_entropy)(Z, T), [9.00013, 3.0696733])
    close(jax.grad(lambda z: optax.softmax_cross_entropy(z, MIXED).sum())(Z), np.exp(LOG_P) - MIXED)
    close(optax.softmax_cross_entropy(Z.T, MIXED.T, axis=0), -(MIXED * LOG_P).sum(1))
    cube = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    target = np.full((4, 2, 3), 1 / 6, np.float32)
    flat = optax.softmax_cross_entropy(cube.reshape(4, 6), target.reshape(4, 6))
    close(optax.softmax_cross_entropy(cube, target, axis=(1, 2)), flat)
    close(optax.softmax_cross_entropy(cube[0], target[0], axis=None), flat[0])
    close(optax.softmax_cross_entropy(Z, T.astype(int)), [9.00013, 3.0696733])


def test_integer_labels() -> None:
    labels = np.array([1, 0])
    close(optax.softmax_cross_entropy_with_integer_labels(Z, labels), optax.softmax_cross_entropy(Z, T))
    close(optax.softmax_cross_entropy_with_integer_labels(Z[0], labels[0]), 9.00013)
    close(optax.softmax_cross_entropy_with_integer_labels(Z.T, labels, axis=0), [9.00013, 3.0696733])
    found = jax.grad(lambda z: optax.softmax_cross_entropy_with_integer_labels(z, labels).sum())(Z)
    close(found, np.exp(LOG_P) - T)
    cube = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    label = np.ravel_multi_index((np.array([1]), np.array([1])), (3, 4))
    close(optax.softmax_cross_entropy_with_integer_labels(cube, label, axis=(1, 2)), [6.458675])


@pytest.mark.parametrize("shape", ["rows", "classes"])
def test_where(shape: str) -> None:
    """A masked row is 0; masked classes are not there."""
    rows = np.array([False, True])
    where = rows if shape == "rows" else np.array([[False] * 3, [True, False, True]])
    z, labels = Z[1] if shape == "rows" else Z[1, ::2], np.array([1, 0])
    want = np.log(np.exp(z).sum()) - z[0]
    close(optax.softmax_cross_entropy_with_integer_labels(Z, labels, where=where), [0, want])
    close(optax.softmax_cross_entropy(Z, T, where=where), [0, want])
    close(optax.poly_loss_cross_entropy(Z, T, where=where), [0, want + 2 * (1 - np.exp(-want))])
    gradient = jax.grad(lambda z: optax.softmax_cross_entropy(z, T, where=where).sum())(Z)
    assert (np.asarray(gradient)[~np.broadcast_to(where.reshape(2, -1), Z.shape)] == 0).all()


def test_safe_cross_entropy_of_masked_classes() -> None:
    z, t = np.array([[0.0, 1.0, -np.inf]], np.float32), np.array([[1.0, 0.0, 0.0]], np.float32)
    for function in (optax.safe_softmax_cross_entropy, optax.softmax_cross_entropy):
        close(function(z, t), [np.log1p(np.e)])
        gradient = jax.grad(lambda z, f=function: f(z, t).sum())(z)
        close(gradient, [[-np.e / (1 + np.e), np.e / (1 + np.e), 0]])


def test_sigmoid_losses() -> None:
    """Rows of a batch at once, targets between, and focal loss with and without alpha."""
    z, t = np.array([-1.0, 0.3, 20.0, -30.0], np.float32), np.array([1, 0, 1, 1])
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    nll = -np.where(t == 1, np.log(p), np.log1p(-p))
    close(optax.sigmoid_binary_cross_entropy(z, t), nll)
    close(optax.sigmoid_binary_cross_entropy(z[:, None], t[None]).diagonal(), nll)
    close(optax.sigmoid_binary_cross_entropy(z[:2], np.full(2, 0.4)), -0.4 * np.log(p[:2]) - 0.6 * np.log1p(-p[:2]))
    miss = np.where(t == 1, 1 - p, p)
    close(optax.sigmoid_focal_loss(z, t, gamma=0.0), nll)
    close(optax.sigmoid_focal_loss(z, t), miss**2 * nll)
    close(optax.sigmoid_focal_loss(z, t, alpha=0.25, gamma=1.5), np.where(t == 1, 0.25, 0.75) * miss**1.5 * nll)
    assert np.isfinite(jax.grad(lambda z: optax.sigmoid_focal_loss(z, t, gamma=0.5).sum())(z * 5)).all()


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 2.0])
def test_poly_loss(epsilon: float) -> None:
    want = -(MIXED * LOG_P).sum(1) + epsilon * (MIXED * (1 - np.exp(LOG_P))).sum(1)
    close(optax.poly_loss_cross_entropy(Z, MIXED, epsilon=epsilon), want)


def test_divergences() -> None:
    want = (MIXED * (np.log(MIXED) - LOG_P)).sum(1)
    close(optax.kl_divergence(LOG_P, MIXED), want)
    close(optax.kl_divergence_with_log_targets(LOG_P, np.log(MIXED)), want)
    close(optax.kl_divergence(LOG_P.T, MIXED.T, axis=0), want)
    close(optax.generalized_kl_divergence(LOG_P, 2 * MIXED), (2 * MIXED * (np.log(2 * MIXED) - LOG_P)).sum(1) - 1)
    assert optax.kl_divergence(np.array([0.0, -np.inf], np.float32), np.array([1.0, 0.0], np.float32)) == 0


def test_what_differs_on_purpose() -> None:
    with pytest.raises(ValueError, match="-1 in row 0"):
        optax.softmax_cross_entropy_with_integer_labels(Z, np.array([-1, 0]))
    traced = jax.jit(optax.softmax_cross_entropy_with_integer_labels)(Z, np.array([-1, 0]))
    assert np.isnan(traced[0])
    assert np.isfinite(traced[1])
    assert optax.softmax_cross_entropy(jnp.asarray(Z, "bfloat16"), T).dtype == np.float32
