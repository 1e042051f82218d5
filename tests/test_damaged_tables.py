"""The law of damaged tables: reading one ends in a table or in one sentence; and files that cost more than they say."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import polars as pl
import pytest
from damage import CASES, damaged, damages, wrong_with_sentence

from crossent.regression.data.parquet import ParquetTable
from crossent.tabular import InputError, file_sizes, read_table, should_stream
from crossent.tabular.columns import read_column

FRAME = pl.DataFrame(
    {
        "x": [1.5, 2.0, None, 4.0, 1e9],
        "colour": ["red", None, "blue", "green, or", 'a "q"'],
        "n": [1, 2, 3, 4, 5],
        "flag": [True, False, None, True, False],
        "label": ["a", "b", "a", "b", "a"],
    }
)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def arrays(save: Callable[..., None]) -> bytes:
    return written(lambda file: save(file, X=np.arange(12.0).reshape(6, 2), y=np.array(list("ababab"))))


def zipped(files: dict[str, str]) -> bytes:
    def pack(file: io.BytesIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(name, text)

    return written(pack)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    for row in (FRAME.columns, *FRAME.rows()):
        book.active.append(row)
    return written(book.save)


FORMATS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "csv": (".csv", lambda: written(FRAME.write_csv)),
    "tsv": (".tsv", lambda: written(lambda file: FRAME.write_csv(file, separator="\t"))),
    "semicolons": (".txt", lambda: written(lambda file: FRAME.write_csv(file, separator=";", decimal_comma=True))),
    "gzip": (".csv.gz", lambda: gzip.compress(written(FRAME.write_csv), mtime=0)),
    "utf-16": (".csv", lambda: FRAME.write_csv().encode("utf-16")),
    "zip": (".zip", lambda: zipped({"t.csv": FRAME.write_csv()})),
    "workbook": (".xlsx", workbook),
    "json lines": (".jsonl", lambda: written(FRAME.write_ndjson)),
    "parquet": (".parquet", lambda: written(FRAME.write_parquet)),
    "plain parquet": (".parquet", lambda: written(lambda file: FRAME.write_parquet(file, compression="uncompressed"))),
    "arrow file": (".arrow", lambda: written(FRAME.write_ipc)),
    "arrow stream": (".ipc", lambda: written(FRAME.write_ipc_stream)),
    "feather": (".feather", lambda: written(lambda file: FRAME.write_ipc(file, compression="zstd"))),
    "compressed arrow stream": (
        ".feather",
        lambda: written(lambda file: FRAME.write_ipc_stream(file, compression="lz4")),
    ),
    "npz": (".npz", lambda: arrays(np.savez)),
    "compressed npz": (".npz", lambda: arrays(np.savez_compressed)),
}


TEXT = ("csv", "tsv", "semicolons", "json lines")
PACKED = ("gzip", "utf-16", "zip", "workbook")


@pytest.mark.attack
@pytest.mark.parametrize("format_", FORMATS)
def test_a_damaged_table_is_a_table_or_one_sentence(tmp_path: Path, format_: str) -> None:
    suffix, content = FORMATS[format_]
    path = tmp_path / f"t{suffix}"
    wrong: dict[int, str] = {}
    read = 0
    for seed, changed in damages(content(), CASES // 4 if format_ in PACKED else CASES):
        path.write_bytes(changed)
        try:
            for series in read_table(str(path)).iter_columns():  # every cell can be used, too
                read_column(series, "categories")
            read += 1
        except InputError as error:
            if problem := wrong_with_sentence(str(error).replace(str(path), path.name)):
                wrong[seed] = f"{problem}: {error}"
        except BaseException as error:  # panics of polars are no Exception
            wrong[seed] = repr(error)[:200]
            if isinstance(error, KeyboardInterrupt):
                raise
    assert not wrong
    assert read, "every damaged file was refused: is the whole one?"


def test_a_damaged_table_of_parquet_files_is_windows_or_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    wrong: dict[int, str] = {}
    for seed, changed in damages(FORMATS["parquet"][1]()):
        path.write_bytes(changed)
        try:
            table = ParquetTable(path)
            table.frame(0, min(3, table.num_rows), list(table.schema))
        except ValueError as error:
            if problem := wrong_with_sentence(str(error).replace(str(path), path.name)):
                wrong[seed] = f"{problem}: {error}"
    assert not wrong


def test_a_page_of_more_values_than_its_column_is_refused(tmp_path: Path) -> None:
    """polars would ask for 2^61 bytes, and end the process: one in 7,740 drawn damages of this file."""
    path = tmp_path / "t.parquet"
    path.write_bytes(damaged(FORMATS["plain parquet"][1](), 2803356142398158179))
    with pytest.raises(InputError, match="a page says that it holds more values than its column"):
        read_table(str(path))


def test_a_date_beyond_what_can_be_written_is_one_sentence(tmp_path: Path) -> None:
    """Damage made one of a number, and polars panics over it: found by an attack."""
    path = tmp_path / "t.feather"
    path.write_bytes(damaged(FORMATS["feather"][1](), 2862595296496831197))
    columns = read_table(str(path)).get_columns()
    with pytest.raises(InputError, match="which has no text form"):
        [read_column(series, "categories") for series in columns]


# --- What a file costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", [name for name in FORMATS if name not in PACKED])
def test_what_a_table_takes_is_known_before_it_is_read(tmp_path: Path, format_: str) -> None:
    suffix, content = FORMATS[format_]
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content())
    is_text = format_ in TEXT
    size = file_sizes.delimited_bytes(path) if is_text else file_sizes.table_bytes(path, suffix)
    assert size is not None
    assert read_table(str(path)).estimated_size() <= size <= 2000


LARGE: dict[str, Callable[[Path], object]] = {
    "rows": lambda path: pl.DataFrame({"x": np.zeros(10**6)}).write_parquet(path),
    "text": lambda path: pl.DataFrame({"x": [f"{k} words " * 1000 for k in range(1000)]}).write_parquet(path),
    "lists": lambda path: pl.DataFrame({"x": [[0] * 10**6]}).write_parquet(path),
    "nulls": lambda path: pl.DataFrame({"x": [None] * 10**6}).write_ipc(path),
    "compressed": lambda path: pl.DataFrame({"x": np.zeros(10**6)}).write_ipc(path, compression="zstd"),
    "stream": lambda path: pl.DataFrame({"x": np.zeros(10**6)}).write_ipc_stream(path, compression="zstd"),
    "array": lambda path: np.savez_compressed(path, X=np.zeros((10**6, 1))),
    "csv": lambda path: path.write_text("x,y\n" + "1234,5678\n" * 10**5),
    "keys": lambda path: path.write_text("".join(f'{{"x{k}": 1}}\n' for k in range(300))),
}
SUFFIXES = {
    "nulls": ".arrow",
    "compressed": ".arrow",
    "stream": ".ipc",
    "array": ".npz",
    "csv": ".csv",
    "keys": ".jsonl",
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_table_that_does_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / f"t{SUFFIXES.get(kind, '.parquet')}"
    LARGE[kind](path)
    read_table(str(path))
    monkeypatch.setattr(file_sizes, "free_memory", lambda: 10**6)
    with pytest.raises(InputError, match=r"t\.\w+' takes about .* GB in memory .* and 0.001 GB is free") as caught:
        read_table(str(path))
    assert ("--stream" in str(caught.value)) == (path.suffix == ".parquet")


@pytest.mark.parametrize("suffix", [".csv.gz", ".zip"])
def test_a_file_that_unpacks_to_more_than_memory_is_refused_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    text = "x,y\n" + "0" * 10**8
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if suffix == ".csv.gz" else zipped({"t.csv": text}))
    assert path.stat().st_size < 10**5 + 100
    monkeypatch.setattr(file_sizes, "free_memory", lambda: 3 * 10**7)
    monkeypatch.setattr("crossent.tabular.unpacking.free_memory", lambda: 3 * 10**7)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"unpacks to more than 0.01 GB, and 0.03 GB is free"):
        read_table(str(path))
    assert tracemalloc.get_traced_memory()[1] < 3 * 10**7
    tracemalloc.stop()


def test_a_zip_file_that_claims_less_than_it_holds_gives_no_more(tmp_path: Path) -> None:
    content = bytearray(zipped({"t.csv": "x,y\n" + "1,2\n" * 10**6}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.start_dir
    content[start + 24 : start + 28] = (8).to_bytes(4, "little")
    path = tmp_path / "t.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged or cut short .*CRC"):
        read_table(str(path))


def test_text_and_lists_are_streamed_by_what_they_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossent.tabular.streaming.MEMORY_SHARE", 10**6 / (os.sysconf("SC_PHYS_PAGES") * 4096))
    for kind in ("text", "lists"):
        LARGE[kind](tmp_path / f"{kind}.parquet")
        assert should_stream(str(tmp_path / f"{kind}.parquet"))
    FRAME.write_parquet(tmp_path / "small.parquet")
    assert not should_stream(str(tmp_path / "small.parquet"))


def test_free_memory_is_what_a_limit_leaves() -> None:
    pytest.importorskip("resource")
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    code += "from crossent.tabular.file_sizes import free_memory; print(free_memory())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(found.stdout) < 3 << 30


# --- Single cases -----------------------------------------------------------------------------------------------------


def test_fields_of_any_length(tmp_path: Path) -> None:
    import csv

    path = tmp_path / "t.csv"
    long = "word " * 100_000
    path.write_text(f'x,y\n"{long}",\n1,2\n')
    before = csv.field_size_limit()
    assert read_table(str(path))["x"].to_list() == [long, "1"]
    assert csv.field_size_limit() == before
    path.write_text(f'"{long}",y\n1,2\n')
    assert read_table(str(path)).columns == [long, "y"]


def test_a_compressed_csv_file_is_refused_and_text_that_looks_like_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = b"x^2,y\n1,a\n2,b\n"
    for pack in (zlib.compress, lambda content: zlib.compress(content, 9)):
        path.write_bytes(pack(text))
        with pytest.raises(InputError, match="is compressed, and not by gzip: unpack it first"):
            read_table(str(path))
        path.write_bytes(gzip.compress(pack(text)))
        with pytest.raises(InputError, match="not UTF-8 text"):
            read_table(str(path))
    path.write_bytes(zlib.compress(text, 1))
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_table(str(path))
    for content in (text, gzip.compress(text)):  # known by its first bytes, whatever the name says
        path.write_bytes(content)
        frame = read_table(str(path))
        assert frame.columns == ["x^2", "y"]
        assert frame.rows() == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("cell", ["1", "word"])
def test_cells_of_text_count_with_what_they_take(tmp_path: Path, cell: str) -> None:
    """polars keeps 16 bytes of each, and its own estimate leaves them out."""
    path = tmp_path / "t.csv"
    path.write_text(",".join("abcdefgh") + "\n" + (",".join([cell] * 8) + "\n") * 300_000)
    cells = 8 * 300_000
    assert file_sizes.delimited_bytes(path) == pytest.approx(path.stat().st_size + 16 * cells, rel=0.01)


def test_a_parquet_file_that_does_not_fit_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"x": np.zeros(10**5)}).write_parquet(path)
    assert not should_stream(str(path))
    monkeypatch.setattr(file_sizes, "free_memory", lambda: 10**6)
    assert should_stream(str(path))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_name_with_brackets_is_no_pattern(tmp_path: Path, format_: str) -> None:
    suffix, content = FORMATS[format_]
    (tmp_path / f"t{suffix}").write_bytes(content())
    (tmp_path / f"t[1]{suffix}").write_bytes(content())
    (tmp_path / f"t1{suffix}").write_bytes(b"")
    assert read_table(str(tmp_path / f"t[1]{suffix}")).equals(read_table(str(tmp_path / f"t{suffix}")))


def test_an_npz_file_that_is_encrypted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    content = bytearray(arrays(np.savez))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.start_dir
    content[start + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .* as npz"):
        read_table(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz", ".arrow"])
def test_only_regular_files_are_read(tmp_path: Path, suffix: str) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet")
    pipe, device, link = (tmp_path / f"{name}{suffix}" for name in ("pipe", "device", "link"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    link.symlink_to(tmp_path / "a.parquet")
    for path in (pipe, device):
        assert not should_stream(str(path))
        with pytest.raises(InputError, match=f"{path.name}' is not a regular file"):
            read_table(str(path))
        with pytest.raises(ValueError, match=f"regular files; got .*{path.name}'"):
            ParquetTable(path)
    for source in (tmp_path / f"pip*{suffix}", tmp_path) if suffix == ".parquet" else ():
        with pytest.raises(ValueError, match=r"regular files; got .*(pipe|device)\.parquet'"):
            ParquetTable(source)
    assert ParquetTable(link).num_rows == FRAME.height


def run(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stderr


def test_what_native_code_writes_does_not_reach_the_terminal() -> None:
    """polars writes a backtrace on descriptor 2 before it raises."""
    code = """
