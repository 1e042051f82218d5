"""Parquet files, one or several, read a window of rows at a time with polars."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossent.errors import describe, first_line, refuse

from .sources import WINDOW_BYTES, RowSource, even_boundaries

if TYPE_CHECKING:
    import polars as pl

NARROW = ("Float32", "Boolean", "Int8", "Int16", "UInt8", "UInt16")
"""Types whose every value float32 holds exactly."""
CACHED_ELEMENTS = 1 << 17
"""Columns are laid out as rows in pieces of so many elements, which a core's cache holds on both sides."""


class ParquetTable:
    """The rows of Parquet files with the same columns, one file after the other.

    Parameters
    ----------
    source : str, path or iterable of them
        As `ParquetRows` takes it.

    Attributes
    ----------
    schema : dict
        Column name -> polars type.
    num_rows : int

    Raises
    ------
    ImportError
        If polars is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file cannot be read, or the files' columns differ.
    """

    def __init__(self, source: Any) -> None:
        try:
            import polars as pl
        except ImportError as error:
            raise ImportError("reading Parquet files needs polars: pip install 'crossent[tabular]'") from error
        self.paths = _find_files(source)
        self._errors = (Exception, pl.exceptions.PanicException)  # damage can look like anything
        self._scans = [pl.scan_parquet(path, glob=False) for path in self.paths]
        heights = []
        for path, scan in zip(self.paths, self._scans, strict=True):
            schema = self._read(path, scan.collect_schema)
            if path == self.paths[0]:
                self.schema: dict[str, Any] = dict(schema)
            elif dict(schema) != self.schema:
                raise ValueError(
                    refuse("all files must have the same columns", f"others in {path!r} than in {self.paths[0]!r}")
                )
            heights.append(self._read(path, scan.select(pl.len()).collect).item())
        self._ends = np.cumsum(heights, dtype=np.int64)
        self.num_rows = int(self._ends[-1])
        if self.num_rows == 0:
            raise ValueError(refuse("a table must have rows", f"none in {self.paths[0]!r}"))

    def frame(self, start: int, stop: int, columns: list[str]) -> pl.DataFrame:
        """Return some columns of the rows from `start` to before `stop`."""
        import polars as pl

        parts = []
        for path, scan, end, height in zip(
            self.paths, self._scans, self._ends, np.diff(self._ends, prepend=0), strict=True
        ):
            first, last = max(start, end - height), min(stop, end)
            if first < last:
                offset = int(first - (end - height))
                parts.append(self._read(path, scan.select(columns).slice(offset, int(last - first)).collect))
        frame = pl.concat(parts) if len(parts) > 1 else parts[0]
        if frame.height != stop - start:
            raise ValueError(refuse("a file must not change while it is read", f"fewer rows in {self.paths[0]!r}"))
        return frame

    def require(self, names: Iterable[str]) -> list[str]:
        """Return the names of columns as a list, all of which must be there."""
        names = list(names)
        for name in names:
            if name not in self.schema:
                shown = ", ".join(map(repr, list(self.schema)[:8])) + (", …" if len(self.schema) > 8 else "")
                raise ValueError(refuse(f"columns must be among those of the files ({shown})", repr(name)))
        return names

    def _read(self, path: str, action: Any) -> Any:
        try:
            return action()
        except PermissionError as error:
            raise ValueError(f"cannot read {path!r}: permission denied") from error
        except self._errors as error:
            raise ValueError(
                f"cannot read {path!r} as parquet: it is damaged, cut short or no Parquet file ({first_line(error)})"
            ) from error


def _find_files(source: Any) -> list[str]:
    """Return the files of a source, each once: its rows would count twice by a link beside it."""
    if not isinstance(source, str | os.PathLike):
        sources = list(source)
        if not sources:
            raise ValueError(refuse("at least one Parquet file is needed", "an empty list"))
        known: dict[Any, str] = {}
        for name in (name for one in sources for name in _find_files(one)):
            file = _identity(name)
            if file in known:
                got = f"{known[file]!r} and {name!r}, the same file"
                works = "leave one out; weights of 2 count rows twice"
                raise ValueError(refuse("a list must name each file once", got, works))
            known[file] = name
        return list(known.values())
    path = Path(source)
    if path.is_file():
        return [str(path)]
    found = sorted(glob.glob(str(path / "*.parquet") if path.is_dir() else str(path)))
    if not found and path.is_dir():
        raise FileNotFoundError(f"the folder {os.fspath(source)!r} holds no file that ends in .parquet")
    if not found:
        raise FileNotFoundError(f"there is no Parquet file {os.fspath(source)!r}")
    for name in found:
        if not os.path.isfile(name):
            raise ValueError(refuse("Parquet files must be regular files", f"{name!r}, a folder, pipe or device"))
    first: dict[Any, str] = {}
    for name in found:
        first.setdefault(_identity(name), name)
    return list(first.values())


