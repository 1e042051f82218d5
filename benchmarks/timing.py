"""Timing that a noisy machine cannot bend far: contenders take turns, and each is judged by the median of its calls."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

PAUSE = 0.05
"""Seconds between contenders: idle threads of OpenMP and BLAS spin for a while, in the way of the next one."""
WARM_UP = 0.03
"""Seconds of untimed calls in each turn: processors that idled, or worked for another contender, start slowly."""
CALLS_A_TURN = 3


def interleaved_medians(contenders: dict[str, Callable[[], object]], rounds: int, calls: int = 1) -> dict[str, float]:
    """Return each contender's median seconds a call.

    In each round all take turns: a pause, untimed calls (at least one), then `CALLS_A_TURN` timed ones, each of `calls`
    calls.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in contenders.items():
                time.sleep(PAUSE)
                warm = time.perf_counter() + WARM_UP
                call()
                while time.perf_counter() < warm:
                    call()
                for _ in range(CALLS_A_TURN):
                    start = time.perf_counter()
                    for _ in range(calls):
                        call()
                    seconds[name].append((time.perf_counter() - start) / calls)
    finally:
        gc.enable()
    return {name: statistics.median(times) for name, times in seconds.items()}
