"""What the report's charts show, read from the drawings themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from crossent.report import summarize_fit, summarize_predictions
from crossent.report.charts import DARK, LIGHT, draw_convergence, draw_reliability
from crossent.tabular import FitOptions, fit_table

from .test_sections import predictions, table


@pytest.fixture(scope="module")
def reliability() -> dict[str, Any]:
    found: dict[str, Any] = summarize_predictions(predictions(400, sharpness=2.0))["reliability"]
    return found


def test_the_reliability_chart_shows_every_bin_that_has_rows(reliability: dict[str, Any]) -> None:
    figure = Figure()
    draw_reliability(figure, LIGHT, reliability)
    upper, lower = figure.axes
    filled = [b for b in reliability["bins"] if b["rows"]]
    assert 3 < len(filled) < len(reliability["bins"])
    points = next(c for c in upper.collections if isinstance(c, PathCollection))
    np.testing.assert_allclose(points.get_offsets(), [[b["confidence"], b["accuracy"]] for b in filled])
    sizes = points.get_sizes()
    assert np.argmax(sizes) == np.argmax([b["rows"] for b in filled])
    intervals, gaps = (c for c in upper.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(
        intervals.get_segments(),
        [[[b["confidence"], b["accuracy_lower"]], [b["confidence"], b["accuracy_upper"]]] for b in filled],
    )
    np.testing.assert_allclose(
        gaps.get_segments(),
        [[[b["confidence"], b["confidence"]], [b["confidence"], b["accuracy"]]] for b in filled],
    )
    (diagonal,) = upper.lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    assert (upper.get_xlim(), upper.get_ylim()) == ((0, 1), (0, 1))
    bars = [(bar.get_x(), bar.get_height()) for bar in lower.patches]  # type: ignore[attr-defined]
    assert bars == [(b["lower"], b["rows"]) for b in reliability["bins"]]
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("accuracy", "rows")
    assert lower.get_xlabel() == "confidence in the predicted class"


def test_the_learning_chart_shows_the_optimisers_history() -> None:
    state = summarize_fit(fit_table(table(200), "t", "y"))["optimiser"]
    figure = Figure()
    draw_convergence(figure, DARK, state)
    upper, lower = figure.axes
    (objective,) = upper.lines
    history = state["history"]
    np.testing.assert_allclose(objective.get_xydata(), [[e["iteration"], e["objective"]] for e in history])
    assert objective.get_color() == DARK.main
    gap, goal = lower.lines
    np.testing.assert_allclose(
        gap.get_xydata(), [[e["iteration"], e["duality_gap"]] for e in history if e["duality_gap"]]
    )
    assert set(goal.get_ydata()) == {state["tolerance"]}
    assert upper.get_yscale() == lower.get_yscale() == "log"


def test_before_and_after_are_two_charts_of_their_own_numbers() -> None:
    state = summarize_fit(fit_table(table(), "t", "y", FitOptions(calibration_size=0.2, strength=1e4)))["calibration"]
    confident = []
    for name in ("before", "after"):
        figure = Figure()
        draw_reliability(figure, LIGHT, state[name]["reliability"])
        bars = [bar.get_height() for bar in figure.axes[1].patches]  # type: ignore[attr-defined]
        assert sum(bars) == 200
        confident.append(bars[-1])
    assert confident[1] < confident[0]  # softened
