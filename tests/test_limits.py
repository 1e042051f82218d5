"""Calls from many threads and from worker processes, and where memory runs out: right results or one plain error."""

from __future__ import annotations

import concurrent.futures
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack import draws

import crossent as ce
from crossent.metrics import log_loss

HERE = Path(__file__).parent
LABELS = np.arange(6000) % 40
CALLS: dict[str, Callable[[np.ndarray], Any]] = {
    "cross_entropy": lambda z: ce.cross_entropy(z, LABELS[: len(z)]),
    "value_and_grad": lambda z: ce.value_and_grad(z, LABELS[: len(z)], loss=ce.Focal(1.5), label_smoothing=0.1),
    "value_grad_hess": lambda z: ce.value_grad_hess(z, LABELS[: len(z)]),
    "sigmoid": lambda z: ce.value_and_grad(z, (z > 0).astype(np.int8), link="sigmoid"),
    "hessian_vector_product": lambda z: ce.hessian_vector_product(z, LABELS[: len(z)], z),
    "linear": lambda z: ce.linear_value_and_grad(z, np.ascontiguousarray(z[:40, ::-1]), LABELS[: len(z)])[0],
    "statistics": lambda z: ce.statistics(z, LABELS[: len(z)]),
    "softmax": ce.softmax,
    "log_loss": lambda z: log_loss(LABELS[: len(z)], ce.softmax(z)),
}


def _bytes(result: Any) -> bytes:
    return b"".join(map(_bytes, result)) if isinstance(result, tuple) else np.asarray(result).tobytes()


def _drawn(seed: int) -> tuple[str, np.ndarray]:
    """A call and its logits: on one thread (40 rows) or on several."""
    rng = np.random.default_rng(seed)
    name = sorted(CALLS)[seed % len(CALLS)]
    rows = int(rng.choice([40, 600, 6000]))
    return name, rng.normal(size=(rows, 40)).astype(rng.choice(["float32", "float64"]))


def _of_seed(seed: int) -> bytes:
    name, logits = _drawn(seed)
    return _bytes(CALLS[name](logits))


@pytest.mark.attack
def test_eight_threads_get_what_one_gets() -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for rng in draws(5):
            seeds = rng.integers(0, 500, 32).tolist()
            assert list(pool.map(_of_seed, seeds)) == [_of_seed(seed) for seed in seeds]


def test_worker_processes_of_joblib_get_the_same_bits() -> None:
    from joblib import Parallel, delayed

    seeds = range(len(CALLS))
    with_loky = Parallel(n_jobs=2, backend="loky")(delayed(_of_seed)(seed) for seed in seeds)
    assert with_loky == [_of_seed(seed) for seed in seeds]


def _within(megabytes: float, seed: int) -> int:
    """Compute in a forked child that may map so much more memory; return its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    signal.alarm(30)  # one that hangs is ended, and fails
    try:
        name, logits = _drawn(seed)
        pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115 (the limit comes next)
        limit = pages * resource.getpagesize() + int(megabytes * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            result = CALLS[name](logits)
        except MemoryError:
            status = 0
        else:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            status = 0 if _bytes(result) == _of_seed(seed) else 2
    finally:
        os._exit(status)


def _answer() -> None:
    """Read megabytes and seeds, a pair a line, and print the wait status of each."""
    for seed in range(
        500
    ):  # LLVM ends the process where memory ends while it compiles or loads: so it has done so before
        _of_seed(seed)
    for line in sys.stdin:
        megabytes, seed = line.split()
        print(_within(float(megabytes), int(seed)), flush=True)


@pytest.mark.attack
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on address space are Linux's")
def test_where_memory_ends_there_is_a_result_or_a_memory_error() -> None:
    """In a process of its own: one that has imported other libraries may not be forked."""
    command = [sys.executable, "-c", "import test_limits; test_limits._answer()"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": HERE}
    with subprocess.Popen(command, **pipes) as process:
        for rng in draws(60):
            seed, megabytes = int(rng.integers(500)), float(rng.uniform(0, 8))
            process.stdin.write(f"{megabytes} {seed}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "0\n", (seed, megabytes)
        process.stdin.close()
