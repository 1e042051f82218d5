"""The rules that every front end keeps, on NumPy arrays: targets, axes, reductions, rows that do not count.

``test_rules_numbers.py`` has masks, precision and determinism, ``test_bad_input.py`` the errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import crossent as ce

Z = np.array([[1.0, 2, 3], [2, 1, 3], [0.5, -1, 0.25], [4, 0, 0]])
Y = np.array([2, 0, 1, 0])
ROWS = np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(4), Y]
LINKS = pytest.mark.parametrize("link", ["softmax", "sigmoid"])
pytestmark = pytest.mark.usefixtures("twin")


def close(got: Any, want: Any, rtol: float = 1e-13) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.max(np.abs(want), initial=0.0))


def sigmoid_targets(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 2, shape)


# --- Targets and axes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_labels_of_any_integer_dtype(dtype: str) -> None:
    expected = ce.value_and_grad(Z, Y)
    got = ce.value_and_grad(Z, Y.astype(dtype))
    assert got.value == expected.value
    np.testing.assert_array_equal(got.grad, expected.grad)
    bits = (Z > 1).astype(dtype)
    assert ce.binary_cross_entropy_with_logits(Z, bits) == ce.binary_cross_entropy_with_logits(Z, Z > 1)


def test_targets_and_logits_from_lists_and_strides() -> None:
    expected = ce.value_and_grad(Z, Y)
    wide = np.zeros((8, 6))
    wide[::2, ::2] = Z
    for logits in (Z.tolist(), wide[::2, ::2], np.asfortranarray(Z)):
        got = ce.value_and_grad(logits, Y.tolist())
        assert got.value == expected.value
        np.testing.assert_array_equal(got.grad, expected.grad)
    assert ce.cross_entropy(Z, np.repeat(Y, 2)[::2]) == expected.value
    whole = np.round(Z).astype(int)
    assert ce.cross_entropy(whole, Y) == ce.cross_entropy(whole.astype(float), Y)
    assert ce.value_and_grad(whole, Y).grad.dtype == np.float64


def test_distributions() -> None:
    close(ce.cross_entropy(Z, np.eye(3)[Y]), ROWS.mean())
    uniform = np.full((4, 3), 1 / 3)
    close(ce.cross_entropy(Z, uniform, reduction="none"), (np.log(np.exp(Z).sum(1))[:, None] - Z).mean(axis=1))
    close(ce.cross_entropy(Z, 2 * uniform), 2 * ce.cross_entropy(Z, uniform))  # the mass τ may differ from 1
    close(ce.value_and_grad(Z, 2 * uniform).grad, 2 * ce.value_and_grad(Z, uniform).grad)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_class_axis(axis: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 4, 3))
    target = rng.integers(0, 3, (2, 5, 4))
    soft = rng.dirichlet(np.ones(3), (2, 5, 4))
    moved = np.moveaxis(logits, -1, axis)
    close(
        ce.cross_entropy(moved, target, axis=axis, reduction="none"), ce.cross_entropy(logits, target, reduction="none")
    )
    for t, moved_t in ((target, target), (soft, np.moveaxis(soft, -1, axis))):
        expected = ce.value_grad_hess(logits, t)
        got = ce.value_grad_hess(moved, moved_t, axis=axis)
        close(got.value, expected.value)
        close(got.grad, np.moveaxis(expected.grad, -1, axis))
        close(got.hess, np.moveaxis(expected.hess, -1, axis))
    vector = rng.normal(size=logits.shape)
    expected = np.moveaxis(ce.hessian_vector_product(logits, target, vector), -1, axis)
    close(ce.hessian_vector_product(moved, target, np.moveaxis(vector, -1, axis), axis=axis), expected)
    np.testing.assert_array_equal(ce.statistics(moved, target, axis=axis).argmax, logits.argmax(-1))


def test_one_row_without_a_batch() -> None:
    assert ce.cross_entropy([1.0, 2, 3], 2) == ce.cross_entropy([[1.0, 2, 3]], [2])
    assert np.ndim(ce.cross_entropy([1.0, 2, 3], 2, reduction="none")) == 0
    assert ce.value_and_grad([1.0, 2, 3], 2).grad.shape == (3,)
    assert ce.binary_cross_entropy_with_logits(0.5, 1) == ce.binary_cross_entropy_with_logits([0.5], [1])


# --- Reductions -------------------------------------------------------------------------------------------------------


def test_normalizers() -> None:
    w, s = np.array([1.0, 2, 3]), np.array([1.0, 0, 2, 0.5])
    total = (w[Y] * s * ROWS).sum()
    options = {"weight": w, "sample_weight": s}
    close(ce.cross_entropy(Z, Y, reduction="sum", **options), total)
    close(ce.cross_entropy(Z, Y, **options), total / (w[Y] * s).sum())
    close(ce.cross_entropy(Z, Y, normalizer=10, **options), total / 10)
    close(ce.cross_entropy(Z, Y, reduction="none", **options), w[Y] * s * ROWS)
    close(
        ce.value_and_grad(Z, Y, normalizer=10, **options).grad * 10,
        ce.value_and_grad(Z, Y, reduction="sum", **options).grad,
    )
    close(ce.cross_entropy(Z, Y, weight=w, normalizer="count"), (w[Y] * ROWS).mean())
    # soft targets: the weights of the rows, or their number
    close(ce.cross_entropy(Z, np.eye(3)[Y], weight=w), (w[Y] * ROWS).mean())
    close(ce.cross_entropy(Z, np.eye(3)[Y], **options), total / s.sum())


def test_normalizer_count_is_the_rows_that_count() -> None:
    y = np.array([2, -100, 1, 0])
    w = np.array([1.0, 2, 3])
    rows = ce.cross_entropy(Z, y, weight=w, reduction="none")
    assert rows[1] == 0
    close(ce.cross_entropy(Z, y, weight=w, normalizer="count"), rows.sum() / 3)


def test_smoothing_divides_as_without() -> None:
    """PyTorch's rule: `(1-ε) w_y nll_y + (ε/K) Σ_k w_k nll_k` over `Σ w_y`."""
    w, eps = np.array([1.0, 2, 3]), 0.1
    nll = np.log(np.exp(Z).sum(1))[:, None] - Z
    rows = (1 - eps) * w[Y] * ROWS + eps / 3 * (nll * w).sum(axis=1)
    close(ce.cross_entropy(Z, Y, weight=w, label_smoothing=eps), rows.sum() / w[Y].sum())


