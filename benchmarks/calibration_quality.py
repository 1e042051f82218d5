"""Calibrators of one name on the same rows: held-out log loss, and a paired interval of each difference.

A data set is split in several ways: its first half fits and its second judges, the other way round, and at random.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from calibration_peers import Probabilities, methods
from calibration_verdict import verdict

__all__ = ["compare", "quality", "splits"]

DRAWS = 2000
RANDOM_SPLITS = 2
SLOW = {("vector", "netcal, logistic"), ("beta", "netcal"), ("Dirichlet", "dirichletcal, ODIR 1e-3")}
"""Methods and peers that are slow: they fit the first half only, and with many classes when asked to."""
MANY_CLASSES = 50


def splits(rows: int) -> Iterator[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Yield names of splits, the rows that fit and the rows that judge."""
    first, second = np.arange(rows // 2), np.arange(rows // 2, rows)
    yield "first half fits", first, second
    yield "second half fits", second, first
    for seed in range(RANDOM_SPLITS):
        order = np.random.default_rng(seed).permutation(rows)
        yield f"random half {seed + 1} fits", order[: rows // 2], order[rows // 2 :]


def quality(folder: Path, slow: bool, only: list[str] | None = None) -> list[dict[str, Any]]:
    """Return a record per data set, split and method (all, or `only` some): held-out losses of ours and each peer."""
    records = []
    for path in sorted(folder.glob("*.npz")):
        data = np.load(path)
        p, y = data["predictions"], data["ground_truth"].ravel().astype(int)
        with np.errstate(divide="ignore"):
            z = np.log(p.astype(np.float64))
        for number, (split, fit, judge) in enumerate(splits(len(y))):
            plain = _losses(p[judge], y[judge])
            for name, (ours, peers) in methods().items():
                if only and name not in only:
                    continue
                start = time.perf_counter()
                own = ours(z[fit], y[fit], z[judge])
                record: dict[str, Any] = {
                    "data": path.stem,
                    "split": split,
                    "method": name,
                    "uncalibrated": float(plain.mean()),
                    "crossent": float(_losses(own, y[judge]).mean()),
                    "seconds": time.perf_counter() - start,
                    "peers": {},
                }
                for peer, method in peers.items():
                    if (name, peer) in SLOW and (number > 0 or (p.shape[1] > MANY_CLASSES and not slow)):
                        continue
                    start = time.perf_counter()
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            other = method(z[fit], y[fit], z[judge])
                    except Exception as error:
                        record["peers"][peer] = {"error": f"{type(error).__name__}: {error}"[:200]}
                        continue
                    seconds = time.perf_counter() - start
                    record["peers"][peer] = {"seconds": seconds, **compare(own, other, y[judge], len(fit))}
                records.append(record)
                print(record["data"], split, name, round(record["crossent"], 5), flush=True)
                for peer, entry in record["peers"].items():
                    print("  ", peer, verdict(entry), entry, flush=True)
    return records


def _losses(prob: Probabilities, y: Any) -> Any:
    with np.errstate(divide="ignore"):
        return -np.log(np.asarray(prob, dtype=np.float64)[np.arange(len(y)), y])


def compare(own: Probabilities, other: Probabilities, y: Any, fitted: int) -> dict[str, Any]:
    """Return the mean difference of two losses of the same rows and its paired 95 % bootstrap interval.

    Where the other's are infinite, "floored" compares both with no probability below ``1 / (fitted + 2)``, Laplace's
    estimate for what never happened in so many rows, and rows divided by their sums; "finite rows" compares where both
    are finite, which forgives the other its worst rows.
    """
    ours, theirs = _losses(own, y), _losses(other, y)
    if np.isfinite(theirs).all():
        return {"loss": float(theirs.mean()), **_interval(ours - theirs)}
    finite = np.isfinite(theirs)
    floored = [_losses(_floored(p, 1 / (fitted + 2)), y) for p in (own, other)]
    return {
        "rows at infinity": int((~finite).sum()),
        "floored": _interval(floored[0] - floored[1]),
        "finite rows": _interval((ours - theirs)[finite]),
    }


def _floored(prob: Probabilities, least: float) -> Probabilities:
    raised = np.maximum(np.asarray(prob, dtype=np.float64), least)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _interval(difference: Any) -> dict[str, Any]:
    rows = len(difference)
    draws = np.random.default_rng(0)
    means = [difference[draws.integers(rows, size=rows)].mean() for _ in range(DRAWS)]
    return {"difference": float(difference.mean()), "interval": np.quantile(means, [0.025, 0.975]).tolist()}
