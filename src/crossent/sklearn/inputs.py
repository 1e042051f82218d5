"""What a fit may be given as X beside arrays: data frames, whose columns have names and types, and row sources."""

from __future__ import annotations

from collections import Counter
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite

from crossent.errors import refuse
from crossent.masked import refuse_masked
from crossent.regression.blas import single_threaded_blas
from crossent.regression.data.sources import RowSource

PIECE_ELEMENTS = 1 << 18
UNTYPED = (nw.Object, nw.Unknown)
"""Columns of Python objects: scikit-learn looks at what is in them."""


def read_frame(X: Any) -> tuple[Any, Any]:
    """Return X for `validate_data`, and the data frame that it was, or None.

    Frames of pandas are left to scikit-learn, which knows their types; others are read here and keep float32.

    Raises
    ------
    TypeError
        If X is a masked array or holds one.
    ValueError
        If a column of the frame is not of numbers, or a cell is missing, with the column and row.
    """
    if type(X) is np.ndarray and X.dtype != object:
        return X, None
    refuse_masked(X, "X")
    try:
        frame = nw.from_native(X, eager_only=True, pass_through=True)
    except DuplicateError as error:
        repeated = [str(name) for name, times in Counter(X.columns).items() if times > 1]
        raise ValueError(
            refuse("the columns of X must have names of their own", f"{repeated[0]!r} several times", "rename them")
        ) from error
    if not isinstance(frame, nw.DataFrame):
        return X, None
    for column in frame.iter_columns():
        dtype = column.dtype
        if not (dtype.is_numeric() or dtype == nw.Boolean or dtype in UNTYPED):
            raise ValueError(
                refuse("every column of X must hold numbers", f"column {column.name!r} of type {dtype}", "encode it")
            )
        if column.null_count():
            row = column.is_null().arg_true()[0]
            raise ValueError(
                refuse("X must have no missing cell", f"one in column {column.name!r}, row {row}", "impute it")
            )
    return X if frame.implementation.is_pandas_like() else frame.to_numpy(), X


def check_values(estimator: Any, X: Any) -> None:
    """Refuse NaN, infinity, and numbers whose squares, summed over the features, leave the range of X's dtype.

    X is a CSR matrix or an array in C order. A sum of squares is at least as large as each of them, however it was
    rounded: one pass finds most data to be fine.

    Raises
    ------
    ValueError
        With the column of a number that is too large.
    """
    values = X.data if issparse(X) else X
    flat, most = values.ravel(), 1e-2 * float(np.sqrt(np.finfo(X.dtype).max))
    with np.errstate(over="ignore", invalid="ignore"), single_threaded_blas():
        pieces = (flat[start : start + PIECE_ELEMENTS] for start in range(0, len(flat), PIECE_ELEMENTS))
        if all(np.dot(piece, piece) <= most**2 for piece in pieces):
            return
    assert_all_finite(values, estimator_name=type(estimator).__name__, input_name="X")
    if max(values.max(), -values.min()) > most:
        column = int(np.argmax(abs(X).max(axis=0).toarray() if issparse(X) else np.abs(X).max(axis=0)))
        largest = float(abs(X[:, [column]]).max())
        raise ValueError(refuse("the squares of X must be finite", f"{largest:.3g} in column {column}", "scale it"))


def refuse_infinite_logits(logits: NDArray[Any], first_row: int = 0) -> None:
    """Refuse ``X Wᵀ`` (N, K) of finite X whose products or sums leave the range of its dtype; rows count from a first.

    Raises
    ------
    ValueError
        With the row.
    """
    fine = np.isfinite(logits)
    if not fine.all():
        row = first_row + int(np.argmin(fine.all(axis=1)))
        got = f"an overflow in row {row}"
        raise ValueError(
            refuse(
                f"the logits X W must be finite in {logits.dtype}", got, "scale that row as in the fit, or leave it out"
            )
        )


def is_accepted(dtype: Any, accepted: Any) -> bool:
    """Whether a dtype is the one, or one of the list, that an estimator works with."""
    return dtype in [np.dtype(one) for one in (accepted if isinstance(accepted, list) else [accepted])]


def check_source(estimator: Any, X: RowSource, accepted: Any, reset: bool) -> None:
    """Check a row source against what an estimator works with or was fitted to, and note its features in a fit.

    Raises
    ------
    ValueError
        If the rows are of another dtype than `accepted`, there are none, or the features are not those of the fit.
    """
    dtypes = accepted if isinstance(accepted, list) else [accepted]
    if not is_accepted(X.dtype, accepted):
        raise ValueError(
            refuse(
                f"rows that are read in windows must be {dtypes[0]}", X.dtype, f"dtype={X.dtype.name!r} or dtype=None"
            )
        )
    if min(X.shape) < 1:
        raise ValueError(refuse("X must have rows and columns", f"shape {X.shape}"))
    if reset:
        estimator.n_features_in_ = X.shape[1]
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
            "features as input"
        )
    names = X.feature_names
    if reset and names is not None:
        estimator.feature_names_in_ = np.array(names, dtype=object)
    elif reset and hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    elif names is not None and names != list(getattr(estimator, "feature_names_in_", names)):
        wrong = next(pair for pair in zip(names, estimator.feature_names_in_, strict=True) if pair[0] != pair[1])
        raise ValueError(
            refuse("X must have the features of the fit, in order", f"{wrong[0]!r} in the place of {wrong[1]!r}")
        )


def refuse_source(X: Any, who: str, works: str) -> None:
    """Refuse a row source where all rows must be in memory."""
    if isinstance(X, RowSource):
        raise ValueError(refuse(f"{who} needs X in memory", type(X).__name__, works))