def test_sigmoid_mean_is_over_entries_whatever_the_weights() -> None:
    t = (Z > 1).astype(int)
    entries = np.logaddexp(0, Z) - Z * t
    close(ce.binary_cross_entropy_with_logits(Z, t), entries.mean())
    w = np.array([1.0, 2, 5])
    close(ce.binary_cross_entropy_with_logits(Z, t, weight=w), (w * entries).mean())
    close(ce.binary_cross_entropy_with_logits(Z, t, weight=Z**2), (Z**2 * entries).mean())
    s = np.array([1.0, 0, 2, 0.5])
    close(ce.binary_cross_entropy_with_logits(Z, t, sample_weight=s), (s[:, None] * entries).mean())
    t[0, 0] = -100
    entries[0, 0] = 0
    close(ce.binary_cross_entropy_with_logits(Z, t), entries.sum() / 11)


def test_focal_alpha() -> None:
    t = (Z > 1).astype(int)
    sigma = 1 / (1 + np.exp(-Z))
    p = np.where(t == 1, sigma, 1 - sigma)
    alpha = np.where(t == 1, 0.25, 0.75)
    close(ce.focal_loss(Z, t, link="sigmoid", alpha=0.25), (alpha * (1 - p) ** 2 * -np.log(p)).mean())
    w = np.array([1.0, 2, 3])
    q = np.exp(-ROWS)
    close(ce.focal_loss(Z, Y, gamma=1.5, alpha=w), (w[Y] * (1 - q) ** 1.5 * ROWS).mean())


# --- Rows that do not count -------------------------------------------------------------------------------------------


