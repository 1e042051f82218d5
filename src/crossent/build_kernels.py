"""Compile the kernels that public functions ask for, by calling them: ``python -m crossent.build_kernels [FOLDER]``.

With a folder, it compiles for each level of this kind of machine (`crossent.kernels.numba.levels`) and fills the folder
with what a wheel carries. Without one it compiles for this machine and keeps the code where a first call would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import crossent as ce
from crossent import calibration, metrics
from crossent.core.target import Target
from crossent.kernels import registry
from crossent.numpy.arrays import BFLOAT16_BITS

__all__ = ["calls", "main"]

Call = Callable[[], Any]

_ROWS = 64
_SIZES = (3, 200)
"""Classes of a row that is computed among others, and of one that is computed alone, by every kernel."""


def calls() -> Iterator[Call]:
    """Calls that together ask for every kernel, for all types of arguments that public functions hand to it."""
    rng = np.random.default_rng(0)
    for dtype in (np.dtype(np.float32), np.dtype(np.float64), BFLOAT16_BITS):
        for classes in _SIZES:
            yield from _losses(rng, dtype, classes)
        if dtype != BFLOAT16_BITS:
            yield from _of_other_packages(rng, dtype)
            for classes in (2, *_SIZES):
                yield from _metrics_and_calibration(rng, dtype, classes)
            yield from _fits(rng, dtype)


def _numbers(rng: np.random.Generator, dtype: np.dtype[Any], *shape: int) -> np.ndarray:
    numbers = rng.standard_normal(shape)
    if dtype != BFLOAT16_BITS:
        return numbers.astype(dtype)
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16_BITS)


def _losses(rng: np.random.Generator, dtype: np.dtype[Any], classes: int) -> Iterator[Call]:
    """Kernels know three kinds of losses: cross-entropy, those with the same gradient formula, and the others."""
    z, planes = _numbers(rng, dtype, _ROWS, classes), _numbers(rng, dtype, 2, classes, _ROWS)
    labels, of_planes = rng.integers(0, classes, _ROWS), rng.integers(0, classes, (2, _ROWS))
    soft = np.full(z.shape, 1 / classes, np.float64 if dtype == np.float64 else np.float32)
    for loss in (ce.CrossEntropy(), ce.ZPenalty(1.0), ce.EntropyPenalty(1.0)):
        yield partial(ce.value_and_grad, z, labels, loss=loss, weight=np.ones(classes))
        yield partial(ce.value_and_grad, z, soft, loss=loss)
        yield partial(ce.value_and_grad, planes, of_planes, loss=loss, axis=1)
    yield partial(ce.cross_entropy, z, labels)
    yield partial(ce.value_and_grad, z, labels, temperature=2.0)
    yield partial(ce.value_and_grad, z, (soft > 0).astype(np.int64), link="sigmoid")
    yield partial(ce.distillation_loss, z, z)
    yield partial(ce.statistics, z, labels)
    yield partial(ce.statistics, z, soft)
    yield partial(ce.softmax, z)
    large = np.full((300_000 // classes, classes), 1 / classes, soft.dtype)  # NumPy checks small ones itself
    yield partial(ce.cross_entropy, large, large)


def _of_other_packages(rng: np.random.Generator, dtype: np.dtype[Any]) -> Iterator[Call]:
    """What PyTorch's front end asks for besides: the gradient of statistics, and what is done to bfloat16 alone."""
    twin, classes = registry.find(dtype), _SIZES[0]
    z, out, ones = _numbers(rng, dtype, _ROWS, classes), np.empty((_ROWS, classes), dtype), np.ones(_ROWS)
    labels = np.zeros(_ROWS, np.int64)
    for target in (Target(classes, labels=labels), Target(classes, soft=np.full(z.shape, 1 / classes, dtype))):
        for name in ("lse", "entropy"):
            yield partial(twin.pullback, z, target, {name: ones}, out)
    yield partial(twin.lies_within, np.zeros(100_000, np.uint16), 1.0)
    for size in _SIZES:
        yield partial(_small_batch, twin, np.zeros((2, _ROWS, size), np.uint16), labels)


def _small_batch(twin: Any, bits: np.ndarray, labels: np.ndarray) -> None:
    logits, grad = bits
    twin.mean_at("bfloat16", logits.ctypes.data, labels.ctypes.data, grad.ctypes.data, *logits.shape, -1)


def _metrics_and_calibration(rng: np.random.Generator, dtype: np.dtype[Any], classes: int) -> Iterator[Call]:
    z = _numbers(rng, dtype, 4 * classes, classes)
    y, p = np.tile(np.arange(classes), 4), ce.softmax(z)
    for score in (metrics.log_loss, metrics.brier_score, metrics.ranked_probability_score, metrics.calibration_error):
        yield partial(score, y, p)
    yield partial(metrics.calibration_error, y, p, kind="class-wise")
    yield partial(metrics.score_decomposition, y, p)
    for name in calibration.__all__:
        if name != "CalibratedClassifier":
            yield partial(_calibrate, getattr(calibration, name)(), z, y)
    yield partial(_calibrate, calibration.TemperatureScaling(link="sigmoid"), z, (z > z.mean()).astype(np.int64))


def _calibrate(calibrator: Any, z: np.ndarray, y: np.ndarray) -> None:
    calibrator.fit(z, y).predict_proba(z)


def _fits(rng: np.random.Generator, dtype: np.dtype[Any]) -> Iterator[Call]:
    """Regressions of one logit, of a few classes, and of so many that only some entries of a Hessian count."""
    from crossent.sklearn import SoftmaxRegression

    for rows, features, classes in ((400, 4, 2), (400, 4, 3), (20_000, 4, 60), (5000, 10, 150)):
        x = rng.standard_normal((rows, features)).astype(dtype)
        yield partial(SoftmaxRegression(max_iter=2).fit, x, np.arange(rows) % classes)


def _compile() -> None:
    """Make every call, with a line of progress."""
    which = list(calls())
    for number, call in enumerate(which, 1):
        if sys.stderr.isatty() or number % 20 == 0 or number == len(which):
            print(f"\rcompiling kernels: {number} of {len(which)} calls", end="", file=sys.stderr, flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two steps are no fit
            call()
    print(file=sys.stderr)


def _compile_levels(folder: Path) -> None:
    """Compile for every level at once, each in a process of its own."""
    from crossent.kernels.numba.compile import VERSIONS
    from crossent.kernels.numba.levels import LEVELS, features_of

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as caches:
        processes = []
        for level in LEVELS:
            cache = Path(caches) / level
            target = {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": features_of(level), "NUMBA_CACHE_DIR": str(cache)}
            processes.append(
                subprocess.Popen([sys.executable, "-m", "crossent.build_kernels"], env=os.environ | target)
            )
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit("not every kernel could be compiled")
        for level in LEVELS:
            (folder / level).mkdir(exist_ok=True)
            for path in (Path(caches) / level).rglob("*.kernel"):
                shutil.copy(path, folder / level)
    (folder / "versions.txt").write_text(VERSIONS + "\n")


def main() -> None:
    """Compile for this machine, or for all levels into the folder that is named."""
    if len(sys.argv) > 1:
        _compile_levels(Path(sys.argv[1]))
    else:
        _compile()


if __name__ == "__main__":
    main()
