"""The report's charts as SVG, once for light and once for dark pages. Only drawing: the numbers come in."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .words import short


class Theme(NamedTuple):
    """Colours that stand on the page's background."""

    text: str
    grid: str
    main: str
    second: str
    interval: str


MOST_BARS = 15
LIGHT = Theme(text="#3d4858", grid="#d8dee7", main="#2563c9", second="#c2570c", interval="#6c92d8")
DARK = Theme(text="#b6c0ce", grid="#343c49", main="#74a9ff", second="#ffa262", interval="#4f77b5")


class Chart(NamedTuple):
    """The same picture twice, as data URIs."""

    light: str
    dark: str


def reliability_chart(reliability: dict[str, Any]) -> Chart:
    """Draw accuracy against confidence, above the number of rows in each bin."""
    return _both(lambda figure, theme: draw_reliability(figure, theme, reliability), (4.3, 3.9))


def convergence_chart(optimiser: dict[str, Any]) -> Chart:
    """Draw the objective and, on a logarithmic scale, the duality gap against the iteration."""
    return _both(lambda figure, theme: draw_convergence(figure, theme, optimiser), (4.3, 3.9))


def learning_chart(points: list[dict[str, Any]]) -> Chart:
    """Draw losses against the number of training rows."""
    return _both(lambda figure, theme: draw_learning(figure, theme, points), (4.3, 2.9))


def dependence_chart(dependence: dict[str, Any]) -> Chart:
    """Draw mean probabilities against the values of a column of numbers."""
    return _both(lambda figure, theme: draw_dependence(figure, theme, dependence), (4.3, 2.6))


def roc_chart(two_classes: dict[str, Any]) -> Chart:
    """Draw the ROC curve."""
    return _both(lambda figure, theme: draw_roc(figure, theme, two_classes), (4.3, 3.7))


def precision_chart(two_classes: dict[str, Any]) -> Chart:
    """Draw the precision-recall curve."""
    return _both(lambda figure, theme: draw_precision(figure, theme, two_classes), (4.3, 3.7))


def scores_chart(two_classes: dict[str, Any]) -> Chart:
    """Draw shares against P(positive), above the number of rows of each class."""
    return _both(lambda figure, theme: draw_scores(figure, theme, two_classes), (4.3, 3.9))


def draw_roc(figure: Figure, theme: Theme, two_classes: dict[str, Any]) -> None:
    """Draw the report's "roc" on an empty figure, beside that of chance."""
    axes = _curve(figure, theme, two_classes["roc"]["points"])
    axes.plot([0, 1], [0, 1], color=theme.text, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlabel="false alarms, share of negatives", ylabel="recall")


def draw_precision(figure: Figure, theme: Theme, two_classes: dict[str, Any]) -> None:
    """Draw the report's "precision_recall" on an empty figure, beside the share of positives."""
    axes = _curve(figure, theme, two_classes["precision_recall"]["points"])
    axes.axhline(two_classes["share"], color=theme.text, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlabel="recall", ylabel="precision")


def _curve(figure: Figure, theme: Theme, points: list[list[float]]) -> Axes:
    axes = figure.add_subplot()
    axes.plot(*np.transpose(points), color=theme.main, linewidth=1.8)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    _style(axes, theme)
    return axes


def draw_scores(figure: Figure, theme: Theme, two_classes: dict[str, Any]) -> None:
    """Draw the reliability of P(positive), and its distribution in both classes, on an empty figure."""
    bins, scores = two_classes["reliability"], two_classes["scores"]
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2.2, 1]})
    upper.plot([0, 1], [0, 1], color=theme.text, linewidth=1, linestyle=(0, (4, 3)))
    probability = [b["probability"] for b in bins]
    upper.vlines(
        probability,
        [b["share_lower"] for b in bins],
        [b["share_upper"] for b in bins],
        color=theme.interval,
        linewidth=4,
    )
    upper.scatter(probability, [b["share"] for b in bins], s=36, color=theme.main, zorder=3, clip_on=False)
    upper.set(ylabel="share of positives", xlim=(0, 1), ylim=(0, 1))
    for name, colour in (("negative", theme.main), ("positive", theme.second)):
        lower.stairs(scores[name], scores["edges"], color=colour, linewidth=1.4, label=f"{name}s")
    # Rare positives would not be seen beside common negatives. A scale that is linear near 0 has a place for none.
    lower.set(ylabel="rows", xlabel="probability of the positive class", yscale="symlog")
    lower.set_ylim(bottom=0)
    # Above its axes, where no step of the histogram can hide it.
    lower.legend(
        frameon=False,
        fontsize=8,
        labelcolor=theme.text,
        loc="lower right",
        bbox_to_anchor=(1, 0.94),
        ncols=2,
        borderpad=0,
    )
    for axes in (upper, lower):
        _style(axes, theme)


