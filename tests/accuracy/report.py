"""Turn measured accuracy into docs/accuracy.md: every number in its tables comes from the results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import families
from .measure import MANY_CLASSES
from .peers import LABELS

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.json"
SPEED = ROOT / "benchmarks" / "results" / "speed.json"
PAGE = ROOT / "docs" / "accuracy.md"

Records = list[dict[str, Any]]


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(value: float) -> str:
    """Ulps or a relative error in few characters."""
    if value == float("inf"):
        return "inf"
    return f"{value:.2f}" if value < 1000 else f"{value:.0e}".replace("e+", "e").replace("e0", "e")


def _largest(records: Records, what: str, quantity: str) -> float | None:
    found = [r[what][quantity] for r in records if what in r]
    return max(found) if found else None


def _cell(records: Records, what: str) -> str:
    most, nearly = _largest(records, what, "max"), _largest(records, what, "p99.9")
    if most is None or nearly is None:
        return "–"
    return f"{number(most)} / {number(nearly)} ({_largest(records, what, 'bar'):g})"


def _grouped(records: Records, key: str) -> Mapping[str, Records]:
    groups: dict[str, Records] = {}
    for record in records:
        groups.setdefault(record[key], []).append(record)
    return groups


def _grouped_by(records: Records, *keys: str) -> dict[tuple[str, ...], Records]:
    groups: dict[tuple[str, ...], Records] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def by_loss(records: Records) -> str:
    rows = []
    for name, group in _grouped(records, "group").items():
        for dtype, part in _grouped(group, "dtype").items():
            judged = [sum(r[f"judged by {how}"] for r in part) for how in ("itself", "magnitudes")]
            cells = [_cell(part, what) for what in ("value", "gradient", "diagonal")]
            counted = f"{sum(r['rows'] for r in part)}"
            rows.append([name, dtype, *cells, counted, *(f"{count}" for count in judged)])
    header = ("loss", "dtype", "value", "gradient", "Hessian's diagonal", "rows", "by itself", "by magnitudes")
    return table(header, rows)


def by_family(records: Records, loss: str) -> str:
    rows = []
    for family, group in _grouped([r for r in records if r["loss"] == loss], "family").items():
        for dtype, part in _grouped(group, "dtype").items():
            cells = [_cell(part, what) for what in ("value", "gradient", "diagonal")]
            rows.append([family, dtype, *cells, f"{sum(r['rows'] for r in part)}"])
    return table(("family", "dtype", "value", "gradient", "Hessian's diagonal", "rows"), rows)


def others(records: Records) -> str:
    """The other losses' families, a section each."""
    losses = [loss for loss in _grouped(records, "loss") if loss not in ("CrossEntropy()", "statistics", "information")]
    return "\n\n".join(f"### {loss}\n\n{by_family(records, loss)}" for loss in losses)


def peers(records: Records, dtype: str, what: str) -> str:
    chosen = [r for r in records if r["dtype"] == dtype]
    libraries = list(_grouped(chosen, "library"))
    rows = []
    for family, group in _grouped(chosen, "family").items():
        of = {r["library"]: r for r in group}
        rows.append([family, *(f"{number(of[n]['ulps'][what])} ({of[n]['relative'][what]:.0e})" for n in libraries)])
    return table(("family", *libraries), rows)


def rows_right(records: Records) -> str:
    libraries = list(_grouped(records, "library"))
    rows = []
    for dtype, group in _grouped(records, "dtype").items():
        for family, part in _grouped(group, "family").items():
            of = {r["library"]: r for r in part}
            rows.append([family, dtype, *(f"{100 * of[n]['right'] / of[n]['rows']:.0f} %" for n in libraries)])
    return table(("family", "dtype", *libraries), rows)


def other_losses(records: Records) -> str:
    """A cell: rows that keep both bars, worst value and worst gradient component in ulps."""
    libraries = list(_grouped(records, "library"))
    rows = []
    for loss, of_loss in _grouped([r for r in records if r["loss"] != LABELS], "loss").items():
        for family, of_family in _grouped(of_loss, "family").items():
            for dtype, part in _grouped(of_family, "dtype").items():
                cells = {
                    r["library"]: f"{math.floor(100 * r['right'] / r['rows'])} % · "
                    + " · ".join(number(r["ulps"][what]) for what in ("value", "gradient"))
                    for r in part
                }
                name = loss if family in (loss, "every size") else family
                rows.append([name, dtype, *(cells.get(library, "–") for library in libraries)])
    return table(("loss, family", "dtype", *libraries), rows)


def worse(records: Records) -> str:
    """Where another library's worst number is nearer to the exact one than crossent's."""
    sentences = []
    for (loss, family, dtype), part in _grouped_by(records, "loss", "family", "dtype").items():
        ours = next(r for r in part if r["library"] == "crossent")
        for what in ("value", "gradient"):
            best = min(part, key=lambda r: r["ulps"][what])
            if best["ulps"][what] < ours["ulps"][what] - 0.01:
                ulps = f"{number(ours['ulps'][what])} ulp, {best['library']} {number(best['ulps'][what])}"
                name = loss if family in (loss, "every size") else f"{loss}, {family}"
                sentences.append(f"| {name} | {dtype} | {what} | {ulps} |")
    header = "| loss, family | dtype | what | crossent, and the nearest |\n|---|---:|---:|---:|"
    return "\n".join([header, *sentences])


