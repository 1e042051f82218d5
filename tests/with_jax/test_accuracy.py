"""Every value and gradient component in float32 under `jit`, against the oracle, on the rows that break careless code.

The bars are twice those of the compiled kernels: XLA's own log1p is off by 2.3 ulps and its expm1 by 4.6.
"""

from __future__ import annotations

from typing import Any

import adversarial
import jax
import numpy as np
import oracle
import pytest
from accuracy.judge import WHAT, entries, factor, largest_multiplier, slack_of
from laws.tables import LOSSES, LossCase
from test_accuracy import SEVERAL_KINDS, exact_rows

import crossent.jax as cej

BAR = {"value": 4, "gradient": 8}
ONCE = ["Focal(gamma=1.0)", "Focal(gamma=0.0)", "2.5*CrossEntropy()", "Poly1(c=-0.5)"]
"""Losses of a class that is tried with other parameters too: hard labels are enough."""


def judge(results: Any, rows: Any, case: LossCase, slack: Any) -> None:
    for entry in entries(results, rows, np.float32, slack):
        bar = BAR[entry.what] * factor(case.terms)
        assert entry.ulps <= bar, f"{entry}: {entry.ulps} ulps, allowed {bar}"


def value_and_grad(function: Any, z: np.ndarray, target: Any) -> Any:
    def both(z: Any, target: Any) -> Any:
        value, pull = jax.vjp(lambda z: function(z, target), z)
        return value, pull(np.ones(value.shape, np.float32))[0]

    return jax.jit(both)(z, target)


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_softmax(case: LossCase) -> None:
    kinds = ["hard", "weighted", "smoothed", "soft"] if case in SEVERAL_KINDS else ["hard", "smoothed"]
    for kind in kinds[: 1 if case.hard_only or str(case) in ONCE else None]:
        rows, z, target, options = exact_rows(case, kind, 5, np.float32)
        options = {"loss": case.loss, "reduction": "none", **options}
        results = value_and_grad(lambda z, t, o=options: cej.cross_entropy(z, t, **o), z, target)
        assert [part.dtype for part in results] == [np.float32, np.float32]
        slack = slack_of(5, np.float32, largest_multiplier(case.terms, z, options.get("weight", 1.0)))
        judge(results, rows, case, slack)


@pytest.mark.parametrize("num_classes", [1, 2, 33, 1000])
def test_number_of_classes(num_classes: int) -> None:
    case = LOSSES[0]
    z, y = adversarial.rows(num_classes, np.float32, repeats=1)
    if num_classes == 1000:
        z, y = z[::4], y[::4]
    rows = [oracle.tail_row(row, label) for row, label in zip(z, y, strict=True)]
    results = value_and_grad(lambda z, t: cej.cross_entropy(z, t, reduction="none"), z, y)
    judge(results, rows, case, slack_of(num_classes, np.float32, largest_multiplier(case.terms, z)))


@pytest.mark.parametrize("case", [LOSSES[0], LOSSES[2], LOSSES[10]], ids=str)
def test_sigmoid(case: LossCase) -> None:
    z = adversarial.entries(np.float32)
    slack = slack_of(2, np.float32, largest_multiplier(case.terms, np.stack([0 * z, z], axis=1)))
    for target in (np.zeros(z.size, int), np.ones(z.size, int)):
        rows = [oracle.sigmoid_row(x, int(t), oracle.Options(case.terms)) for x, t in zip(z, target, strict=True)]
        options = {"loss": case.loss, "reduction": "none"}
        results = value_and_grad(lambda z, t, o=options: cej.binary_cross_entropy_with_logits(z, t, **o), z, target)
        judge(results, rows, case, slack)


def test_distillation_near_equality() -> None:
    rng = np.random.default_rng(4)
    v = rng.normal(scale=2.0, size=(6, 5)).astype(np.float32)
    z = (v * (1 + 1e-3 * rng.normal(size=v.shape))).astype(np.float32)
    rows = [oracle.distilled_row(a, b, 20.0) for a, b in zip(z, v, strict=True)]
    results = value_and_grad(lambda z, t: cej.distillation_loss(z, t, temperature=20.0, reduction="none"), z, v)
    judge(results, rows, LOSSES[0], slack_of(5, np.float32))


def test_a_confident_answer_keeps_its_digits() -> None:
    """Where `optax` and PyTorch return 0 in float32."""
    z = np.array([[20.0, 1.0, 2.0, 3.0]], np.float32)
    value, gradient = value_and_grad(lambda z, t: cej.cross_entropy(z, t), z, np.array([0]))
    assert float(value) == pytest.approx(6.22322e-8, rel=1e-5)
    assert float(gradient[0, 0]) == pytest.approx(-6.22322e-8, rel=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(dtype: str) -> None:
    z = jax.numpy.asarray(np.random.default_rng(0).normal(size=(6, 5)) * 3, dtype)
    y = np.arange(6) % 5
    value, gradient = jax.jit(jax.value_and_grad(cej.cross_entropy))(z, y)
    wide, exact = jax.value_and_grad(cej.cross_entropy)(z.astype("float32"), y)
    assert value.dtype == np.float32
    assert gradient.dtype == dtype
    assert float(value) == pytest.approx(float(wide), rel=1e-6)
    np.testing.assert_array_equal(gradient, exact.astype(dtype))


def test_the_mean_of_many_rows_keeps_its_digits() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(100_000, 4)).astype(np.float32), rng.integers(0, 4, 100_000)
    exact = np.mean(np.asarray(cej.cross_entropy(z, y, reduction="none"), np.float64))
    assert float(jax.jit(cej.cross_entropy)(z, y)) == pytest.approx(exact, rel=2e-7)


def test_the_judge_has_teeth() -> None:
    case = LOSSES[0]
    rows, z, target, _ = exact_rows(case, "hard", 5, np.float32)
    results = [np.array(x) for x in value_and_grad(lambda z, t: cej.cross_entropy(z, t, reduction="none"), z, target)]
    judge(results, rows, case, slack_of(5, np.float32))
    for what in WHAT[:2]:
        broken = [np.array(x) for x in results]
        part = broken[WHAT.index(what)].reshape(len(z), -1)
        part[3, -1] += 20 * np.spacing(part[3, -1])
        with pytest.raises(AssertionError, match=what):
            judge(broken, rows, case, slack_of(5, np.float32))
