"""A part of the rows, where it lies: what workers hold and compute in a distributed fit.

Every function here is pure but for caches, so that a part whose worker is lost can be made again elsewhere and gives
the same numbers. A checksum of its rows tells whether they are the same: what draws them may draw others. Errors in the
data are returned, not raised: they are the user's, and no reason to try again.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils.validation import check_array

from crossent.errors import describe, refuse
from crossent.losses import Loss
from crossent.masked import refuse_masked

from ..arrays import Array
from ..certificate import dual_sums
from ..hessian import Hessian
from ..objective import LinearObjective
from ..penalty import Ridge
from ..plan import tuned
from ..targets import EncodedTarget, encode_target


@dataclass(frozen=True)
class Summary:
    """What the client must know of rows before a fit; of a part, or of several in order."""

    rows: tuple[int, ...]  # of positive weight, in each part
    checksums: tuple[int, ...]  # of each part
    weight: float  # Σ s
    columns: Array  # Σ s x (D,)
    classes: NDArray[Any] | None  # labels that occur; None for a target of several columns
    target: Array  # Σ s by class, or Σ s t by column
    hard: bool
    problem: str = ""

    @classmethod
    def merge(cls, parts: Sequence[Summary]) -> Summary:
        """Return the summary of all rows; of the first part that has a problem, if one has."""
        for part in parts:
            if part.problem:
                return part
        filled = [part for part in parts if len(part.target)] or list(parts[:1])
        if len({(part.classes is None, len(part.target) if part.classes is None else 0) for part in filled}) > 1:
            asked = "all parts of y must have as many columns"
            return replace(parts[0], problem=refuse(asked, sorted({len(part.target) for part in filled})))
        if filled[0].classes is None:
            classes, target = None, np.sum([part.target for part in filled], axis=0)
        else:
            try:
                labels = np.concatenate([part.classes for part in filled])
                classes, position = np.unique(labels, return_inverse=True)
            except TypeError:
                asked = "labels must be of one kind, so that they can be sorted"
                return replace(parts[0], problem=refuse(asked, "strings and numbers in different parts of y"))
            target = np.bincount(position, weights=np.concatenate([part.target for part in filled]))
        return cls(
            tuple(rows for part in parts for rows in part.rows),
            tuple(checksum for part in parts for checksum in part.checksums),
            sum(part.weight for part in parts),
            np.sum([part.columns for part in parts], axis=0),
            classes,
            target,
            all(part.hard for part in parts),
        )

    def encoded(self, link: str, label_smoothing: float) -> tuple[EncodedTarget, Array]:
        """Return a small target and row weights with the same masses as all rows: one row or two for a class, or one
        row with the mean of several columns."""
        if self.classes is not None:  # two, because scikit-learn warns where every label is another
            return encode_target(np.repeat(self.classes, 2), link, label_smoothing), np.repeat(self.target / 2, 2)
        mean = (self.target / (self.weight or 1.0))[None]
        kind = {"multilabel": True} if link == "sigmoid" else {}
        outputs = mean.shape[1]
        target = EncodedTarget(link, np.arange(outputs), outputs, None, mean, None, label_smoothing, **kind)
        return target, np.array([self.weight])


@dataclass(frozen=True)
class Rows:
    """Checked rows of positive weight, or what is wrong with them."""

    X: Any
    y: NDArray[Any]
    weight: Array
    summary: Summary

    def __sizeof__(self) -> int:
        """Bytes, as Dask's scheduler weighs what it could move."""
        return _bytes(self.X) + self.y.nbytes + self.weight.nbytes


def read_rows(X: Any, y: Any, weight: Any, place: int, dtype: Any, link: str, features: int) -> Rows:
    """Check one part of X (n, D), y and the weights (or None), `place` counting parts from 0."""
    part = f"partition {place}"
    try:
        return _read_rows(part, np.dtype(dtype), link, features, X, y, weight)
    except (ValueError, TypeError) as error:
        empty = np.zeros((0, features), dtype)
        return Rows(
            empty, empty, np.zeros(0), Summary((0,), (0,), 0.0, np.zeros(features), None, np.zeros(0), True, f"{error}")
        )


