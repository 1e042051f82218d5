"""Time calibration beside other libraries, and compare calibrators on real logits.

python benchmarks/calibration.py [speed] [quality --logits FOLDER] [--quick] [--slow]

FOLDER holds .npz files of `predictions` (softmax outputs) and `ground_truth`. A part that was run as the results in
results/calibration.json were (with the same peers and --slow, not --quick) replaces that part there, with its own date
and machine, and the part's table in docs/calibration.md; any other run prints its table and writes nothing. The peers:
pip install --no-deps -r requirements/calibration-peers.txt
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import calibration_tables
from calibration_peers import versions
from calibration_quality import quality
from calibration_speed import THREADS, speed
from calibration_verdict import MARGIN

import crossent as ce

RESULTS = Path(__file__).parent / "results" / "calibration.json"
ROUNDS = 5


def machine() -> dict[str, Any]:
    """Return processor, cores and the versions of Python and the peers."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions()}


def absent(recorded: dict[str, Any], part: str) -> list[str]:
    """Return the peers that the recorded part was run with and that are not installed here."""
    return sorted(set(recorded.get(part, {}).get("machine", {}).get("versions", {})) - set(versions()))


def main() -> None:
    """Run the parts asked for, and write those that may replace what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help="speed, quality; speed by default")
    parser.add_argument("--logits", type=Path, help="folder of .npz files for quality")
    parser.add_argument("--quick", action="store_true", help="one round of speed; writes nothing")
    parser.add_argument("--methods", nargs="*", help="quality of these calibrators alone; the others' records are kept")
    parser.add_argument("--slow", action="store_true", help="also the peers that take minutes, once")
    chosen = parser.parse_args()
    parts = chosen.parts or (["speed", "quality"] if chosen.logits else ["speed"])
    if set(parts) - {"speed", "quality"} or ("quality" in parts and chosen.logits is None):
        parser.error("parts are speed and quality; quality needs --logits FOLDER")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    ce.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    written = []
    for part in parts:
        found: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine(), "slow": chosen.slow}
        if part == "speed":
            before = os.getloadavg()[0]
            found["records"] = speed(1 if chosen.quick else ROUNDS, chosen.slow)
            found["load"] = [before, os.getloadavg()[0]]
        else:
            found["margin"] = MARGIN
            found["records"] = quality(chosen.logits, chosen.slow, chosen.methods)
            if chosen.methods:
                fresh = {(r["data"], r["split"], r["method"]): r for r in found["records"]}
                earlier = results[part]["records"]
                found["records"] = [fresh.get((r["data"], r["split"], r["method"]), r) for r in earlier]
                found["slow"] = results[part]["slow"]
        print(calibration_tables.TABLES[part](found))
        reasons = [f"{name} is not installed" for name in absent(results, part)]
        if chosen.quick:
            reasons.append("--quick was given")
        if results.get(part, {}).get("slow") and not chosen.slow:
            reasons.append("--slow was not given")
        if reasons:
            print(f"{part}: not written, because {', '.join(reasons)} (see --help)", file=sys.stderr)
            continue
        results[part] = found
        written.append(part)
    if written:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        calibration_tables.write(results)


if __name__ == "__main__":
    main()
