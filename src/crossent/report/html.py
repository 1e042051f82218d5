"""report.html: one file that needs no network, from the report dict and a template."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import charts, words
from .compare import verdict


def render_html(report: dict[str, Any]) -> str:
    """Return the page of a report or of a comparison. Everything that came from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("crossent.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(loss=words.loss, percent=words.percent, probability=words.probability)
    if report["kind"] == "comparison":
        reports = report["reports"]
        return environment.get_template("compare.html.j2").render(
            report=report,
            verdict=verdict(report),
            honest=[words.honest(one) for one in reports],
            second={entry["label"]: entry for entry in reports[1]["per_class"]},
            charts=[charts.reliability_chart(one) for one in reports],
        )
    return environment.get_template("report.html.j2").render(
        report=report,
        found=words.found(report),
        good=words.good(report),
        honest=words.honest(report),
        shown_rows={entry["row"] for entry in report["surprising"]},
        optimiser=words.optimiser(report),
        reliability_chart=charts.reliability_chart(report),
        learning_chart=charts.learning_chart(report) if report["optimiser"] else None,
    )
