"""Where rows come from: arrays in memory, or sources larger than memory that are read a window at a time.

A pass goes through the windows in order. While one is worked on, by all threads, the next is read by a thread of its
own; so two windows are in memory, and whatever reading one takes in between. Where windows begin depends on the source
alone: results have the same bits for any number of threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import pairwise
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from crossent.errors import describe, refuse
from crossent.kernels.threads import OneThread

from ..plan import tuned

__all__ = [
    "MappedRows",
    "ResidentRows",
    "RowSource",
    "Source",
    "can_copy",
    "even_boundaries",
    "read_ahead",
    "source_of",
]

WINDOW_BYTES = 1 << 28
"""A window's size in memory unless another is asked for: Parquet files are written in groups of about so much, and
reading a part of a group takes as long as reading all of it."""
MAPPED_WINDOW_BYTES = 1 << 25

Read = TypeVar("Read")


class Source(Protocol):
    """What a pass over rows needs of the place where they are."""

    @property
    def window_rows(self) -> int:
        """The rows of the largest window."""

    @property
    def whole(self) -> NDArray[Any] | None:
        """All rows as an array that exists already, or None."""

    def windows(self) -> Generator[tuple[slice, Any]]:
        """Yield ``(slice of row numbers, rows)`` in order; the rows are an array or a CSR array."""


class ResidentRows:
    """The rows of an array or of a CSR array in memory, which are one window."""

    def __init__(self, X: Any) -> None:
        self._X = X
        self.window_rows: int = X.shape[0]
        self.whole: NDArray[Any] | None = X if isinstance(X, np.ndarray) else None

    def windows(self) -> Generator[tuple[slice, Any]]:
        """Yield all rows."""
        yield slice(0, self.window_rows), self._X


def source_of(X: Any) -> Source:
    """Return the source of some rows: itself, or a door to an array."""
    return X if isinstance(X, RowSource) else ResidentRows(X)


def can_copy(X: Any) -> bool:
    """Whether a second X is small beside what is kept anyway; the rows of a larger one stay where they are."""
    return bool((X.data.nbytes if issparse(X) else X.nbytes) <= tuned().cache_bytes)


def read_ahead(read: Callable[[int], Read], count: int) -> Generator[Read]:
    """Yield ``read(0)`` to ``read(count - 1)``; each is asked for, on another thread, before the last is yielded.

    Where the system starts no thread, the caller's reads.

    Examples
    --------
    >>> list(read_ahead(lambda i: i * i, 4))
    [0, 1, 4, 9]
    """
    with OneThread("crossent-read") as reader:
        following = reader.submit(read, 0) if count else None
        for index in range(1, count + 1):
            assert following is not None
            current = following.result()
            following = reader.submit(read, index) if index < count else None
            yield current
            del current  # the next may be long in coming


class RowSource(ABC):
    """N rows of D finite numbers, read in windows.

    Parameters
    ----------
    shape : tuple of int
        (N, D).
    dtype : numpy.dtype
        float32 or float64.
    boundaries : ndarray (W + 1,)
        Window w holds the rows from ``boundaries[w]`` to before ``boundaries[w + 1]``.
    feature_names : list of str, optional
    """

    ndim = 2
    whole = None

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: Any,
        boundaries: NDArray[np.int64],
        feature_names: list[str] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.boundaries = boundaries
        self.feature_names = feature_names

    @abstractmethod
    def read_window(self, index: int) -> NDArray[Any]:
        """Return the rows of one window, (n, D), C-contiguous and finite; called on any thread."""

    @property
    def num_windows(self) -> int:
        """How many windows there are."""
        return len(self.boundaries) - 1

    @property
    def window_rows(self) -> int:
        """The rows of the largest window."""
        return int(np.diff(self.boundaries).max(initial=0))

    def windows(self, first: int = 0, last: int | None = None) -> Generator[tuple[slice, NDArray[Any]]]:
        """Yield ``(slice of row numbers, rows)`` for the windows from `first` to before `last`, reading ahead."""
        count = (self.num_windows if last is None else last) - first
        bounds = self.boundaries.tolist()
        with closing(read_ahead(lambda i: self.read_window(first + i), count)) as arrays:
            for index, rows in enumerate(arrays, first):
                yield slice(bounds[index], bounds[index + 1]), rows

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        """Return the rows of a slice as an array, in memory; or, for a boolean array (N,), a source of those rows."""
        if isinstance(rows, slice):
            return self._take(range(*rows.indices(len(self))))
        mask = np.asarray(rows)
        if mask.dtype != np.bool_ or mask.shape != self.shape[:1]:
            self._refuse("rows are taken by a slice or by a boolean array of N elements", describe(rows))
        return SelectedRows(self, mask)

    def _take(self, wanted: range) -> NDArray[Any]:
        out = np.empty((len(wanted), self.shape[1]), self.dtype)
        if not len(wanted):
            return out
        if wanted.step < 0:
            return self._take(wanted[::-1])[::-1]
        first = int(np.searchsorted(self.boundaries, wanted[0], side="right")) - 1
        last = int(np.searchsorted(self.boundaries, wanted[-1], side="right"))
        done = 0
        with closing(self.windows(first, last)) as windows:
            for rows, window in windows:
                count = len(range(wanted[done], min(rows.stop, wanted[-1] + 1), wanted.step)) if done < len(out) else 0
                offset = wanted[done] - rows.start if count else 0
                out[done : done + count] = window[offset :: wanted.step][:count]
                done += count
        return out

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse("rows that are read a window at a time can be no array", type(self).__name__)

    def _refuse(self, asked: str, got: str) -> NoReturn:
        raise TypeError(refuse(asked, got, "X[:] reads all rows into memory"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of shape {self.shape} and dtype {self.dtype}, {self.num_windows} windows>"


class SelectedRows(RowSource):
    """Those rows of a source where a boolean array (N,) is true."""

    def __init__(self, source: RowSource, mask: NDArray[np.bool_]) -> None:
        before = source.boundaries
        counts = [np.count_nonzero(mask[i:j]) for i, j in pairwise(before)]
        boundaries = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        super().__init__((int(boundaries[-1]), source.shape[1]), source.dtype, boundaries, source.feature_names)
        self._source = source
        self._mask = mask

    def read_window(self, index: int) -> NDArray[Any]:
        """Return the selected rows of one window of the source."""
        start, stop = self._source.boundaries[index : index + 2]
        chosen = self._mask[start:stop]
        if not chosen.any():
            return np.empty((0, self.shape[1]), self.dtype)
        rows = self._source.read_window(index)
        return rows if chosen.all() else rows[chosen]


class MappedRows(RowSource):
    """The rows of a memory map, copied window by window: disks like one reader who goes straight ahead."""

    def __init__(self, array: NDArray[Any], window_bytes: int = MAPPED_WINDOW_BYTES) -> None:
        super().__init__(array.shape, array.dtype, even_boundaries(array.shape, array.dtype, window_bytes))
        self._array = array

    def read_window(self, index: int) -> NDArray[Any]:
        """Return a copy of one window."""
        return np.array(self._array[self.boundaries[index] : self.boundaries[index + 1]], order="C", subok=False)


def even_boundaries(shape: tuple[int, ...], dtype: Any, window_bytes: int) -> NDArray[np.int64]:
    """Return the boundaries of windows of equal numbers of rows, and of at most `window_bytes` bytes if a row is not
    more.

    Examples
    --------
    >>> even_boundaries((10, 4), "float32", 64).tolist()
    [0, 4, 8, 10]
    """
    rows = max(1, window_bytes // (np.dtype(dtype).itemsize * max(1, shape[1])))
    return np.append(np.arange(0, shape[0], rows, dtype=np.int64), shape[0])
