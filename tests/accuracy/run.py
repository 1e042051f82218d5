"""Measure, print the table, exit 1 if a bar is broken.

python -m accuracy.run [--quick] [--write | --peers]      (in tests/; `make accuracy`)
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from typing import Any

from . import families
from .compare import compare
from .errors import Errors, Key
from .measure import measure
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


def _write(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write(results)
    print(f"wrote {RESULTS} and docs/accuracy.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 1 if a bar is broken, or a label's cross-entropy was not judged by itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, for a look")
    parser.add_argument("--peers", action="store_true", help="measure only the libraries again, and write")
    parser.add_argument("--write", action="store_true", help="keep the results and write docs/accuracy.md")
    chosen = parser.parse_args(arguments)
    logging.getLogger("crossent").setLevel(logging.ERROR)
    if chosen.peers:
        _write(json.loads(RESULTS.read_text()) | _beside_peers(chosen.quick))
        return 0
    found = measure("quick" if chosen.quick else "full")
    records = records_of(found)
    print(by_loss(records))
    broken = [f"{' | '.join(key)}: {text}" for key, errors in found.items() for text in errors.broken()]
    broken += misjudged(found)
    for text in broken:
        print(f"BROKEN {text}")
    if chosen.write:
        _write({"budget": "quick" if chosen.quick else "full", "records": records} | _beside_peers(chosen.quick))
    print("a bar is broken" if broken else "every bar holds")
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
