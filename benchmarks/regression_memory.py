"""What softmax regression holds of 100,000 classes: the peak memory of two Newton steps, beyond rows and targets.

python benchmarks/regression_memory.py [--rows 2000] [--classes 100000] [--features 768]

Targets are distributions: of labels every class needs a row, and a pass over 100,000 rows takes minutes. More rows take
more time; of what grows with them only weights are held, and centred rows up to a bound that these nearly need.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from linear import resident
from regression import keep

ITERATIONS = 2


def fit(num_rows: int, num_classes: int, num_features: int) -> dict[str, Any]:
    """Fit in this process, whose peak is reset before."""
    from crossent.sklearn import SoftmaxRegression

    rng = np.random.default_rng(0)
    X = rng.standard_normal((num_rows, num_features), dtype=np.float32)
    y = np.exp(4.0 * rng.standard_normal((num_rows, num_classes), dtype=np.float32))
    y /= y.sum(axis=1, keepdims=True)
    warnings.simplefilter("ignore")  # two steps do not reach tol
    few = y[:300, :3] / y[:300, :3].sum(axis=1, keepdims=True)
    SoftmaxRegression(1.0).fit(X[:300], few)  # kernels are compiled, or read from the disk
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, start = resident("VmRSS"), time.perf_counter()
    model = SoftmaxRegression(1.0, max_iter=ITERATIONS, verbose=1).fit(X, y)
    seconds, peak = time.perf_counter() - start, resident("VmHWM")
    last = model.history_[-1]
    counts = {name: last[name] for name in ("evaluations", "hessian_products")}
    return {
        "rows": num_rows,
        "classes": num_classes,
        "features": num_features,
        "iterations": model.n_iter_,
        **counts,
        "seconds": seconds,
        "parameter_bytes": 8 * num_classes * (num_features + 1),
        "peak_extra_bytes": peak - before,
    }


def main() -> None:
    """Measure and add the record to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=768)
    chosen = parser.parse_args()
    keep("memory", fit(chosen.rows, chosen.classes, chosen.features))


if __name__ == "__main__":
    main()
