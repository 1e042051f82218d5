"""Names and cells of data, paths and messages that try to steer a terminal: no byte of theirs that could reaches it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from test_cli import run

import crossent.tabular
from crossent.report import compare_predictions, render_terminal, summarize_fit, summarize_predictions
from crossent.tabular import fit_table, read_predictions
from crossent.text import plain

CLEAR, TITLE, CSI, OVERRIDE = "\x1b[2J", "\x1b]0;owned\x07", "\x9b2J", "\u202e\u2066"
EVIL = f"a{CLEAR}{TITLE}{CSI}{OVERRIDE}\x7f\r\n\u2028z"
NAME = f"n\x1bc\x07\x9b2J{OVERRIDE}"  # of a file


def steering(text: str) -> set[str]:
    """The characters of a text that could steer a terminal: control, format, surrogates, separators of lines."""
    categories = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return {c for c in text if c != "\n" and unicodedata.category(c) in categories}


def test_plain_text_has_nothing_that_steers() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = plain(everything)
    assert steering(shown) == set()
    assert "\n" not in shown
    assert len(shown) == len(everything)
    words = "plain words, größer, 日本語, ∞ → ½ – 😀"
    assert plain(words) == words


def table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    kind = np.arange(60) % 3
    return pl.DataFrame(
        {
            f"size{EVIL}": rng.normal(size=60) + 2 * kind,
            f"colour{EVIL}": [f"{k}{EVIL}" for k in rng.permutation(kind)],
            f"id{EVIL}": [f"{k}{EVIL}" for k in range(60)],
            f"nothing{EVIL}": pl.Series([None] * 60, dtype=pl.Float64),
            f"kind{EVIL}": [f"{name}{EVIL}" for name in ("ant", "bee", "cat")] * 20,
        }
    )


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path / NAME)


def checked(*arguments: str, status: int = 0) -> str:
    """Run a command whose output must be clean; return it."""
    result = run(*arguments)
    for stream in (result.stdout, result.stderr):
        assert steering(stream) == set(), arguments
    assert result.exit_code == status, result.stderr
    assert status == 0 or result.stderr.count("\n") == 1
    return result.output


def test_hostile_names_everywhere_from_fit_to_report() -> None:
    target, model = f"kind{EVIL}", f"{NAME}/model.safetensors"
    for suffix, stream in (("csv", "--no-stream"), ("parquet", "--no-stream"), ("parquet", "--stream")):
        data = f"{NAME}.{suffix}"
        table().write_csv(data) if suffix == "csv" else table().write_parquet(data)
        checked("fit", data, "--target", target, "-o", NAME, stream, "--drop", f"id{EVIL}", "--overwrite")
        checked("predict", model, data, stream, "-o", f"{NAME}2.csv")
        unknown = table().with_columns(pl.lit(f"new{EVIL}").alias(f"colour{EVIL}"))
        unknown.write_csv(data) if suffix == "csv" else unknown.write_parquet(data)
        assert "hold a category that was not there" in checked("predict", model, data, stream, "-o", f"{NAME}1.csv")
        judge = ("--target", target, "--probabilities", "-o", f"{NAME}report", "--overwrite")
        checked("report", f"{NAME}1.csv", *judge)
        checked("report", f"{NAME}1.csv", f"{NAME}2.csv", *judge)


def test_hostile_names_in_refusals() -> None:
    table().write_csv(f"{NAME}.csv")
    Path(f"{NAME}.parquet").write_text("none")
    Path(f"{NAME}.safetensors").write_text("none")
    for arguments in (
        ("fit", f"{NAME}.csv"),
        ("fit", f"{NAME}.csv", "--target", EVIL),
        ("fit", f"{NAME}.csv", "--target", f"kind{EVIL}", "--drop", EVIL),
        ("fit", f"{NAME}.csv", "--target", f"id{EVIL}"),
        ("fit", f"{NAME}.csv", "--target", f"kind{EVIL}", "-o", f"{NAME}.csv"),
        ("fit", f"{NAME}.csv", "--target", f"kind{EVIL}", "--checkpoint", f"{NAME}.csv"),
        ("fit", f"{NAME}.csv", "--target", f"kind{EVIL}", "--checkpoint", f"{NAME}.safetensors"),
        ("fit", f"{NAME}.parquet", "--target", EVIL),
        ("fit", EVIL, "--target", EVIL),
        ("fit", "--seed", EVIL),
        ("predict", f"{NAME}.safetensors", f"{NAME}.csv", "-o", "p.csv"),
        ("predict", f"{NAME}.safetensors", f"{NAME}.csv", "-o", EVIL),
        ("report", f"{NAME}.csv", "--target", f"kind{EVIL}", "--logits"),
        (EVIL,),
        (f"--{EVIL}",),
    ):
        checked(*arguments, status=2)


@pytest.mark.filterwarnings("default")
def test_hostile_warnings_of_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    table().write_csv("t.csv")
    whole = crossent.tabular.fit_table

    def warned(*arguments: Any, **options: Any) -> Any:
        warnings.warn(f"column {EVIL}", UserWarning, stacklevel=1)
        return whole(*arguments, **options)

    monkeypatch.setattr(crossent.tabular, "fit_table", warned)
    assert checked("fit", "t.csv", "--target", f"kind{EVIL}").count("crossent: warning: column a") == 1


def test_a_hostile_error_that_nobody_foresaw() -> None:
    script = (
        "import sys, crossent.cli, crossent.tabular as t\n"
        f"def fail(*arguments, **options): raise RuntimeError({EVIL!r})\n"
        "t.read_tables = fail\n"
        "crossent.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, "fit"], capture_output=True, timeout=60, check=False)
    told = done.stderr.decode()
    assert done.returncode == 1
    assert "\nRuntimeError: a�[2J" in told
    assert steering(told) == set()


@pytest.mark.parametrize("kind", ["fit", "predictions", "comparison"])
def test_a_terminal_gets_the_colours_of_the_report_alone(kind: str) -> None:
    frame = table()
    if kind == "fit":
        report = summarize_fit(fit_table(frame, EVIL, f"kind{EVIL}"))
    else:
        labels = frame[f"kind{EVIL}"].unique().to_list()
        values = np.random.default_rng(0).dirichlet(np.ones(3), size=60)
        numbers = {f"p_{label}": values[:, k] for k, label in enumerate(labels)}
        frame = pl.DataFrame({"y": frame[f"kind{EVIL}"], "id": frame[f"id{EVIL}"], **numbers})
        one = read_predictions(frame, EVIL, "y", "probabilities")
        report = summarize_predictions(one) if kind == "predictions" else compare_predictions(one, one)
    report["warnings"] = [EVIL]
    stream = io.StringIO()
    render_terminal(report, Console(file=stream, force_terminal=True, color_system="standard", width=80))
    shown, coloured = re.subn(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert coloured > 10
    assert steering(shown) == set()
    assert "�" in shown
