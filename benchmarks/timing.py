"""Timing that a noisy machine cannot bend far: contenders take turns, and each is judged by its median."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable


def interleaved_medians(contenders: dict[str, Callable[[], object]], repeats: int, calls: int = 1) -> dict[str, float]:
    """Return each contender's median seconds a call, over `repeats` rounds in which all take turns."""
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.disable()
    try:
        for _ in range(repeats):
            for name, call in contenders.items():
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                seconds[name].append((time.perf_counter() - start) / calls)
    finally:
        gc.enable()
    return {name: statistics.median(times) for name, times in seconds.items()}