def draw_reliability(figure: Figure, theme: Theme, reliability: dict[str, Any]) -> None:
    """Draw the report's "reliability" entry on an empty figure."""
    bins = reliability["bins"]
    filled = [b for b in bins if b["rows"]]
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]})
    upper.plot([0, 1], [0, 1], color=theme.text, linewidth=1, linestyle=(0, (4, 3)))
    # No line through the points: between two bins there is nothing. A bin of few rows has a small point.
    confidence, hits = [b["confidence"] for b in filled], [b["accuracy"] for b in filled]
    reach = [b["accuracy_lower"] for b in filled], [b["accuracy_upper"] for b in filled]
    upper.vlines(confidence, *reach, color=theme.interval, linewidth=4)
    upper.vlines(confidence, confidence, hits, color=theme.second, linewidth=1.4)
    most = max(b["rows"] for b in filled)
    sizes = [14 + 60 * (b["rows"] / most) ** 0.5 for b in filled]
    upper.scatter(confidence, hits, s=sizes, color=theme.main, zorder=3, clip_on=False)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    lower.bar(
        [b["lower"] for b in bins],
        [b["rows"] for b in bins],
        width=[0.94 * (b["upper"] - b["lower"]) for b in bins],
        align="edge",
        color=theme.main,
    )
    lower.set(ylabel="rows", xlabel="confidence in the predicted class")
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for axes in (upper, lower):
        _style(axes, theme)


def draw_convergence(figure: Figure, theme: Theme, optimiser: dict[str, Any]) -> None:
    """Draw the report's "optimiser" entry on an empty figure."""
    history = optimiser["history"]
    gaps = [entry for entry in history if entry["duality_gap"]]
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.08})
    upper.plot(
        [entry["iteration"] for entry in history],
        [entry["objective"] for entry in history],
        color=theme.main,
        linewidth=1.5,
    )
    upper.set(ylabel="objective", yscale="log")
    lower.plot(
        [entry["iteration"] for entry in gaps],
        [entry["duality_gap"] for entry in gaps],
        color=theme.second,
        linewidth=1.5,
        marker="o",
        markersize=3,
    )
    lower.axhline(optimiser["tolerance"], color=theme.text, linewidth=1, linestyle=(0, (4, 3)))
    lower.set(ylabel="duality gap", xlabel="iteration", yscale="log")
    lower.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for axes in (upper, lower):
        _style(axes, theme)


def draw_learning(figure: Figure, theme: Theme, points: list[dict[str, Any]]) -> None:
    """Draw the report's "learning_curve" on an empty figure."""
    axes = figure.add_subplot()
    rows = [point["rows"] for point in points]
    for name, colour in (("training", theme.second), ("test", theme.main)):
        losses = [_finite(point[name]["nats"]) for point in points]
        axes.plot(rows, losses, color=colour, linewidth=1.5, marker="o", markersize=4, label=f"{name} rows")
    axes.set(
        xlabel="rows trained on", ylabel="loss, nats", xscale="log", xticks=rows, xticklabels=[f"{n:,}" for n in rows]
    )
    axes.minorticks_off()
    losses = [_finite(point[name]["nats"]) for point in points for name in ("training", "test")]
    axes.set_ylim(0, 1.1 * max((loss for loss in losses if loss > 0), default=1.0))
    axes.legend(frameon=False, fontsize=8, labelcolor=theme.text)
    _style(axes, theme)


def draw_dependence(figure: Figure, theme: Theme, dependence: dict[str, Any]) -> None:
    """Draw an entry of the report's "dependence" on an empty figure; of several curves, each bears its number."""
    axes = figure.add_subplot()
    values, curves = dependence["values"], dependence["curves"]
    for i, curve in enumerate(curves):
        colour = (theme.main, theme.second)[i % 2]
        axes.plot(values, curve["probabilities"], color=colour, linewidth=1.5, marker="o", markersize=3)
        if len(curves) > 1:
            end = (values[-1], curve["probabilities"][-1])
            axes.annotate(str(i + 1), end, (5, 0), textcoords="offset points", color=colour, fontsize=9, va="center")
    axes.set(ylim=(-0.02, 1.02), ylabel="mean probability")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _style(axes, theme)


def draw_importance(figure: Figure, theme: Theme, drivers: dict[str, Any]) -> None:
    """Draw the report's "drivers" on an empty figure: what the strongest columns are worth, with intervals."""
    axes = figure.add_subplot()
    shown = drivers["columns"][:MOST_BARS][::-1]
    places = range(len(shown))
    axes.barh(places, [entry["gain"] for entry in shown], color=theme.main, height=0.6)
    axes.hlines(
        places,
        [entry["lower"] for entry in shown],
        [entry["upper"] for entry in shown],
        color=theme.text,
        linewidth=1.2,
    )
    axes.set_yticks(places, [short(entry["column"], 30) for entry in shown], parse_math=False)
    axes.set(xlabel="nats that the loss rises by where the column is shuffled")
    _style(axes, theme)


def _finite(value: float | str) -> float:
    return float("nan") if value == "inf" else float(value)


def _style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor("none")
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.text, which="both", labelsize=9, length=0, pad=5)
    axes.xaxis.label.set(color=theme.text, fontsize=10)
    axes.yaxis.label.set(color=theme.text, fontsize=10)
    axes.spines[:].set_visible(False)


def _both(draw: Callable[[Figure, Theme], None], size: tuple[float, float]) -> Chart:
    # With a fixed salt and no date, the same report gives the same bytes.
    with mpl.rc_context({"svg.hashsalt": "crossent", "svg.fonttype": "path", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=size, facecolor="none", layout="constrained")
        file = io.BytesIO()
        with np.errstate(over="ignore"):  # above 1e300 an axis tries ticks that overflow
            draw(figure, LIGHT)
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    light = file.getvalue().decode("utf-8")
    dark = light  # the same drawing in other colours: laying it out twice takes twice as long
    for bright, dim in zip(LIGHT, DARK, strict=True):
        dark = dark.replace(bright, dim)
    return Chart(_data_uri(light), _data_uri(dark))


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")
