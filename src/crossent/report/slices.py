"""Where it fails: the slices of the rows, one column at a time, whose loss is higher than chance would make it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import ttest_ind_from_stats

from ..tabular.columns import as_numbers, as_text

__all__ = ["Groups", "grouped", "slices"]

Float64 = NDArray[np.float64]

LEVEL = 0.05
FEWEST_ROWS = 20
SHOWN = 10
WORST_ROWS = 10
# A column of numbers with more different values than this is cut into bins of about as many rows each.
MOST_VALUES = 8
BINS = 5
MOST_CATEGORIES = 50
LONGEST_CATEGORY = 200


class Groups(NamedTuple):
    """The rows of a table by what one column holds.

    Attributes
    ----------
    names : list of str
        What the rows of each group have in common.
    code : array (N,)
        The group of each row; -1 for the rows of none.
    """

    names: list[str]
    code: NDArray[np.intp]


def grouped(column: pl.Series) -> Groups:
    """Return the rows by category or, of a column of many numbers, by bin; rows without a value are a group too.

    Examples
    --------
    >>> grouped(pl.Series("x", ["b", "a", None, "b"])).names
    ['x = b', 'x = a', 'x is missing']
    >>> grouped(pl.Series("x", range(100))).names[0]
    'x from 0 to 19'
    """
    numbers = as_numbers(column)
    if numbers is None or numbers.n_unique() <= MOST_VALUES + 1:
        words = as_text(column)
        counts = words.drop_nulls().value_counts(sort=True)[:MOST_CATEGORIES]
        values = counts[column.name].to_list()
        names = [f"{column.name} = {value}" for value in values]
        found = words.replace_strict(values, range(len(values)), default=-1, return_dtype=pl.Int64)
        code = np.asarray(found)
        missing = words.is_null().to_numpy()
    else:
        held = numbers.to_numpy()  # null: NaN
        missing = np.isnan(held)
        known = held[~missing]
        tops = np.unique(np.quantile(known, np.arange(1, BINS + 1) / BINS, method="lower"))
        code = np.searchsorted(tops, held)
        lows = [known.min(), *(known[known > top].min() for top in tops[:-1])]
        names = [f"{column.name} from {low:.4g} to {top:.4g}" for low, top in zip(lows, tops, strict=True)]
    code = np.where(missing, len(names), code)
    return Groups([*names, f"{column.name} is missing"], code.astype(np.intp))


def slices(
    cells: pl.DataFrame | None, losses: Float64, entropies: Float64, row_numbers: NDArray[np.intp]
) -> dict[str, Any] | None:
    """Return the slices of at least 20 rows whose mean loss is above that of the other rows.

    Each slice is tested against the rows outside it by Welch's t-test (1947), one-sided; Holm's correction (1979) makes
    the chance that any of the slices is named wrongly at most 5 %. On skewed losses the test is cautious.

    Parameters
    ----------
    cells : polars.DataFrame or None
        The columns to cut the rows by; without any, None is returned.
    losses : array (N,)
        Finite, in nats.
    entropies : array (N,)
        Of the predictions: the loss that they expect themselves.
    row_numbers : array (N,)
        The rows' numbers in the table as it was read.
    """
    if cells is None or not cells.width:
        return None
    found: list[dict[str, Any]] = []
    for column in cells.iter_columns():
        if not _can_cut(column):
            continue
        names, code = grouped(column)
        inside = code >= 0
        rows = np.bincount(code[inside], minlength=len(names))
        for k in np.flatnonzero((rows >= FEWEST_ROWS) & (len(losses) - rows >= FEWEST_ROWS)):
            chosen = code == k
            found.append({"column": column.name, "slice": names[k], **_beside_others(chosen, losses, entropies)})
    p_values = _holm(np.array([entry.pop("raw") for entry in found]))
    for entry, p_value in zip(found, p_values, strict=True):
        entry["p_value"] = float(p_value)
    worse = [entry for entry in found if entry["p_value"] < LEVEL]
    # First the slices that cost most, by all of their rows together.
    worse.sort(key=lambda entry: -entry["rows"] * (entry["loss"] - entry["others"]))
    del worse[SHOWN:]
    for entry in worse:
        names, code = grouped(cells[entry["column"]])
        rows = np.flatnonzero(code == names.index(entry["slice"]))
        entry["worst"] = row_numbers[rows[np.argsort(-losses[rows], kind="stable")[:WORST_ROWS]]].tolist()
    return {"tested": len(found), "level": LEVEL, "worse": worse}


def _can_cut(column: pl.Series) -> bool:
    """Return whether a column may hold numbers or categories, and no documents or other objects."""
    if column.dtype == pl.String:
        return float(column.str.len_bytes().mean() or 0) <= LONGEST_CATEGORY  # type: ignore[arg-type]
    return not (column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object))


def _beside_others(chosen: NDArray[np.bool_], losses: Float64, entropies: Float64) -> dict[str, Any]:
    inside, outside = losses[chosen], losses[~chosen]
    sizes = [(float(part.mean()), float(part.std(ddof=1)), len(part)) for part in (inside, outside)]
    spread = sizes[0][1] + sizes[1][1]
    raw = ttest_ind_from_stats(*sizes[0], *sizes[1], equal_var=False, alternative="greater").pvalue if spread else 1.0
    return {
        "rows": len(inside),
        "loss": sizes[0][0],
        "others": sizes[1][0],
        "expected": float(entropies[chosen].mean()),
        "raw": float(raw),
    }


def _holm(p_values: Float64) -> Float64:
    """Return p-values that hold for all of their tests together, by Holm's step-down rule.

    Examples
    --------
    >>> _holm(np.array([0.01, 0.04, 0.03])).round(12).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    raised = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted
