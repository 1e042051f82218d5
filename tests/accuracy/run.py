"""Measure, print the table, exit 1 if a bar is broken.

python -m accuracy.run [--only PART ...] [--quick | --write | --peers]      (in tests/; `make accuracy`)
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from . import families
from .compare import compare
from .errors import Errors, Key
from .measure import parts
from .peers import available
from .report import RESULTS, by_loss, write

SOFTENED = {family.name for family in [*families.SMOOTHED, *families.WEIGHTED_AND_SMOOTHED, *families.SOFT]}
SOFTENED.add(families.MASKED_SOFT.name)
HARD = {family.name for family in [*families.HARD, *families.WEIGHTED]} | {
    "very many classes",
    "sample weights",
    "sigmoid link",
    "sigmoid link, weighted",
}
"""Families of labels, with whatever weights: cross-entropy is judged by the numbers themselves."""


def group_of(loss: str, family: str) -> str:
    """The table's row: the loss, apart for soft targets, other links, statistics and the linear head."""
    name = "cross-entropy" if loss == "CrossEntropy()" else loss
    if family in SOFTENED or family in ("very many classes, smoothed", "sample weights, smoothed"):
        return f"{name}, soft or smoothed" if name in ("cross-entropy", "Focal(gamma=2.0)") else name
    if family.startswith(("sigmoid link", "linear head", "link ", "Hessian")):
        return f"{name}, {family.split(', K')[0]}"
    return family if loss in ("statistics", "information") else name


def misjudged(found: dict[Key, Errors]) -> list[str]:
    """Groups of labels under cross-entropy in which a number was not judged by itself."""
    return [
        f"{family} ({dtype}): {errors.by_magnitudes} numbers judged by summed magnitudes"
        for (loss, family, dtype), errors in found.items()
        if loss == "CrossEntropy()" and family in HARD and errors.by_magnitudes
    ]


def records_of(found: dict[Key, Errors]) -> list[dict[str, Any]]:
    """The measured groups as plain records."""
    return [
        {"group": group_of(loss, family), "loss": loss, "family": family, "dtype": dtype, **errors.summary()}
        for (loss, family, dtype), errors in found.items()
    ]


def _beside_peers(quick: bool) -> dict[str, Any]:
    """Compare with the libraries that are installed; the others keep what was measured before."""
    peers = list(available())
    versions = {peer.name: peer.version for peer in peers}
    before = json.loads(RESULTS.read_text())
    absent = {name: version for name, version in before["versions"].items() if name not in versions}
    kept = [record for record in before["peers"] if record["library"] in absent]
    return {"versions": versions | absent, "peers": compare(peers, 20 if quick else 200) + kept}


def _merged(before: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Old records, each in its place, with what was measured anew in theirs, and what is new at the end."""
    new = {_key(record): record for record in records}
    kept = [new.pop(_key(record), record) for record in before]
    return kept + list(new.values())


def _key(record: dict[str, Any]) -> tuple[str, ...]:
    return record["loss"], record["family"], record["dtype"]


def _write(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write(results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 1 if a bar is broken, or a label's cross-entropy was not judged by itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, for a look")
    parser.add_argument("--only", nargs="+", metavar="PART", help="the parts whose names hold one of these words")
    parser.add_argument("--peers", action="store_true", help="measure only the libraries again, and write")
    parser.add_argument("--write", action="store_true", help="keep each part as it ends, and write docs/accuracy.md")
    chosen = parser.parse_args(arguments)
    logging.getLogger("crossent").setLevel(logging.ERROR)
    if chosen.quick and chosen.write:
        parser.error("--quick is for a look: what is kept is measured in full")
    if chosen.peers:
        _write(json.loads(RESULTS.read_text()) | _beside_peers(chosen.quick))
        return 0
    budget = "quick" if chosen.quick else "full"
    todo = parts(budget)
    if chosen.only:
        todo = {name: part for name, part in todo.items() if any(wanted in name for wanted in chosen.only)}
    if not todo:
        parser.error(f"no part is called {' or '.join(chosen.only)}; there are: {'; '.join(parts(budget))}")
    records: list[dict[str, Any]] = []
    broken: list[str] = []
    for number, (name, part) in enumerate(todo.items(), 1):
        started = time.perf_counter()
        found = part()
        records += records_of(found)
        broken += [f"{' | '.join(key)}: {text}" for key, errors in found.items() for text in errors.broken()]
        broken += misjudged(found)
        print(f"{number} of {len(todo)}: {name}, {time.perf_counter() - started:.0f} s", flush=True)
        if chosen.write:  # an hour's work, so none of it is lost
            results = json.loads(RESULTS.read_text())
            _write(results | {"records": _merged(results["records"], records)})
    print(by_loss(records))
    for text in broken:
        print(f"BROKEN {text}")
    if chosen.write and not chosen.only:
        _write({"budget": budget, "records": records} | _beside_peers(chosen.quick))
    print("a bar is broken" if broken else "every bar holds")
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
