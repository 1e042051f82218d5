"""`crossent lint` and `crossent rule` from outside: statuses, formats, fixes, settings, notebooks, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from crossent.cli import app
from crossent.doctor import run as runs
from crossent.doctor.reading import find_files
from crossent.doctor.rules import RULES
from crossent.doctor.runtime import CHECKS

HEAD = "import torch.nn.functional as F\n"
WRONG = f"{HEAD}def f(z, y):\n    return F.cross_entropy(F.softmax(z, dim=1), y)\n"
ADVICE = f"{HEAD}def f(z, y):\n    return F.cross_entropy(F.log_softmax(z, dim=1), y)\n"
RIGHT = f"{HEAD}def f(z, y):\n    return F.cross_entropy(z, y)\n"


@pytest.fixture(autouse=True)
def in_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def notebook(*cells: str) -> str:
    made = [{"cell_type": "code", "source": cell.splitlines(keepends=True), "metadata": {}} for cell in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def test_an_error_is_one_line_and_status_1() -> None:
    Path("a.py").write_text(WRONG)
    result = run("lint", "a.py")
    assert result.exit_code == 1
    first, last = result.stdout.splitlines()
    assert first.startswith("a.py:3:12: XE101 [-] softmax goes into cross_entropy, ")
    assert last.startswith("Found 1 error in 1 file;")


def test_advice_alone_is_status_0() -> None:
    Path("a.py").write_text(ADVICE)
    result = run("lint", ".")
    assert result.exit_code == 0
    assert "a.py:3:12: XE102 [*]" in result.stdout


def test_nothing_found_says_what_was_read() -> None:
    Path("a.py").write_text(RIGHT)
    Path("b.py").write_text("x = 1\n")
    result = run("lint", "a.py", "b.py")
    assert (result.exit_code, result.stdout) == (0, "Nothing found in 2 files.\n")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--ignore", "XE101"), 0),
        (("--ignore", "XE10"), 0),
        (("--select", "XE103"), 0),
        (("--select", "xe1", "--ignore", "XE102,XE103"), 1),
    ],
)
def test_select_and_ignore(options: tuple[str, ...], status: int) -> None:
    Path("a.py").write_text(WRONG)
    assert run("lint", "a.py", *options).exit_code == status


@pytest.mark.parametrize(
    ("comment", "status"),
    [
        ("# crossent: ignore", 0),
        ("# crossent: ignore[XE101]", 0),
        ("# crossent: ignore[XE103, xe101] as in the paper", 0),
        ("# crossent: ignore[XE103]", 1),
        ("# noqa", 1),
    ],
)
def test_comments(comment: str, status: int) -> None:
    Path("a.py").write_text(f"{WRONG.rstrip()}  {comment}\n")
    assert run("lint", "a.py").exit_code == status


def test_pyproject() -> None:
    Path("a.py").write_text(WRONG)
    Path("sub").mkdir()
    Path("sub/b.py").write_text(WRONG)
    Path("pyproject.toml").write_text('[tool.crossent.lint]\nper-file-ignores = {"sub/*.py" = ["XE101"]}\n')
    result = run("lint", ".")
    assert result.exit_code == 1
    assert "b.py" not in result.stdout
    Path("pyproject.toml").write_text('[tool.crossent.lint]\nignore = ["XE10"]\n')
    assert run("lint", ".").exit_code == 0
    Path("pyproject.toml").write_text('[tool.crossent.lint]\nexclude = ["sub", "a.py"]\n')
    assert run("lint", ".").exit_code == 2


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[tool.crossent.lint]\nselct = []", "not 'selct'"),
        ("[tool.crossent.lint]\nselect = 'XE1'", "must be a list of texts"),
        ("[tool.crossent.lint]\nselect = ['E501']", "no rule has a code that starts with 'E501'"),
        ("[tool.crossent]\nlint = 3", "must be a table"),
        ("[tool", "cannot be read as TOML"),
    ],
)
def test_a_wrong_table_is_one_sentence(table: str, words: str) -> None:
    Path("a.py").write_text(RIGHT)
    Path("pyproject.toml").write_text(table)
    result = run("lint", "a.py")
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.py",), "there is no such file or folder"),
        ((".",), "there is no Python file or notebook"),
        ((".", "--select", "XX"), "no rule has a code that starts with 'XX'"),
        ((".", "--format", "xml"), "--format must be one of text, json, sarif, github"),
        ((".", "--select", "XE101", "--ignore", "XE1"), "no rule is left"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments: tuple[str, ...], words: str) -> None:
    result = run("lint", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.py", b"def softmax(:\n"),
        ("a.py", b"softmax = '\xff'\n"),
        ("a.py", b"softmax\0"),
        ("a.py", b"# -*- coding: nonsense -*-\nsoftmax\n"),
        ("a.ipynb", b"{softmax"),
        ("a.ipynb", b'{"softmax": 1}'),
        ("a.ipynb", b'{"cells": [{"softmax": 1}]}'),
        ("a.py", b"softmax" + b"(" * 5000),
    ],
)
def test_a_file_that_is_no_python_is_one_line_and_the_run_goes_on(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    result = run("lint", ".")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert name in result.stderr
    Path("good.py").write_text(WRONG)
    result = run("lint", ".")
    assert result.exit_code == 1
    assert "good.py:3:12: XE101" in result.stdout
    assert len(result.stderr.splitlines()) == 1


def test_deep_nesting_does_not_end_the_run() -> None:
    Path("a.py").write_text("softmax = " + "-" * 2500 + "1\n")
    Path("b.py").write_text(WRONG)
    assert "b.py:3:12: XE101" in run("lint", ".").stdout


def test_a_mistake_of_ours_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr(runs.Analysis, "run", fail)
    Path("a.py").write_text(WRONG)
    result = run("lint", "a.py")
    assert result.exit_code == 0
    assert "a.py: was not followed to its end; please report this (KeyError: 'unforeseen')" in result.stderr


def test_links_that_go_in_a_circle_end() -> None:
    Path("sub").mkdir()
    Path("sub/a.py").write_text(WRONG)
    Path("sub/loop").symlink_to(Path("sub").resolve(), target_is_directory=True)
    Path("self").symlink_to("self")
    assert run("lint", ".").stdout.count("XE101") == 1


def test_folders_of_other_tools_are_left_out() -> None:
    for folder in (".venv", "node_modules", "src"):
        Path(folder).mkdir()
        Path(folder, "a.py").write_text(WRONG)
    assert find_files(["."]) == (["src/a.py"], [])
    assert find_files([".venv", ".venv/a.py"]) == ([".venv/a.py"], [])


def test_json() -> None:
    Path("a.py").write_text(WRONG)
    (entry,) = json.loads(run("lint", "a.py", "--format", "json").stdout)
    assert entry["code"] == "XE101"
    assert (entry["path"], entry["line"], entry["column"], entry["end_line"], entry["end_column"]) == (
        "a.py", 3, 12, 3, 51,
    )  # fmt: skip
    assert (entry["severity"], entry["fix"], entry["related"]) == ("error", "unsafe", ["a.py", 3])
    Path("a.py").write_text(RIGHT)
    assert json.loads(run("lint", "a.py", "--format", "json").stdout) == []


def test_sarif() -> None:
    Path("a.py").write_text(WRONG + ADVICE)
    log = json.loads(run("lint", "a.py", "--format", "sarif").stdout)
    assert log["version"] == "2.1.0"
    (sarif,) = log["runs"]
    rules = sarif["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.code for rule in RULES]
    assert [result["level"] for result in sarif["results"]] == ["error", "note"]
    for result in sarif["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


def test_github() -> None:
    Path("a,b.py").write_text(WRONG)
    text = run("lint", ".", "--format", "github").stdout
    assert text.startswith("::error title=crossent (XE101),file=a%2Cb.py,line=3,col=12,endLine=3,endColumn=51::a,b.py:")


def test_fix_mends_what_is_safe_and_nothing_else() -> None:
    Path("a.py").write_text(f"{WRONG}é = 'ü'  # kept as it is\n{ADVICE}".replace("\n", "\r\n"), newline="")
    result = run("lint", "a.py", "--fix")
    assert result.exit_code == 1
    assert "1 finding mended" in result.stderr
    with open("a.py", newline="") as file:
        assert file.read() == f"{WRONG}é = 'ü'  # kept as it is\n{RIGHT}".replace("\n", "\r\n")
    assert run("lint", "a.py", "--unsafe-fixes").exit_code == 0
    with open("a.py", newline="") as file:
        assert file.read() == f"{RIGHT}é = 'ü'  # kept as it is\n{RIGHT}".replace("\n", "\r\n")


def test_fix_of_a_call_over_several_lines() -> None:
    Path("a.py").write_text(f"{HEAD}x = F.cross_entropy(\n    'é', F.log_softmax(z) if a else 0)\n")
    before = Path("a.py").read_text()
    run("lint", "a.py", "--fix")
    assert Path("a.py").read_text() == before
    Path("a.py").write_text(
        f"{HEAD}x = F.cross_entropy(\n    F.log_softmax(\n        z + 'é',\n        dim=1,\n    ), y)\n"
    )
    run("lint", "a.py", "--fix")
    assert Path("a.py").read_text() == f"{HEAD}x = F.cross_entropy(\n    z + 'é', y)\n"


def test_diff_changes_nothing() -> None:
    Path("a.py").write_text(ADVICE.replace("    return", "\treturn"))
    result = run("lint", "a.py", "--diff")
    assert result.exit_code == 1
    assert "-\treturn F.cross_entropy(F.log_softmax(z, dim=1), y)" in result.stdout
    assert "+\treturn F.cross_entropy(z, y)" in result.stdout
    assert "\treturn F.cross_entropy(F.log_softmax" in Path("a.py").read_text()
    Path("a.py").write_text(RIGHT)
    assert run("lint", "a.py", "--diff").exit_code == 0


def test_notebooks_name_cell_and_line() -> None:
    cells = (
        "%matplotlib inline\nimport torch.nn.functional as F\n!ls",
        "%%bash\nls softmax(",
        "this is no Python",
        "def f(z, y):\n    return F.cross_entropy(F.softmax(z, dim=1), y)\n",
    )
    Path("a.ipynb").write_text(notebook(*cells))
    result = run("lint", "a.ipynb")
    assert result.exit_code == 1
    assert "a.ipynb:cell 4:2:12: XE101" in result.stdout
    assert "cell 3 is left out" in result.stderr


def test_notebooks_are_mended_in_their_cell() -> None:
    Path("a.ipynb").write_text(notebook(HEAD, "%time\nx = F.cross_entropy(F.log_softmax(z, 1), y)\n# softmax"))
    run("lint", "a.ipynb", "--fix")
    assert Path("a.ipynb").read_text() == notebook(HEAD, "%time\nx = F.cross_entropy(z, y)\n# softmax") + "\n"


def test_an_empty_notebook_is_fine() -> None:
    Path("softmax.ipynb").write_text(notebook())
    assert run("lint", ".").exit_code == 0


MODEL = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        return torch.softmax(self.fc(x), dim=1)
"""
TRAIN = """
from torch import nn
{}
model = Net()
criterion = nn.CrossEntropyLoss()
def step(x, y):
    return criterion(model(x), y)
"""


