"""The rules about numbers: masks, NaN and infinities, precision, arguments that stay as they were, the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import crossent as ce

Z = np.array([[1.0, 2, 3], [2, 1, 3], [0.5, -1, 0.25], [4, 0, 0]])
Y = np.array([2, 0, 1, 0])
LINKS = pytest.mark.parametrize("link", ["softmax", "sigmoid"])
pytestmark = pytest.mark.usefixtures("twin")


def close(got: Any, want: Any, rtol: float = 1e-13) -> None:
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.max(np.abs(want), initial=0.0))


# --- Masked classes, NaN, infinities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [None, ce.Focal(2.0), ce.Focal(0.5), ce.Poly1(1.0), ce.Brier(), ce.EntropyPenalty(1.0)]
)
def test_masked_classes(loss: ce.Loss | None) -> None:
    """A class at -inf is not there: the other classes see what they would without it."""
    z = np.array([[1.0, -np.inf, 2, 3], [2, -np.inf, 1, 3]])
    y = np.array([3, 0])
    kept = [0, 2, 3]
    expected = ce.value_grad_hess(z[:, kept], np.array([2, 0]), loss=loss)
    got = ce.value_grad_hess(z, y, loss=loss)
    close(got.value, expected.value)
    close(got.grad[:, kept], expected.grad)
    close(got.hess[:, kept], expected.hess)
    assert not got.grad[:, 1].any()
    assert not got.hess[:, 1].any()


def test_soft_target_without_mass_on_a_masked_class() -> None:
    """Where torch returns NaN."""
    z = np.array([[1.0, -np.inf, 2]])
    for loss in (None, ce.Focal(2.0), ce.Poly1(1.0), ce.Brier()):
        got = ce.value_and_grad(z, np.array([[0.25, 0, 0.75]]), loss=loss)
        expected = ce.value_and_grad(z[:, [0, 2]], np.array([[0.25, 0.75]]), loss=loss)
        close(got.value, expected.value)
        close(got.grad[:, [0, 2]], expected.grad)
        assert got.grad[0, 1] == 0


@pytest.mark.parametrize("loss", [None, ce.Focal(2.0), ce.Focal(0.5), ce.Poly1(1.0), ce.Focal(1.0) + ce.ZPenalty(0.1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_true_class_masked(loss: ce.Loss | None, dtype: Any) -> None:
    """Loss +inf, and the gradient that cross-entropy has there: p - onehot (plus the penalty's)."""
    z = np.array([[1.0, -np.inf, 2], [0, 0, 0]], dtype=dtype)
    value, grad = ce.value_and_grad(z, [1, 0], loss=loss, reduction="none")
    assert value[0] == np.inf
    assert np.isfinite(value[1])
    p = np.exp([1.0, 2]) / np.exp([1.0, 2]).sum()
    lse = np.log(np.exp([1.0, 2]).sum())
    extra = 0.2 * lse * p if loss is not None and len(loss.terms) > 1 else 0.0
    close(grad[0, [0, 2]], p + extra, 1e-6)
    assert grad[0, 1] == -1
    assert np.isfinite(grad).all()
    soft = ce.value_and_grad(z, np.array([[0.5, 0.5, 0], [1, 0, 0]], dtype=dtype), reduction="none")
    assert soft.value[0] == np.inf
    assert np.isfinite(soft.grad).all()


def test_masked_with_bounded_losses() -> None:
    z = np.array([[1.0, -np.inf, 2]])
    value, grad = ce.value_and_grad(z, [1], loss=ce.GeneralizedCrossEntropy(0.5))
    assert value == 2.0
    assert not grad.any()
    p = np.exp([1.0, 2]) / np.exp([1.0, 2]).sum()
    close(ce.cross_entropy(z, [1], loss=ce.Brier()), 1 + (p**2).sum())


@pytest.mark.parametrize(
    "bad", [[np.nan, 0, 0], [0, np.nan, -np.inf], [np.inf, 0, 0], [np.inf, np.inf, 0], [-np.inf] * 3]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "loss", [None, ce.Focal(2.0), ce.Brier() + ce.EntropyPenalty(0.1), ce.GeneralizedCrossEntropy(0.5)]
)
def test_bad_rows_are_nan_and_no_others(bad: list[float], dtype: Any, loss: ce.Loss | None) -> None:
    z = np.array([[1, 2, 3], bad, [2, 1, 3]], dtype=dtype)
    results = ce.value_grad_hess(z, [0, 1, 2], loss=loss, reduction="none")
    clean = ce.value_grad_hess(z[[0, 2]], [0, 2], loss=loss, reduction="none")
    fast = ce.value_and_grad(z, [0, 1, 2], loss=loss, reduction="none")
    for got, want in zip((*results, *fast), (*clean, *clean[:2]), strict=True):
        assert np.isnan(got[1]).all()
        close(got[[0, 2]], want, 1e-3 if dtype == np.float16 else 1e-6)
    assert np.isnan(ce.cross_entropy(z, [0, 1, 2], loss=loss))
    for statistic in ce.statistics(z, [0, 1, 2])[:3]:
        assert np.isnan(statistic[1])
        assert np.isfinite(statistic[[0, 2]]).all()


def test_infinite_sigmoid_logits_are_probabilities_one_and_zero() -> None:
    z = np.array([np.inf, -np.inf, np.inf, -np.inf, np.nan])
    t = np.array([1, 0, 0, 1, 1])
    for loss in (None, ce.Focal(2.0), ce.Focal(0.5), ce.Poly1(1.0)):
        value, grad = ce.value_and_grad(z, t, link="sigmoid", loss=loss, reduction="none")
        np.testing.assert_array_equal(value, [0, 0, np.inf, np.inf, np.nan])
        np.testing.assert_array_equal(grad, [0, 0, 1, -1, np.nan])
    np.testing.assert_array_equal(ce.sigmoid(z), [1, 0, 1, 0, np.nan])


def test_maps_pass_masks_through() -> None:
    z = np.array([[1.0, -np.inf, 2]])
    maps = {"softcap": 3.0, "temperature": 2.0, "prior": [0.2, 0.5, 0.3], "margin": 0.1}
    kept = {**maps, "prior": [0.2, 0.3]}
    got, expected = ce.value_and_grad(z, [2], **maps), ce.value_and_grad(z[:, [0, 2]], [1], **kept)
    close(got.value, expected.value)
    close(got.grad[:, [0, 2]], expected.grad)
    assert got.grad[0, 1] == 0


# --- Precision --------------------------------------------------------------------------------------------------------


@LINKS
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_dtypes(link: str, dtype: Any) -> None:
    y = Y if link == "softmax" else (Z > 1).astype(int)
    expected_value = np.float64 if dtype == np.float64 else np.float32
    logits = Z.astype(dtype)
    wide = ce.value_grad_hess(logits.astype(np.float64), y, link=link)
    for function in (ce.value_and_grad, ce.value_grad_hess):
        result = function(logits, y, link=link)
        assert result.value.dtype == expected_value
        assert all(array.dtype == dtype for array in result[1:])
        close(result.value, wide.value, 1e-6)
        for got, want in zip(result[1:], wide[1:], strict=False):
            close(got.astype(np.float64), want, {np.float16: 1e-3, ml_dtypes.bfloat16: 8e-3}.get(dtype, 1e-6))
    assert ce.value_and_grad(logits, y, link=link, reduction="none").value.dtype == expected_value
    x, w = np.eye(4, 3).astype(dtype), np.ones((3, 3)).astype(dtype)
    value, grad = ce.linear_value_and_grad(x, w, y, link=link)
    assert value.dtype == expected_value
    assert grad.input.dtype == grad.weight.dtype == dtype


def test_sums_do_not_run_in_low_precision() -> None:
    """70,000 rows of loss log 2 sum to 48,520: float16 overflows at 65,504 and bfloat16 stalls at 256."""
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32):
        z = np.zeros((140_000, 2), dtype=dtype)
        y = np.zeros(140_000, dtype=int)
        close(ce.cross_entropy(z, y, reduction="sum"), 140_000 * np.log(2), 1e-6)
        close(ce.cross_entropy(z, y), np.log(2), 1e-6)


