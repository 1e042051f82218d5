"""Fuzz every public function for a given time and append what happened to log.json.

python -m fuzz.run [--minutes M] [--seed S] [--jobs i/n] [FUNCTION ...]      (in tests/; `make fuzz`)

The examples that failed, or led somewhere new, stay in hypothesis' database beside this file, and the next run starts
with them.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from pathlib import Path
from typing import Any

import hypothesis.core
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from libraries import HAS_NUMBA

from fuzz.accuracy import ACCURACY
from fuzz.calls import CALLS
from fuzz.properties import check

HERE = Path(__file__).parent
LOG = HERE / "log.json"
BATCH = 250


def _properties() -> dict[str, Any]:
    behaviour = {name: (strategy, lambda call: check(call, compiled=HAS_NUMBA)) for name, strategy in CALLS.items()}
    return behaviour | ACCURACY


def str_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:1000]


def notes_of(error: BaseException) -> list[str]:
    return [note[:1500] for note in getattr(error, "__notes__", [])]


def fuzz(name: str, seconds: float, start_seed: int) -> dict[str, Any]:
    """Run batches of examples until the processor time is used up; stop at the first failure."""
    strategy, property_ = _properties()[name]
    outcomes: dict[str, int] = {}
    seeds, failures = [], []
    start = time.process_time()
    while time.process_time() - start < seconds and not failures:
        number = start_seed + len(seeds)
        seeds.append(number)
        hypothesis.core.global_force_seed = number  # `@seed` would switch the database off

        @settings(
            max_examples=BATCH,
            deadline=None,
            database=DirectoryBasedExampleDatabase(HERE / "database" / name.replace(" ", "-")),
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate, Phase.shrink],
            print_blob=False,
        )
        @given(strategy)
        def examples(example: Any) -> None:
            result = property_(example)
            outcomes[result] = outcomes.get(result, 0) + 1

        try:
            examples()
        except Exception as error:
            parts = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            failures += [{"seed": number, "error": str_of(part), "notes": notes_of(part)} for part in parts]
    return {
        "function": name,
        "examples": sum(outcomes.values()),
        "outcomes": outcomes,
        "first_seed": start_seed,
        "batches": len(seeds),
        "processor_seconds": round(time.process_time() - start, 1),
        "failures": failures,
    }


def main() -> int:
    """Share the time among the functions; return 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("functions", nargs="*")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--jobs", default="0/1", help="this process's part, as in 0/2 and 1/2")
    parser.add_argument("--log", type=Path, default=LOG)
    chosen = parser.parse_args()
    logging.getLogger("crossent").setLevel(logging.ERROR)  # the reference is asked for on purpose
    part, parts = map(int, chosen.jobs.split("/"))
    names = (chosen.functions or list(_properties()))[part::parts]
    first_seed = random.randrange(2**31) if chosen.seed is None else chosen.seed
    failed = False
    for name in names:
        record = fuzz(name, chosen.minutes * 60 / len(names), first_seed)
        print(json.dumps({k: v for k, v in record.items() if k != "failures"}), flush=True)
        for failure in record["failures"]:
            print(f"  {failure['error']}\n  " + "\n  ".join(failure["notes"]), flush=True)
        failed |= bool(record["failures"])
        log = json.loads(chosen.log.read_text()) if chosen.log.exists() else []
        chosen.log.write_text(json.dumps([*log, record], indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
