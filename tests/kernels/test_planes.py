"""Classes that do not lie together: the same numbers as rows of them, computed where they lie."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from libraries import HAS_NUMBA

import crossent as ce
from crossent.numpy.options import Options
from crossent.numpy.problem import LEAST_POSITIONS, make_problem

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed or disabled")

DTYPES = (np.float32, np.float64, ml_dtypes.bfloat16)


def logits_of(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=shape)
    logits[0, 0, 3] = np.nan
    logits[0, :, 4] = -np.inf
    logits[0, 0, 5] = -np.inf
    logits[0, 0, 6] = np.inf
    return logits.astype(dtype)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1, "ignore_index": 1},
    "focal": {"loss": ce.Focal(2.0) + ce.ZPenalty(0.1), "reduction": "sum"},
    "losses": {"reduction": "none"},
    "entropy and Brier score": {"loss": ce.Brier() + ce.EntropyPenalty(0.1), "label_smoothing": 0.1},
    "empty": {"normalizer": "count", "ignore_index": 0, "on_empty": "zero"},
    "large factors": {"normalizer": 1e-40, "loss": 1e5 * ce.CrossEntropy()},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2, 16), (3, 5, 17), (2, 21, 200), (2, 70, 65)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_planes_give_what_rows_give(name: str, weighted: bool, shape: tuple[int, int, int], dtype: Any) -> None:
    rng = np.random.default_rng(1)
    options = dict(OPTIONS[name])
    logits = logits_of(shape, dtype)
    target = rng.integers(0, shape[1], (shape[0], shape[2]))
    target[-1, -1] = options.get("ignore_index", -100)
    if name == "empty":
        target[...] = 0
    if weighted:
        options |= {"weight": rng.random(shape[1]), "sample_weight": rng.random(target.shape)}
        options["sample_weight"][0, :9] = 0.0
        options["weight"][-1] = 0.0
    rows = np.ascontiguousarray(np.moveaxis(logits, 1, -1))
    found, expected = ce.value_and_grad(logits, target, axis=1, **options), ce.value_and_grad(rows, target, **options)
    assert make_problem(logits, target, Options(axis=1, **options)).logits.ndim == 3
    assert found.grad.shape == logits.shape
    assert found.grad.dtype == logits.dtype
    eps = 2.0**-8 if dtype is ml_dtypes.bfloat16 else float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-6 if dtype is not np.float64 else 1e-15)
    grad = np.moveaxis(expected.grad, -1, 1).astype(np.float64)
    largest = np.abs(grad[np.isfinite(grad)]).max()  # of what a smoothed loss takes the difference
    np.testing.assert_allclose(found.grad.astype(np.float64), grad, rtol=4 * eps, atol=eps * largest)
    np.testing.assert_array_equal(ce.cross_entropy(logits, target, axis=1, **options), found.value)


def test_any_axis_but_the_last_is_one_of_planes() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6))
    for axis in range(4):
        target = np.random.default_rng(axis).integers(0, logits.shape[axis], np.delete(logits.shape, axis))
        expected = ce.value_and_grad(np.moveaxis(logits, axis, -1).copy(), target, reduction="none")
        found = ce.value_and_grad(logits, target, axis=axis, reduction="none")
        np.testing.assert_allclose(found.value, expected.value, rtol=1e-15)
        np.testing.assert_allclose(found.grad, np.moveaxis(expected.grad, -1, axis), rtol=1e-14)
        positions = np.prod(logits.shape[axis + 1 :])
        problem = make_problem(logits, target, Options(axis=axis))
        assert (problem.logits.ndim == 3) == (positions >= LEAST_POSITIONS)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 2.0}, {"softcap": 3.0}],
    ids=str,
)
def test_mapped_logits_are_computed_from_rows(options: dict[str, Any]) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 20))
    target = np.random.default_rng(1).integers(0, 3, (2, 20))
    assert make_problem(logits, target, Options(axis=1, **options)).logits.ndim == 2
    found = ce.value_and_grad(logits, target, axis=1, **options)
    expected = ce.value_and_grad(np.moveaxis(logits, 1, -1), target, **options)
    np.testing.assert_array_equal(found.grad, np.moveaxis(expected.grad, -1, 1))


def test_second_derivatives_of_planes() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 20))
    target = np.random.default_rng(1).integers(0, 3, (2, 20))
    found = ce.value_grad_hess(logits, target, axis=1)
    expected = ce.value_grad_hess(np.moveaxis(logits, 1, -1), target)
    np.testing.assert_array_equal(found.hess, np.moveaxis(expected.hess, -1, 1))


def test_bits_do_not_depend_on_threads() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 7, 3001)).astype(np.float32)
    target = np.random.default_rng(1).integers(0, 7, (3, 3001))
    results = []
    try:
        for threads in (1, 2, 5):
            ce.set_num_threads(threads)
            results.append(ce.value_and_grad(logits, target, axis=1))
    finally:
        ce.set_num_threads(None)
    for other in results[1:]:
        assert other.value == results[0].value
        np.testing.assert_array_equal(other.grad, results[0].grad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("link", ["probability", "log_probability"])
def test_probabilities_are_not_taken_for_logits(link: str, dtype: Any) -> None:
    """However long their runs are."""
    log_p = np.log(ce.softmax(np.random.default_rng(2).normal(size=(2, 5, 40)), axis=1))
    values = (np.exp(log_p) if link == "probability" else log_p).astype(dtype)
    labels = np.arange(80).reshape(2, 40) % 5
    function = ce.cross_entropy_from_probabilities if link == "probability" else ce.nll_loss
    by_rows = function(np.ascontiguousarray(np.moveaxis(values, 1, -1)), labels)
    assert function(values, labels, axis=1) == by_rows
    expected = -np.take_along_axis(log_p, labels[:, None], axis=1).mean()
    assert by_rows == pytest.approx(expected, rel=4 * float(ml_dtypes.finfo(dtype).eps))


@pytest.mark.parametrize("shape", [(0, 1), (0, 3, 17), (2, 3, 0)])
def test_nothing_at_all_has_no_planes(shape: tuple[int, ...]) -> None:
    labels = np.zeros(np.delete(shape, 0), np.int64)
    if shape[0] == 0:
        with pytest.raises(ValueError, match=r"^logits must have at least one class; got "):
            ce.cross_entropy(np.zeros(shape), labels, axis=0)
    else:
        assert np.isnan(ce.cross_entropy(np.zeros(shape), labels[..., :0] if len(shape) > 2 else labels, axis=0))
