"""The linear head beside its three matrix products alone: time in this process, peak memory in a fresh one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timing import interleaved_medians

import crossent as ce

SHAPE = (4096, 512, 32_000)  # rows, width, classes
LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "focal": {"loss": ce.Focal(2.0), "normalizer": "count"},
    "smoothed": {"label_smoothing": 0.1},
}


def arguments(dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input, weight and labels."""
    num_rows, width, num_classes = SHAPE
    generator = np.random.default_rng(0)
    source = generator.standard_normal((num_rows, width), dtype=dtype)
    weight = generator.standard_normal((num_classes, width), dtype=dtype)
    weight *= np.asarray(width**-0.5, dtype=dtype)
    return source, weight, generator.integers(0, num_classes, num_rows)


def _three_products(source: np.ndarray, weight: np.ndarray) -> None:
    logits = source @ weight.T
    logits @ weight
    logits.T @ source


def run(rounds: int) -> list[dict[str, Any]]:
    """Return one record a dtype: seconds by loss and of the products, peak extra bytes by loss."""
    records = []
    for dtype in ("float32", "float64"):
        source, weight, labels = arguments(dtype)
        calls: dict[str, Callable[[], object]] = {"three products": partial(_three_products, source, weight)}
        for name, options in LOSSES.items():
            calls[name] = partial(ce.linear_value_and_grad, source, weight, labels, **options)
        seconds = interleaved_medians(calls, rounds)
        memory = {name: peak_extra_bytes(dtype, name) for name in LOSSES}
        print("linear", SHAPE, dtype, {k: round(v, 2) for k, v in seconds.items()}, memory, flush=True)
        records.append({"shape": SHAPE, "dtype": dtype, "seconds": seconds, "peak_extra_bytes": memory})
    return records


def peak_extra_bytes(dtype: str, loss: str) -> int:
    """Return the peak resident memory of one call in a fresh process, beyond inputs and gradients."""
    output = subprocess.run(
        [sys.executable, __file__, dtype, loss], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return int(json.loads(output.stdout)["peak_extra_bytes"])


def resident(field: str) -> int:
    """Return a field of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{field} is not in /proc/self/status")


def _measure(dtype: str, loss: str) -> None:
    source, weight, labels = arguments(dtype)
    # Compile the kernel and let BLAS take its buffers before the measurement.
    ce.linear_value_and_grad(source[:64], weight[:4096], labels[:64] % 4096, **LOSSES[loss])
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = resident("VmRSS")
    _, gradients = ce.linear_value_and_grad(source, weight, labels, **LOSSES[loss])
    peak = resident("VmHWM")
    returned = gradients.input.nbytes + gradients.weight.nbytes
    print(json.dumps({"peak_extra_bytes": peak - before - returned}))


if __name__ == "__main__":
    _measure(*sys.argv[1:])
