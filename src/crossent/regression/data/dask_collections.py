"""Dask arrays and data frames as a fit reads them: divided by rows, and all alike. And predictions, which stay lazy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

try:
    import dask
    import dask.array
except ImportError as error:
    raise ImportError("Dask collections need Dask: pip install 'crossent[distributed]'") from error

from crossent.errors import describe, refuse
from crossent.masked import refuse_masked

from .dask_graphs import Tasks


def _is_frame(collection: Any) -> bool:
    return dask.is_dask_collection(collection) and not isinstance(collection, dask.array.Array)


def is_float32(X: Any) -> bool:
    return all(dtype == np.float32 for dtype in X.dtypes) if _is_frame(X) else X.dtype == np.float32


def frame_of(X: Any) -> Any:
    """Return what scikit-learn reads the number and the names of the features from."""
    if _is_frame(X):
        return X._meta
    if not isinstance(X, dask.array.Array) or X.ndim != 2:
        raise ValueError(refuse("X must be a dask.array (N, D) or a dask.dataframe", describe(X)))
    return X


def _rows_of(collection: Any) -> tuple[float, ...]:
    """Return the number of rows of each partition, NaN where it is not known."""
    return (math.nan,) * collection.npartitions if _is_frame(collection) else collection.chunks[0]


def in_parts(collection: Any, name: str, X: Any) -> Any:
    """Return a collection divided by rows only, as X is."""
    if not dask.is_dask_collection(collection):
        if not math.isfinite(sum(_rows_of(X))):
            asked = f"{name} must be a Dask collection divided as X is, because the rows of X are not counted yet"
            raise ValueError(refuse(asked, describe(collection)))
        refuse_masked(collection, name)
        array = np.asarray(collection)
        if array.ndim == 0:
            raise ValueError(refuse(f"{name} must have a value for each row", describe(collection)))
        _check_lengths(len(array), name, X)
        return dask.array.from_array(array, chunks=(X.chunks[0], *array.shape[1:]))
    if not _is_frame(collection) and collection.ndim > 1:
        collection = collection.rechunk(dict.fromkeys(range(1, collection.ndim), -1))
    if X is None:
        return collection
    rows, wanted = _rows_of(collection), _rows_of(X)
    if math.isfinite(sum(rows)) and math.isfinite(sum(wanted)):
        _check_lengths(sum(rows), name, X)
        return collection.rechunk({0: wanted}) if rows != wanted else collection
    if len(rows) != len(wanted):
        raise ValueError(
            refuse(
                f"X and {name} must be divided alike where rows are not counted",
                f"{len(wanted)} and {len(rows)} partitions",
                "repartition one, or count rows with compute_chunk_sizes()",
            )
        )
    return collection


def _check_lengths(rows: float, name: str, X: Any) -> None:
    wanted = sum(_rows_of(X))
    if rows != wanted:
        raise ValueError(refuse(f"X and {name} must have as many rows", f"{wanted:g} and {rows:g}"))


def tasks_of(collection: Any) -> Tasks:
    """Return the partitions of a collection divided by rows."""
    parts = list(np.ravel(np.array(collection.to_delayed(), dtype=object)))
    return Tasks(dict(parts[0].__dask_graph__()), [part.key for part in parts])


def map_rows(model: Any, method: str, X: Any) -> Any:
    """Return a lazy dask.array of what a method of a fitted estimator makes of each block of rows."""
    X = X.to_dask_array() if _is_frame(X) else X
    X = X.rechunk({1: -1})
    example = getattr(model, method)(np.zeros((1, X.shape[1]), X.dtype if is_float32(X) else np.float64))
    beyond = example.shape[1:]
    return X.map_blocks(
        _on_block,
        model,
        method,
        example[:0],
        dtype=example.dtype,
        chunks=(X.chunks[0], *((size,) for size in beyond)),
        drop_axis=[] if beyond else [1],
        meta=example[:0],
    )


def _on_block(X: Any, model: Any, method: str, nothing: Any) -> Any:
    return getattr(model, method)(X) if X.shape[0] else nothing
