"""What the commands do to files: no output takes an input's place, a run's files are known, one command at a time."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from test_cli import OUTPUTS, files, refused, run, table

from crossent.files import locked
from crossent.report import other_run
from crossent.tabular import read_model

MODEL = "one/model.safetensors"
FIT = ("fit", "t.csv", "--target", "kind")
JUDGE = ("report", "p.csv", "--target", "kind", "--probabilities")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, two fits to it that differ, and predictions of the first."""
    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    try:
        table().write_csv("t.csv")
        table().write_parquet("t.parquet")
        for name, strength in (("one", "1"), ("two", "0.01")):
            assert run(*FIT, "-o", name, "--C", strength).exit_code == 0
        assert run("predict", MODEL, "t.csv", "-o", "p.csv").exit_code == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def in_a_copy(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def contents() -> dict[str, bytes]:
    return {name: Path(name).read_bytes() for name in sorted(files(Path("."))) if Path(name).is_file()}


# -- no output takes the place of an input, or of another output ------------------------------------------------------

Alias = Callable[[Path, Path], object]
ALIASES: dict[str, Alias] = {
    "symbolic link": lambda place, alias: alias.symlink_to(place.resolve()),
    "hard link": os.link,
    "folder that is a link": lambda place, alias: alias.parent.joinpath("link").symlink_to(place.resolve().parent),
}


def alias_of(place: str, how: str) -> str:
    """Another name of a file that is there."""
    if how == "itself":
        return place
    if how == "dots":
        return f"one/../two/.././{place}"
    ALIASES[how](Path(place), Path("alias" + Path(place).suffix))
    return f"link/{Path(place).name}" if how == "folder that is a link" else "alias" + Path(place).suffix


@pytest.mark.parametrize("how", ["itself", "dots", *ALIASES])
@pytest.mark.parametrize(
    ("command", "place"),
    [
        ([*FIT, "-o", "one", "--checkpoint"], MODEL),
        ([*FIT, "-o", "one", "--checkpoint"], "one/report.json"),
        ([*FIT, "-o", "one", "--checkpoint"], "one/report.html"),
        ([*FIT, "-o", "one", "--checkpoint"], "t.csv"),
        ([*FIT, "-o", "one", "--resume", "--checkpoint"], "t.csv"),
        (["predict", MODEL, "t.csv", "-o"], "t.csv"),
        (["predict", MODEL, "t.parquet", "-o"], "t.parquet"),
        (["predict", MODEL, "*.parquet", "-o"], "t.parquet"),
    ],
)
def test_an_output_that_is_an_input_or_another_output_is_refused(command: list[str], place: str, how: str) -> None:
    alias = alias_of(place, how)
    before = contents()
    assert re.search("take the same place|cannot be written over", refused(*command, alias))
    assert contents() == before


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_data_that_an_output_would_replace_are_refused(name: str, link: Callable[[str, str], object]) -> None:
    Path("t.csv").rename(f"one/{name}")
    link(os.path.abspath(f"one/{name}"), "t.csv")
    before = contents()
    assert "cannot be written over 't.csv', which is read" in refused(*FIT, "-o", "one")
    if name.startswith("report"):
        Path("p.csv").rename("q.csv")
        link(os.path.abspath(f"one/{name}"), "p.csv")
        assert "cannot be written over 'p.csv', which is read" in refused(*JUDGE, "-o", "one")
        Path("q.csv").replace("p.csv")
        assert contents().keys() >= before.keys()


def test_predictions_are_not_written_over_the_model() -> None:
    os.link(MODEL, "m.csv")
    before = contents()
    assert "which is read" in refused("predict", MODEL, "t.csv", "-o", "m.csv")
    assert contents() == before


@pytest.mark.parametrize("checkpoint", ["new/model.safetensors", "new/Report.JSON", "new", "new/report.html/c"])
def test_a_checkpoint_that_is_to_be_made_in_the_place_of_an_output_is_refused(checkpoint: str) -> None:
    before = contents()
    assert "take the same place" in refused(*FIT, "-o", "new", "--checkpoint", checkpoint)
    assert contents() == before
    assert not Path("new").exists()


def test_the_model_is_there_after_a_fit_that_kept_a_checkpoint() -> None:
    command = [*FIT, "-o", "new", "--checkpoint-interval", "0", "--tol", "1e-9"]
    assert run(*command).exit_code == 0
    assert files(Path("new")) == set(OUTPUTS)
    assert run(*command, "--checkpoint", "new/deep/c").exit_code == 0
    assert read_model("new/model.safetensors").classes == ("ant", "bee", "cat")


# -- files of one run ----------------------------------------------------------------------------------------------


def runs_of(folder: str) -> list[str]:
    """The run ids of the three files."""
    page = re.search('<meta name="crossent-run" content="([0-9a-f]+)">', Path(folder, "report.html").read_text())
    assert page
    return [
        str(read_model(f"{folder}/model.safetensors").training["run"]),
        json.loads(Path(folder, "report.json").read_text())["run"],
        page[1],
    ]


def test_files_of_a_run_carry_its_id_and_runs_differ_in_it() -> None:
    ids = [runs_of(folder) for folder in ("one", "two")]
    assert [len(set(one)) for one in ids] == [1, 1]
    assert ids[0][0] != ids[1][0]
    assert run(*FIT, "-o", "again").exit_code == 0
    assert runs_of("again") == ids[0]
    assert f"run {ids[0][0]}" in Path("one/report.html").read_text()
    assert run(*JUDGE, "-o", "judged").exit_code == 0
    judged = json.loads(Path("judged/report.json").read_text())["run"]
    assert judged not in ids[0]
    assert f'content="{judged}"' in Path("judged/report.html").read_text()


@pytest.mark.parametrize("name", ["model.safetensors", "report.json"])
def test_a_model_beside_the_report_of_another_run_is_told(name: str) -> None:
    seen = (
        "crossent: warning: 45 of 60 rows are as rows that the model was trained on: their probabilities say little of "
    )
    seen += "new rows\n"
    told = (
        f"{seen}crossent: warning: 'one/report.json' is the report of another run than the one that trained '{MODEL}'\n"
    )
    assert run("predict", MODEL, "t.csv").stderr == seen
    shutil.copy(f"two/{name}", f"one/{name}")
    result = run("predict", MODEL, "t.csv")
    assert (result.exit_code, result.stderr) == (0, told)
    # A report on predictions says nothing about a model, and neither does what is no report.
    assert run(*JUDGE, "-o", "one", "--overwrite").exit_code == 0
    assert run("predict", MODEL, "t.csv").stderr == seen
    for text in ("", "[]", "{", '{"kind": "fit"}', "[" * 100_000):
        Path("one/report.json").write_text(text)
        assert other_run(read_model(MODEL), MODEL) is None
    os.unlink("one/report.json")
    os.mkfifo("one/report.json")  # nobody writes into it, and it must not be waited for
    assert other_run(read_model(MODEL), MODEL) is None


KILL = """
import os, signal, sys
import crossent.cli
replace, count = os.replace, [int(sys.argv.pop(1))]
def fatal(source, target):
    if str(target).endswith((".json", ".html", "model.safetensors")):
        if not count[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] -= 1
    replace(source, target)
os.replace = fatal
crossent.cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("replaced", [0, 1, 2])
def test_a_fit_killed_between_two_files_leaves_the_older_model_and_says_so(replaced: int) -> None:
    older, newer = runs_of("one"), runs_of("two")
    command = [sys.executable, "-c", KILL, str(replaced), *FIT, "-o", "one", "--C", "0.01"]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == -signal.SIGKILL
    expected = [older[0], newer[1] if replaced > 0 else older[1], newer[2] if replaced > 1 else older[2]]
    assert runs_of("one") == expected
    assert ("the report of another run" in run("predict", MODEL, "t.csv").stderr) == (replaced > 0)
    assert run(*FIT, "-o", "one", "--C", "0.01").exit_code == 0
    assert runs_of("one") == newer
    assert files(Path("one")) == set(OUTPUTS)


# -- one command at a time -----------------------------------------------------------------------------------------

SLOW = """
import sys
import crossent.cli, crossent.sklearn as training
fit = training.SoftmaxRegression.fit
def wait(self, X, y):
    print("training", flush=True)
    sys.stdin.readline()
    return fit(self, X, y)
training.SoftmaxRegression.fit = wait
crossent.cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
def test_of_two_fits_into_one_folder_one_wins_whole_and_the_other_says_so() -> None:
    command = [sys.executable, "-c", SLOW, *FIT, "-o", "new", "--calibration-size", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as first:
        try:
            assert first.stdout
            assert first.stdout.readline() == "training\n"
            for command, output in (([*FIT, "--C", "0.01"], "new"), ([*JUDGE], "two/../new")):
                assert refused(*command, "-o", output) == (
                    f"crossent: another crossent is writing to '{output}': wait until it has ended, "
                    "or pass another --output\n"
                )
            assert run(*FIT, "-o", "other").exit_code == 0
            first.communicate("\n", timeout=120)
        finally:
            first.kill()
    assert first.returncode == 0
    assert files(Path("new")) == set(OUTPUTS)
    assert len(set(runs_of("new"))) == 1
    assert run(*FIT, "-o", "new").exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")
@pytest.mark.parametrize("is_there", [False, True])
def test_the_checkpoint_of_another_fit_is_left_alone(is_there: bool) -> None:
    if is_there:
        Path("c").write_text("whatever it holds")
    with locked(Path("c")):
        for resume in ([], ["--resume"]) if is_there else ([],):
            assert refused(*FIT, "-o", "new", "--checkpoint", "c", *resume) == (
                "crossent: a checkpoint must be of one fit; got 'c', which another fit is keeping; pass another path\n"
            )
    assert Path("c").exists() == is_there
    assert not Path("new").exists()


def test_a_refused_fit_leaves_no_folder_and_no_lock() -> None:
    before = files(Path("."))
    refused("fit", "t.csv", "--target", "none", "-o", "deep/new")
    assert files(Path(".")) == before


@pytest.mark.parametrize("data", ["data", "data/*.parquet"])
def test_predictions_are_not_put_among_the_data(data: str) -> None:
    os.mkdir("data")
    pl.read_csv("t.csv").write_parquet("data/a.parquet")
    for output in ("data/p.parquet", "./data/../data/p.parquet"):
        result = run("predict", MODEL, data, "-o", output)
        assert result.exit_code == 2
        assert "would be among the data" in result.stderr
    assert os.listdir("data") == ["a.parquet"]
    assert run("predict", MODEL, data, "-o", "data/p.csv").exit_code == 0
