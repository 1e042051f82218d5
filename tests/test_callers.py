"""Arrays and callers as they come: any layout, any size, from threads, children, pools and under an interruption."""

from __future__ import annotations

import _thread
import concurrent.futures
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import crossent as ce

RNG = np.random.default_rng(0)
Z, Y, X, W = RNG.normal(size=(6, 5)), RNG.integers(0, 5, 6), RNG.normal(size=(6, 3)), RNG.normal(size=(5, 3))

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "read-only": lambda a: _read_only(a),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "Fortran": np.asfortranarray,
    "a field of records": lambda a: _field(a),
    "unaligned": lambda a: _unaligned(a),
    "memory map": lambda a: a,  # replaced in the test, which has a directory
}


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def _field(array: np.ndarray) -> np.ndarray:
    records = np.zeros(array.shape, np.dtype([("pad", np.int8), ("value", array.dtype)]))
    records["value"] = array
    return records["value"]


def _unaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def everything(z: np.ndarray, x: np.ndarray, w: np.ndarray) -> list[Any]:
    """The results of all kinds of functions of logits, or of input and weight."""
    results = [*ce.value_and_grad(z, Y), *ce.value_grad_hess(z, Y, loss=ce.Focal(2.0)), *ce.statistics(z, Y)]
    results += [ce.hessian_vector_product(z, Y, z), ce.softmax(z), ce.log_softmax(z), ce.logsumexp(z), ce.sigmoid(z)]
    results += [ce.softplus(z), *ce.value_and_grad(z, (np.asarray(z) > 0).astype(int), link="sigmoid")]
    value, gradients = ce.linear_value_and_grad(x, w, Y)
    return [*results, value, gradients.input, gradients.weight, *ce.linear_statistics(x, w, Y)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_any_layout_gives_the_same_bits(layout: str, dtype: Any, tmp_path: Path, twin: str) -> None:
    plain = [a.astype(dtype) for a in (Z, X, W)]
    if layout == "memory map":
        laid_out = [np.memmap(tmp_path / f"{i}", dtype, "w+", shape=a.shape) for i, a in enumerate(plain)]
        for mapped, values in zip(laid_out, plain, strict=True):
            mapped[...] = values
    else:
        laid_out = [LAYOUTS[layout](a) for a in plain]
    before = [a.tobytes() for a in laid_out]
    for got, expected in zip(everything(*laid_out), everything(*plain), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [a.tobytes() for a in laid_out] == before


def of_probabilities(p: np.ndarray, logs: np.ndarray, q: np.ndarray) -> list[Any]:
    """The results of all functions of probabilities, of log-probabilities and of binary probabilities."""
    labels, soft = (np.arange(6) % 2)[:, None] * np.ones(5, int), np.full((6, 5), 0.2)
    results = [ce.cross_entropy_from_probabilities(p, Y), ce.cross_entropy_from_probabilities(p, soft)]
    results += [ce.nll_loss(logs, Y), ce.nll_loss(logs, soft), ce.binary_cross_entropy(q, labels)]
    results += [ce.entropy(p), ce.kl_divergence(p, p[::-1]), ce.js_divergence(p, p[::-1])]
    for link, values, target in (
        ("probability", p, Y),
        ("log_probability", logs, Y),
        ("binary_probability", q, labels),
        ("probability", p, soft),
        ("binary_probability", q, soft),
    ):
        results += ce.value_grad_hess(values, target, link=link)
        results += [*ce.value_and_grad(values, target, link=link, reduction="none")]
        results += [ce.hessian_vector_product(values, target, values, link=link)]
    return results


@pytest.mark.parametrize("layout", [*LAYOUTS, "broadcast"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_any_layout_of_probabilities_gives_the_same_bits(layout: str, dtype: Any, tmp_path: Path, twin: str) -> None:
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.ones(5), 6)
    plain = [a.astype(dtype) for a in (p, np.log(p), rng.random((6, 5)))]
    if layout == "memory map":
        laid_out = [np.memmap(tmp_path / f"{i}", dtype, "w+", shape=a.shape) for i, a in enumerate(plain)]
        for mapped, values in zip(laid_out, plain, strict=True):
            mapped[...] = values
    elif layout == "broadcast":
        laid_out = [np.broadcast_to(a[0], a.shape) for a in plain]
        plain = [np.ascontiguousarray(a) for a in laid_out]
    else:
        laid_out = [LAYOUTS[layout](a) for a in plain]
    before = [a.tobytes() for a in laid_out]
    for got, expected in zip(of_probabilities(*laid_out), of_probabilities(*plain), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [a.tobytes() for a in laid_out] == before


def test_rows_that_share_memory(twin: str) -> None:
    """A broadcast array has strides of 0; every row has the same gradient, in memory of its own."""
    row = RNG.normal(size=5)
    value, grad = ce.value_and_grad(np.broadcast_to(row, (6, 5)), np.full(6, 2))
    single = ce.value_and_grad(row[None], [2])
    assert value == pytest.approx(single.value, rel=1e-15)
    np.testing.assert_allclose(grad * 6, np.broadcast_to(single.grad, (6, 5)), rtol=1e-14)
    assert grad.flags.writeable
    y = np.broadcast_to(np.int64(2), 6)
    np.testing.assert_array_equal(ce.value_and_grad(np.broadcast_to(row, (6, 5)), y).grad, grad)


def test_few_dimensions(twin: str) -> None:
    assert ce.value_and_grad(np.zeros((0, 4)), np.zeros(0, int)).grad.shape == (0, 4)
    assert ce.value_and_grad(np.zeros((2, 0, 4)), np.zeros((2, 0), int), reduction="sum").value == 0.0
    value, grad = ce.value_and_grad(np.zeros(4), 1)
    assert value == pytest.approx(np.log(4))
    np.testing.assert_allclose(grad, [0.25, -0.75, 0.25, 0.25])
    value, grad = ce.value_and_grad(0.0, 1, link="sigmoid")
    assert grad.shape == ()
    assert grad == -0.5
    with pytest.raises(ValueError, match="class axis"):
        ce.value_and_grad(0.0, 0)


@pytest.mark.parametrize("dtype", [">f4", ">f8", object, np.bool_, np.complex64, np.longdouble, "U3", "M8[s]"])
def test_refused_dtypes_are_named(dtype: Any) -> None:
    array = np.zeros((2, 3)).astype(dtype)
    calls = [
        lambda: ce.cross_entropy(array, [0, 1]),
        lambda: ce.value_and_grad(array, [0, 1]),
        lambda: ce.linear_value_and_grad(array, np.zeros((4, 3)), [0, 1]),
        lambda: ce.softmax(array),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"native byte order|numbers") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_labels_of_every_integer_type(dtype: Any, twin: str) -> None:
    expected = ce.value_and_grad(Z, Y).grad
    np.testing.assert_array_equal(ce.value_and_grad(Z, Y.astype(dtype)).grad, expected)
    for wrong in (5, np.iinfo(dtype).max):
        spoiled = Y.astype(dtype)
        spoiled[3] = wrong
        with pytest.raises(ValueError, match=rf"got {wrong} in row 3"):
            ce.cross_entropy(Z, spoiled)
    if np.issubdtype(dtype, np.signedinteger):
        spoiled[3] = -7
        with pytest.raises(ValueError, match=r"got -7 in row 3"):
            ce.cross_entropy(Z, spoiled)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(bad: float, twin: str) -> None:
    """In logits it is a result; in weights and targets it is refused, by name."""
    spoiled = Z.copy()
    spoiled[2, 3] = bad
    values, grad = ce.value_and_grad(spoiled, Y, reduction="none")
    clean = ce.value_and_grad(Z, Y, reduction="none")
    others = np.arange(6) != 2
    np.testing.assert_array_equal(values[others], clean.value[others])
    np.testing.assert_array_equal(grad[others], clean.grad[others])
    assert np.isnan(values[2]) == (bad != -np.inf)
    for name, shape in (("weight", 5), ("sample_weight", 6)):
        weights = np.ones(shape)
        weights[1] = bad
        with pytest.raises(ValueError, match=rf"{name} must be non-negative and finite.*{bad}.*1"):
            ce.cross_entropy(Z, Y, **{name: weights})
    target = np.full((6, 5), 0.2)
    target[4, 1] = bad
    with pytest.raises(ValueError, match=rf"{bad} in row 4"):
        ce.cross_entropy(Z, target)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("loss", [None, ce.Focal(2.0), ce.Brier() + ce.ZPenalty(0.1)], ids=repr)
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_vector_that_is_not_finite_stays_in_its_row(bad: float, loss: Any, link: str, twin: str) -> None:
    """As documented: a product with it is a result, not an error; ignored rows stay 0."""
    target = Y.copy() if link == "softmax" else (Z > 0).astype(int)
    target[4] = -100
    vector = np.ones((6, 5))
    spoiled = vector.copy()
    spoiled[2, 3] = spoiled[4, 1] = bad
    clean = ce.hessian_vector_product(Z, target, vector, loss=loss, link=link)
    product = ce.hessian_vector_product(Z, target, spoiled, loss=loss, link=link)
    touched = np.arange(6)[:, None] == 2
    if link == "sigmoid":
        touched = touched & (np.arange(5) == 3)
    touched = np.broadcast_to(touched, (6, 5))
    np.testing.assert_array_equal(product[~touched], clean[~touched])
    assert (product[4] == 0).all()
    assert not np.isfinite(product[touched]).any()
    assert np.isnan(product[2, 3]) or bad == np.inf


# --- Low precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("loss", [None, ce.Focal(0.5), ce.CrossEntropy() + ce.ZPenalty(1e-3)], ids=repr)
def test_half_precision_is_the_float32_result_rounded_once(dtype: Any, loss: Any, twin: str) -> None:
    z = RNG.normal(scale=4, size=(300, 70)).astype(dtype)
    y = RNG.integers(0, 70, 300)
    value, grad = ce.value_and_grad(z, y, loss=loss)
    wide_value, wide_grad = ce.value_and_grad(z.astype(np.float32), y, loss=loss)
    assert value.dtype == np.float32
    assert value == wide_value
    assert grad.dtype == dtype
    np.testing.assert_array_equal(grad, wide_grad.astype(dtype))
    x, w = RNG.normal(size=(9, 4)).astype(dtype), RNG.normal(size=(70, 4)).astype(dtype)
    narrow = ce.linear_value_and_grad(x, w, y[:9], loss=loss)
    wide = ce.linear_value_and_grad(x.astype(np.float32), w.astype(np.float32), y[:9], loss=loss)
    assert narrow.value == wide.value
    np.testing.assert_array_equal(narrow.grad.input, wide.grad.input.astype(dtype))
    np.testing.assert_array_equal(narrow.grad.weight, wide.grad.weight.astype(dtype))


def _of_link(link: str) -> tuple[np.ndarray, np.ndarray]:
    """What a link takes, (300, 4), and labels for it."""
    rng = np.random.default_rng(11)
    of_entries = link in ("sigmoid", "binary_probability")
    target = rng.integers(0, 2, (300, 4)) if of_entries else rng.integers(0, 4, 300)
    if link == "binary_probability":
        return rng.random((300, 4)), target
    if link in ("softmax", "sigmoid"):
        return rng.normal(size=(300, 4)), target
    probabilities = rng.dirichlet(np.ones(4), 300)
    return probabilities if link == "probability" else np.log(probabilities), target


LINKS = ["softmax", "sigmoid", "probability", "log_probability", "binary_probability"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("kind", ["labels", "distributions"])
def test_half_precision_of_every_link(dtype: Any, link: str, kind: str, twin: str) -> None:
    """Value, gradient, Hessian's diagonal and products: those of float32, rounded once."""
    values, target = _of_link(link)
    half = values.astype(dtype)
    wide = half.astype(np.float32)
    if kind == "distributions":
        target = (np.eye(4)[target] if target.ndim == 1 else target) * 0.5
    for function in (ce.value_and_grad, ce.value_grad_hess):
        got, expected = function(half, target, link=link), function(wide, target, link=link)
        assert got[0].dtype == np.float32
        assert got[0] == expected[0]
        for derivative, wide_derivative in zip(got[1:], expected[1:], strict=True):
            assert derivative.dtype == dtype
            np.testing.assert_array_equal(derivative, wide_derivative.astype(dtype))
    product = ce.hessian_vector_product(half, target, wide, link=link)
    np.testing.assert_array_equal(product, ce.hessian_vector_product(wide, target, wide, link=link).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_millions_of_rows_do_not_overflow_a_sum(dtype: Any) -> None:
    """4,000,000 rows of log 2: float16 ends at 65,504, bfloat16 stalls at 256, float32 loses digits at 2^24."""
    n = 4_000_000
    z, y = np.zeros((n, 2), dtype), np.zeros(n, np.int8)
    assert ce.cross_entropy(z, y, reduction="sum") == pytest.approx(n * np.log(2), rel=1e-7)
    value, grad = ce.value_and_grad(z, y, reduction="sum")
    assert value == pytest.approx(n * np.log(2), rel=1e-7)
    assert (grad[:, 0] == -0.5).all()


# --- Callers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20_000, 10), (300, 1000), (2, 200_000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", [None, ce.Focal(1.5) + ce.EntropyPenalty(0.1)], ids=repr)
def test_one_two_and_eight_threads_give_the_same_bits(shape: tuple[int, int], dtype: Any, loss: Any) -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=shape).astype(dtype), rng.integers(0, shape[1], shape[0])
    binary = (z > 1).astype(int)
    results = []
    try:
        for threads in (1, 2, 8):
            ce.set_num_threads(threads)
            results.append([*ce.value_and_grad(z, y, loss=loss), *ce.value_and_grad(z, binary, link="sigmoid")])
            results[-1] += [*ce.statistics(z, y), ce.softmax(z)]
    finally:
        ce.set_num_threads(None)
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()


def _digest(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    z, y = rng.normal(size=(20_000, 10)), rng.integers(0, 10, 20_000)
    value, grad = ce.value_and_grad(z, y)
    return value.tobytes() + grad.tobytes()


def test_many_threads_at_once() -> None:
    expected = [_digest(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(_digest, list(range(8)) * 4)) == expected * 4


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_inside_a_process_pool(start: str) -> None:
    """The parent has used its threads before; the children have none of them."""
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {start}")
    expected = [_digest(seed) for seed in range(3)]
    code = (
        "import hashlib, multiprocessing, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_callers import _digest\n"
        "if __name__ == '__main__':\n"
        "    _digest(0)\n"
        f"    with multiprocessing.get_context({start!r}).Pool(2) as pool:\n"
        "        for digest in pool.map(_digest, range(3)): print(hashlib.sha256(digest).hexdigest())\n"
    )
    script = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [hashlib.sha256(digest).hexdigest() for digest in expected]


def test_after_an_interruption_everything_goes_on() -> None:
    """Ctrl-C during a call: KeyboardInterrupt, arguments as they were, the next call right."""
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(200_000, 50)), rng.integers(0, 50, 200_000)
    expected = ce.value_and_grad(z, y)
    before = z.copy()
    interrupted = 0
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        timer = threading.Timer(delay, _thread.interrupt_main)
        try:
            timer.start()
            for _ in range(10_000):
                ce.value_and_grad(z, y)
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        value, grad = ce.value_and_grad(z, y)
        assert value == expected.value
        np.testing.assert_array_equal(grad, expected.grad)
    assert interrupted == 5
    np.testing.assert_array_equal(z, before)


def test_a_forked_child_computes() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("the system has no fork")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_callers import _digest\n"
        "expected = _digest(0)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if _digest(0) == expected else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    script = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
