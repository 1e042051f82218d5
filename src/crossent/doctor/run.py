"""Lints files, in as many processes as there are processors; then those again that use a model of another file."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial

from .flow import Analysis
from .reading import Source, Unreadable, has_work, parse, read
from .records import Arguments, Finding
from .rules import RULES, Context, Rule
from .values import UNKNOWN, Value
from .world import Export, World, exports_of, module_name

__all__ = ["FileResult", "Result", "lint", "lint_text"]

_IGNORE = re.compile(r"#\s*crossent:\s*ignore(?:\[(?P<codes>[\w\s,-]*)\])?", re.IGNORECASE)
_FEW = 64  # files: fewer are not worth a second process
_CHUNK = 16
_MOST_ROUNDS = 2  # a call that one round finds may hand on in the next


@dataclass(slots=True)
class FileResult:
    """What was found in one file, and what other files may want to know of it."""

    path: str
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_read: bool = True
    exports: dict[str, Export] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    handed_over: list[tuple[str, Arguments]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found: the findings in the order of files and lines, and one sentence for each file left out."""

    findings: list[Finding]
    problems: list[str]
    num_files: int
    num_unread: int


def lint(
    paths: Sequence[str], codes: Iterable[str] | None = None, *, workers: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Result:  # fmt: skip
    """Lint files.

    Parameters
    ----------
    paths
        Python files and notebooks.
    codes
        Of the rules; all if left out.
    workers
        How many processes; as many as there are processors if left out, and one for few files.
    progress
        Called with the number of files done.
    """
    chosen = tuple(rule.code for rule in RULES) if codes is None else tuple(codes)
    if workers is None:
        workers = 1 if len(paths) < _FEW else _num_processors()
    results = {result.path: result for result in _each(partial(_lint_path, codes=chosen), paths, workers, progress)}
    world = World({path: result.exports for path, result in results.items() if result.exports}, results)
    again = {
        path
        for path, result in results.items()
        if any(world.resolve(name, module_name(path)).kind != "unknown" for name in result.wanted)
    }
    for _ in range(_MOST_ROUNDS):
        before = {path: len(calls) for path, calls in world.handed.items()}
        world.handed = _handed(results, world)
        again |= {path for path, calls in world.handed.items() if len(calls) != before.get(path)}
        work = partial(_lint_path, codes=chosen, world=world)
        for result in _each(work, sorted(again), workers if len(again) >= _FEW else 1):
            results[result.path] = result
        again = set()
    ordered = [results[path] for path in paths if path in results]
    return Result(
        [finding for result in ordered for finding in result.findings],
        [problem for result in ordered for problem in result.problems],
        len(ordered),
        sum(not result.is_read for result in ordered),
    )


def _handed(results: Mapping[str, FileResult], world: World) -> dict[str, list[tuple[str, Arguments]]]:
    """Return by path what other files call the functions of a file with."""
    handed = defaultdict(list)
    for path, result in results.items():
        for name, arguments in result.handed_over:
            place = world.locate(name, module_name(path))
            if place is not None and place[0] != path:
                handed[place[0]].append((place[1], arguments))
    return dict(handed)


def lint_text(text: str, path: str = "<text>", codes: Iterable[str] | None = None) -> list[Finding]:
    """Lint code that is in memory.

    Examples
    --------
    >>> code = "import torch.nn.functional as F\\ndef f(z, y): return F.cross_entropy(z.softmax(1), y)"
    >>> [(finding.code, finding.line, finding.column) for finding in lint_text(code)]
    [('XE101', 2, 21)]
    """
    chosen = tuple(rule.code for rule in RULES) if codes is None else tuple(codes)
    return _lint_content(path, text.encode(), chosen, None).findings


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _each(
    work: Callable[[Sequence[str]], list[FileResult]],
    paths: Sequence[str],
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[FileResult]:
    """Do the work for all paths, in chunks; in this process if one is enough."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    results: list[FileResult] = []
    if workers <= 1 or len(chunks) <= 1:
        for chunk in chunks:
            results += work(chunk)
            progress(len(results))
        return results
    with ProcessPoolExecutor(min(workers, len(chunks)), multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(work, chunk) for chunk in chunks]):
                results += future.result()
                progress(len(results))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _lint_path(paths: Sequence[str], codes: tuple[str, ...], world: World | None = None) -> list[FileResult]:
    """Lint some files. Of many small objects that live long the garbage collector makes it twice as slow."""
    is_collected = gc.isenabled()
    gc.disable()
    try:
        return [_lint_file(path, codes, world) for path in paths]
    finally:
        if is_collected:
            gc.enable()


def _lint_file(path: str, codes: tuple[str, ...], world: World | None) -> FileResult:
    try:
        content = read(path)
        if not has_work(path, content) and not path.endswith("__init__.py"):
            return FileResult(path)
        return _lint_content(path, content, codes, world)
    except Unreadable as error:
        return FileResult(path, problems=[str(error)], is_read=False)


def _lint_content(path: str, content: bytes, codes: tuple[str, ...], world: World | None) -> FileResult:
    source, tree = parse(path, content)
    context = Context(source, [rule for rule in RULES if rule.code in codes])
    module, wanted = module_name(path), set()

    def resolve(name: str) -> Value:
        if world is None:
            wanted.add(name)
            return UNKNOWN
        return world.resolve(name, module)

    package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
    analysis = Analysis(path, context, resolve, package, source.worth_following())
    result = FileResult(path, problems=source.skipped, wanted=wanted)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 10_000))
    try:
        analysis.run(tree, source.assigned_elsewhere())
        for name, arguments in () if world is None else world.handed.get(path, ()):
            analysis.run_handed(name, arguments)
        result.handed_over = analysis.handed_over
        if world is None:
            result.exports = exports_of(analysis)
    except RecursionError:
        result.problems = [*result.problems, f"{path}: is nested too deeply to be followed to its end"]
    except Exception as error:  # a mistake of ours: the run goes on, and says so
        words = f"{type(error).__name__}: {error}"
        result.problems = [*result.problems, f"{path}: was not followed to its end; please report this ({words})"]
    finally:
        sys.setrecursionlimit(limit)
    found = sorted(context.findings.items(), key=lambda item: (item[0][1:], item[0][0]))
    result.findings = [finding for (_, line, _), finding in found if not _is_ignored(source, line, finding)]
    return result


def _is_ignored(source: Source, line: int, finding: Finding) -> bool:
    """Return whether a comment on the first or the last line of a finding says to ignore it."""
    for number in {line, line + finding.end_line - finding.line}:
        comment = _IGNORE.search(source.lines[number - 1])
        if comment is not None:
            codes = {code.strip().upper() for code in (comment["codes"] or "").split(",")} - {""}
            if comment["codes"] is None or finding.code in codes:
                return True
    return False


def choose(select: Sequence[str], ignore: Sequence[str]) -> list[Rule]:
    """Return the rules whose code starts with one of `select` (all if empty) and none of `ignore`."""
    chosen = [rule for rule in RULES if not select or rule.code.startswith(tuple(select))]
    return [rule for rule in chosen if not (ignore and rule.code.startswith(tuple(ignore)))]
