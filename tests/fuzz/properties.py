"""What must hold for any call: a result that keeps the rules, or one sentence that says why not."""

from __future__ import annotations

import os
import warnings
from typing import Any

import ml_dtypes
import numpy as np

from crossent.kernels import registry
from fuzz.calls import Call

Outcome = tuple[str, Any]
"""("result", what came back) or ("refused", the sentence)."""


def _contents(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist() if value.dtype == object else value.tobytes()
    return repr(value)


def leaves(result: Any) -> list[np.ndarray]:
    """The arrays of a result, named tuples flattened."""
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in leaves(part)]
    return [] if result is None else [np.asarray(result)]


def _as_double(array: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return array.astype(np.float64)


def outcome(call: Call) -> Outcome:
    """Make the call; anything but a result, a TypeError or a ValueError in one sentence is a failure."""
    before = [_contents(a) for a in (*call.args, *call.options.values())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            result: Outcome = ("result", call())
        except (TypeError, ValueError) as error:
            text = str(error)
            assert "\n" not in text, f"an error of several lines: {text!r}"
            assert "got" in text, f"not a sentence that says what came: {text!r}"
            assert len(text) < 400, f"a long error: {text!r}"
            result = ("refused", text)
    after = [_contents(a) for a in (*call.args, *call.options.values())]
    assert before == after, "an argument was written to"
    return result


def with_twin(call: Call, *, compiled: bool) -> Outcome:
    """The outcome with the compiled kernels, or with the reference."""
    previous = os.environ.pop("CROSSENT_DISABLE_NUMBA", None)
    if not compiled:
        os.environ["CROSSENT_DISABLE_NUMBA"] = "1"
    registry._forget()
    try:
        return outcome(call)
    finally:
        os.environ.pop("CROSSENT_DISABLE_NUMBA", None)
        if previous is not None:
            os.environ["CROSSENT_DISABLE_NUMBA"] = previous
        registry._forget()


def _check_shapes(call: Call, result: Any) -> None:
    if call.name not in ("value_and_grad", "value_grad_hess", "hessian_vector_product"):
        return
    given = np.asarray(call.args[0])
    wanted = np.dtype(np.float64) if given.dtype.kind in "iu" else given.dtype
    derivatives = leaves(result)[1:] if call.name.startswith("value") else leaves(result)
    for array in derivatives:
        assert array.shape == given.shape
        assert array.dtype == wanted
    if call.name.startswith("value"):
        expected = np.float64 if wanted == np.float64 else np.float32
        assert leaves(result)[0].dtype == expected


def _largest(values: Any) -> float:
    """The largest finite magnitude in an array, 1 at least."""
    numbers = np.abs(_as_double(np.asarray(values))) if np.asarray(values).dtype.kind in "fiuV" else np.zeros(1)
    return float(np.where(np.isfinite(numbers), numbers, 0.0).max(initial=1.0))


def check_close(first: np.ndarray, second: np.ndarray, cancelled: float = 1.0) -> None:
    """The same holes, infinities and integers; other numbers as close as the dtype lets them be.

    They are judged at the size of the array's largest, and of what may have cancelled. How many digits are right is for
    the accuracy tests; this finds a twin that computes something else.
    """
    assert first.shape == second.shape
    assert first.dtype == second.dtype
    if first.dtype.kind in "iub":
        np.testing.assert_array_equal(first, second)
        return
    a, b = np.atleast_1d(_as_double(first)), np.atleast_1d(_as_double(second))
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b), "NaN in different places")
    info = ml_dtypes.finfo(first.dtype)
    # Rounding may carry a number over the edge of the range.
    edge = (np.maximum(np.abs(a), np.abs(b)) > 0.99 * float(info.max)) & (np.sign(a) == np.sign(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(edge | (a == b) | np.isnan(a), 0.0, np.abs(a - b))
    allowed = 64 * float(info.eps) * max(_largest(a), cancelled)
    assert (apart <= allowed).all(), f"the twins are {apart.max() / allowed:.3g} times too far apart: {a} and {b}"


def check(call: Call, *, compiled: bool = True) -> str:
    """All of it, for both twins; returns "result" or "refused"."""
    reference = with_twin(call, compiled=False)
    if reference[0] == "result":
        _check_shapes(call, reference[1])
    if not compiled:
        return reference[0]
    kernel = with_twin(call, compiled=True)
    assert kernel[0] == reference[0], f"{kernel} with kernels, {reference} without"
    if kernel[0] == "refused":
        assert kernel[1] == reference[1]
        return "refused"
    _check_shapes(call, kernel[1])
    again = with_twin(call, compiled=True)
    for first, second, plain in zip(leaves(kernel[1]), leaves(again[1]), leaves(reference[1]), strict=True):
        assert first.tobytes() == second.tobytes(), "a second call gave other bits"
        check_close(first, plain, _largest(call.args[0]) * _largest(call.options.get("weight", 1.0)))
    return "result"
