"""The report in a terminal of 80 columns or more. Only layout: every number comes from the dict.

Its texts may come from data: they are made plain once, before anything is laid out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ..text import plain_values
from .compare import verdict
from .evaluation import shown_classes
from .ranking import interval, told_apart
from .words import (
    beside_baseline,
    decided,
    driver_lines,
    found,
    honest,
    learned,
    loss,
    optimiser,
    percent,
    probability,
    short,
    slice_lines,
    where,
)

Summary = dict[str, Any]

# What fits a screen; report.json and report.html hold the rest.
_CLASS_LINES = 20
_DRIVER_LINES = 8
_LABEL_WIDTH = 18
_BLOCKS = "▁▂▃▄▅▆▇█"


def render_terminal(report: Summary, console: Console) -> None:
    """Print the report, or the comparison of two."""
    report = plain_values(report)
    if report["kind"] == "comparison":
        _comparison(report, console)
        return
    if report["kind"] == "ranking":
        _ranking(report, console)
        return
    console.print(Rule(Text(f" {report['source']} → {report['target']} ", style="bold"), style="dim"))
    for warning in report["warnings"]:
        console.print(Text(f"Warning: {warning}", style="bold red"))
    for sentence in found(report):
        console.print(Text(sentence))
    for note in report["notes"]:
        console.print(Text(f"Note: {note}", style="yellow"))
    _loss(report, console)
    _per_class(report, console)
    _confusion(report, console)
    _reliability(report, console)
    for sentence in honest(report)[1:]:
        console.print(Text(sentence))
    _decision(report, console)
    _slices(report, console)
    _surprising(report, console)
    _drivers(report, console)
    _convergence(report, console)
    if report["learning_curve"]:
        console.print(Text(learned(report["learning_curve"])))
    _advice(report, console)


def _comparison(report: Summary, console: Console) -> None:
    for warning in report["warnings"]:
        console.print(Text(f"Warning: {warning}", style="bold red"))
    for sentence in verdict(report):
        console.print(Text(sentence))
    both = report["reports"]
    names = [f">{name[-_LABEL_WIDTH:]}" for name in report["sources"]]
    _table(
        console,
        ("", *names),
        [
            ("loss, nats", *[loss(r["loss"]["nats"]) for r in both]),
            ("loss, bits", *[loss(r["loss"]["bits"]) for r in both]),
            ("baseline explained", *[percent(r["loss"]["explained"]) for r in both]),
            ("accuracy", *[percent(r["accuracy"]["value"]) for r in both]),
            ("Brier score", *[f"{r['brier_score']:.4f}" for r in both]),
            ("calibration error", *[percent(r["reliability"]["calibration_error"]) for r in both]),
        ],
    )
    if report["paired"]:
        _title(console, "Rows where the two differ most (counted from 0)")
        rows: list[tuple[str | Text, ...]] = [
            (
                str(entry["row"]),
                *map(_label, (entry["label"], *entry["predictions"])),
                *map(probability, entry["probabilities"]),
            )
            for entry in report["paired"]["most_different"]
        ]
        _table(console, (">row", "label", "prediction, 1", "prediction, 2", ">p(label), 1", ">p(label), 2"), rows)
    for one in both:
        _title(console, one["source"])
        for sentence in honest(one):
            console.print(Text(sentence))
        _advice(one, console)


def _ranking(report: Summary, console: Console) -> None:
    for warning in report["warnings"]:
        console.print(Text(f"Warning: {warning}", style="bold red"))
    rows = []
    for model in report["models"]:
        more = model["more_than_best"]
        rows.append(
            (
                short(model["source"], 40),
                loss(model["loss"]["nats"]),
                f"{model['brier_score']:.4f}",
                percent(model["accuracy"]),
                "" if more is None else interval(more["loss"]),
                told_apart(model),
            )
        )
    columns = ("model", ">loss, nats", ">Brier", ">accuracy", ">loss, more than the first", "")
    _table(console, columns, rows)


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold cyan"))


def _table(console: Console, columns: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> None:
    """Print a table, whose columns marked with > stand to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        right = column.startswith(">")
        table.add_column(Text(column.removeprefix(">")), justify="right" if right else "left", no_wrap=right)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _label(text: str) -> Text:
    label = Text(text, no_wrap=True, overflow="ellipsis")
    label.truncate(_LABEL_WIDTH, overflow="ellipsis")
    return label


