"""JAX's transformations, one by one, and as numbers: against NumPy's front end in float64, or finite differences."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crossent as ce
import crossent.jax as cej

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(6, 5)).astype(np.float32) * 2
Y = np.array([0, 3, -100, 1, 4, 2])
FOCAL = partial(cej.cross_entropy, loss=ce.Focal(1.5), temperature=1.3)


def close(got: Any, want: Any, rtol: float = 2e-6) -> None:
    want = np.asarray(want, np.float64)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=rtol, atol=rtol * np.abs(want).max(initial=0))


def exact(**options: Any) -> tuple[Any, Any]:
    return ce.value_and_grad(Z.astype(np.float64), Y, **options)


def test_jit_grad_and_value_and_grad() -> None:
    value, gradient = exact(loss=ce.Focal(1.5), temperature=1.3)
    for function in (jax.value_and_grad(FOCAL), jax.jit(jax.value_and_grad(FOCAL))):
        found = function(Z, Y)
        close(found[0], value)
        close(found[1], gradient)
    close(jax.grad(FOCAL)(Z, Y), gradient)


def test_vmap_is_row_by_row() -> None:
    """Also over labels out of range, where nothing can raise."""
    found = jax.jit(jax.vmap(jax.value_and_grad(FOCAL)))(Z, np.where(Y < 0, 99, Y))
    value, gradient = exact(loss=ce.Focal(1.5), temperature=1.3, reduction="none")
    assert np.isnan(found[0][2])
    assert np.isnan(found[1][2]).all()
    rest = Y >= 0
    close(found[0][rest], value[rest])
    close(found[1][rest], gradient[rest])


def test_forward_mode_and_second_derivatives() -> None:
    vector = RNG.normal(size=Z.shape).astype(np.float32)
    options = {"loss": ce.Focal(1.5), "temperature": 1.3}
    value, gradient = exact(**options)
    found = jax.jit(lambda z: jax.jvp(lambda z: FOCAL(z, Y), (z,), (vector,)))(Z)
    close(found[0], value)
    close(found[1], (gradient * vector).sum(), 1e-5)
    close(jax.jit(jax.jacfwd(lambda z: FOCAL(z, Y)))(Z), gradient)
    product = ce.hessian_vector_product(Z.astype(np.float64), Y, vector, **options)
    hessian = jax.jit(jax.hessian(lambda z: FOCAL(z, Y)))(Z)
    close(jnp.einsum("ikjl,jl->ik", hessian, vector), product, 1e-5)
    by_reverse = jax.jit(jax.grad(lambda z: jnp.vdot(jax.grad(lambda z: FOCAL(z, Y))(z), vector)))(Z)
    close(by_reverse, product, 1e-5)


def test_third_derivatives() -> None:
    z, vector = Z[:1, :3].astype(np.float64), np.array([[0.3, -1.0, 0.5]])

    def second(z: Any) -> Any:
        return jax.jvp(jax.grad(lambda z: cej.cross_entropy(z, np.array([1]), loss=ce.Focal(2.0))), (z,), (vector,))[1]

    with jax.enable_x64(True):
        h = 1e-3
        once, again = jax.jit(second), jax.jit(lambda z: jax.jvp(second, (z,), (vector,))[1])
        close(again(z), (once(z + h * vector) - once(z - h * vector)) / (2 * h), 1e-5)


def test_checkpoint_and_scan() -> None:
    value, gradient = exact(reduction="sum")

    def total(z: Any) -> Any:
        def step(carry: Any, row: Any) -> Any:
            return carry + jax.checkpoint(partial(cej.cross_entropy, reduction="sum"))(*row), None

        return jax.lax.scan(step, 0.0, (z, Y))[0]

    found = jax.jit(jax.value_and_grad(total))(Z)
    close(found[0], value)
    close(found[1], gradient)


def test_export_and_donated_arguments() -> None:
    function = jax.jit(jax.value_and_grad(cej.cross_entropy), donate_argnums=0)
    exported = jax.export.export(jax.jit(jax.value_and_grad(cej.cross_entropy)))(Z, Y)
    again = jax.export.deserialize(exported.serialize())
    n = jax.export.symbolic_shape("n")[0]
    any_rows = jax.ShapeDtypeStruct((n, Z.shape[1]), Z.dtype), jax.ShapeDtypeStruct((n,), Y.dtype)
    symbolic = jax.export.export(jax.jit(jax.value_and_grad(cej.cross_entropy)))(*any_rows)
    value, gradient = exact()
    for found in (function(jnp.array(Z), Y), again.call(Z, jnp.asarray(Y)), symbolic.call(Z, jnp.asarray(Y))):
        close(found[0], value)
        close(found[1], gradient)


@pytest.mark.parametrize("name", ["weight", "sample_weight", "prior", "temperature", "softcap", "margin", "normalizer"])
def test_gradients_of_options(name: str) -> None:
    """By central differences of NumPy's front end."""
    values = {
        "weight": np.array([0.25, 1.0, 2.5, 0.5, 1.5]),
        "sample_weight": np.array([1.0, 0.0, 2.0, 0.5, 3.0, 1.0]),
        "prior": np.array([0.1, 0.3, 0.2, 0.25, 0.15]),
        "temperature": np.array(1.7),
        "softcap": np.array(3.0),
        "margin": np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        "normalizer": np.array(7.0),
    }
    z = Z.copy()
    z[0, 4] = -np.inf
    at = values[name]
    found = jax.jit(jax.grad(lambda x: cej.cross_entropy(z, Y, loss=ce.Focal(0.5), **{name: x})))(at.astype(np.float32))
    wanted = np.zeros(at.shape)
    for i in np.ndindex(at.shape):
        sides = []
        for step in (1e-4, -1e-4):
            moved = at.copy()
            moved[i] = max(moved[i] + step, 0)
            given = moved if moved.ndim else float(moved)
            sides.append(ce.cross_entropy(z.astype(np.float64), Y, loss=ce.Focal(0.5), **{name: given}))
        wanted[i] = (sides[0] - sides[1]) / (1e-4 if at[i] == 0 else 2e-4)
    close(found, wanted, 1e-3)


