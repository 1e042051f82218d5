"""Large gradients use the memory of earlier ones, and nobody can tell."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import crossent as ce
from crossent.numpy import buffers

SHAPE = (4200, 1000)
FLOAT64 = np.dtype(np.float64)

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_FREE"), reason="the system has no MADV_FREE")


@pytest.fixture(autouse=True)
def _nothing_kept():
    gc.collect()
    buffers.forget()
    yield
    gc.collect()
    buffers.forget()


def address(array):
    return array.__array_interface__["data"][0]


def test_a_released_block_is_used_again():
    first = buffers.empty(SHAPE, FLOAT64)
    where = address(first)
    del first
    assert address(buffers.empty(SHAPE, FLOAT64)) == where


def test_a_loop_alternates_between_two_blocks():
    seen = set()
    grad = None
    for _ in range(6):
        grad = buffers.empty(SHAPE, FLOAT64)
        seen.add(address(grad))
    assert len(seen) == 2


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[-1:],
        lambda a: a.T,
        lambda a: memoryview(a),
        lambda a: a.reshape(-1)[5:9].view(np.int64),
        lambda a: np.asarray(memoryview(a)),
        lambda a: np.from_dlpack(a),
    ],
    ids=["slice", "transpose", "memoryview", "cast", "of memoryview", "dlpack"],
)
def test_a_view_keeps_the_memory(view):
    first = buffers.empty(SHAPE, FLOAT64)
    first[...] = 7.0
    kept = view(first)
    del first
    gc.collect()
    second = buffers.empty(SHAPE, FLOAT64)
    second[...] = 1.0
    left = np.asarray(kept)
    assert (left == 7.0).all() if left.dtype == np.float64 else (left.view(np.float64) == 7.0).all()


def test_a_block_much_larger_than_asked_for_is_not_used():
    first = buffers.empty((3 * SHAPE[0], SHAPE[1]), FLOAT64)
    del first
    assert len(buffers._kept) == 1
    second = buffers.empty(SHAPE, FLOAT64)
    assert buffers._kept == []
    assert second.base.base is not None


def test_only_one_block_is_kept():
    arrays = [buffers.empty(SHAPE, FLOAT64) for _ in range(4)]
    assert len({address(a) for a in arrays}) == 4
    arrays.clear()
    assert len(buffers._kept) == 1


def test_small_arrays_own_their_memory():
    assert buffers.empty((10, 10), FLOAT64).flags.owndata


def test_no_memory_is_numpys_error():
    with pytest.raises(MemoryError):
        buffers.empty((1 << 40, 1 << 10), FLOAT64)


def test_gradients_are_independent():
    """Of two gradients that live at once neither changes, and a reused block shows nothing of its former content."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=SHAPE)
    y = rng.integers(0, SHAPE[1], SHAPE[0])
    first = ce.value_and_grad(z, y).grad
    copy = first.copy()
    second = ce.value_and_grad(-z, y).grad
    np.testing.assert_array_equal(first, copy)
    assert not np.shares_memory(first, second)
    where = address(second)
    del second
    y[::2] = -100  # these rows must be written too: with zeros
    third = ce.value_and_grad(-z, y).grad
    assert address(third) == where
    assert not third[::2].any()
    minus = ce.value_and_grad(-z[1::2], y[1::2]).grad
    np.testing.assert_array_equal(third[1::2], minus)


def test_threads_never_share_a_block():
    wrong = []

    def work(number):
        for _ in range(20):
            array = buffers.empty(SHAPE, FLOAT64)
            array[:, 0] = number
            array[::-1, 0] += 0.0
            if not (array[:, 0] == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_has_its_own_copy():
    """A block kept at the fork, and an array that lives then, are the parent's and the child's own."""
    code = (
        "import os, sys\n"
        "import numpy as np\n"
        "from crossent.numpy import buffers\n"
        f"shape, dtype = {SHAPE}, np.dtype(float)\n"
        "kept, mine = buffers.empty(shape, dtype), buffers.empty(shape, dtype)\n"
        "mine[...] = 4.0\n"
        "del kept\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    array = buffers.empty(shape, dtype)\n"
        "    array[...] = 5.0\n"
        "    mine[...] = 6.0\n"
        "    os._exit(0 if (array == 5.0).all() else 1)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "other = buffers.empty(shape, dtype)\n"
        "other[...] = 7.0\n"
        "sys.exit(status or not (mine == 4.0).all())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
