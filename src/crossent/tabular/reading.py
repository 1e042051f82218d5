"""Tables from files: CSV, Parquet, Arrow, NPZ and three data sets that scikit-learn ships.

CSV files hold text, and are read as text: what a cell says is for `crossent.tabular.columns`, which does not look at
other cells. The other formats say of what type a column is.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from crossent.errors import first_line

from .columns import refuse_names
from .errors import InputError, name_list
from .file_sizes import check_fits

BUILT_IN = ("digits", "wine", "breast_cancer")
SUFFIXES = (".csv", ".tsv", ".parquet", ".arrow", ".ipc", ".feather", ".npz")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"x\x9c", b"x\xda")  # gzip, zstd, zlib
_TEXT_LIKE_ZLIB = (b"x\x01", b"x^")


def read_table(source: str) -> pl.DataFrame:
    """Return the table that `source` names: a built-in data set, or a file by its suffix.

    The columns of a CSV or TSV file are text, as it is written there; a column without a name is called after its place
    ("column 1"). An NPZ file holds `X` of shape (N, D) and, where labels are known, `y` of shape (N,); its columns are
    called "0", "1", …, and "y".

    Raises
    ------
    InputError
        If there is no such file, its format is unknown, or it is damaged, cut short or empty.

    Examples
    --------
    >>> read_table("wine").shape
    (178, 14)
    """
    if source in BUILT_IN:
        return _built_in(source)
    path = Path(source)
    if not exists(path):
        raise InputError(f"there is no file {source!r}, and the built-in data sets are {', '.join(BUILT_IN)}")
    if not path.is_file():
        raise InputError(f"{source!r} is not a regular file: only those are read, no folders, pipes or devices")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"cannot tell the format of {source!r}: its name should end in {', '.join(SUFFIXES)}")
    try:
        check_fits(path, suffix)
        frame = _read(path, suffix)
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"cannot read {source!r}: permission denied") from error
    except (Exception, pl.exceptions.PanicException) as error:  # damage can look like anything
        raise InputError(
            f"cannot read {source!r} as {suffix[1:]}: it is damaged or cut short ({first_line(error)})"
        ) from error
    if frame.height == 0:
        raise InputError(f"{source!r} has no rows")
    return frame


def exists(path: Path) -> bool:
    """Return whether there is such a path; a name that the file system cannot hold is of no file."""
    try:
        return path.exists()
    except OSError:
        return False


def _read(path: Path, suffix: str) -> pl.DataFrame:
    if suffix in _SEPARATORS:
        return _read_csv(path, _SEPARATORS[suffix])
    if suffix == ".parquet":
        return pl.read_parquet(path, glob=False)
    if suffix == ".npz":
        return _read_npz(path)
    with path.open("rb") as file:
        is_file_format = file.read(6) == b"ARROW1"
    return pl.scan_ipc(path, glob=False).collect() if is_file_format else pl.read_ipc_stream(path)


def csv_source(path: Path) -> Path | bytes:
    """Return what polars is to read as text; it unpacks what looks compressed, however much that becomes.

    Raises
    ------
    InputError
        If the file is compressed.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_COMPRESSED):
        raise InputError(f"{str(path)!r} is compressed: unpack it first")
    # A header such as "x^2" begins like zlib; a byte order mark before it says that it is text.
    return b"\xef\xbb\xbf" + path.read_bytes() if start.startswith(_TEXT_LIKE_ZLIB) else path


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    try:
        frame = pl.read_csv(csv_source(path), separator=separator, infer_schema=False, glob=False)
    except pl.exceptions.NoDataError as error:
        raise InputError(f"{str(path)!r} is empty") from error
    except pl.exceptions.ComputeError as error:
        _refuse_other_encodings(path)
        _refuse_ragged(path, separator)
        raise error
    # polars leaves doubled quotes in a quoted header as they are, and puts U+FFFD for bytes there that are not UTF-8.
    try:
        with _fields_of_any_length(), path.open(newline="", encoding="utf-8-sig") as file:
            header = next(filter(None, csv.reader(file, delimiter=separator)), [])
        header = [name or f"column {place}" for place, name in enumerate(header, 1)]
    except UnicodeDecodeError:
        _refuse_other_encodings(path)
        raise
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise InputError(f"{str(path)!r} has more than one column called {name_list(repeated)}: rename all but one")
    if frame.width and frame[:, -1].null_count():  # polars fills short lines with nulls and does not tell
        _refuse_ragged(path, separator)
        if frame.width > 1 and (frame[:, 0].is_null() & frame[:, -1].is_null()).any():
            blank = _blank_lines(path, separator)
            frame = frame.filter(~pl.int_range(pl.len()).is_in(blank))
    return frame.rename(dict(zip(frame.columns, header, strict=True))) if _is_header(header, frame) else frame


