"""What does not count, what is out of range, what is refused, and what is imported."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crossent as ce
import crossent.jax as cej

Z = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
Y = np.array([0, 2, 1, 1])


def test_where_takes_rows_out() -> None:
    """No loss, no gradient, not in the denominator, whatever the row holds: labels, distributions and teachers."""
    mask = np.array([True, False, True, True])
    z = Z.copy()
    z[1] = np.nan
    t = np.random.default_rng(1).dirichlet(np.ones(3), 4).astype(np.float32)
    for function, target, bad in (
        (cej.cross_entropy, Y, np.where(mask, Y, 99)),
        (cej.cross_entropy, t, t),
        (cej.distillation_loss, t, t),
        (cej.focal_loss, t, t),
        (cej.binary_cross_entropy_with_logits, t, t),
    ):
        value, gradient = jax.jit(jax.value_and_grad(lambda z, f=function, t=bad: f(z, t, where=mask)))(z)
        wanted, rest = jax.jit(jax.value_and_grad(lambda z, f=function, t=target: f(z, t[mask])))(Z[mask])
        np.testing.assert_allclose(value, wanted, rtol=1e-6)
        np.testing.assert_allclose(gradient[mask], rest, rtol=1e-5, atol=1e-8)
        assert (gradient[1] == 0).all()
    entries = np.ones((4, 3), bool)
    entries[0, 1] = False
    some = cej.binary_cross_entropy_with_logits(Z, t, where=entries, reduction="none")
    assert some[0, 1] == 0
    assert (some[entries] > 0).all()


def test_labels_out_of_range() -> None:
    """They raise; under `jit` their row alone is NaN, gradient included."""
    bad = np.array([0, 3, -1, 2])
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2 or equal ignore_index=-100; got 3 in row 1"):
        cej.cross_entropy(Z, bad)
    function = jax.jit(lambda z, y: jax.vjp(lambda z: cej.cross_entropy(z, y, reduction="none"), z))
    losses, pull = function(Z, bad)
    gradient = pull(jnp.ones(4))[0]
    np.testing.assert_array_equal(np.isnan(losses), [False, True, True, False])
    np.testing.assert_array_equal(np.isnan(gradient).all(1), [False, True, True, False])
    np.testing.assert_array_equal(np.isnan(gradient).any(1), [False, True, True, False])


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int8", "int64", "uint64"])
def test_integer_dtypes(dtype: str) -> None:
    assert cej.cross_entropy(Z, Y.astype(dtype)) == cej.cross_entropy(Z, Y)
    with pytest.raises(ValueError, match="in row 0"):
        cej.cross_entropy(Z[:1], np.array([np.iinfo(dtype).max], dtype))
    if dtype == "int64":  # which JAX's own int32 would wrap to class 1
        with pytest.raises(ValueError, match="in row 0"):
            cej.cross_entropy(Z[:1], np.array([2**32 + 1]))


def test_an_empty_mean() -> None:
    ignored = np.full(4, -100)
    for function in (cej.cross_entropy, jax.jit(cej.cross_entropy)):
        value, gradient = jax.value_and_grad(function)(Z, ignored)
        assert math.isnan(value)
        assert (gradient == 0).all()
    assert cej.cross_entropy(Z, ignored, on_empty="zero") == 0
    with pytest.raises(ValueError, match="at least one row"):
        cej.cross_entropy(Z, ignored, on_empty="raise")
    assert cej.cross_entropy(Z, ignored, normalizer=5) == 0


def test_masked_classes_and_rows_that_are_nan() -> None:
    z = np.array([[1, -np.inf, 2], [-np.inf, 1, 2], [np.nan, 1, 2], [np.inf, 1, 2]], np.float32)
    losses, pull = jax.vjp(lambda z: cej.cross_entropy(z, np.zeros(4, int), reduction="none", temperature=2.0), z)
    gradient = np.asarray(pull(jnp.ones(4))[0])
    assert losses[1] == np.inf
    np.testing.assert_array_equal(np.isnan(losses), [False, False, True, True])
    assert gradient[0, 1] == 0
    assert np.isfinite(gradient[:2]).all()
    one_hot = np.eye(3, dtype=np.float32)[[0]]
    assert cej.cross_entropy(z[:1], one_hot) == cej.cross_entropy(z[:1], np.array([0]))


def test_other_axes_and_shapes() -> None:
    cube = np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)
    labels = np.random.default_rng(3).integers(0, 3, (2, 4))
    last = cej.cross_entropy(np.moveaxis(cube, 1, -1), labels, reduction="none")
    np.testing.assert_array_equal(cej.cross_entropy(cube, labels, axis=1, reduction="none"), last)
    assert cej.cross_entropy(Z[0], np.int32(1)).shape == ()
    assert cej.binary_cross_entropy_with_logits(jnp.float32(1.0), 1.0).shape == ()
    entries = cej.binary_cross_entropy_with_logits(cube, cube > 0, axis=1, reduction="none", pos_weight=[1.0, 2.0, 3.0])
    wanted = ce.binary_cross_entropy_with_logits(cube, cube > 0, axis=1, reduction="none", pos_weight=[1.0, 2.0, 3.0])
    np.testing.assert_allclose(entries, wanted, rtol=1e-6)


WRONG: list[tuple[Any, str]] = [
    (lambda: cej.cross_entropy(Z, Y, colour=1), "takes no keyword 'colour'"),
    (lambda: cej.cross_entropy(Z, Y, weight=[1.0, -1.0, 1.0]), "weight must be finite and at least 0"),
    (lambda: cej.cross_entropy(Z, Y, weight=[1.0, 1.0]), "one weight a class"),
    (lambda: cej.cross_entropy(Z, Y.astype(float)), "class labels must be integers"),
    (lambda: cej.cross_entropy(Z, -np.abs(Z)), "finite and non-negative"),
    (lambda: cej.cross_entropy(Z, Y, where=np.ones(4)), "where must be a mask"),
    (lambda: cej.cross_entropy(Z, Y, temperature=0.0), "temperature must be greater than 0"),
    (lambda: cej.cross_entropy(Z, Y, reduction="average"), "reduction must be"),
    (lambda: cej.cross_entropy(Z, Y, axis=2), "axis must be an integer between -2 and 1"),
    (lambda: cej.cross_entropy(Z.astype(int), Y), "logits must be float16"),
    (lambda: cej.cross_entropy(Z, Y, loss="focal"), "loss must be a loss"),
    (lambda: cej.cross_entropy(Z, np.full((4, 3), 0.5), loss=ce.Focal(2.0)), "targets that sum to 1"),
    (lambda: cej.binary_cross_entropy_with_logits(Z, Z), r"floating targets must lie in \[0, 1\]"),
    (lambda: cej.focal_loss(Z, Y, link="probit"), "link must be"),
    (lambda: cej.distillation_loss(Z, Y), "a teacher must be floating logits"),
    (lambda: cej.statistics(Z, cej.TopK(Y[:, None], Z[:, :1])), "statistics need the softmax link and labels"),
    (lambda: jax.jit(lambda s: cej.cross_entropy(Z, Y, label_smoothing=s))(0.1), "label_smoothing must be a number"),
]


@pytest.mark.parametrize(("call", "words"), WRONG)
def test_bad_input(call: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_no_argument_is_written_to_and_options_may_be_traced() -> None:
    arrays = [Z.copy(), Y.copy()]
    for array in arrays:
        array.flags.writeable = False
    value = jax.jit(lambda z, y, n, t: cej.cross_entropy(z, y, normalizer=n, temperature=t))(*arrays, 8.0, 2.0)
    wanted = ce.cross_entropy(Z.astype(np.float64), Y, normalizer=8.0, temperature=2.0)
    assert float(value) == pytest.approx(wanted, rel=1e-6)


def test_without_jax_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['jax'] = None\nimport crossent\nimport crossent.jax"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "crossent.jax needs JAX: pip install 'crossent[jax]'" in result.stderr


@pytest.mark.parametrize(
    "made",
    [lambda z: z / 1.3, lambda z: jnp.tanh(z / 3) * 2.3, jax.nn.gelu, lambda z: z * 0.7 + 0.3 * z[..., ::-1]],
    ids=["quotient", "tanh", "gelu", "sum"],
)
def test_logits_that_the_same_program_computes(made: Any) -> None:
    """XLA computes such logits anew in each loop that reads them, and may round them differently there."""
    z, y = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32) * 2, np.array([0, 3, 1, 1, 4, 2])
    for options in ({}, {"temperature": 1.3}, {"loss": ce.Focal(1.5)}):

        def loss(z: Any, y: Any, options: Any = options) -> Any:
            return cej.cross_entropy(made(z), y, **options)

        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(z, y)
        wanted, of_logits = ce.value_and_grad(np.asarray(made(z), np.float64), y, reduction="none", **options)
        np.testing.assert_allclose(values, wanted, rtol=3e-6)
        of_z = jax.vjp(made, jnp.asarray(z))[1](jnp.asarray(of_logits, jnp.float32))[0]
        np.testing.assert_allclose(gradients, of_z, rtol=1e-4, atol=1e-6)