def with_speed(records: Records, speed: dict[str, Any]) -> str:
    """Accuracy beside the time of the same function at 20000 × 1000."""
    losses = {
        "cross-entropy": "cross-entropy",
        "focal": "Focal(gamma=2.0)",
        "smoothed + weighted": "cross-entropy, soft or smoothed",
    }
    shown = {"smoothed + weighted": "smoothed"}
    rows = []
    for record in speed["dense"]:
        if (record["rows"], record["classes"]) != (20_000, 1000):
            continue
        part = [r for r in records if r["group"] == losses[record["loss"]] and r["dtype"] == record["dtype"]]
        seconds = record["seconds"]
        worst = [number(_largest(part, what, "max") or 0.0) for what in ("value", "gradient")]
        ours, theirs = seconds["crossent"], seconds["torch"]
        rows.append(
            [
                shown.get(record["loss"], record["loss"]),
                record["dtype"],
                *worst,
                f"{ours * 1e3:.1f}",
                f"{theirs / ours:.1f}",
            ]
        )
    header = ("loss", "dtype", "value, ulp", "gradient, ulp", "crossent, ms", "torch / crossent")
    return table(header, rows)


def parameters() -> str:
    """What each family varies, from where to where."""
    ranges = []
    for family in families.EVERY:
        by_dtype = {np.dtype(d).name: [abs(v) for v in family.values(d)] for d in (np.float32, np.float64)}
        spans = {name: f"{min(v):g} to {max(v):g}" for name, v in by_dtype.items()}
        same = spans["float32"] == spans["float64"]
        span = spans["float64"] if same else f"{spans['float32']} in float32, {spans['float64']} in float64"
        ranges.append([family.name, family.parameter, span])
    counts = ", ".join(f"{count:,}" for count in MANY_CLASSES["full"])
    return table(("family", "parameter", "from, to"), [*ranges, ["very many classes", "K", counts]])


def page(results: dict[str, Any], speed: dict[str, Any]) -> str:
    """Return docs/accuracy.md."""
    records, everything = results["records"], results["peers"]
    compared = [r for r in everything if r["loss"] == LABELS]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    judged = sum(r[what]["count"] for r in records for what in ("value", "gradient", "diagonal") if what in r)
    rows = sum(r["rows"] for r in records)
    return f"""# How accurate

Generated by `make accuracy ARGS=--write`. {judged:,} values, gradient components and entries of the Hessian's diagonal
(or of products with it), of {rows:,} rows, were compared with an oracle: the formulas in at least 60 digits (`mpmath`),
derivatives by series, sharing no code with the library. Errors are in units in the last place (ulp) of the dtype.
[Numerics](numerics.md) explains how the digits are kept; the bars are stated [there](numerics.md#what-is-promised).

A cell is *largest error / 99.9th percentile (bar)*, in ulp. *By itself* counts the values and gradient components whose
error was taken relative to the exact number itself, *by magnitudes* those relative to the summed magnitudes of what the
formula adds. For hard labels all of cross-entropy, focal and generalised cross-entropy is judged by itself.

## By loss

{by_loss(records)}

The linear head is judged against the exact logits of its rounded inputs; a rounded dot product is off by ulps of
`Σ|x w| + |b|`, and its errors are in ulps of what that can do to the result. Sample weights, elementwise weights and
denominators are judged in the reduced value and its gradient, with every weight over up to 30 orders of magnitude; a
product with the Hessian in ulps of what it adds up, with the diagonal's bar; statistics and information measures as
values.

## Cross-entropy by family

{parameters()}

{by_family(records, "CrossEntropy()")}

## Other losses by family

{others(records)}

## Beside other libraries

The same rows of hard labels through {versions}. First the share of rows whose value *and* gradient keep the bars:

{rows_right(compared)}

Then the largest error of the value in float32, in ulp and, in brackets, relative to the exact value (1e+00: no digit is
right):

{peers(compared, "float32", "value")}

and of the gradient's components:

{peers(compared, "float32", "gradient")}

In float64, values:

{peers(compared, "float64", "value")}

and gradients:

{peers(compared, "float64", "gradient")}

### Other losses

What the libraries have of smoothing, class weights, distributions and binary losses (a dash: not that). A cell is the
share of rows whose value and gradient keep the bars, the largest error of a value and that of a gradient component, in
ulp of the number itself or, for smoothing and distributions, of the summed magnitudes; inf stands for NaN.

{other_losses(everything)}

Masked classes without mass make `0 · ∞` in all of the others (optax has `safe_softmax_cross_entropy` for the value, but
its forward derivative is NaN). Keras' binary focal loss goes through a clipped probability.

### Where crossent is not the nearest

Its worst number is further from the exact one than another library's worst here, within the bars:

{worse(everything)}

## What it costs

The largest errors of these losses above, beside the time of a value and gradient at 20000 × 1000 and PyTorch's forward
and backward ([performance](performance.md)); the third row's time is with class weights too:

{with_speed(records, speed)}

## What is not as good

- Distributions as targets are judged by summed magnitudes. A floating one-hot row under softmax has its true class's
  gradient as `p - 1`, rounded once: give labels instead.
- Mapped logits (temperature, prior, margin, soft cap) are rounded to the dtype before the loss sees them.
- The Hessian's diagonal, Hessian-vector products and everything without numba run in float64 through plain NumPy:
  as right, several times slower.
- The value alone of a small batch costs more than `F.cross_entropy`'s forward: Python checks at the door.
- A row of probabilities instead of logits has lost digits before it arrives; nothing here brings them back.
"""


def write(results: dict[str, Any]) -> None:
    """Write the page from the results and the speed measured last."""
    PAGE.write_text(page(results, json.loads(SPEED.read_text())))


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
