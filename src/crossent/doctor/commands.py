"""The commands `crossent lint` and `crossent rule`."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from ..text import plain

__all__ = ["lint", "register", "rule"]

_MOST_PASSES = 10


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(lint)
    app.command()(rule)


def lint(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Python files, notebooks, folders of them.")],
    select: Annotated[list[str] | None, typer.Option(help="Codes, or beginnings of codes, of the only rules.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Codes, or beginnings of codes, to leave out.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Name or pattern of files to leave out.")] = None,
    output_format: Annotated[str, typer.Option("--format", help="text, json, sarif or github.")] = "text",
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended without changing what it means.")] = False,
    unsafe_fixes: Annotated[
        bool, typer.Option("--unsafe-fixes", help="Mend also where the numbers change (they were wrong).")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what would be mended, and change nothing.")] = False,
) -> None:
    """Find wrong pairings of outputs and losses, and unstable formulas, in code that is not run."""
    from .formats import FORMATS, summary
    from .reading import find_files
    from .run import choose
    from .run import lint as run
    from .settings import Refused, check_codes, find_settings

    try:
        if output_format not in FORMATS:
            raise Refused(f"--format must be one of {', '.join(FORMATS)}; got {output_format!r}")
        settings = find_settings(paths[0])
        rules = choose(check_codes(select or []) or settings.select, (*check_codes(ignore or []), *settings.ignore))
        if not rules:
            raise Refused("no rule is left: what --select chooses, --ignore leaves out")
        files, problems = find_files(paths, (*settings.exclude, *(exclude or [])))
    except Refused as error:
        _say(str(error))
        raise typer.Exit(2) from error
    if not files:
        _say(problems[0] if problems else f"there is no Python file or notebook in {' '.join(paths)}")
        raise typer.Exit(2)
    codes = [rule.code for rule in rules]
    try:
        with _progress(len(files)) as progress:
            result = run(files, codes, progress=progress)
        if fix or unsafe_fixes or diff:
            num_fixed, patch = _mend(files, codes, unsafe=unsafe_fixes, only_show=diff)
            if diff:
                sys.stdout.write("".join(f"{_plain_line(line)}\n" for line in patch.splitlines()))
                _say(f"{num_fixed} finding{'s' * (num_fixed != 1)} would be mended")
                raise typer.Exit(1 if num_fixed else 0)
            if num_fixed:
                _say(f"{num_fixed} finding{'s' * (num_fixed != 1)} mended")
                result = run(files, codes)
    except KeyboardInterrupt as error:
        _say("interrupted")
        raise typer.Exit(130) from error
    except OSError as error:
        _say(f"{error.strerror or error} ({error.filename})")
        raise typer.Exit(2) from error
    for problem in [*problems, *result.problems]:
        _say(problem)
    if result.num_unread == result.num_files:
        raise typer.Exit(2)
    findings = [finding for finding in result.findings if not settings.is_ignored(finding.path, finding.code)]
    text = FORMATS[output_format](findings)
    if text:
        sys.stdout.write(f"{text}\n")
    if output_format == "text":
        sys.stdout.write(f"{summary(findings, result.num_files - result.num_unread)}\n")
    if any(finding.severity != "advice" for finding in findings):
        raise typer.Exit(1)


def _mend(files: Sequence[str], codes: Sequence[str], *, unsafe: bool, only_show: bool) -> tuple[int, str]:
    """Mend files, or show how; return how many findings that mends, and the differences."""
    from .fixes import difference, fixed, write
    from .run import lint as run

    total, patches = 0, []
    for _ in range(_MOST_PASSES):
        by_path = defaultdict(list)
        for finding in run(files, codes).findings:
            if finding.edits:
                by_path[finding.path].append(finding)
        changed = 0
        for path, findings in by_path.items():
            before, after, count = fixed(path, findings, unsafe=unsafe)
            if count and only_show:
                patches.append(difference(path, before, after))
            elif count:
                write(path, after)
            changed += count
        total += changed
        if only_show or not changed:
            break
    return total, "".join(patches)


def rule(
    code: Annotated[str | None, typer.Argument(help="Code or name of a rule; without it all are listed.")] = None,
) -> None:
    """Explain a rule of `crossent lint` or a check of `crossent.doctor`, or list all."""
    from .pages import find, page
    from .rules import RULES
    from .runtime import CHECKS

    if code is None:
        for one in (*RULES, *CHECKS):
            sys.stdout.write(f"{one.code}  {one.severity:7}  {one.name:34}  {one.summary}\n")
        return
    found = find(code)
    if found is None:
        _say(f"no rule is called {code!r}; `crossent rule` lists them")
        raise typer.Exit(2)
    sys.stdout.write(page(found))


def _plain_line(line: str) -> str:
    """Return a line without what steers a terminal; tabs stay, for a patch needs them."""
    return "\t".join(plain(part) for part in line.split("\t"))


def _say(text: str) -> None:
    if sys.stderr is not None:  # it may be closed
        sys.stderr.write(f"crossent: {plain(text)}\n")


@contextmanager
def _progress(num_files: int) -> Iterator[Callable[[int], None]]:
    """Show how many files are done, on a terminal and for many files."""
    if num_files < 200 or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Reading"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=num_files)
        yield lambda done: shown.update(task, completed=done)
