"""Findings as text, JSON, SARIF 2.1.0 or GitHub's annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from .._version import __version__
from ..text import plain
from .records import Finding
from .rules import RULES, SEVERITIES, find_rule

__all__ = ["FORMATS", "summary", "text_of"]

_HOME = "https://github.com/crossent/crossent"
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "advice": "note"}
_COMMANDS = {"error": "error", "warning": "warning", "advice": "notice"}


def text_of(finding: Finding) -> str:
    """Return a finding on one line: path, line, column, code, ``[*]`` if --fix mends it, and the message."""
    cell = "" if finding.cell is None else f"cell {finding.cell}:"
    mark = "" if not finding.edits else "[*] " if all(edit.is_safe for edit in finding.edits) else "[-] "
    return plain(f"{finding.path}:{cell}{finding.line}:{finding.column}: {finding.code} {mark}{finding.message}")


def _text(findings: Sequence[Finding]) -> str:
    return "\n".join(text_of(finding) for finding in findings)


def summary(findings: Sequence[Finding], num_files: int) -> str:
    """Return what was looked at and found, in one line.

    Examples
    --------
    >>> summary([], 3)
    'Nothing found in 3 files.'
    """
    files = f"{num_files} file{'s' * (num_files != 1)}"
    if not findings:
        return f"Nothing found in {files}."
    counts = Counter(finding.severity for finding in findings)
    words = {"error": "error", "warning": "warning", "advice": "advice"}
    parts = [
        f"{counts[severity]} {words[severity]}{'s' * (counts[severity] != 1 and severity != 'advice')}"
        for severity in SEVERITIES
        if counts[severity]
    ]
    safe = sum(bool(finding.edits) and all(edit.is_safe for edit in finding.edits) for finding in findings)
    unsafe = sum(bool(finding.edits) for finding in findings) - safe
    text = f"Found {', '.join(parts)} in {files}; `crossent rule CODE` explains."
    if safe:
        text += f" [*] {safe} can be mended by --fix."
    if unsafe:
        text += f" [-] {unsafe} can be mended by --unsafe-fixes."
    return text


def _json(findings: Sequence[Finding]) -> str:
    entries = [
        {
            "code": finding.code,
            "name": _name(finding.code),
            "severity": finding.severity,
            "message": finding.message,
            "path": finding.path,
            "cell": finding.cell,
            "line": finding.line,
            "column": finding.column,
            "end_line": finding.end_line,
            "end_column": finding.end_column,
            "related": None if finding.related is None else [finding.related.path, finding.related.line],
            "fix": None if not finding.edits else "safe" if all(e.is_safe for e in finding.edits) else "unsafe",
        }
        for finding in findings
    ]
    return json.dumps(entries, indent=2)


def _name(code: str) -> str:
    rule = find_rule(code)
    return "" if rule is None else rule.name


def _sarif(findings: Sequence[Finding]) -> str:
    order = {rule.code: number for number, rule in enumerate(RULES)}
    rules = [
        {
            "id": rule.code,
            "name": rule.name,
            "shortDescription": {"text": rule.summary},
            "fullDescription": {"text": rule.harm},
            "help": {"text": f"{rule.mend} Ignore it when: {rule.ignore_when}"},
            "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        }
        for rule in RULES
    ]
    driver = {"name": "crossent", "version": __version__, "informationUri": _HOME, "rules": rules}
    results = [_sarif_result(finding, order[finding.code]) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_result(finding: Finding, number: int) -> dict[str, Any]:
    region = {
        "startLine": finding.line,
        "startColumn": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
    }
    location: dict[str, Any] = {"artifactLocation": {"uri": finding.path.replace("\\", "/")}, "region": region}
    return {
        "ruleId": finding.code,
        "ruleIndex": number,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message if finding.cell is None else f"cell {finding.cell}: {finding.message}"},
        "locations": [{"physicalLocation": location}],
    }


def _github(findings: Sequence[Finding]) -> str:
    return "\n".join(_annotation(finding) for finding in findings)


def _annotation(finding: Finding) -> str:
    properties = {
        "title": f"crossent ({finding.code})",
        "file": finding.path,
        "line": finding.line,
        "col": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
    }
    given = ",".join(f"{key}={_escaped(str(value), ':,')}" for key, value in properties.items())
    return f"::{_COMMANDS[finding.severity]} {given}::{_escaped(text_of(finding))}"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "text": _text,
    "json": _json,
    "sarif": _sarif,
    "github": _github,
}
"""The formats by the name that --format takes."""