def _loss(report: Summary, console: Console) -> None:
    state = report["loss"]
    _title(console, f"Loss, mean −log p of the label ({report['rows_judged']})")

    def line(name: str, value: dict[str, Any], what: str, style: str = "") -> tuple[str | Text, ...]:
        nats = Text(loss(value["nats"]), style=style)
        return Text(name, style=style), nats, loss(value["bits"]), Text(what, style="dim")

    rows = [
        line("model" if report["kind"] == "fit" else "predictions", state, "", "bold"),
        line("baseline", state["baseline"], state["baseline"]["is"]),
        line("perfect", state["perfect"], "probability 1 for every label"),
    ]
    if report["training_loss"]:
        rows.append(line("training", report["training_loss"], "rows trained on"))
    _table(console, ("", ">nats", ">bits", ""), rows)
    alarming = state["impossible_rows"] or (state["explained"] is not None and state["explained"] < 0)
    console.print(Text(beside_baseline(report), style="bold red" if alarming else ""))
    score = report["accuracy"]
    console.print(
        Text(
            f"Accuracy {percent(score['value'])} ({score['right']:,} of {score['rows']:,} rows; always the most common "
            f"class: {percent(score['most_common_class'])}). Brier score {report['brier_score']:.4g}."
        )
    )
    ending = optimiser(report)
    if ending:
        style = "bold red" if report["optimiser"]["converged"] is False else ""
        console.print(Text(ending, style=style))


def _per_class(report: Summary, console: Console) -> None:
    shown = shown_classes(report, _CLASS_LINES)
    more = len(report["per_class"]) - len(shown)
    _title(console, f"The {len(shown)} classes of highest loss" if more > 0 else "Per class")
    rows = []
    for entry in shown:
        value = entry["loss"] or {"nats": None, "bits": None}
        shares = percent(entry["recall"]), percent(entry["precision"])
        rows.append((_label(entry["label"]), f"{entry['rows']:,}", loss(value["nats"]), loss(value["bits"]), *shares))
    _table(console, ("class", ">rows", ">nats", ">bits", ">recall", ">precision"), rows)
    if more > 0:
        console.print(Text(f"… and {more:,} more classes in the report files", style="dim"))