def test_gradients_of_soft_targets_and_teachers() -> None:
    t = RNG.dirichlet(np.ones(5), 6).astype(np.float32)
    t[0] = [1, 0, 0, 0, 0]
    log_p = np.asarray(jax.nn.log_softmax(Z))
    close(jax.jit(jax.grad(lambda t: cej.cross_entropy(Z, t, reduction="sum")))(t), -log_p)
    p = np.exp(log_p)
    brier = jax.jit(jax.grad(lambda t: cej.cross_entropy(Z, t, reduction="sum", loss=ce.Brier())))(t)
    close(brier, -2 * (p - t) + ((p - t) ** 2).sum(1, keepdims=True), 1e-5)
    total = partial(cej.cross_entropy, reduction="sum")
    mixed = jax.jit(jax.jacfwd(jax.grad(total), argnums=1))(Z[:1], t[:1])
    close(mixed[0, :, 0], p[0][:, None] - np.eye(5), 1e-5)

    teacher = RNG.normal(size=Z.shape).astype(np.float32)
    found = jax.jit(jax.grad(lambda v: cej.distillation_loss(Z, v, temperature=2.0, reduction="sum")))(teacher)
    log_t, log_s = (np.asarray(jax.nn.log_softmax(x / 2)) for x in (teacher, Z))
    ratio = log_t - log_s
    close(found, 2 * np.exp(log_t) * (ratio - (np.exp(log_t) * ratio).sum(1, keepdims=True)), 1e-5)
    of_temperature = jax.jit(jax.value_and_grad(lambda T: cej.distillation_loss(Z, teacher, temperature=T)))
    value, slope = of_temperature(jnp.float32(2.0))
    exact = [ce.distillation_loss(Z.astype(np.float64), teacher, temperature=T) for T in (2.001, 1.999, 2.0)]
    close(value, exact[2])
    close(slope, (exact[0] - exact[1]) / 0.002, 1e-4)

    indices = np.argsort(-teacher, axis=1)[:, :2]
    kept = np.full((6, 2), 0.3, np.float32)
    gradient = jax.jit(jax.grad(lambda q: cej.distillation_loss(Z, cej.TopK(indices, q), reduction="sum")))(kept)
    rest = 1 - np.take_along_axis(p, indices, 1).sum(1, keepdims=True)
    close(gradient, np.log(0.3) - np.take_along_axis(log_p, indices, 1) - (np.log(0.4) - np.log(rest)), 1e-4)


def test_statistics_have_gradients() -> None:
    z = Z[Y >= 0]
    y = Y[Y >= 0]
    found = jax.jit(cej.statistics)(z, y)
    wanted = ce.statistics(z.astype(np.float64), y)
    for name in ("lse", "entropy", "log_prob"):
        close(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(found.argmax, wanted.argmax)
    np.testing.assert_array_equal(found.correct, wanted.correct)
    p = np.asarray(jax.nn.softmax(z))
    close(jax.grad(lambda z: cej.statistics(z, y).lse.sum())(z), p)
    entropy = -(p * np.log(p)).sum(1, keepdims=True)
    close(jax.grad(lambda z: cej.statistics(z, y).entropy.sum())(z), -p * (np.log(p) + entropy), 1e-5)


SHARDED = """
import jax, numpy as np, crossent.jax as cej
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
assert len(jax.devices()) == 4
count = lambda function, *arrays: function.lower(*arrays).compile().as_text().count('target="crossent_rows"')
mesh = Mesh(np.array(jax.devices()), ("rows",))
z = np.random.default_rng(0).normal(size=(8, 65536)).astype(np.float32)
y = np.array([0, 1, 2, 3, 4, -100, 1, 0])
one = jax.value_and_grad(cej.cross_entropy)(z, y)
put = lambda x: jax.device_put(x, NamedSharding(mesh, P("rows")))
many = jax.jit(jax.value_and_grad(cej.cross_entropy))
assert (count(many, z, y), count(many, put(z), put(y))) == (1, 0)  # XLA would gather all rows before a call
many = many(put(z), put(y))
mapped = jax.shard_map(lambda z, y: jax.lax.psum(cej.cross_entropy(z, y, reduction="sum"), "rows") / 7,
                       mesh=mesh, in_specs=(P("rows"), P("rows")), out_specs=P())
mapped = jax.jit(jax.value_and_grad(mapped))
assert count(mapped, put(z), put(y)) == 1
mapped = mapped(put(z), put(y))
for found in (many, mapped):
    np.testing.assert_allclose(found[0], one[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], one[1], rtol=1e-5, atol=1e-8)
print("same")
"""


def test_sharded_over_four_devices() -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", SHARDED]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert result.stdout == "same\n", result.stderr