def _read_rows(part: str, dtype: np.dtype[Any], link: str, features: int, X: Any, y: Any, weight: Any) -> Rows:
    for name, given in (("X", X), ("y", y), ("sample_weight", weight)):
        refuse_masked(given, f"{part} of {name}")
    try:
        X = check_array(X, dtype=dtype, order="C", accept_sparse="csr", ensure_all_finite=False, ensure_min_samples=0)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{part} of X: {error}") from error
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64).reshape(-1)
    if not X.shape[0] == len(y) == len(weight):
        lengths = f"{X.shape[0]}, {len(y)} and {len(weight)} in {part}"
        raise ValueError(refuse("partitions of X, y and sample_weight must have as many rows", lengths))
    columns = _finite_sum(X, weight, part)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        got = f"{weight[row]} in row {row} of {part}"
        raise ValueError(refuse("sample_weight must be finite and not negative", got))
    if len(y) == 0:
        return Rows(X, y, weight, Summary((0,), (0,), 0.0, columns, None, np.zeros(0), True))
    if y.ndim == 1:
        _check_labels(y, part)
        try:
            classes, position = np.unique(y, return_inverse=True)
        except TypeError as error:
            got = f"{describe(y)} of several kinds in {part}"
            raise ValueError(refuse("labels must be of one kind, so that they can be sorted", got)) from error
        target, hard = np.bincount(position, weights=weight).astype(np.float64), True
        of_target: list[NDArray[Any]] = [position, np.frombuffer(repr(classes.tolist()).encode(), np.uint8)]
    else:
        try:
            encoded = encode_target(y, link)
        except ValueError as error:
            raise ValueError(f"{part} of y: {error}") from error
        classes, y, hard = None, encoded.values, encoded.hard
        target = np.asarray(weight @ y)
        of_target = [y]
    of_columns = [X.data, X.indices, X.indptr] if issparse(X) else [X]
    checksum = _checksum(*of_columns, *of_target, weight)
    counted = weight > 0
    summary = Summary((int(counted.sum()),), (checksum,), float(weight.sum()), columns, classes, target, hard)
    if not counted.all():
        X, y, weight = X[counted], y[counted], weight[counted]
    return Rows(X, y, weight, summary)


def _check_labels(y: NDArray[Any], part: str) -> None:
    """Refuse numbers that are no labels here, because their distinct values would travel."""
    if y.dtype.kind != "f":
        return
    bad = ~np.isfinite(y) | (y != np.floor(y))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            refuse("labels must be integers, strings or whole numbers", f"{y[row]} in row {row} of {part}")
        )