# --- Purity and determinism -------------------------------------------------------------------------------------------


@LINKS
def test_no_argument_is_written_to(link: str) -> None:
    """Read-only arrays go everywhere, and a second call gives the same bits."""
    rng = np.random.default_rng(2)

    def frozen(array: np.ndarray) -> np.ndarray:
        array.flags.writeable = False
        return array

    z, v = frozen(rng.normal(size=(6, 3))), frozen(rng.normal(size=(6, 3)))
    y = frozen(rng.integers(0, 3, 6) if link == "softmax" else rng.integers(0, 2, (6, 3)))
    x, w, b = frozen(rng.normal(size=(6, 2))), frozen(rng.normal(size=(3, 2))), frozen(rng.normal(size=3))
    options: dict[str, Any] = {"link": link, "sample_weight": frozen(rng.random(6)), "temperature": 2.0, "softcap": 5.0}
    options |= {"weight": frozen(rng.random(3)), "prior": frozen(np.array([0.2, 0.3, 0.5]))}
    calls = [
        lambda: ce.value_and_grad(z, y, **options),
        lambda: ce.value_grad_hess(z, y, **options),
        lambda: (ce.hessian_vector_product(z, y, v, **options),),
        lambda: (ce.linear_value_and_grad(x, w, y, linear_bias=b, **options).grad.weight,),
        lambda: (ce.softmax(z), ce.log_softmax(z), ce.sigmoid(z)),
    ]
    for call in calls:
        for first, second in zip(call(), call(), strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shape", [(30_000, 10), (700, 1000), (9, 70_000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_for_any_number_of_threads(shape: tuple[int, int], dtype: Any, twin: str) -> None:
    if twin == "reference" and shape[1] == 1000:
        pytest.skip("the reference has no threads")
    rng = np.random.default_rng(3)
    z, y = rng.normal(size=shape).astype(dtype), rng.integers(0, shape[1], shape[0])
    results = []
    try:
        for threads in (1, 2, 5):
            ce.set_num_threads(threads)
            assert ce.get_num_threads() == threads
            results.append(ce.value_and_grad(z, y, loss=ce.Focal(1.5), sample_weight=np.linspace(0, 1, len(z))))
    finally:
        ce.set_num_threads(None)
    for value, grad in results[1:]:
        assert value == results[0].value
        np.testing.assert_array_equal(grad, results[0].grad)


def test_calls_from_several_threads_at_once() -> None:
    rng = np.random.default_rng(4)
    z, y = rng.normal(size=(20_000, 10)), rng.integers(0, 10, 20_000)
    expected = ce.value_and_grad(z, y)
    results: list[Any] = [None] * 6

    def work(i: int) -> None:
        results[i] = [ce.value_and_grad(z, y) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for done in results:
        for value, grad in done:
            assert value == expected.value
            np.testing.assert_array_equal(grad, expected.grad)


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"CROSSENT_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"CROSSENT_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, 2),
    ],
)
def test_thread_limits_of_the_environment(environment: dict[str, str], threads: int, twin: str) -> None:
    if twin == "reference":
        pytest.skip("asked once")
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    code = "import crossent as ce; print(ce.get_num_threads())"
    shown = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) == threads
    if hasattr(os, "sched_setaffinity"):
        code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); {code}"
        shown = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
        assert int(shown.stdout) == 1