def _refuse_other_encodings(path: Path) -> None:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data" and not file.read(1):
                    return  # a file cut short inside its last character
                raise InputError(
                    f"{str(path)!r} is not UTF-8 text (byte 0x{line[error.start]:02x} in line {number}): "
                    "save it as UTF-8"
                ) from error


@contextmanager
def _fields_of_any_length() -> Generator[None]:
    """Let the csv module read fields above 128 KiB; its limit is one for the whole process."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _is_header(names: list[str], frame: pl.DataFrame) -> bool:
    return len(names) == frame.width and len(set(names)) == len(names)


def _blank_lines(path: Path, separator: str) -> list[int]:
    """Return the places of blank lines among the lines after the header. They are no rows, though polars makes some."""
    with _fields_of_any_length(), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator)
        next(filter(None, reader), [])
        return [place for place, fields in enumerate(reader) if not fields]


def _refuse_ragged(path: Path, separator: str) -> None:
    with _fields_of_any_length(), path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file, delimiter=separator)
        width = len(next(filter(None, reader), []))
        for fields in reader:
            if fields and len(fields) != width:
                raise InputError(
                    f"line {reader.line_num} of {str(path)!r} has {len(fields)} fields where the header has {width}: "
                    "the file is damaged or cut short"
                )


def _read_npz(path: Path) -> pl.DataFrame:
    # The file is opened here, because np.load leaves a damaged one open.
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{str(path)!r} holds one array; an .npz file holds the arrays 'X' and 'y'")
        with archive:
            if "X" not in archive.files:
                raise InputError(f"{str(path)!r} must hold the arrays 'X' and 'y'; it holds {name_list(archive.files)}")
            features = archive["X"]
            labels = archive["y"] if "y" in archive.files else None
    if not (isinstance(features, np.ndarray) and isinstance(labels, np.ndarray | None)):
        raise InputError(f"'X' and 'y' in {str(path)!r} are not arrays")
    if features.ndim != 2 or features.dtype.kind not in "fiub":
        raise InputError(
            f"'X' in {str(path)!r} must be a two-dimensional array of real numbers; "
            f"it has shape {features.shape} and dtype {features.dtype}"
        )
    if features.dtype.kind == "f" and features.dtype.itemsize not in (4, 8):
        features = features.astype(np.float64)
    frame = pl.DataFrame(features, schema=[str(k) for k in range(features.shape[1])], orient="row")
    if labels is None:
        return frame
    if labels.shape != features.shape[:1]:
        raise InputError(
            f"'y' in {str(path)!r} must have one label for each of the {features.shape[0]} rows of 'X'; "
            f"it has shape {labels.shape}"
        )
    if labels.dtype.kind not in "fiubU":
        raise InputError(f"'y' in {str(path)!r} must hold numbers or text; its dtype is {labels.dtype}")
    return frame.with_columns(pl.Series("y", labels.tolist() if labels.dtype.kind == "U" else labels))


def _built_in(name: str) -> pl.DataFrame:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    # digits names its classes 0 … 9 already; the others have words for them.
    labels = [str(bunch.target_names[code]) for code in bunch.target]
    frame = pl.DataFrame(bunch.data, schema=[str(column) for column in bunch.feature_names], orient="row")
    target = pl.Series("target", [int(label) for label in labels] if name == "digits" else labels)
    return frame.with_columns(target)


def default_target(source: str) -> str | None:
    """Return the target column that `source` itself names: built-in data sets and NPZ files have one."""
    if source in BUILT_IN:
        return "target"
    return "y" if Path(source).suffix.lower() == ".npz" else None


def columns_list(columns: list[str]) -> str:
    """Return the names of columns for a sentence; of a single one that looks like several, say what to do.

    Examples
    --------
    >>> columns_list(["x", "y"])
    "'x', 'y'"
    >>> columns_list(["x;y"])
    "'x;y': if ';' separates columns there, save the table with commas (.csv) or tabs (.tsv)"
    """
    shown = name_list(columns)
    for separator, called in ((";", "';'"), ("\t", "a tab"), (",", "a comma")):
        if len(columns) == 1 and separator in columns[0]:
            return f"{shown}: if {called} separates columns there, save the table with commas (.csv) or tabs (.tsv)"
    return shown


def require_columns(columns: list[str], needed: Iterable[str], source: str) -> None:
    """Refuse a table that lacks one of the columns that are needed, and say which there are."""
    known = set(columns)
    for column in needed:
        if column not in known:
            raise InputError(f"there is no column {column!r} in {source!r}; its columns are {columns_list(columns)}")


def remaining_columns(columns: list[str], target: str, drop: Collection[str], source: str) -> list[str]:
    """Return the columns that are neither the target nor to be dropped.

    Raises
    ------
    InputError
        If one of those that are named is not there, the target is to be dropped, or a name cannot be used.
    """
    refuse_names(columns, source, drop)
    require_columns(columns, [target, *drop], source)
    if target in drop:
        raise InputError(f"column {target!r} is the target and cannot be dropped as well")
    left_out = {target, *drop}
    return [name for name in columns if name not in left_out]