def _identity(path: str) -> Any:
    """Return what all names of a file have in common, links too; of one that cannot be looked up, its path."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    return found.st_dev, found.st_ino


class ParquetRows(RowSource):
    """Columns of numbers of Parquet files as the X of `SoftmaxRegression`, without ever holding them all.

    Each pass of a fit reads the files anew, a window of rows at a time, the next while the current one is worked on.
    About three windows are in memory. A fit makes some tens of passes; where decompressing takes longer than the
    arithmetic, write the rows to a memory map once (`numpy.lib.format.open_memmap`) and fit to that.

    Parameters
    ----------
    source : str, path or iterable of them
        A file, a folder (all its files that end in .parquet), or a pattern with ``*``, ``?`` or ``[…]``; files of a
        folder or a pattern come in the order of their names, and one that has several names (links) counts once, by the
        first of them. A list that names a file twice is refused.
    columns : iterable of str, optional
        The features, in this order; by default all columns but those of `exclude`.
    exclude : iterable of str, optional
        Columns to leave out, such as the labels.
    dtype : {None, "float32", "float64"}
        None: float32 if it holds every value of all columns exactly (float32, booleans, integers of up to 16 bits).
    window_bytes : int, default 2**28
        The size of a window, 256 MiB by default. Windows that hold whole row groups are read fastest: a part of one
        takes about as long to read as all of it.

    Attributes
    ----------
    shape : tuple of int
        (N, D).
    dtype : numpy.dtype
    feature_names : list of str

    Raises
    ------
    ValueError
        If a file cannot be read or a column is missing or not of numbers; and in a pass, if a cell is missing, NaN or
        infinite, with its column and row.
    FileNotFoundError, ImportError
        If there is no such file, or no polars.

    Examples
    --------
    >>> import os, tempfile
    >>> import polars as pl
    >>> from sklearn.datasets import load_iris
    >>> from crossent.sklearn import ParquetRows, SoftmaxRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> path = os.path.join(tempfile.mkdtemp(), "iris.parquet")
    >>> pl.DataFrame(X, schema=["a", "b", "c", "d"]).with_columns(kind=pl.Series(y)).write_parquet(path)
    >>> rows = ParquetRows(path, exclude=["kind"])
    >>> model = SoftmaxRegression().fit(rows, rows.column("kind"))
    >>> model.predict_proba(rows).shape
    (150, 3)
    """

    def __init__(
        self,
        source: Any,
        *,
        columns: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
        dtype: str | None = None,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        if isinstance(columns, str) or isinstance(exclude, str):
            raise ValueError(refuse("columns and exclude must be lists of names", repr(columns or exclude)))
        if not isinstance(window_bytes, int) or window_bytes < 1:
            raise ValueError(refuse("window_bytes must be a positive integer", repr(window_bytes)))
        self.table = ParquetTable(source)
        excluded = set(self.table.require(exclude))
        names = self.table.require(self.table.schema if columns is None else columns)
        names = [name for name in names if name not in excluded]
        if not names or len(set(names)) < len(names):
            raise ValueError(refuse("columns must be different ones, and at least one", names))
        for name in names:
            type_ = self.table.schema[name]
            if not (type_.is_numeric() or str(type_) == "Boolean"):
                raise ValueError(
                    refuse("features must be columns of numbers", f"column {name!r} of type {type_}", "exclude it")
                )
        if dtype is None:
            narrow = all(str(self.table.schema[name]) in NARROW for name in names)
            dtype = "float32" if narrow else "float64"
        elif dtype not in ("float32", "float64"):
            raise ValueError(refuse("dtype must be None, 'float32' or 'float64'", repr(dtype)))
        shape = (self.table.num_rows, len(names))
        super().__init__(shape, dtype, even_boundaries(shape, dtype, window_bytes), names)

    def read_window(self, index: int) -> NDArray[Any]:
        """Return the rows of one window."""
        assert self.feature_names is not None
        start, stop = self.boundaries[index : index + 2].tolist()
        frame = self.table.frame(start, stop, self.feature_names)
        for series in frame.iter_columns():
            if series.null_count():
                self._refuse_cell("a missing value", series.name, start + int(series.is_null().arg_max() or 0))
        return self._laid_out(frame, start)

    def _laid_out(self, frame: pl.DataFrame, start: int) -> NDArray[Any]:
        import polars as pl

        rows = np.empty((frame.height, self.shape[1]), self.dtype)
        by_column = frame.cast(pl.Float32 if self.dtype == np.float32 else pl.Float64).to_numpy(order="fortran")
        step = max(1, CACHED_ELEMENTS // self.shape[1])
        for first in range(0, len(rows), step):
            rows[first : first + step] = by_column[first : first + step]
        with np.errstate(over="ignore", invalid="ignore"):
            total = rows.sum()  # NaN and infinity reach the sum; so does overflow, which the next line tells from them
        if not np.isfinite(total) and not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            value = "NaN" if np.isnan(rows[row, column]) else "an infinite value"
            self._refuse_cell(value, frame.columns[column], start + int(row))
        return rows

    def _refuse_cell(self, value: str, column: str, row: int) -> None:
        raise ValueError(refuse("every feature must be a finite number", f"{value} in column {column!r}, row {row}"))

    def column(self, name: str) -> NDArray[Any]:
        """Return another column, such as the labels, as an array (N,).

        Integers come in the least type that holds them; text as an array of Python strings, each made once.

        Raises
        ------
        ValueError
            If there is no such column, it is one of the features, or a cell is missing.
        """
        self.table.require([name])
        if name in (self.feature_names or ()):
            raise ValueError(
                refuse("labels must not be among the features", f"column {name!r}", f"exclude=[{name!r}] leaves it out")
            )
        return read_column(self.table, name)


def read_column(table: ParquetTable, name: str) -> NDArray[Any]:
    """Return a column without missing cells; see `ParquetRows.column`."""
    series = table.frame(0, table.num_rows, [name])[name]
    if series.null_count():
        row = int(series.is_null().arg_max() or 0)
        raise ValueError(refuse("a column of labels must have no missing cell", f"one in column {name!r}, row {row}"))
    if series.dtype.is_integer():
        return series.shrink_dtype().to_numpy()
    if series.dtype.is_float() or str(series.dtype) == "Boolean":
        return series.to_numpy()
    import polars as pl

    try:
        text = series.cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise ValueError(refuse("labels must be numbers or text", f"{describe(series.dtype)} in {name!r}")) from error
    values = text.unique().sort()
    codes = text.cast(pl.Enum(values)).to_physical().to_numpy()
    return np.array(values.to_list(), dtype=object)[codes]
