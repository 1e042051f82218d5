"""More than 2^31 elements through the compiled kernels: row and element numbers beyond 32 bits.

Logits are zeros that were never written, and so pages of memory that do not exist, but for a few marked rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import oracle
import pytest
from accuracy.judge import judge, slack_of
from libraries import HAS_NUMBA

import crossent as ce
from crossent.kernels import registry

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="takes minutes without the kernels")
CLASSES = 1024
ROWS = (1 << 21) + 5
MARKED = [3, (1 << 21) - 1, 1 << 21, ROWS - 3, ROWS - 1]
"""Rows on both sides of element 2^31, which is the first of row 2^21."""


def _needs(gigabytes: float) -> None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
    except OSError:
        free = 0.0
    if free < gigabytes:
        pytest.skip(f"needs {gigabytes} GiB of memory, {free:.1f} are free")


def _problem(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Zeros with marked rows of all sizes, labels, and one row after 2^31 that is ignored."""
    z, y = np.zeros((ROWS, CLASSES), dtype), np.zeros(ROWS, np.int16)
    assert z.size > 2**31
    rng = np.random.default_rng(0)
    z[MARKED] = rng.normal(scale=4, size=(len(MARKED), CLASSES)).astype(dtype)
    y[MARKED] = rng.integers(0, CLASSES, len(MARKED))
    z[ROWS - 1, y[ROWS - 1]] = 60  # confident, in the last row of all
    y[ROWS - 2] = -100
    return z, y


def _check_values(values: np.ndarray, z: np.ndarray, y: np.ndarray) -> None:
    """Marked rows against the oracle, the ignored row 0, and all others log K."""
    rows = [oracle.tail_row(row, int(label)) for row, label in zip(z[MARKED], y[MARKED], strict=True)]
    judge((values[MARKED],), rows, oracle.CROSS_ENTROPY, np.float32, slack_of(CLASSES, np.float32))
    assert values[ROWS - 2] == 0
    others = np.ones(ROWS, bool)
    others[[*MARKED, ROWS - 2]] = False
    assert (values[others] == np.float32(np.log(CLASSES))).all()


# NumPy converts two billion numbers from and to float16 for most of a minute.
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, pytest.param(np.float16, marks=pytest.mark.slow)])
def test_values_and_gradients_beyond_element_two_to_the_31(dtype: Any) -> None:
    assert registry.find(np.dtype(np.float32)).__name__ == "crossent.kernels.cpu"
    _needs(7)
    z, y = _problem(dtype)
    values, grad = ce.value_and_grad(z, y, reduction="none")
    assert (values.dtype, grad.dtype) == (np.float32, dtype)
    _check_values(values, z, y)
    # The same rows on their own, which the oracle judges in float32; here they are rounded once more.
    few = ce.value_and_grad(z[MARKED], y[MARKED], reduction="none")
    np.testing.assert_array_equal(grad[MARKED], few.grad)
    exact = [oracle.tail_row(row, int(label)) for row, label in zip(z[MARKED], y[MARKED], strict=True)]
    wide = ce.value_and_grad(z[MARKED].astype(np.float32), y[MARKED], reduction="none")
    judge(wide, exact, oracle.CROSS_ENTROPY, np.float32, slack_of(CLASSES, np.float32))
    np.testing.assert_array_equal(few.grad, wide.grad.astype(dtype))
    assert (grad[ROWS - 2] == 0).all()
    plain = ce.value_and_grad(np.zeros((1, CLASSES), dtype), [0], reduction="none").grad[0]
    for k in (0, 1, CLASSES - 1):
        column = grad[:, k] == plain[k]
        column[[*MARKED, ROWS - 2]] = True
        assert column.all()


def test_float32_values_beyond_element_two_to_the_31(tmp_path: Path) -> None:
    """A memory map of a file with holes; the mean, its denominator and a label out of range in the last rows."""
    _needs(3)
    z, y = _problem(np.float32)
    _check_values(ce.cross_entropy(z, y, reduction="none"), z, y)
    del z
    mapped = np.memmap(tmp_path / "logits", np.float32, "w+", shape=(ROWS, CLASSES))
    y[:] = -100
    y[[ROWS - 3, ROWS - 1]] = 7
    mapped[ROWS - 1, 7] = 30.0
    expected = ce.value_and_grad(np.asarray(mapped[ROWS - 3 :]), y[ROWS - 3 :]).value
    assert ce.cross_entropy(mapped, y) == expected
    y[ROWS - 2] = CLASSES
    with pytest.raises(ValueError, match=f"got {CLASSES} in row {ROWS - 2}"):
        ce.cross_entropy(mapped, y)
