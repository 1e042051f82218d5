"""Values far outside the others of their column, in rows that surprise: a wrong value before a wrong label."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

MOST_DEVIATIONS = 10.0
_FEW_VALUES = 30
# 1.4826 times the median absolute deviation is the standard deviation of a normal distribution.
_NORMAL = 1.4826


def name_outliers(surprising: list[dict[str, Any]], cells: pl.DataFrame, places: dict[int, int]) -> None:
    """Write into each surprising row its value farthest from the column's median, if more than 10 robust deviations.

    Parameters
    ----------
    surprising : list of dict
        Entries of the report.
    cells : polars.DataFrame
        The rows judged; columns of numbers are looked at.
    places : dict
        The place in `cells` of each row's number.
    """
    rows = [places[entry["row"]] for entry in surprising]
    for column in cells.iter_columns():
        values = column.to_numpy() if column.dtype == pl.Float64 else np.empty(0)
        known = values[~np.isnan(values)]
        if len(known) < _FEW_VALUES:
            continue
        median = float(np.median(known))
        spread = _NORMAL * float(np.median(np.abs(known - median)))
        if spread == 0:
            continue
        for entry, row in zip(surprising, rows, strict=True):
            deviations = abs(float(values[row]) - median) / spread
            most = entry["outlying"]["deviations"] if entry["outlying"] else MOST_DEVIATIONS
            if deviations > most:
                entry["outlying"] = {"column": column.name, "value": float(values[row]), "deviations": deviations}
