"""README.md and docs/*.md: their code runs and prints what they show."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from documents import blocks, run_document

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their commands run as well, once: with or without the compiled kernels, processes of their own do the same.
WITH_COMMANDS = {ROOT / "README.md", *(ROOT / "docs" / "tutorials").glob("*.md")}


# PyTorch's own, when it first differentiates forwards:
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
# Keras' own, where it reads a tensor of PyTorch by NumPy 2:
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    with np.printoptions():  # a page may set its own, for itself
        run_document(path, commands=path in WITH_COMMANDS and "CROSSENT_DISABLE_NUMBA" not in os.environ)


def test_every_test_that_the_promises_name_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    named = dict(re.findall(r"`(tests/[^`]*)`( \*)?", text))
    assert len(named) > 10
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert [name for name in [*named, *links] if not (ROOT / name).is_file()] == []
    for name, star in named.items():
        assert ("pytest.mark.attack" in (ROOT / name).read_text("utf-8")) == bool(star), name


def test_the_readme_shows_code() -> None:
    assert any(block.language in ("python", "pycon") for block in blocks((ROOT / "README.md").read_text("utf-8")))


WRONG = [
    "<!-- requires: math -->\n```python\nassert False\n```\n",
    "```python\n>>> 1 + 1\n3\n```\n",
    "```pycon\n>>> 1 + 1\n3\n```\n",
    "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n",
    "- a list\n  ```python\n  assert False\n  ```\n",
    "```python\nx = 1\n```\n\ntext\n\n```python\n>>> x\n2\n```\n",
]
RIGHT = [
    "```python\n>>> 1 + 1\n2\n```\n",
    "```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n",
    "```python\nprint(1 + 1)\n```\n\nand another text:\n\n```text\n3\n```\n",
    "```python\nx = 1\n```\n\ntext\n\n```python\n>>> x\n1\n```\n",
    "<!-- skip: needs a GPU -->\n```python\nassert False\n```\n",
    "<!-- requires: no_such_module -->\n```python\nassert False\n```\n",
    "<!-- requires: math -->\n```python\nassert True\n```\n",
    "```sh\nfalse\n```\n",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_document_is_found(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.md"
    path.write_text(text)
    with pytest.raises(AssertionError):
        run_document(path)


@pytest.mark.parametrize("text", RIGHT)
def test_a_right_document_is_not(text: str, tmp_path: Path) -> None:
    path = tmp_path / "right.md"
    path.write_text(text)
    run_document(path)


def test_a_wrong_command_is_found(tmp_path: Path) -> None:
    path = tmp_path / "wrong.md"
    path.write_text("```bash\ncrossent fit no-such-table.csv\n```\n")
    with pytest.raises(AssertionError, match=r"wrong\.md:2 ended with 2"):
        run_document(path, commands=True)


def test_an_open_fence_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "open.md"
    path.write_text("```python\nx = 1\n")
    with pytest.raises(ValueError, match="never closed"):
        run_document(path)
