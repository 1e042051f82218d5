"""Run every benchmark beside its peers; keep each part in results/speed.json, and the tables made of it, as it ends.

python benchmarks/run.py [--quick] [dense] [small] [linear] [startup] [pytorch] [heads] [jax] [keras]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
THREADS = 2
PARTS = ("startup", "small", "dense", "linear", "pytorch", "heads", "jax", "keras")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    import numba
    import numpy
    import sklearn
    import torch

    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    versions = {module.__name__: module.__version__ for module in (numpy, numba, sklearn, torch)}
    return {
        "processor": model,
        "cores": cores(),
        "threads": min(THREADS, cores()),
        "python": platform.python_version(),
        "versions": versions,
    }


def measure(part: str, quick: bool, results: dict[str, Any]) -> None:
    """Put what a part measures into the results."""
    if part == "startup":
        import startup

        results[part] = startup.run(1 if quick else 3)
    elif part == "linear":
        import linear

        results[part] = linear.run(1 if quick else 2)
    elif part == "pytorch":
        import pytorch

        results[part] = results.get(part, {}) | pytorch.run(1 if quick else 4)
    elif part == "jax":
        import with_jax

        results[part] = with_jax.run(1 if quick else 5)
    elif part == "keras":
        import with_keras

        results[part] = with_keras.run(1 if quick else 4)
    elif part == "heads":
        import pytorch

        here = {"processor": results["machine"]["processor"], "date": results["date"]}
        others = [r for r in results["pytorch"].get("heads", []) if r["processor"] != here["processor"]]
        results["pytorch"]["heads"] = [here | record for record in pytorch.heads(1 if quick else 2)] + others
    else:
        import dense

        run = dense.run if part == "dense" else dense.run_small
        results[part] = run(1 if quick else 5)


def keep(results: dict[str, Any]) -> None:
    """Write the results and every page that shows them: docs/performance.md, README.md, docs/accuracy.md."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    import tables

    tables.write(results)
    subprocess.run([sys.executable, "-m", "accuracy.report"], cwd=ROOT / "tests", check=True)


def main() -> None:
    """Measure the parts named (all by default) and keep the others' earlier results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few repeats, for a look")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}; choose from {', '.join(PARTS)}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    measured = results.setdefault("measured", {})
    for part in set(PARTS) & set(results) - set(measured):
        measured[part] = {"date": results["date"], "processor": results["machine"]["processor"]}
    results["machine"], results["date"] = machine(), date.today().isoformat()
    import torch

    import crossent

    torch.set_num_threads(THREADS)
    crossent.set_num_threads(THREADS)
    for part in chosen.parts or PARTS:
        measure(part, chosen.quick, results)
        measured[part] = {"date": results["date"], "processor": results["machine"]["processor"]}
        keep(results)
    print(f"wrote {RESULTS} and the tables")


if __name__ == "__main__":
    main()
