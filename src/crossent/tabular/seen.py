"""Which rows a model was trained on: a number for each row, made of what the model reads of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_KEY = 0x9E3779B97F4A7C15


def splitmix64(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers of 64 bits that look drawn by chance, each a function of its own (Steele, Lea and Flood 2014)."""
    z = numbers ^ (numbers >> np.uint64(30))
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def row_digests(matrix: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return a number of 64 bits for each row (N, D), the same for equal rows and by chance for no others.

    Examples
    --------
    >>> one, other, again = row_digests(np.array([[0.0, 1.0], [1.0, 0.0], [-0.0, 1.0]]))
    >>> bool(one == again), bool(one == other)
    (True, False)
    """
    total = np.zeros(len(matrix), np.uint64)
    for k in range(matrix.shape[1]):
        bits = (matrix[:, k] + 0.0).view(np.uint64)  # -0.0 is 0.0
        total += splitmix64(bits + np.uint64((k + 1) * _KEY % 2**64))
    return total


def count_seen(matrix: NDArray[np.float64], seen: NDArray[np.uint64]) -> int:
    """Return how many rows have a digest that is among those `seen`, which are in order."""
    if not len(seen):
        return 0
    found = row_digests(matrix)
    places = np.minimum(np.searchsorted(seen, found), len(seen) - 1)
    return int(np.count_nonzero(seen[places] == found))
