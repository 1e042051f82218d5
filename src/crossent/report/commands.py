"""Commands to paste beside an advice: the command line of the report with what the advice changes, or Python's."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from ..tabular import BUILT_IN

__all__ = ["Commands"]

Summary = dict[str, Any]


@dataclass(frozen=True)
class Commands:
    """What can be run next to a report; None stands for what cannot."""

    report: Summary

    @property
    def _line(self) -> list[str]:
        line: list[str] = self.report["card"]["command"]
        return line

    def again(self, *options: str, without: str = "") -> str | None:
        """Return the same command with more options, and without one."""
        if not self._line:
            return None
        return shlex.join([*(word for word in self._line if word != without), *options])

    def choose_strength(self) -> str | None:
        """Return the command that lets a sweep choose C; None where it did, there is none, or rows are not all held."""
        if (
            self.report["kind"] != "fit"
            or self.report["card"].get("C_chosen", True)
            or not self.report["data"]["stratified"]
        ):
            return None
        line = self._line
        if "--C" in line:
            place = line.index("--C")
            line = [*line[:place], *line[place + 2 :]]
        return shlex.join([*line, "--sweep"]) if line else None

    def learning_curve(self) -> str | None:
        """Return the command that shows whether more rows would help; None where it did."""
        if self.report["kind"] != "fit" or self.report["learning_curve"] or not self.report["data"]["stratified"]:
            return None
        return self.again("--learning-curve")

    def calibrate(self) -> str | None:
        """Return the command that calibrates: the fit, or the predictions."""
        if self.report["kind"] == "fit":
            return None if self.report["calibration"] else self.again("--calibration-size", "0.2")
        if not self._line:
            return "crossent.sklearn.TemperatureScaling().fit(logits, y).predict_proba(logits)"
        source, target = self.report["source"], self.report["target"]
        return shlex.join(["crossent", "calibrate", source, "--target", target, f"--{self.report['declared']}"])

    def price(self, positive: str) -> str | None:
        """Return the command that says what a missed positive costs."""
        if not self._line:
            return f"crossent.report.evaluate(y, predictions, decision=Decision({positive!r}, false_negative=10))"
        return self.again("--positive", positive, "--cost-false-negative", "10")

    def show(self, rows: list[int]) -> str | None:
        """Return the command that prints rows of the table."""
        source = self.report["source"]
        is_table = source in BUILT_IN or self.report["card"]["sha256"] is not None
        if not rows or not self._line or not is_table:
            return None
        return shlex.join(
            ["python", "-c", f"from crossent.tabular import read_table; print(read_table({source!r})[{rows}])"]
        )
