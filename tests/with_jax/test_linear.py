"""The linear head: the dense loss and the chain rule, in blocks, without N·K logits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crossent as ce
import crossent.jax as cej
from crossent.jax import ffi, linear

N, D, K = 29, 3, 7
RNG = np.random.default_rng(0)
X, W, B = (RNG.normal(size=shape).astype(np.float32) for shape in ((N, D), (K, D), (K,)))
Y = RNG.integers(0, K, N)
Y[3] = -100
WIDE = [a.astype(np.float64) for a in (X, W)]
ALL = (0, 1, 2)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of rows, the last not full, and several tiles of classes, the last overlapping."""
    monkeypatch.setattr(linear, "BLOCK_BYTES", 8 * K * 4)
    monkeypatch.setattr(linear, "TILE_BYTES", 3 * D * 4)


@pytest.fixture(params=["XLA", "kernels"])
def _computed_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels write the gradient of a block over its logits, which derivatives of the options read again."""
    monkeypatch.setattr(ffi, "LEAST_ELEMENTS", 1 if request.param == "kernels" else 1 << 60)
    jax.clear_caches()


def close(got: Any, want: Any, rtol: float = 3e-6) -> None:
    want = np.asarray(want, np.float64)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=rtol, atol=rtol * np.abs(want).max(initial=0))


def solved(target: Any, x: Any = X, **options: Any) -> Any:
    def value(x: Any, w: Any, b: Any) -> Any:
        return cej.linear_cross_entropy(x, w, target, linear_bias=b, **options).sum()

    return jax.jit(jax.value_and_grad(value, argnums=ALL))(x, W, B)


@pytest.mark.usefixtures("_computed_by")
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_value_and_gradients(reduction: str) -> None:
    """Also where a row that does not count holds NaN."""
    options = {"loss": ce.Focal(1.5), "reduction": reduction, "softcap": 4.0}
    broken = X.copy()
    broken[3] = np.nan
    value, gradients = solved(Y, broken, **options)
    wanted, exact = ce.linear_value_and_grad(*WIDE, Y, linear_bias=B.astype(np.float64), **options)
    close(value, np.sum(wanted))
    for found, want in zip(gradients, exact, strict=True):
        close(found, want)


def test_distributions_and_the_sigmoid_link() -> None:
    t = RNG.dirichlet(np.ones(K), N).astype(np.float32)
    for link in ("softmax", "sigmoid"):
        value, gradients = solved(t, link=link)
        wanted, exact = ce.linear_value_and_grad(*WIDE, t, linear_bias=B.astype(np.float64), link=link)
        close(value, wanted)
        for found, want in zip(gradients, exact, strict=True):
            close(found, want)


@pytest.mark.usefixtures("_computed_by")
def test_gradients_of_options_and_second_derivatives() -> None:
    rows = RNG.uniform(0.5, 2, N).astype(np.float32)

    def by_head(w: Any, rows: Any, temperature: Any) -> Any:
        return cej.linear_cross_entropy(X, w, Y, sample_weight=rows, temperature=temperature)

    def dense(w: Any, rows: Any, temperature: Any) -> Any:
        return cej.cross_entropy(X @ w.T, Y, sample_weight=rows, temperature=temperature)

    point = (jnp.asarray(W), jnp.asarray(rows), jnp.float32(1.3))
    pairs = zip(jax.jit(jax.grad(by_head, ALL))(*point), jax.jit(jax.grad(dense, ALL))(*point), strict=True)
    for found, want in pairs:
        close(found, want, 1e-5)
    vector = RNG.normal(size=W.shape).astype(np.float32)
    products = [
        jax.jit(lambda w, f=f: jax.jvp(jax.grad(lambda w: f(w, *point[1:])), (w,), (vector,))[1])(W)
        for f in (by_head, dense)
    ]
    close(products[0], products[1], 1e-5)


def test_transposed_and_half_precision() -> None:
    plain = jax.value_and_grad(cej.linear_cross_entropy, argnums=1)(X, W, Y)
    transposed = jax.value_and_grad(cej.linear_cross_entropy, argnums=1)(X, W.T, Y, transposed=True)
    close(transposed[0], plain[0])
    close(transposed[1].T, plain[1])
    half = [jnp.asarray(a, "bfloat16") for a in (X, W)]
    value, gradient = jax.value_and_grad(cej.linear_cross_entropy, argnums=1)(*half, Y)
    wanted, exact = ce.linear_value_and_grad(*(np.asarray(a, np.float64) for a in half), Y)
    assert value.dtype == np.float32
    assert gradient.dtype == "bfloat16"
    close(value, wanted)
    close(gradient, exact.weight, 1e-2)


def test_statistics() -> None:
    found = cej.linear_statistics(X, W, Y, linear_bias=B)
    wanted = ce.linear_statistics(*WIDE, Y, linear_bias=B.astype(np.float64))
    for name in ("lse", "entropy", "log_prob"):
        close(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(found.argmax, wanted.argmax)
    np.testing.assert_array_equal(found.correct, wanted.correct)


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What XLA takes beside arguments and results is at most an eighth of the logits."""
    monkeypatch.undo()
    n, d, k = 4096, 512, 32000
    shapes = [jax.ShapeDtypeStruct(s, t) for s, t in (((n, d), "float32"), ((k, d), "float32"), ((n,), "int32"))]
    function = jax.jit(jax.value_and_grad(cej.linear_cross_entropy, argnums=(0, 1)))
    memory = function.lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= n * k * 4 / 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((X, W.T, Y), "transposed=True takes a weight"),
        ((X, W[:0], Y), "at least one class"),
        ((X, W, Y[:5]), "labels must have shape"),
        ((X, W, np.where(Y < 0, 7, Y)), "7 in row 3"),
    ],
)
def test_bad_input(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cej.linear_cross_entropy(*arguments)
