"""Drawn tables, names and bytes through every command: it works, or says why in one sentence and leaves nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from attack import draws
from typer.testing import CliRunner, Result

from crossent.cli import app

Draw = np.random.Generator
WORDS = ["red", "blue", "", "NA", "nan", "None", "yes", "yes ", "True", "x,y", 'say "hi"', "=1+1", "-", "é", "e\u0301"]
WORDS += ["a\nb", "\x1b[31m", "\u202ereversed", "0", "01", "1e3", "1_000", "inf", "<b>", "{{7*7}}", "𝒳" * 40, "\t"]
CELLS: dict[str, Callable[[Draw], str]] = {
    "numbers": lambda rng: f"{rng.normal():.3g}",
    "integers": lambda rng: str(rng.integers(-3, 4)),
    "huge": lambda rng: str(rng.choice(["1e308", "-1e308", "1e-320", "9007199254740993", "18446744073709551615"])),
    "codes": lambda rng: f"{rng.integers(0, 12):02d}",
    "truth": lambda rng: str(rng.choice(["True", "false", "1", "0", "TRUE"])),
    "dates": lambda rng: f"2026-0{rng.integers(1, 10)}-1{rng.integers(0, 10)}",
    "words": lambda rng: str(rng.choice(WORDS)),
    "constant": lambda rng: "7",
    "empty": lambda rng: "",
    "infinite": lambda rng: str(rng.choice(["inf", "-inf", "nan", "1"])),
}
NAMES = [
    "x",
    "y",
    "x ",
    "",
    "predicted_class",
    "p_red",
    "target",
    "=x",
    "\x1b]0;x\x07",
    "naïve",
    "a,b",
    'a"b',
    "1",
    "X",
]


def drawn_table(rng: Draw) -> tuple[bytes, str]:
    """Return the bytes of a CSV file and the name of its target; now and then it is no table at all."""
    rows, width = int(rng.choice([0, 1, 5, 12, 40])), int(rng.integers(1, 5))
    names = [str(name) for name in rng.choice(NAMES, width, replace=bool(rng.random() < 0.1))]
    kinds = [str(kind) for kind in rng.choice(sorted(CELLS), width)]
    target = int(rng.integers(width))
    kinds[target] = str(rng.choice(["words", "codes", "truth", "integers", "numbers"]))
    body = []
    for _ in range(rows):
        cells = ["" if rng.random() < 0.05 else CELLS[kind](rng) for kind in kinds]
        if rng.random() < 0.9 and kinds[target] == "words":
            cells[target] = str(rng.choice(["red", "=blue", "01"]))
        if rng.random() < 0.005:
            cells.pop()
        body.append(cells)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=str(rng.choice(["\n", "\r\n"])))
    writer.writerows([names, *body])
    content = text.getvalue().encode(str(rng.choice(["utf-8", "utf-8-sig"])))
    if rng.random() < 0.05:
        content = content.replace(b"e", b"\xe9")
    if rng.random() < 0.05:
        content = content[: int(rng.integers(len(content) + 1))]
    return content, names[target]


def run(*arguments: str) -> Result:
    """Run a command and check how it ends: well, or with one sentence and status 2; never with an escape byte."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    lines = result.stderr.splitlines()
    assert result.exit_code in (0, 2), result.exit_code
    assert result.exit_code == 0 or len([line for line in lines if "warning" not in line]) == 1, lines
    assert result.exit_code == 0 or result.stdout == ""
    assert all(line.startswith("crossent: ") for line in lines), lines
    assert all(c.isprintable() or c == "\n" for c in result.stdout + result.stderr), repr(result.stdout)
    return result


@pytest.mark.attack
def test_a_drawn_table_is_learned_from_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for case, rng in enumerate(draws(60)):
        folder = tmp_path / str(case)
        folder.mkdir()
        monkeypatch.chdir(folder)
        content, target = drawn_table(rng)
        Path("t.csv").write_bytes(content)
        fitted = run("fit", "t.csv", "--target", target, "--max-iter", "20")
        if fitted.exit_code:
            assert sorted(path.name for path in folder.iterdir()) == ["t.csv"]
            continue
        summary = json.loads(Path("out/report.json").read_text())
        assert summary["per_class"]
        suffix = str(rng.choice(["csv", "parquet"]))
        predicted = run("predict", "out/model.safetensors", "t.csv", "-o", f"p.{suffix}")
        if predicted.exit_code:
            continue
        table = pl.read_csv("p.csv", infer_schema=False) if suffix == "csv" else pl.read_parquet("p.parquet")
        probabilities = table[:, -2:].cast(pl.Float64).to_numpy()  # the target comes first, whatever it is called
        assert len(table) == summary["data"]["rows"]
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        judged = run("report", f"p.{suffix}", "--target", target, "--probabilities", "-o", "judged")
        assert judged.exit_code == 0 or target in ("", "predicted_class"), judged.stderr
