"""Tables from files: what each format gives, and one sentence for each way a file can be wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crossent.tabular import InputError, default_target, read_table

ROOT = Path(__file__).resolve().parents[1]

FRAME = pl.DataFrame({"size": [1.5, 2.0, None], "colour": ["red", None, "blue"], "label": ["a", "b", "a"]})


def write(frame: pl.DataFrame, path: Path) -> str:
    writers = {
        ".csv": frame.write_csv,
        ".parquet": frame.write_parquet,
        ".arrow": frame.write_ipc,
        ".ipc": frame.write_ipc,
    }
    if path.suffix == ".tsv":
        frame.write_csv(path, separator="\t")
    elif path.suffix == ".feather":
        frame.write_ipc_stream(path)
    else:
        writers[path.suffix](path)
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".arrow", ".ipc", ".feather"])
def test_formats_give_the_same_table(tmp_path: Path, suffix: str) -> None:
    expected = FRAME.cast(pl.String) if suffix in (".csv", ".tsv") else FRAME
    assert read_table(write(FRAME, tmp_path / f"t{suffix}")).equals(expected)


def test_csv_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b,c\n01," x ",True\n1.0,,FALSE\n1e3,"",2024-01-31\n')
    frame = read_table(str(path))
    assert frame["a"].to_list() == ["01", "1.0", "1e3"]
    assert frame["b"].to_list()[:2] == [" x ", None]
    assert frame["c"].to_list() == ["True", "FALSE", "2024-01-31"]


def test_columns_without_a_name_are_called_after_their_place(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",a,\n0,1,2\n")
    assert read_table(str(path)).columns == ["column 1", "a", "column 3"]


def test_names_of_columns_survive_csv(tmp_path: Path) -> None:
    names = ['say "hi"', "a,b", " spaced ", "Æther", "line\nbreak"]
    frame = pl.DataFrame({name: [str(k), "x"] for k, name in enumerate(names)})
    assert read_table(write(frame, tmp_path / "t.csv")).equals(frame)
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbfx,y\r\n1,a\r\n")
    assert read_table(str(path)).columns == ["x", "y"]


def test_npz(tmp_path: Path) -> None:
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "t.npz", X=features, y=np.array(["a", "b", "a"]))
    frame = read_table(str(tmp_path / "t.npz"))
    assert frame.columns == ["0", "1", "y"]
    assert frame["1"].to_list() == [1, 3, 5]
    assert frame["y"].to_list() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": np.ones((2, 2))}, "must hold the arrays 'X' and 'y'; it holds 'Z'"),
        ({"X": np.ones(2), "y": np.ones(2)}, "two-dimensional"),
        ({"X": np.array([["a", "b"]]), "y": np.ones(1)}, "real numbers"),
        ({"X": np.ones((2, 2), dtype=complex), "y": np.ones(2)}, "real numbers"),
        ({"X": np.ones((2, 2)), "y": np.ones(3)}, "one label for each of the 2 rows"),
        ({"X": np.ones((2, 2)), "y": np.array([1j, 2j])}, "must hold numbers or text"),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, "no rows"),
        ({"X": np.array([[None, 1]], dtype=object), "y": np.ones(1)}, "cannot read"),
    ],
)
def test_npz_refusals(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        read_table(str(tmp_path / "t.npz"))


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".npz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez_compressed(whole, X=np.random.default_rng(0).normal(size=(200, 3)), y=np.arange(200) % 2)
    else:
        write(pl.DataFrame({"x": np.random.default_rng(0).normal(size=200), "y": ["a", "b"] * 100}), whole)
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=f"cut{suffix}.*damaged or cut short"):
        read_table(str(cut))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,b\n1,2\n3\n", "line 3 .* has 1 fields where the header has 2"),
        ("a,b\n1,2\n3,4,5\n", "line 3 .* has 3 fields where the header has 2"),
        ('a,b\n1,2\n3,"4\n', "t.csv"),
    ],
)
def test_csv_refusals(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,\xff\xfe\n", r"not UTF-8 text \(byte 0xff in line 2\): say what .* --encoding"),
        ("name,y\nRené,1\nZoë,2\n".encode("latin-1"), r"not UTF-8 text \(byte 0xe9 in line 2\)"),
        ("größe,y\n1,1\n2,2\n".encode("latin-1"), r"not UTF-8 text \(byte 0xf6 in line 1\)"),
        ("name,y\nAnn,1\n".encode("utf-16")[:-1], "not utf-16 text"),
        ("name,y\nAnn,1\nAnn,é".encode()[:-1], "damaged or cut short"),
    ],
)
def test_csv_that_is_not_utf8_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(str(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file 'nowhere.csv'.*customers, digits, wine, breast_cancer"):
        read_table("nowhere.csv")
    with pytest.raises(InputError, match="not a regular file"):
        read_table(str(tmp_path))
    for name in ("t.docx", "t.gz", "t"):
        (tmp_path / name).write_text("x")
        with pytest.raises(InputError, match="cannot tell the format"):
            read_table(str(tmp_path / name))


def test_the_customers_are_what_their_script_makes() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs/make_customers.py"], capture_output=True, check=True).stdout
    shipped = (ROOT / "src/crossent/tabular/data/customers.csv").read_bytes()
    assert made == shipped
    assert len(made) < 60_000
    table = read_table("customers")
    assert table.shape == (600, 9)
    assert default_target("customers") == "churned"
    assert 0.18 < (table["churned"] == "yes").mean() < 0.22
    assert table["customer"].n_unique() == 600
    assert [name for name in table.columns if table[name].null_count()] == ["monthly_fee", "satisfaction", "region"]


def test_built_in_data() -> None:
    assert read_table("digits").shape == (1797, 65)
    assert read_table("digits")["target"].to_list()[:3] == [0, 1, 2]
    assert read_table("wine").shape == (178, 14)
    assert set(read_table("breast_cancer")["target"]) == {"malignant", "benign"}


@pytest.mark.parametrize("text", ["x,z\n1,a\n\n2,b\n\n\n", "\n\nx,z\n1,a\n2,b\n", "x,z\r\n\r\n1,a\r\n2,b"])
def test_blank_lines_are_no_rows(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    assert read_table(str(path)).rows(named=True) == [{"x": "1", "z": "a"}, {"x": "2", "z": "b"}]


def test_rows_of_missing_cells_are_rows(tmp_path: Path) -> None:
    """A line of separators is one, and so is a blank line of a table with one column."""
    path = tmp_path / "t.csv"
    path.write_text('x,z\n1,a\n\n,\n"",\n2,b\n')
    assert read_table(str(path)).rows() == [("1", "a"), (None, None), ("", None), ("2", "b")]
    path.write_text("x\n1\n\n2\n")
    assert read_table(str(path))["x"].to_list() == ["1", None, "2"]


def test_a_blank_line_before_the_header_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\nx,x,y\n1,2,a\n")
    with pytest.raises(InputError, match="more than one column called 'x'"):
        read_table(str(path))
