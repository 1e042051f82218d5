"""Draw the figures of the documentation: ``python docs/make_figures.py [directory]``.

The same library versions give the same bytes: no dates, no random identifiers, coordinates from float64 results
that are rounded before they are drawn. Colours and the grey of the axes are chosen to be readable on white and on
black pages; the background is transparent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import crossent as ce

GREY = "#808080"
BLUE, ORANGE, GREEN, RED, PURPLE = "#3b8fd9", "#e0812b", "#2f9e6e", "#d9534f", "#9a6fd0"

STYLE: Any = {
    "figure.figsize": (6.4, 2.9),
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: small files, readable, selectable
    "svg.hashsalt": "crossent",
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    "lines.linewidth": 1.8,
    "savefig.transparent": True,
}

FAMILY: list[tuple[str, ce.CrossEntropy | ce.Focal | ce.GeneralizedCrossEntropy | ce.Brier, str]] = [
    ("cross-entropy", ce.CrossEntropy(), BLUE),
    ("focal, γ = 2", ce.Focal(2.0), ORANGE),
    ("generalised CE, q = 0.7", ce.GeneralizedCrossEntropy(0.7), GREEN),
    ("Brier", ce.Brier(), RED),
]


def two_class_rows(p: np.ndarray) -> np.ndarray:
    """Return logits whose class 0 has probability p."""
    return np.log(np.stack([p, 1 - p], axis=1))


def plot(axes: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    axes.plot(x, np.round(np.asarray(y, dtype=np.float64), 6), **style)


def family() -> Figure:
    """Each loss and its pull on the true logit, against the probability of the true class."""
    p = np.linspace(0.002, 0.998, 200)
    figure, (left, right) = plt.subplots(1, 2)
    for name, loss, colour in FAMILY:
        value, gradient = ce.value_and_grad(two_class_rows(p), np.zeros(len(p), dtype=int), loss=loss, reduction="none")
        plot(left, p, value, label=name, color=colour)
        plot(right, p, -gradient[:, 0], color=colour)
    left.set(ylim=(0, 4), xlabel="probability of the true class", title="loss (nats; Brier: no unit)")
    right.set(ylim=(0, 1.4), xlabel="probability of the true class", title="pull on the true logit")
    left.legend()
    return figure


def proper() -> Figure:
    """The expected loss of every answer when the truth is 0.7, each curve shifted to have its least value at 0."""
    p, truth = np.linspace(0.4, 0.995, 200), 0.7
    rows = two_class_rows(p)
    figure, axes = plt.subplots()
    for name, loss, colour in FAMILY:
        if_0, if_1 = (ce.cross_entropy(rows, np.full(len(p), k), loss=loss, reduction="none") for k in (0, 1))
        expected = truth * if_0 + (1 - truth) * if_1
        best = int(np.argmin(expected))
        plot(axes, p, expected - expected[best], label=name, color=colour)
        axes.plot(p[best], 0, "o", color=colour, clip_on=False, markersize=5)
    axes.axvline(truth, color=GREY, linewidth=1, linestyle=":")
    axes.annotate("the truth", (truth, 0.215), xytext=(4, 0), textcoords="offset points")
    axes.set(xlabel="the model's answer", ylabel="expected loss above its least", xlim=(0.4, 1), ylim=(0, 0.23))
    axes.legend(loc="upper left", bbox_to_anchor=(0.12, 1.03))
    return figure


def information() -> Figure:
    """Entropy as a dome, cross-entropy as its tangent, their gap as the divergence."""
    q = np.linspace(0, 1, 201)
    p = 0.25
    pairs = np.stack([1 - q, q], axis=1)
    entropy = ce.entropy(pairs, base="bits")
    cost = ce.information.cross_entropy(pairs, np.broadcast_to([1 - p, p], pairs.shape), base="bits")
    figure, axes = plt.subplots()
    plot(axes, q, entropy, color=BLUE, label="H(q)")
    plot(axes, q, cost, color=ORANGE, label="H(q, p) with p = 0.25")
    at = 140  # q = 0.7
    axes.plot([q[at], q[at]], np.round([entropy[at], cost[at]], 6), color=RED, linewidth=3, solid_capstyle="butt")
    axes.annotate("KL(q ‖ p)", (q[at], (entropy[at] + cost[at]) / 2), xytext=(6, -3), textcoords="offset points")
    axes.plot(p, np.round(entropy[50], 6), "o", color=ORANGE, markersize=5)
    axes.annotate("q = p", (p, entropy[50]), xytext=(4, -13), textcoords="offset points")
    axes.set(xlabel="q, the true frequency of class 1", ylabel="bits per label", xlim=(0, 1), ylim=(0, 2.1))
    axes.legend(loc="upper left")
    return figure


def squared_error() -> Figure:
    """Loss and gradient against the lead of the wrong class, for cross-entropy and Brier."""
    margin = np.linspace(-6, 10, 161)
    rows = np.stack([margin, np.zeros_like(margin)], axis=1)
    truth = np.ones(len(margin), dtype=int)
    figure, (left, right) = plt.subplots(1, 2)
    for name, loss, colour in (("cross-entropy", ce.CrossEntropy(), BLUE), ("Brier", ce.Brier(), RED)):
        value, gradient = ce.value_and_grad(rows, truth, loss=loss, reduction="none")
        plot(left, margin, value, label=name, color=colour)
        plot(right, margin, -gradient[:, 1], color=colour)
    left.set(xlabel="lead of the wrong class (logits)", title="loss", ylim=(0, 8))
    right.set(xlabel="lead of the wrong class (logits)", title="pull on the true logit", ylim=(0, 1.05))
    left.legend()
    return figure


def numerics() -> Figure:
    """Relative error of three float32 programs for the same loss, against how confident the prediction is."""
    margins = np.linspace(0, 30, 121)
    rng = np.random.default_rng(0)
    rows = np.concatenate([margins[:, None], rng.normal(scale=0.5, size=(len(margins), 9))], axis=1).astype(np.float32)
    label = np.zeros(len(rows), dtype=int)
    exact = np.log1p(np.exp(rows[:, 1:].astype(np.float64) - rows[:, :1]).sum(axis=1))

    def naive(z: np.ndarray) -> np.ndarray:
        e = np.exp(z)
        return -np.log(e[:, 0] / e.sum(axis=1))

    def log_sum_exp(z: np.ndarray) -> np.ndarray:
        m = z.max(axis=1)
        return m + np.log(np.exp(z - m[:, None]).sum(axis=1)) - z[:, 0]

    def tail_sum(z: np.ndarray) -> np.ndarray:
        return ce.cross_entropy(z, label, reduction="none")

    programs: tuple[tuple[str, Callable[[np.ndarray], np.ndarray], str], ...] = (
        ("-log(softmax)", naive, RED),
        ("log-sum-exp", log_sum_exp, ORANGE),
        ("crossent", tail_sum, BLUE),
    )
    figure, axes = plt.subplots()
    for name, program, colour in programs:
        error = np.abs(program(rows).astype(np.float64) / exact - 1)
        # A dot per row; 1e-8 stands for an error of 0. Two decimals of the logarithm are plenty for a picture.
        axes.plot(margins, 10 ** np.round(np.log10(np.maximum(error, 1e-8)), 2), ".", color=colour, label=name, ms=3)
    axes.set(yscale="log", ylim=(5e-9, 3), xlim=(0, 30), xlabel="lead of the true class (logits)")
    axes.set(ylabel="relative error of the loss")
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.legend(loc="center right", markerscale=3)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "family": family,
    "proper": proper,
    "information": information,
    "squared-error": squared_error,
    "numerics": numerics,
}


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for name, draw in FIGURES.items():
            figure = draw()
            path = directory / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            plt.close(figure)
            # Matplotlib ends lines of path data with blanks; the repository does not keep them.
            path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
            print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "figures")