import os, sys
import crossent.tabular as tabular
from crossent import cli

def panic(source, **options):
    os.write(2, b"thread '<unnamed>' panicked at src/main.rs")
    raise tabular.InputError("it is damaged")

tabular.read_table = panic
sys.argv = ["crossent", "report", "t.csv", "--target", "y", "--logits"]
try:
    cli.main()
finally:
    os.write(2, b"after\\n")
"""
    assert run(code) == "crossent: it is damaged\nafter\n"


def test_many_columns_are_looked_up_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Reading names, choosing columns and judging ask for a table's list of columns a fixed number of times."""
    from crossent.tabular import FitOptions, Preprocessing, fit_table

    asked = [0]
    columns = pl.DataFrame.columns

    def count(frame: pl.DataFrame) -> list[str]:
        asked[0] += 1
        return columns.fget(frame)  # type: ignore[attr-defined, no-any-return]

    read = Preprocessing.column_names

    def count_read(preprocessing: Preprocessing) -> list[str]:
        asked[0] += 1
        return read.fget(preprocessing)  # type: ignore[attr-defined, no-any-return]

    counts = []
    monkeypatch.setattr(pl.DataFrame, "columns", property(count))
    monkeypatch.setattr(Preprocessing, "column_names", property(count_read))
    for width in (20, 200):
        rng = np.random.default_rng(0)
        frame = pl.DataFrame(rng.normal(size=(40, width)), schema=[f"c{k}" for k in range(width)])
        path = tmp_path / "t.csv"
        frame.with_columns(y=pl.Series(["a", "b"] * 20)).write_csv(path)
        asked[0] = 0
        fit_table(read_table(str(path)), "t.csv", "y", FitOptions(max_iter=2))
        counts.append(asked[0])
    assert counts[0] == counts[1]
