"""Seconds of calibration jobs beside other libraries and beside one read of the data."""

from __future__ import annotations

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from calibration_peers import ece_contenders, smooth_contenders

import crossent as ce
from crossent import metrics
from crossent import sklearn as cs

__all__ = ["THREADS", "speed"]

THREADS = 2
SLOW = 2.0
"""Seconds: a contender that takes longer is called once."""

Contenders = dict[str, Callable[[], object]]


def _quietly(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        call()
    return time.perf_counter() - start


def _time(contenders: Contenders, rounds: int) -> dict[str, float]:
    """Return median seconds: contenders take turns, slow ones once."""
    seconds: dict[str, list[float]] = {}
    for name, call in contenders.items():
        try:
            seconds[name] = [_quietly(call)]
        except Exception as error:
            print("  left out:", name, type(error).__name__, str(error)[:120])
    for _ in range(rounds):
        for name in list(seconds):
            if seconds[name][0] < SLOW:
                time.sleep(0.05)
                seconds[name].append(_quietly(contenders[name]))
    return {name: statistics.median(times[1:] or times) for name, times in seconds.items()}


def _sample(rows: int, classes: int, dtype: Any = np.float64) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    logits = 2 * generator.standard_normal((rows, classes), dtype=dtype)
    return logits, (logits / 1.3 + generator.gumbel(size=logits.shape)).argmax(axis=1)


def speed(rounds: int, slow: bool) -> list[dict[str, Any]]:
    """Return one record a job with seconds by contender; `slow`: also the peers that take minutes, once."""
    from sklearn.calibration import _SigmoidCalibration, _TemperatureScaling
    from sklearn.metrics import log_loss as sklearn_log_loss

    records = []

    def record(job: str, contenders: Contenders, **more: Any) -> None:
        found = {"job": job, "seconds": _time(contenders, rounds), **more}
        records.append(found)
        print(job, {k: f"{v * 1e3:.4g} ms" for k, v in found["seconds"].items()}, more, flush=True)

    def temperature(z: Any, y: Any, *, all_peers: bool) -> None:
        contenders: Contenders = {
            "crossent": lambda: cs.TemperatureScaling().fit(z, y),
            "scikit-learn": lambda: _TemperatureScaling().fit(z, y),
        }
        if all_peers:
            contenders["netcal"] = lambda: _fit_netcal(z, y)
            contenders["probmetrics"] = lambda: _fit_probmetrics(z, y)
        passes = cs.TemperatureScaling().fit(z, y).n_passes_
        record(f"temperature, {len(z)} × {z.shape[1]}", contenders, passes=passes)

    z, y = _sample(1_000_000, 10)
    temperature(z, y, all_peers=True)
    p = np.asarray(ce.softmax(z))
    ours: Contenders = {"crossent": lambda: metrics.calibration_error(y, p, bins=15)}
    record("ECE, 1000000 × 10", {**ours, **ece_contenders(p, y)})
    ours = {"crossent": lambda: metrics.calibration_error(y, p, binning="smooth")}
    record("smooth ECE, 1000000 × 10", {**ours, **smooth_contenders(p, y)})

    z, y = _sample(50_000, 1000)
    temperature(z, y, all_peers=slow)
    passes = cs.VectorScaling().fit(z, y).n_passes_
    record("vector, 50000 × 1000", {"crossent": lambda: cs.VectorScaling().fit(z, y)}, passes=passes)
    contenders: Contenders = {"crossent": lambda: cs.PlattScaling().fit(z, y)}
    if slow:
        contenders["scikit-learn"] = lambda: [_SigmoidCalibration().fit(z[:, k], y == k) for k in range(z.shape[1])]
    record("Platt, 50000 × 1000", contenders, passes=cs.PlattScaling().fit(z, y).n_passes_)
    p, index = np.asarray(ce.softmax(z)), np.arange(len(z))
    halves = np.split(p, THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        record(
            "log loss, 50000 × 1000",
            {
                "crossent": lambda: metrics.log_loss(y, p),
                "crossent, validate=False": lambda: metrics.log_loss(y, p, validate=False),
                "reading the true entries": lambda: p[index, y],
                "one read (NumPy's sum), 1 thread": lambda: p.sum(),
                f"one read (NumPy's sum), {THREADS} threads": lambda: sum(pool.map(np.sum, halves)),
                "scikit-learn": lambda: sklearn_log_loss(y, p),
            },
        )
    return records


def _fit_netcal(z: Any, y: Any) -> None:
    from netcal.scaling import TemperatureScaling

    TemperatureScaling().fit(np.asarray(ce.softmax(z)), y)


def _fit_probmetrics(z: Any, y: Any) -> None:
    from probmetrics.calibrators import get_calibrator

    get_calibrator("temp-scaling").fit(np.asarray(ce.softmax(z)), y)
