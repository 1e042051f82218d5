"""Tables from files, whatever their format, and data sets that are built in.

Delimited text (CSV and its kin) is read as text: what a cell says is for `crossent.tabular.columns`, which does not
look at other cells. The other formats say of what type a column is.
"""

from __future__ import annotations

import glob
import os
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from crossent.errors import first_line

from .columns import refuse_names
from .delimited import Content, read_delimited
from .errors import InputError, name_list
from .file_sizes import check_fits, refuse_too_large, text_bytes
from .unpacking import text_content, unpack
from .workbooks import read_workbook

BUILT_IN = ("customers", "digits", "wine", "breast_cancer")
"""A table of ours with numbers, words and dates (docs/make_customers.py), and three that scikit-learn ships."""
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
SUFFIXES = (*TEXT_SUFFIXES, ".zip", ".xlsx", ".parquet", ".arrow", ".ipc", ".feather", ".npz")


def read_table(source: str, *, encoding: str | None = None, notes: list[str] | None = None) -> pl.DataFrame:
    """Return the table that `source` names: a built-in data set, or a file by its suffix.

    The columns of a CSV, TSV or TXT file are text, as it is written there, but for decimal commas, which become points;
    a column without a name is called after its place ("column 1"). Columns may be separated by commas, semicolons, tabs
    or '|'. Text may be packed by gzip (``.csv.gz``), or be the one table in a ZIP file.

    An NPZ file holds `X` of shape (N, D) and, where labels are known, `y` of shape (N,); its columns are called "0",
    "1", …, and "y".

    Parameters
    ----------
    source : str
    encoding : str, optional
        What CSV and its kin and JSON lines are encoded in, as Python names it ("cp1252"); without it UTF-8, or UTF-16
        where the file begins with its byte order mark. Other formats have one encoding.
    notes : list of str, optional
        Gets a sentence on each thing found that not every reader would have taken so, such as decimal commas.

    Raises
    ------
    InputError
        If there is no such file, its format is unknown, it is damaged, cut short or empty, or its table, unpacked, does
        not fit into memory.

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
    suffix = table_suffix(source)
    if suffix not in SUFFIXES:
        raise InputError(f"cannot tell the format of {source!r}: its name should end in {', '.join(SUFFIXES)}")
    try:
        frame = _read(path, suffix, encoding, [] if notes is None else notes)
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


def read_tables(sources: Sequence[str], *, encoding: str | None = None, notes: list[str] | None = None) -> pl.DataFrame:
    """Return the rows of one or more tables with the same columns, one table after the other.

    Each is read as by `read_table`; the columns are in the order of the first table.

    Raises
    ------
    InputError
        As `read_table`, and if columns differ or a file is given twice.
    """
    places = [source if source in BUILT_IN else os.path.realpath(source) for source in sources]
    for source, place in zip(sources, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"{source!r} is given twice: its rows would count twice")
    frames = [read_table(source, encoding=encoding, notes=notes) for source in sources]
    columns = frames[0].columns
    for source, frame in zip(sources, frames, strict=True):
        for others, known, which in ((columns, {*frame.columns}, "lacks"), (frame.columns, {*columns}, "also has")):
            if different := [name for name in others if name not in known]:
                raise InputError(
                    f"all files must have the same columns: {source!r} {which} {name_list(different)}, other than "
                    f"{sources[0]!r}"
                )
    try:
        return pl.concat([frame[columns] for frame in frames], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:  # text in one, numbers in another
        raise InputError(
            f"the columns of {source_name(sources)} are of different types: {first_line(error)}"
        ) from error


def table_files(sources: Iterable[str]) -> list[str]:
    """Return sources with the names of files in the place of a pattern, unless Parquet files alone fit it."""
    files: list[str] = []
    for source in sources:
        found = [] if exists(Path(source)) else sorted(glob.glob(source))
        suffixes = {table_suffix(name) for name in found} - {".parquet"}
        files += found if suffixes and suffixes <= {*SUFFIXES} else [source]
    return files


def source_name(sources: Sequence[str]) -> str:
    """Return what several sources are called in a report: the first few names."""
    return ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")


def table_suffix(source: str) -> str:
    """Return the suffix that tells the format: ".csv" of "t.csv" and of "t.csv.gz"."""
    return _unpacked_name(source).suffix.lower()


def table_stem(source: str) -> str:
    """Return the name of a file without folders and suffixes: "t" of "data/t.csv.gz"."""
    return _unpacked_name(source).stem


def _unpacked_name(source: str) -> Path:
    path = Path(source)
    return Path(path.stem) if path.suffix.lower() == ".gz" else path


def exists(path: Path) -> bool:
    """Return whether there is such a path; a name that the file system cannot hold is of no file."""
    try:
        return path.exists()
    except OSError:
        return False


def _read(path: Path, suffix: str, encoding: str | None, notes: list[str]) -> pl.DataFrame:
    if suffix == ".zip":
        return _read_zip(path, encoding, notes)
    if suffix in TEXT_SUFFIXES:
        return _read_text(str(path), text_content(path, encoding, notes), suffix, notes)
    check_fits(path, suffix)
    if suffix == ".parquet":
        return pl.read_parquet(path, glob=False)
    if suffix == ".npz":
        return _read_npz(path)
    if suffix == ".xlsx":
        return read_workbook(path)
    with path.open("rb") as file:
        is_file_format = file.read(6) == b"ARROW1"
    return pl.scan_ipc(path, glob=False).collect() if is_file_format else pl.read_ipc_stream(path)


def _read_text(name: str, content: Content, suffix: str, notes: list[str]) -> pl.DataFrame:
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(name, content)
    return read_delimited(name, content, "\t" if suffix == ".tsv" else ",", notes)


def _read_json_lines(name: str, content: Content) -> pl.DataFrame:
    text = content if isinstance(content, bytes) else content.read_bytes()
    if not text.strip():
        raise InputError(f"{name!r} is empty")
    columns = pl.scan_ndjson(text, infer_schema_length=None).collect_schema()
    rows = text.count(b"\n") + 1  # each may have keys of its own
    refuse_too_large(name, text_bytes(len(text), rows * len(columns)))
    return pl.read_ndjson(text, schema=columns)


def _read_zip(path: Path, encoding: str | None, notes: list[str]) -> pl.DataFrame:
    """Return the one table of text in an archive; files without the name of a table (a licence, say) are no table."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not any(part[:1] in "._" for part in name.split("/") if part)]
        tables = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
        if len(tables) != 1:
            found = f"{len(tables)} tables ({name_list(tables)})" if tables else f"no table ({name_list(names)})"
            raise InputError(f"{str(path)!r} holds {found}: a .zip file is read if it holds one table")
        suffix = Path(tables[0]).suffix.lower()
        if suffix not in TEXT_SUFFIXES:
            raise InputError(f"{str(path)!r} holds {name_list(tables)}, which is no text: unpack it first")
        with archive.open(tables[0]) as file:
            content = unpack(str(path), file, encoding, notes)
    return _read_text(str(path), content, suffix, notes)


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
    if name == "customers":
        return read_delimited(name, Path(__file__).parent / "data/customers.csv", ",", [])
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
        return "churned" if source == "customers" else "target"
    return "y" if Path(source).suffix.lower() == ".npz" else None


def require_columns(columns: list[str], needed: Iterable[str], source: str) -> None:
    """Refuse a table that lacks one of the columns that are needed, and say which there are."""
    known = set(columns)
    for column in needed:
        if column not in known:
            raise InputError(f"there is no column {column!r} in {source!r}; its columns are {name_list(columns)}")


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
