"""Measure, print the table, exit 1 if a bar is broken.

python -m accuracy.run [--quick] [--write]      (in tests/; `make accuracy`)
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from .compare import compare
from .measure import Errors, Key, measure
from .peers import available
from .report import RESULTS, by_loss, write


def group_of(loss: str, family: str) -> str:
    """The table's row: the loss, apart for soft targets, the sigmoid link and the linear head."""
    name = "cross-entropy" if loss == "CrossEntropy()" else loss
    if family in ("label smoothing", "distributions", "smoothed distributions", "soft targets"):
        return f"{name}, soft or smoothed" if name in ("cross-entropy", "Focal(gamma=2.0)") else name
    if family in ("sigmoid link", "linear head", "linear head, smoothed"):
        return f"{name}, {family}"
    return name


def records_of(found: dict[Key, Errors]) -> list[dict[str, Any]]:
    """The measured groups as plain records."""
    return [
        {"group": group_of(loss, family), "loss": loss, "family": family, "dtype": dtype, **errors.summary()}
        for (loss, family, dtype), errors in found.items()
    ]


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, for a look")
    parser.add_argument("--write", action="store_true", help="keep the results and write docs/accuracy.md")
    chosen = parser.parse_args()
    logging.getLogger("crossent").setLevel(logging.ERROR)
    found = measure("quick" if chosen.quick else "full")
    records = records_of(found)
    print(by_loss(records))
    broken = [f"{' | '.join(key)}: {text}" for key, errors in found.items() for text in errors.broken()]
    for text in broken:
        print(f"BROKEN {text}")
    if chosen.write:
        peers = list(available())
        results = {
            "budget": "quick" if chosen.quick else "full",
            "versions": {peer.name: peer.version for peer in peers},
            "records": records,
            "peers": compare(peers, 20 if chosen.quick else 200),
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        write(results)
        print(f"wrote {RESULTS} and docs/accuracy.md")
    print("a bar is broken" if broken else "every bar holds")
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
