"""Runs the Python in Markdown files: fenced `python` and `pycon` blocks, in order, in one namespace per file.

With `commands`, `bash` blocks run too, in the same folder, by the `crossent` of the Python that runs the tests.

A block with `>>>` prompts is a doctest: what it prints must be what is shown. A block without prompts is executed; if
a `text` block follows it directly, what it printed must be that text. A comment ``<!-- skip: reason -->`` directly
above a block leaves it out; ``<!-- requires: torch, scipy -->`` does where one of the modules is not installed, and
says so.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,}) *(?P<language>[\w+-]*)[^`\n]*$")
REQUIRES = re.compile(r"<!-- requires: (?P<modules>[\w., ]+) -->")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    language: str
    text: str
    line: int  # of the first line inside the fence, from 1
    before: str  # the last line before the fence that is not blank
    follows_a_block: bool  # nothing but blank lines since the previous block


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a text."""
    found: list[Block] = []
    lines = markdown.splitlines()
    before, since_block, number = "", False, 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if not opening:
            if lines[number].strip():
                before, since_block = lines[number].strip(), False
            number += 1
            continue
        start, indent = number + 1, len(opening["indent"])
        number = start
        while number < len(lines) and not lines[number].strip().startswith(opening["ticks"]):
            number += 1
        if number == len(lines):
            raise ValueError(f"line {start}: a fence that is never closed")
        body = "\n".join(line[indent:] for line in lines[start:number])
        found.append(Block(opening["language"].lower(), body + "\n", start + 1, before, since_block))
        since_block, before = True, ""
        number += 1
    return found


def run_document(path: Path, commands: bool = False) -> int:
    """Execute a file's blocks; return how many there were. AssertionError names the line of the first wrong one."""
    languages = ("python", "py", "pycon", *(("bash",) if commands else ()))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    all_blocks = blocks(path.read_text(encoding="utf-8"))
    count = 0
    for block, after in zip_longest(all_blocks, all_blocks[1:]):
        if block.language not in languages or block.before.startswith("<!-- skip:"):
            continue
        missing = [name for name in _required(block) if find_spec(name) is None]
        if missing:
            print(f"{path.name}:{block.line} is left out: {', '.join(missing)} not installed")
            continue
        count += 1
        if block.language == "bash":
            printed = _run_commands(block, f"{path.name}:{block.line}")
        elif re.search(r"^\s*>>> ", block.text, re.MULTILINE):
            _run_doctest(block, path, namespace)
            continue
        else:
            printed = _run_program(block, path, namespace)
        if after is not None and after.language == "text" and after.follows_a_block:
            _compare(printed, after.text, f"{path.name}:{block.line}")
    return count


def _required(block: Block) -> list[str]:
    comment = REQUIRES.match(block.before)
    return [name.strip() for name in comment["modules"].split(",")] if comment else []


def _run_program(block: Block, path: Path, namespace: dict[str, Any]) -> str:
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue()


def _run_commands(block: Block, where: str) -> str:
    bash = shutil.which("bash")
    assert bash is not None, f"{where}: no bash here"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [bash, "-e", "-c", block.text]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout


def _run_doctest(block: Block, path: Path, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, {}, path.name, str(path), block.line - 1)
    test.globs = namespace
    report = io.StringIO()
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.write, clear_globs=False)
    assert result.failed == 0, report.getvalue()


def _compare(got: str, want: str, where: str) -> None:
    if not doctest.OutputChecker().check_output(want, got, OPTIONS):
        raise AssertionError(f"{where} printed\n{got}\nand not\n{want}")
