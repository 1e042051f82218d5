"""report.html: one file that needs no network, from the report dict and a template.

Its content policy lets a browser load nothing, and apply and run the one style sheet and the one script of the page,
which it knows by their digests. So even text of the data that was not escaped could load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import charts, words
from .compare import verdict
from .drivers import LEVEL as COEFFICIENT_LEVEL
from .evaluation import COSTLIEST_CLASSES, shown_classes
from .ranking import interval, told_apart

Summary = dict[str, Any]

# On a page of two models, the id of a row begins with one of these.
PREFIXES = ("first-", "second-")
SHOWN_DRIVERS = 15


def render_html(report: Summary) -> str:
    """Return the page of a report, of a comparison or of a ranking. Everything that came from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("crossent.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(loss=words.loss, percent=words.percent, probability=words.probability, short=words.short)
    environment.filters.update(shade=_shade, of=_share_of)
    style, script = _template("report.css"), _template("sort.js")
    environment.globals.update(style=style, script=script, policy=_policy(style, script))
    if report["kind"] == "comparison":
        return environment.get_template("compare.html.j2").render(_comparison(report))
    if report["kind"] == "ranking":
        return environment.get_template("ranking.html.j2").render(
            report=report, interval=interval, told_apart=told_apart
        )
    return environment.get_template("report.html.j2").render(_single(report))


def _template(name: str) -> str:
    return (files("crossent.report") / "templates" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy of a page with one style sheet and one script."""
    known = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    style_source, script_source = (f"'sha256-{digest}'" for digest in known)
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {style_source}; script-src {script_source}"
    )


def _shade(share: float) -> str:
    """Return the class of a cell of the matrix: the policy lets a cell have no style of its own.

    Examples
    --------
    >>> _shade(0.0), _shade(0.01), _shade(0.52), _shade(1.0)
    ('s0', 's1', 's10', 's20')
    """
    return f"s{max(round(20 * share), int(share > 0))}"


def _share_of(cell: int, line: list[int]) -> float:
    """Return how much of its line of the matrix a cell has."""
    return cell / sum(line) if cell else 0.0


def _single(report: Summary) -> dict[str, Any]:
    calibration = report["calibration"]
    changed = calibration is not None and calibration["temperature"] != 1
    states = [("Before", calibration["before"]), ("After", calibration["after"])] if changed else []
    diagrams = [(f"{title} calibration", state["reliability"]) for title, state in states]
    diagrams = diagrams or [("Reliability", report["reliability"])]
    two_classes, drivers = report["two_classes"], report["drivers"]
    return {
        "report": report,
        "decided": words.decided(two_classes) if two_classes else [],
        "decision_charts": [
            draw(two_classes) for draw in (charts.roc_chart, charts.precision_chart, charts.scores_chart) if two_classes
        ],
        "found": words.found(report),
        "good": words.good(report),
        "honest": words.honest(report),
        "shown_rows": _rows(report),
        "classes": shown_classes(report, COSTLIEST_CLASSES),
        "calibration_states": states,
        "reliability_charts": [(title, state, charts.reliability_chart(state)) for title, state in diagrams],
        "data_title": "Data and training" if report["kind"] == "fit" else "About the data",
        "optimiser": words.optimiser(report),
        "convergence_chart": charts.convergence_chart(report["optimiser"]) if report["optimiser"] else None,
        "learning_chart": charts.learning_chart(report["learning_curve"]) if report["learning_curve"] else None,
        "learned": words.learned(report["learning_curve"]) if report["learning_curve"] else None,
        "where": words.where(report["slices"]),
        "slice_lines": words.slice_lines(report["slices"]),
        "driver_lines": words.driver_lines(drivers, SHOWN_DRIVERS) if drivers else [],
        "dependence": _dependence(drivers) if drivers else [],
        "coefficient_level": COEFFICIENT_LEVEL,
        "coefficient_tables": [
            {"label": one["label"], "lines": words.coefficient_lines(one)}
            for one in (report["coefficients"] or [])[:COSTLIEST_CLASSES]
        ],
        "card": words.card_lines(report["card"]),
    }


def _dependence(drivers: Summary) -> list[tuple[Summary, charts.Chart | None]]:
    """Return the partial dependences, those on numbers with a chart."""
    return [(d, charts.dependence_chart(d) if d["kind"] == "numbers" else None) for d in drivers["dependence"]]


def _comparison(report: Summary) -> dict[str, Any]:
    reports = report["reports"]
    by_label = [{entry["label"]: entry for entry in one["per_class"]} for one in reports]
    return {
        "report": report,
        "verdict": verdict(report),
        "honest": [words.honest(one) for one in reports],
        "shown_rows": [_rows(one) for one in reports],
        "prefixes": PREFIXES,
        "classes": [[entries[label] for entries in by_label] for label in report["classes_shown"]],
        "charts": [charts.reliability_chart(one["reliability"]) for one in reports],
    }


def _rows(report: Summary) -> set[int]:
    return {entry["row"] for entry in report["surprising"]}