@pytest.mark.parametrize(
    ("imported", "folder"),
    [
        ("from models.net import Net", "."),
        ("from models import Net", "."),
        ("from .models.net import Net", "pkg"),
        ("from .models import Net", "pkg"),
        ("import models.net as m\nNet = m.Net", "."),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_of_another_file(imported: str, folder: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_CHUNK", 1)
    place = Path(folder)
    (place / "models").mkdir(parents=True)
    (place / "models/__init__.py").write_text("from .net import Net\n")
    (place / "models/net.py").write_text(MODEL)
    (place / "train.py").write_text(TRAIN.format(imported))
    files, _ = find_files(["."])
    (finding,) = runs.lint(files, workers=workers).findings
    assert finding.path.endswith("train.py")
    assert "net.py:9)" in finding.message


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("given", ["torch.softmax(model(x), 1), y", "target=y, logits=torch.softmax(model(x), 1)"])
def test_a_function_of_another_file_gets_a_softmax(given: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_CHUNK", 1)
    Path("losses").mkdir()
    Path("losses/__init__.py").write_text("from .own import compute\n")
    Path("losses/own.py").write_text(
        f"{HEAD}def compute(logits, target):\n    return F.cross_entropy(logits, target)\n"
    )
    Path("train.py").write_text(
        f"import torch\nfrom losses import compute\ndef step(model, x, y):\n    return compute({given})\n"
    )
    files, _ = find_files(["."])
    (finding,) = runs.lint(files, workers=workers).findings
    assert (finding.path, finding.line, finding.code) == ("losses/own.py", 3, "XE101")
    assert "(train.py:4)" in finding.message
    Path("train.py").write_text("from losses import compute\ndef step(model, x, y):\n    return compute(model(x), y)\n")
    assert runs.lint(files).findings == []


def test_a_softmax_that_two_files_hand_on() -> None:
    Path("net.py").write_text(MODEL)
    Path("own.py").write_text(f"{HEAD}def compute(logits, target):\n    return F.cross_entropy(logits, target)\n")
    text = "import torch\nfrom own import compute\nfrom net import Net\nmodel = Net()\ndef step(x, y):  # softmax\n"
    Path("train.py").write_text(f"{text}    return compute(model(x), y)\n")
    (finding,) = runs.lint(find_files(["."])[0]).findings
    assert (finding.path, finding.code) == ("own.py", "XE101")


def test_two_models_that_could_be_meant_are_none() -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "net.py").write_text(MODEL)
    Path("train.py").write_text(TRAIN.format("from net import Net"))
    assert run("lint", ".").exit_code == 0


def test_rule_lists_and_explains() -> None:
    listed = run("rule").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [one.code for one in (*RULES, *CHECKS)]
    assert run("rule", "xe101").stdout == run("rule", "softmax-before-cross-entropy").stdout
    assert "1.461" in run("rule", "XE101").stdout
    assert "crossent.doctor.check" in run("rule", "XE802").stdout
    result = run("rule", "XE999")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_this_repository_is_clean() -> None:
    source = Path(runs.__file__).resolve().parents[1]
    result = run("lint", str(source))
    assert (result.exit_code, result.stderr) == (0, ""), result.stdout
