"""Turn results/boosting.json into the tables of docs/boosting.md; no number is typed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from imbalance_tables import beside, fill
from tables import milliseconds, ratio, table

PAGE = Path(__file__).parent.parent / "docs" / "boosting.md"
HESSIANS = ("upper", "diagonal", "gradient")
SETTINGS = ("tuned", "XGBoost", "LightGBM")


def _sizes(name: str, record: dict[str, Any]) -> str:
    return f"{name} ({record['rows']} × {record['features']}, K={record['classes']})"


def speed(results: dict[str, Any]) -> str:
    """Return the table of the time of one call of an objective."""
    seconds = results["speed"]["seconds"]
    header = ["objective", "ms", "tutorial, vectorised / this", "tutorial's loop / this", "share of a round, %"]
    rows = []
    for name, value in seconds.items():
        if name in ("round", "copy"):
            continue
        share = f"{100 * value / seconds['round']:.1f}"
        cells = [ratio(seconds[other], value) for other in ("tutorial, vectorised", "tutorial")]
        is_ours = not name.startswith("tutorial")
        label = f"`Objective`: {name}" if is_ours else f"XGBoost's {name}"
        rows.append([label, milliseconds(value), *cells, share])
    return table(header, rows)


def geometric_mean(results: dict[str, Any], loss: str, setting: str, hessian: str, several: bool) -> float:
    """Return the mean ratio of a Hessian's held-out loss to that of "upper" over tables of two, or several classes."""
    logs = []
    for record in results["hessians"].values():
        if (record["classes"] > 2) == several:
            means = [
                np.mean([fold[setting]["loss"] for fold in record["losses"][loss][of]]) for of in (hessian, "upper")
            ]
            logs.append(np.log(means[0] / means[1]))
    return float(np.exp(np.mean(logs)))


def hessians(results: dict[str, Any], loss: str) -> str:
    """Return the table of held-out losses by Hessian."""
    header = ["data"] + [
        f"{'tuned' if setting == 'tuned' else f'{setting} by default'}: {hessian}"
        for setting in SETTINGS
        for hessian in HESSIANS
    ]
    rows = []
    for name, record in results["hessians"].items():
        cells = []
        for setting in SETTINGS:
            values = {
                hessian: [fold[setting]["loss"] for fold in folds] for hessian, folds in record["losses"][loss].items()
            }
            cells += [beside(values[hessian], values["upper"], -1.0) for hessian in HESSIANS]
        rows.append([_sizes(name, record), *cells])
    for several, what in ((True, "several classes"), (False, "two classes")):
        cells = [
            f"{geometric_mean(results, loss, setting, hessian, several):.3f}"
            for setting in SETTINGS
            for hessian in HESSIANS
        ]
        rows.append([f"ratio to upper, {what}", *cells])
    return table(header, rows)


def libraries(results: dict[str, Any], library: str) -> str:
    """Return the table of held-out log losses beside a library's own objective."""
    records = {
        name: (record, record["libraries"][library])
        for name, record in results["libraries"].items()
        if library in record["libraries"]
    }
    contenders = list(dict.fromkeys(name for _, found in records.values() for name in found))
    rows = [
        [
            _sizes(name, record),
            *(beside(found[contender], found["own"], -1.0) if contender in found else "" for contender in contenders),
        ]
        for name, (record, found) in records.items()
    ]
    return table(["data", *contenders], rows)


def page(results: dict[str, Any], text: str) -> str:
    """Return the page on boosting with its tables."""
    made = {"speed": speed(results)} if "speed" in results else {}
    made |= {f"hessians of {loss}": hessians(results, loss) for loss in ("cross-entropy", "focal")}
    made |= {library: libraries(results, library) for library in ("XGBoost", "LightGBM", "CatBoost")}
    return fill(text, made, "boosting_tables.py")
