"""Laws that are attacked with drawn cases: some in every test run, as many as an hour holds in `make attack`.

A law takes its generators from `draws`, and its test carries the mark `attack`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass
class Attack:
    """What a long run sets, and what it reads when a law has ended."""

    seconds: float = 0.0  # how long a law goes on drawing; 0: only as many cases as a test run takes
    seed: int = 0
    cases: int = 0  # drawn by the law that runs now


CURRENT = Attack()


def draws(cases: int) -> Iterator[np.random.Generator]:
    """Yield one generator per case: `cases` of them, the same in every test run, or new ones until the time is over."""
    end = time.monotonic() + CURRENT.seconds
    CURRENT.cases = 0
    while CURRENT.cases < cases or time.monotonic() < end:
        CURRENT.cases += 1
        yield np.random.default_rng([CURRENT.seed, CURRENT.cases])
