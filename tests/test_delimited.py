"""Tables of text as people have them: separators, decimal commas, encodings, what is packed."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crossent.tabular import InputError, read_table, read_tables, should_stream, source_name, table_files


def run(*arguments: str) -> int:
    """Run a command, and return its status."""
    from crossent import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["crossent", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


FRAME = pl.DataFrame(
    {"size, cm": [1.5, -0.25, None, 1200.5], "colour": ["red", "a,b", "blue; green", "x|y"], "y": [*"abab"]}
)
TEXT = FRAME.with_columns(pl.Series("size, cm", ["1.5", "-0.25", None, "1200.5"]))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("comma", [False, True])
def test_separators_and_decimal_commas_are_found(tmp_path: Path, suffix: str, separator: str, comma: bool) -> None:
    path = tmp_path / f"t{suffix}"
    FRAME.write_csv(path, separator=separator, decimal_comma=comma)
    notes: list[str] = []
    table = read_table(str(path), notes=notes)
    if comma and separator == ",":  # "1,5" in quotes may as well be a list
        assert table["size, cm"][0] == "1,5"
    else:
        assert table.equals(TEXT)
    is_usual = separator == ("\t" if suffix == ".tsv" else ",")
    said = " ".join(notes)
    assert ("the columns" in said) == (not is_usual)
    assert ("('1,5' is 1.5)" in said) == (comma and separator != ",")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("x;y\n1.234,50;a\n1.200;b\n", [("1234.50", "a"), ("1200", "b")]),
        ("x;y\n1,234;a\n2.5;b\n", [("1,234", "a"), ("2.5", "b")]),
        ("x;y\n1,234;a\n2;b\n", [("1.234", "a"), ("2", "b")]),
        ("x;y\n1,23;a\n2.5;b\n", [("1.23", "a"), ("2.5", "b")]),
        ("x;y\n -,5 ;1,5e3\n+1,0;1,2,3\n", [(" -.5 ", "1.5e3"), ("+1.0", "1,2,3")]),
        ("x\ty\n1,234\ta\n2,345\tb\n", [("1,234", "a"), ("2,345", "b")]),  # thousands, perhaps
        ("x\ty\n1,234\ta\n0,345\tb\n", [("1.234", "a"), ("0.345", "b")]),
        ("x\ty\n0,234\t1.5\n2,345\t2\n", [("0,234", "1.5"), ("2,345", "2")]),
        ("a,b;c\n1,2;3\n4,5;6\n7,8;9\n", [("1", "2;3"), ("4", "5;6"), ("7", "8;9")]),
        ("text; free\nred\nblue\n", [("red",), ("blue",)]),
        ("x;y\r1,5;a\r2;b\r", [("1.5", "a"), ("2", "b")]),  # lines of an old Mac
        ("x;y\n", "no rows"),
        ("x;y\n1;2\n3;4\n5;6\n7\n", "line 5 .* has 1 fields where the header has 2"),
    ],
)
def test_what_a_comma_is(tmp_path: Path, text: str, rows: list[tuple[str, ...]] | str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, newline="")
    if isinstance(rows, str):
        with pytest.raises(InputError, match=rows):
            read_table(str(path))
    else:
        notes: list[str] = []
        assert read_table(str(path), notes=notes).rows() == rows
        left = [cell for row in rows for cell in row if cell in ("1,234", "0,234")]
        assert ("are left as text" in " ".join(notes)) == bool(left)


def test_many_columns_and_rows_do_not_hide_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    row = ";".join(["some words, and more"] * 10_000)
    path.write_text(";".join(f"column {k}" for k in range(10_000)) + f"\n{row}\n{row}\n")
    assert read_table(str(path)).shape == (2, 10_000)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-8", "utf-8-sig", "utf-16-le", "UTF_32"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings(tmp_path: Path, encoding: str, packed: bool) -> None:
    content = "größe;name\n1,5;Zoë\n".encode(encoding)
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(content) if packed else content)
    expected = pl.DataFrame({"größe": ["1.5"], "name": ["Zoë"]})
    assert read_table(str(path), encoding=encoding).equals(expected)
    if encoding.startswith("utf-8") or encoding == "utf-16":
        notes: list[str] = []
        assert read_table(str(path), notes=notes).equals(expected)
        assert ("UTF-16 text" in " ".join(notes)) == (encoding == "utf-16")
    elif encoding in ("cp1252", "latin-1"):
        with pytest.raises(InputError, match=r"byte 0xf6 in line 1\): say what it is with --encoding \(cp1252"):
            read_table(str(path))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-99", "no text encoding 'utf-99'"),
        ("rot13", "no text encoding 'rot13'"),
        ("ascii", "not ascii text .*0xc3"),
    ],
)
def test_encodings_that_are_refused(tmp_path: Path, encoding: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("naïve,y\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_table(str(path), encoding=encoding)


def test_packed_tables(tmp_path: Path) -> None:
    texts = {".csv": TEXT.write_csv(), ".tsv": TEXT.write_csv(separator="\t"), ".jsonl": FRAME.write_ndjson()}
    for suffix, text in texts.items():
        expected = FRAME if suffix == ".jsonl" else TEXT
        path = tmp_path / f"t{suffix}"
        path.write_text(text)
        assert read_table(str(path)).equals(expected)
        path = tmp_path / f"t{suffix}.gz"
        path.write_bytes(gzip.compress(text.encode()))
        assert read_table(str(path)).equals(expected)
        with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
            for name in ("LICENCE", "__MACOSX/._t.csv", f"data/t{suffix}"):
                archive.writestr(name, text)
        assert read_table(str(tmp_path / "t.zip")).equals(expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.csv", "b.tsv"], r"holds 2 tables \('a.csv', 'b.tsv'\)"),
        (["readme"], r"holds no table \('readme'\)"),
        ([], "holds no table"),
        (["a.parquet"], "holds 'a.parquet', which is no text: unpack it first"),
    ],
)
def test_a_zip_file_holds_one_table_of_text(tmp_path: Path, names: list[str], message: str) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x,y\n1,2\n")
    with pytest.raises(InputError, match=message):
        read_table(str(path))


def test_json_lines_have_types_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"x": 1, "y": "a"}\n{"y": "b", "x": 2.5}\n\n{"y": true}\n')
    assert read_table(str(path)).to_dict(as_series=False) == {"x": [1.0, 2.5, None], "y": ["a", "b", "true"]}
    for text, message in (
        ("", "is empty"),
        ("[1]\n", "damaged or cut short"),
        ('{"x": 1}\n{"x"', "damaged or cut short"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_table(str(path))


def test_several_files_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TEXT.write_csv("a.csv", separator=";")
    TEXT.select("y", "colour", "size, cm").write_csv("b.tsv", separator="\t")
    notes: list[str] = []
    table = read_tables(["a.csv", "b.tsv"], notes=notes)
    assert table.equals(pl.concat([TEXT, TEXT]))
    assert notes == ["'a.csv': ';' separates the columns"]
    FRAME.write_parquet("c.parquet")
    FRAME.write_parquet("d.parquet")
    assert table_files(["*.[ct]sv", "*.parquet", "a.csv", "z*.csv"]) == [
        "a.csv",
        "b.tsv",
        "*.parquet",
        "a.csv",
        "z*.csv",
    ]
    assert should_stream("c.parquet", "d.parquet")
    assert not should_stream("c.parquet", "a.csv")
    assert not should_stream("z*.csv")
    assert should_stream("z*")
    assert source_name([*"abcde"]) == "a, b, c and 2 more"
    TEXT.drop("y").write_csv("e.csv")
    TEXT.with_columns(y=pl.Series([[1]] * 4)).write_parquet("lists.parquet")
    for files, message in (
        (["a.csv", "./a.csv"], "is given twice"),
        (["a.csv", "e.csv"], "'e.csv' lacks 'y', other than 'a.csv'"),
        (["e.csv", "a.csv"], "'a.csv' also has 'y', other than 'e.csv'"),
        (["a.csv", "lists.parquet"], "of different types"),
        (["a.csv", "nowhere.csv"], "no file 'nowhere.csv'"),
    ):
        with pytest.raises(InputError, match=message):
            read_tables(files)


def test_commands_take_what_people_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"größe": rng.normal(size=80).round(2), "y": ["ä", "b"] * 40})
    names = ["one.csv.gz", "two.csv"]
    for rows, name in zip((table[:40], table[40:]), names, strict=True):
        text = rows.write_csv(separator=";", decimal_comma=True).encode("cp1252")
        Path(name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    for pattern in (names, ["*.csv*"]):
        assert run("fit", *pattern, "--target", "y", "--encoding", "cp1252") == 0
        report = json.loads(Path("out/report.json").read_text())
        assert report["data"]["rows"] == 80
        assert sum("decimal commas" in note for note in report["notes"]) == 2
    assert run("predict", "out/model.safetensors", "one.csv.gz", "--encoding", "cp1252") == 0
    assert "note: 'one.csv.gz': ';' separates the columns" in capsys.readouterr().err
    assert read_table("one.predictions.csv").height == 40
    assert run("predict", "out/model.safetensors", *names, "--encoding", "cp1252") == 2
    assert "predictions of several files need a name" in capsys.readouterr().err
    assert run("predict", "out/model.safetensors", *names, "--encoding", "cp1252", "-o", "all.csv") == 0
    predicted = read_table("all.csv")
    assert predicted["y"].to_list() == table["y"].to_list()
    Path("all.txt").write_text(predicted.write_csv(separator="|"), encoding="utf-16")
    assert run("report", "all.txt", "--target", "y", "--probabilities", "--output", "one") == 0
    assert any("UTF-16" in note for note in json.loads(Path("one/report.json").read_text())["notes"])
    assert run("report", "all.csv", "all.txt", "--target", "y", "--probabilities", "--output", "both") == 0
    assert "note: 'all.txt': '|' separates the columns" in capsys.readouterr().err


def test_the_customers_need_no_other_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("fit", "customers") == 0
    loss = json.loads(Path("out/report.json").read_text())["loss"]
    assert loss["explained"] > 0.2
