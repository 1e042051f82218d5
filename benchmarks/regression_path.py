"""45 values of C on MNIST-5k: one warm-started path beside cold fits of scikit-learn.

python benchmarks/regression_path.py [--every 5]

SciPy's BLAS is limited to one thread for scikit-learn, which fits every n-th value only, for the path takes seconds and
cold fits minutes. The path's time is that of all 45; scikit-learn's is what it took, times n.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from regression import keep, limit_scipy_blas
from regression_problems import PATH_CS, judge, mnist

TOL = 1e-4
PEER = "newton-cg"
PEER_TOL = 3e-6
"""At this `tol` its excess on MNIST-5k at C = 10 is below 1e-4; the largest over all C is reported beside it."""


def main() -> None:
    """Measure and add the record to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=5, help="scikit-learn fits every n-th value")
    every = parser.parse_args().every
    from sklearn.linear_model import LogisticRegression

    from crossent.sklearn import SoftmaxRegression, softmax_regression_path

    warnings.simplefilter("ignore")
    X, y = mnist()
    SoftmaxRegression().fit(X[::25], y[::25])  # kernels are compiled, or read from the disk
    start = time.perf_counter()
    path = softmax_regression_path(X, y, Cs=PATH_CS, tol=TOL)
    ours = time.perf_counter() - start
    limit_scipy_blas()
    seconds, excesses = 0.0, []
    for i in range(every // 2, len(PATH_CS), every):
        start = time.perf_counter()
        peer = LogisticRegression(C=PATH_CS[i], solver=PEER, tol=PEER_TOL, max_iter=10_000).fit(X, y)
        seconds += time.perf_counter() - start
        theirs = judge(X, y, PATH_CS[i], peer.coef_, peer.intercept_)
        excesses.append(theirs / (path.objectives[i] * (1 - path.duality_gaps[i])) - 1)
    fitted = len(excesses)
    record = {
        "values": len(PATH_CS),
        "crossent": ours,
        "largest_gap": float(path.duality_gaps.max()),
        "peer": PEER,
        "peer_tol": PEER_TOL,
        "peer_seconds": seconds * len(PATH_CS) / fitted,
        "peer_fits": fitted,
        "peer_largest_excess": float(np.max(excesses)),
    }
    keep("path", record)


if __name__ == "__main__":
    main()