def _confusion(report: Summary, console: Console) -> None:
    shown = report["confusion"]["shown"]
    matrix, labels = shown["matrix"], list(shown["labels"])
    if shown["folded"]:
        _title(console, "Most often confused")
        pairs = report["confusion"]["most_confused"]
        rows = [(_label(pair["label"]), _label(pair["prediction"]), f"{pair['rows']:,}") for pair in pairs]
        _table(console, ("label", "taken for", ">rows"), rows)
        labels.append(f"{shown['folded']} others")
    _title(console, "Confusion (lines: labels, columns: predictions)")

    def cell(rows: int, is_right: bool) -> Text:
        style = "dim" if rows == 0 else "bold green" if is_right else "bold yellow"
        return Text(str(rows or "·"), style=style)

    width = max(4, min(10, (console.width - _LABEL_WIDTH - 2) // len(labels) - 2))
    lines = [(_label(labels[i]), *[cell(n, i == j) for j, n in enumerate(row)]) for i, row in enumerate(matrix)]
    heads = [label if len(label) <= width else f"{label[: width - 1]}…" for label in labels]
    _table(console, ("", *[f">{head}" for head in heads]), lines)


def _reliability(report: Summary, console: Console) -> None:
    state = report["reliability"]
    _title(console, f"Reliability (calibration error {percent(state['calibration_error'])})")
    rows = [
        (
            f"{entry['lower']:.1f} to {entry['upper']:.1f}",
            f"{entry['rows']:,}",
            percent(entry["confidence"]),
            percent(entry["accuracy"]),
            Text(f"{100 * (entry['accuracy'] - entry['confidence']):+.1f} points", style="dim"),
            Text("━" * round(20 * entry["accuracy"]), style="green"),
        )
        for entry in state["bins"]
        if entry["rows"]
    ]
    _table(console, ("confidence in", ">rows", ">confidence", ">accuracy", ">gap", ""), rows)


def _decision(report: Summary, console: Console) -> None:
    state = report["two_classes"]
    if state is None:
        return
    _title(console, f"As a decision: act where p({state['positive']}) is at least a threshold")
    for sentence in decided(state):
        console.print(Text(sentence))
    rows = [
        (
            str(entry["threshold"]),
            f"{entry['called']:,}",
            f"{entry['hits']:,}",
            percent(entry["precision"]),
            percent(entry["recall"]),
            f"{entry['net_benefit']:+.4f}",
        )
        for entry in state["thresholds"]
    ]
    _table(console, (">threshold", ">rows", ">hits", ">precision", ">recall", ">net benefit"), rows)


def _slices(report: Summary, console: Console) -> None:
    sentences = where(report["slices"])
    if not sentences:
        return
    _title(console, "Slices")
    for sentence in sentences:
        console.print(Text(sentence))
    lines = slice_lines(report["slices"])
    if lines:
        _table(console, ("slice", ">rows", ">nats", ">others", ">expected", ">p"), lines)


def _drivers(report: Summary, console: Console) -> None:
    state = report["drivers"]
    if state and state["columns"]:
        _title(console, "What drives it: nats that the loss rises by where a column is shuffled")
        _table(console, ("column", ">nats", ">interval"), driver_lines(state, _DRIVER_LINES))


def _surprising(report: Summary, console: Console) -> None:
    _title(console, "Most surprising rows (counted from 0): wrong labels are often among them")
    rows = [
        (
            str(entry["row"]),
            _label(entry["label"]),
            _label(entry["prediction"]),
            probability(entry["label_probability"]),
            probability(entry["prediction_probability"]),
            loss(entry["loss"]["nats"]),
            loss(entry["loss"]["bits"]),
        )
        for entry in report["surprising"]
    ]
    _table(console, (">row", "label", "prediction", ">p(label)", ">p(pred.)", ">nats", ">bits"), rows)


def _advice(report: Summary, console: Console) -> None:
    _title(console, "What to do next")
    for item in report["advice"]:
        numbers = ", ".join(map(str, item["rows"]))
        rows = f" {'Row' if len(item['rows']) == 1 else 'Rows'} {numbers}." if item["rows"] else ""
        console.print(Text.assemble((f"{item['title']}: ", "bold"), f"{item['reason']}.{rows}"))
        if item["command"]:
            console.print(Text(f"  {item['command']}", style="green"), soft_wrap=True)


def _convergence(report: Summary, console: Console) -> None:
    if not report["optimiser"]:
        return
    history = report["optimiser"]["history"]
    objective = [entry["objective"] for entry in history if entry["objective"] is not None]
    gap = [math.log(entry["duality_gap"]) for entry in history if entry["duality_gap"]]
    if len(objective) < 2:
        return
    _title(console, "Convergence of the optimiser")
    console.print(
        Text.assemble(
            f"objective    {objective[0]:>9.4g} ", _sparkline(objective, console.width - 36), f" {objective[-1]:.5g}"
        )
    )
    if len(gap) > 1:
        line = _sparkline(gap, console.width - 36)
        console.print(
            Text.assemble(f"duality gap  {math.exp(gap[0]):>9.0e} ", line, f" {math.exp(gap[-1]):.1e}  (log)")
        )


def _sparkline(values: list[float], width: int) -> Text:
    """Return a line of blocks: the first value, the last and evenly spaced ones between."""
    width = min(len(values), max(2, width))
    shown = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    low, high = min(shown), max(shown)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0
    return Text("".join(_BLOCKS[round((value - low) * scale)] for value in shown), style="cyan")