def test_ignore_index() -> None:
    y = np.array([2, -100, 1, 0])
    kept = [0, 2, 3]
    value, grad = ce.value_and_grad(Z, y)
    expected = ce.value_and_grad(Z[kept], Y[kept])
    close(value, expected.value)
    close(grad[kept], expected.grad)
    assert not grad[1].any()
    # it may be a class
    value, grad = ce.value_and_grad(Z, Y, ignore_index=0)
    close(value, ROWS[[0, 2]].mean())
    assert not grad[[1, 3]].any()
    assert grad[[0, 2]].all()


@LINKS
def test_rows_that_do_not_count_may_hold_anything(link: str) -> None:
    """Not even a NaN comes through an ignored row, or one of weight 0."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(4, 3))
    y = rng.integers(0, 3, 4) if link == "softmax" else sigmoid_targets(rng, z.shape)
    bad = z.copy()
    bad[1], bad[2, 0] = np.nan, np.inf
    weight = np.array([1.0, 0, 0, 2])
    ignored = y.copy()
    ignored[[1, 2]] = -100
    for target, options in ((y, {"sample_weight": weight}), (ignored, {})):
        for extra in ({}, {"loss": ce.Focal(0.5)}, {"label_smoothing": 0.1}, {"loss": ce.Brier() + ce.ZPenalty(0.1)}):
            clean, dirty = (ce.value_grad_hess(x, target, link=link, **options, **extra) for x in (z, bad))
            assert np.isfinite(clean.value)
            assert dirty.value == clean.value
            np.testing.assert_array_equal(dirty.grad, clean.grad)
            np.testing.assert_array_equal(dirty.hess, clean.hess)
            assert not dirty.grad[[1, 2]].any()


def test_a_class_of_weight_zero_may_hold_anything() -> None:
    bad = Z.copy()
    bad[2] = np.nan
    value, grad = ce.value_and_grad(bad, Y, weight=np.array([1.0, 0, 2]))
    close(value, (ROWS[0] * 2 + ROWS[1] + ROWS[3]) / 4)
    assert not grad[2].any()


@LINKS
def test_a_mean_over_nothing(link: str) -> None:
    z = np.ones((2, 3))
    ignored = np.full((2,) if link == "softmax" else (2, 3), -100)
    labels = np.zeros_like(ignored)
    empty = np.ones((0, 3)), np.zeros((0,) if link == "softmax" else (0, 3), dtype=int)
    cases: list[tuple[Any, Any, dict[str, Any]]] = [(z, ignored, {}), (*empty, {})]
    if link == "softmax":
        cases += [(z, labels, {"sample_weight": [0.0, 0]}), (z, labels, {"weight": [0.0, 1, 1]})]
    for logits, target, options in cases:
        for on_empty, expected in (("nan", np.nan), ("zero", 0.0)):
            value, grad = ce.value_and_grad(logits, target, link=link, on_empty=on_empty, **options)
            np.testing.assert_array_equal(value, expected)
            np.testing.assert_array_equal(grad, np.zeros(np.shape(logits)))
        np.testing.assert_array_equal(ce.value_and_grad(logits, target, link=link, **options).value, np.nan)
        with pytest.raises(ValueError, match="on_empty"):
            ce.value_and_grad(logits, target, link=link, on_empty="raise", **options)
        for on_empty in ("nan", "zero", "raise"):
            value, grad = ce.value_and_grad(logits, target, link=link, on_empty=on_empty, normalizer=5, **options)
            assert value == 0
            assert not grad.any()
            assert (
                ce.value_and_grad(logits, target, link=link, on_empty=on_empty, reduction="sum", **options).value == 0
            )


def test_linear_head_over_nothing() -> None:
    """Where torch's chunked linear loss makes the input gradient NaN."""
    x, w = np.ones((2, 4)), np.ones((3, 4))
    for target, inputs in ((np.full(2, -100), x), (np.zeros(0, dtype=int), x[:0])):
        value, grad = ce.linear_value_and_grad(inputs, w, target, linear_bias=np.zeros(3))
        assert np.isnan(value)
        for g in grad:
            assert not g.any()
        assert ce.linear_cross_entropy(inputs, w, target, on_empty="zero") == 0
