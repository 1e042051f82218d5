"""report.html: one file that needs no network, from the report dict and a template."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import charts, words


def render_html(report: dict[str, Any]) -> str:
    """Return the page. Everything that came from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("crossent.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(loss=words.loss, percent=words.percent, probability=words.probability)
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