def _finite_sum(X: Any, weight: Array, part: str) -> Array:
    """Return ``Σ s x`` a block of rows at a time; refuse NaN and infinity."""
    total = np.zeros(X.shape[1])
    step = max(1, tuned().block_elements // max(1, X.shape[1]))
    for start in range(0, X.shape[0], step):
        block = X[start : start + step]
        block = block.toarray() if issparse(block) else block
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            got = f"{block[row, column]} in row {start + row}, column {column} of {part}"
            raise ValueError(refuse("X must be finite", got))
        total += weight[start : start + step] @ block
    return total


def _checksum(*arrays: NDArray[Any]) -> int:
    """Return 32 bits that other bytes, or the same in another order, change but for one case in four billion."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, total)
    return total


def refuse_change(place: int) -> ValueError:
    """Return the error of a partition that is computed again and gives other rows, which no certificate is about."""
    return ValueError(
        refuse(
            "a partition must hold the same rows whenever it is computed",
            f"other rows in partition {place} than before, while the fit ran",
            "seed what draws them, or write them to files and read these",
        )
    )


def summary_of(rows: Rows) -> Summary:
    """Return what travels of checked rows."""
    return rows.summary


@dataclass(frozen=True)
class Shared:
    """What all parts share: the target's form without its rows, and how F is made of a row."""

    target: EncodedTarget
    outputs: NDArray[np.intp]
    scale: float  # row weights are sample weights times this
    loss: Loss
    dtype: np.dtype[Any]  # of the first products
    fit_intercept: bool
    mean: Array | None
    cache_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        weight = self.target.class_weight
        arrays = (self.target.classes, self.outputs, self.mean, weight)
        return sum(array.nbytes for array in arrays if array is not None)

    def encode(self, y: NDArray[Any]) -> EncodedTarget:
        """Return the target of some rows, restricted to the outputs that take part."""
        if y.ndim == 1:
            codes = np.searchsorted(self.target.classes, y)
            y = codes if self.target.link == "softmax" else codes.astype(np.int8)[:, None]
        return with_values(self.target, y).restrict(self.outputs)


def with_values(target: EncodedTarget, values: NDArray[Any]) -> EncodedTarget:
    """Return a target of the same form with other rows: labels if they are integers, else soft targets."""
    soft = values.dtype.kind == "f"
    return replace(target, labels=None if soft else values, soft=values if soft else None)


class Part:
    """The objective of one part of the rows, without the penalty.

    Raises
    ------
    ValueError
        If the rows are not those that had this checksum.
    """

    def __init__(self, rows: Rows, shared: Shared, first_row: int, place: int, checksum: int) -> None:
        if rows.summary.checksums != (checksum,):
            raise refuse_change(place)
        self._made_of = rows, shared, first_row, place, checksum
        self._objective = LinearObjective(
            rows.X,
            shared.encode(rows.y),
            rows.weight * shared.scale,
            Ridge(0.0),
            shared.loss,
            shared.fit_intercept,
            shared.dtype,
            mean=shared.mean,
            cache_bytes=shared.cache_bytes,
            first_row=first_row,
        )

    def __reduce__(self) -> Any:
        """Travel without caches, if Dask moves a part."""
        return type(self), self._made_of

    def __sizeof__(self) -> int:
        """Bytes, with the centred columns if they are kept."""
        objective = self._objective
        return sys.getsizeof(self._made_of[0]) + objective.held_bytes

    def in_dtype(self, dtype: Any) -> LinearObjective:
        """Return the objective, whose products run in `dtype`."""
        self._objective.use_precision(dtype)
        return self._objective


def evaluate(part: Part, dtype: Any, theta: Array) -> tuple[float, Array]:
    """Return the data's part of F and of its gradient."""
    at = part.in_dtype(dtype).evaluate(theta)
    return at.data_loss, at.data_gradient


def hessian(part: Part, dtype: Any, theta: Array, sampling: float, step: int, most_rows: float) -> Hessian:
    """Draw the part's rows for products at `theta`. The part itself is not in the result, and so is counted once."""
    return Hessian(part.in_dtype(dtype), theta, sampling, step, most_rows).moved_to(None)


def kept(partial: Hessian) -> tuple[float, Array | None]:
    """Return how many rows were drawn, or entries in terms of rows, and ``Σ S_i``."""
    return partial.rows_kept, partial.outputs


def product(part: Part, partial: Hessian, dtype: Any, vector: Array) -> tuple[Array]:
    """Return the part's second derivative times a vector."""
    return (partial.moved_to(part.in_dtype(dtype)) @ vector,)


def constants(part: Part, dtype: Any) -> tuple[Any, ...]:
    """Return the part's sums for the certificate."""
    return tuple(dual_sums(part.in_dtype(dtype)))


def every(part: Part, dtype: Any, stride: int) -> tuple[NDArray[Any], NDArray[Any], Array]:
    """Return the rows of X, target and weight whose place among all is a multiple of `stride`."""
    taken = part.in_dtype(dtype).every(stride)
    return taken.X, taken.target.values, taken.row_weight


def add(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the sums, in order, of what each part returns; None where a part has None."""
    return tuple(None if any(term is None for term in terms) else _sum(terms) for terms in zip(*parts, strict=True))


def join(parts: Sequence[tuple[NDArray[Any], ...]]) -> tuple[NDArray[Any], ...]:
    """Return the arrays of all parts, one below the other."""
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _sum(terms: Sequence[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _bytes(X: Any) -> int:
    return int(X.data.nbytes + X.indices.nbytes + X.indptr.nbytes) if issparse(X) else int(X.nbytes)
