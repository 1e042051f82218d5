"""The compiled kernels inside XLA's programs: where they serve, where they must not, and that one cannot tell."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crossent as ce
import crossent.jax as cej
from crossent.jax import ffi

N, K = 1373, 100
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(N, K)).astype(np.float32) * 3
Z[5, :50] = -np.inf
Y = RNG.integers(50, K, N)
Y[::7] = -100
SOFT = RNG.dirichlet(np.ones(K), N).astype(np.float32)
SOFT[5] = np.eye(K)[60]
WEIGHT = RNG.uniform(0.5, 2, K).astype(np.float32)
ROWS = RNG.uniform(0, 2, N).astype(np.float32)
VALUE_AND_GRAD = jax.value_and_grad(cej.cross_entropy)


def test_the_arrays_are_large_enough() -> None:
    assert N * K >= ffi.LEAST_ELEMENTS


def close(got: Any, want: Any, rtol: float = 1e-6) -> None:
    want = np.asarray(want, np.float64)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=rtol, atol=rtol * np.abs(want).max(initial=0))


def is_served(function: Any, *arguments: Any, **lowering: Any) -> bool:
    return "crossent_rows" in jax.jit(function).trace(*arguments).lower(**lowering).as_text()


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (Y, {}),
        (Y, {"weight": WEIGHT, "sample_weight": ROWS, "label_smoothing": 0.1, "temperature": 1.3}),
        (Y, {"loss": ce.Focal(1.5) + 0.1 * ce.ZPenalty(1.0), "normalizer": "count"}),
        (SOFT, {"loss": ce.Brier()}),
        (SOFT, {"weight": WEIGHT, "reduction": "sum"}),
        (Z[::-1], {"loss": ce.Distillation(2.0)}),
    ],
    ids=["labels", "weights", "sum of losses", "distributions", "weighted distributions", "teacher"],
)
def test_served(target: Any, options: dict) -> None:
    """Values and gradients are those of NumPy in float64, in a program that calls the kernels."""
    z = np.where(np.isfinite(Z), Z, -9) if options.get("loss") == ce.Distillation(2.0) else Z
    teacher = np.where(np.isfinite(target), target, -9) if target.shape == Z.shape else target
    function = partial(VALUE_AND_GRAD, **options)
    assert is_served(function, z, teacher)
    value, gradient = jax.jit(function)(z, teacher)
    wanted, exact = ce.value_and_grad(z.astype(np.float64), teacher, **options)
    close(value, wanted)
    close(gradient, exact)
    close(cej.cross_entropy(z, teacher, **options), wanted)


def test_rows_out_of_range_and_rows_that_are_nan() -> None:
    z, y = Z.copy(), np.where(Y < 0, 50, Y)
    y[3], z[8, 0] = K, np.nan
    losses, pull = jax.jit(lambda z, y: jax.vjp(lambda z: cej.cross_entropy(z, y, reduction="none"), z))(z, y)
    bad = np.isin(np.arange(N), (3, 8))
    np.testing.assert_array_equal(np.isnan(losses), bad)
    gradient = np.isnan(pull(jnp.ones(N))[0])
    np.testing.assert_array_equal(gradient.any(1), bad)
    np.testing.assert_array_equal(gradient.all(1), bad)
    where = jax.jit(partial(VALUE_AND_GRAD, where=~bad))(z, y)
    assert np.isfinite(where[0])
    assert (where[1][bad] == 0).all()


def test_second_derivatives_and_derivatives_of_options() -> None:
    vector = RNG.normal(size=Z.shape).astype(np.float32)
    finite = np.where(np.isfinite(Z), Z, -9)

    def product(z: Any) -> Any:
        return jax.jvp(jax.grad(lambda z: cej.cross_entropy(z, Y, loss=ce.Focal(2.0))), (z,), (vector,))[1]

    exact = ce.hessian_vector_product(finite.astype(np.float64), Y, vector, loss=ce.Focal(2.0))
    close(jax.jit(product)(finite), exact, 1e-5)
    by_weight = jax.jit(jax.grad(lambda w: cej.cross_entropy(finite, Y, sample_weight=w, reduction="sum")))(ROWS)
    close(by_weight, cej.cross_entropy(finite, Y, reduction="none"))


@pytest.mark.parametrize("axes", [(0, None), (0, 0), (None, 0)])
def test_a_batch_of_problems(axes: tuple) -> None:
    z = np.stack([Z, Z[::-1]]) if axes[0] == 0 else Z
    weight = np.stack([WEIGHT, WEIGHT[::-1]]) if axes[1] == 0 else WEIGHT
    function = jax.vmap(lambda z, w: VALUE_AND_GRAD(z, np.abs(Y) % K, weight=w), in_axes=axes)
    found = jax.jit(function)(z, weight)
    assert is_served(function, z, weight) == (axes[1] is None)
    for i in range(2):
        own = weight[i] if axes[1] == 0 else weight
        value, gradient = ce.value_and_grad(z[i] if axes[0] == 0 else z, np.abs(Y) % K, weight=own)
        close(found[0][i], value)
        close(found[1][i], gradient)


def test_several_threads_and_inside_a_scan() -> None:
    function = jax.jit(VALUE_AND_GRAD)
    wanted = function(Z, Y)
    same = []

    def work() -> None:
        found = [function(Z, Y) for _ in range(10)]
        same.append(all(v == wanted[0] and (g == wanted[1]).all() for v, g in found))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 4
    total = jax.jit(lambda z: jax.lax.scan(lambda carry, _: (carry + cej.cross_entropy(z, Y), None), 0.0, length=3)[0])
    close(total(Z), 3 * wanted[0])


def test_an_error_of_the_kernels_is_one_of_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(frame: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(ffi, "_compute", fails)
    with pytest.raises(Exception, match=r"crossent\.jax: MemoryError: no room"):
        jax.jit(cej.cross_entropy)(Z, Y).block_until_ready()


def test_exported_programs_and_other_devices_have_no_call_of_ours() -> None:
    exported = jax.export.export(jax.jit(VALUE_AND_GRAD))(Z, jnp.asarray(Y))
    assert "crossent_rows" not in exported.mlir_module()
    value, gradient = jax.export.deserialize(exported.serialize()).call(Z, jnp.asarray(Y))
    wanted = jax.jit(VALUE_AND_GRAD)(Z, Y)
    close(value, wanted[0])
    close(gradient, wanted[1], 1e-5)
    for platform in ("cuda", "tpu"):
        assert not is_served(VALUE_AND_GRAD, Z, Y, lowering_platforms=(platform,))


@pytest.fixture
def _another_interface(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a jaxlib with another version of XLA's interface, which refuses the handler."""
    monkeypatch.setattr(ffi, "_API_VERSION", (9, 9))
    monkeypatch.setattr(ffi, "_TARGET", "crossent_rows_of_another_interface")
    ffi.why_not.cache_clear()
    yield
    ffi.why_not.cache_clear()


@pytest.mark.usefixtures("_another_interface")
def test_another_interface() -> None:
    assert "takes no handler" in ffi.why_not()
    function = jax.jit(lambda z, y: VALUE_AND_GRAD(z, y, temperature=1.1))
    assert not is_served(function, Z, Y)
    close(function(Z, Y)[0], ce.cross_entropy(Z.astype(np.float64), Y, temperature=1.1))


def test_without_numba() -> None:
    code = (
        "import jax, numpy as np, crossent.jax as cej\nfrom crossent.jax import ffi\n"
        "z = np.zeros((170, 100), np.float32)\nf = jax.jit(cej.cross_entropy)\ny = np.zeros(170, int)\n"
        "assert 'crossent_rows' not in f.lower(z, y).as_text()\nprint(float(f(z, y)), ffi.why_not())"
    )
    environment = {**os.environ, "CROSSENT_DISABLE_NUMBA": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    value, reason = result.stdout.split(maxsplit=1)
    close(float(value), np.log(100))
    assert "compiled kernels are not used" in reason
