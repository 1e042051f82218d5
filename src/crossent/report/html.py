"""report.html: one file that needs no network, from the report dict and a template."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import charts, words
from .compare import verdict
from .evaluation import COSTLIEST_CLASSES

Report = dict[str, Any]

# Of two models on one page, whose rows are meant.
PREFIXES = ("first-", "second-")


def render_html(report: Report) -> str:
    """Return the page of a report or of a comparison. Everything that came from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("crossent.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(loss=words.loss, percent=words.percent, probability=words.probability, short=words.short)
    if report["kind"] == "comparison":
        return environment.get_template("compare.html.j2").render(_comparison(report))
    return environment.get_template("report.html.j2").render(_single(report))


def _single(report: Report) -> dict[str, Any]:
    calibration = report["calibration"]
    changed = calibration is not None and calibration["temperature"] != 1
    states = [("Before", calibration["before"]), ("After", calibration["after"])] if changed else []
    diagrams = [(f"{title} calibration", state["reliability"]) for title, state in states]
    diagrams = diagrams or [("Reliability", report["reliability"])]
    entries = report["per_class"]
    return {
        "report": report,
        "found": words.found(report),
        "good": words.good(report),
        "honest": words.honest(report),
        "shown_rows": _rows(report),
        "classes": entries if len(entries) <= COSTLIEST_CLASSES else [entries[k] for k in report["costliest_classes"]],
        "calibration_states": states,
        "reliability_charts": [(title, state, charts.reliability_chart(state)) for title, state in diagrams],
        "data_title": "Data and training" if report["kind"] == "fit" else "About the data",
        "optimiser": words.optimiser(report),
        "learning_chart": charts.learning_chart(report["optimiser"]) if report["optimiser"] else None,
    }


def _comparison(report: Report) -> dict[str, Any]:
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


def _rows(report: Report) -> set[int]:
    return {entry["row"] for entry in report["surprising"]}
