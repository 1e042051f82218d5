"""Fuzz every public function for a given time and append what happened to log.json.

python -m fuzz.run [--minutes M] [--seed S] [--jobs i/n] [FUNCTION ...]      (in tests/; `make fuzz`)

Hypothesis' database beside this file keeps the examples that failed, for good, and of the accuracy properties those
that used most of a bar (its Pareto front); the next run, and the tests, start with them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.core
from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    ExampleDatabase,
    InMemoryExampleDatabase,
    ReadOnlyDatabase,
)
from libraries import HAS_NUMBA

from fuzz.accuracy import ACCURACY as OF_LOSSES
from fuzz.calls import CALLS
from fuzz.heads import HEADS_ACCURACY
from fuzz.properties import check

HERE = Path(__file__).parent
LOG = HERE / "log.json"
DATABASE = HERE / "database"
BATCH = 250
MOST_REPLAYED = 10_000
"""More examples of one property than a database ever holds: all of them are replayed."""
MOST_KEPT = 20
"""Of the examples of one property that came closest to a bar."""

ACCURACY = OF_LOSSES | HEADS_ACCURACY
PROPERTIES: dict[str, Any] = {
    name: (strategy, lambda call: check(call, compiled=HAS_NUMBA)) for name, strategy in CALLS.items()
} | ACCURACY


class KeptDatabase(DirectoryBasedExampleDatabase):
    """Keeps an example that failed once after it has been mended: hypothesis would delete it."""

    def delete(self, key: bytes, value: bytes) -> None:
        if key.endswith((b".pareto", b".secondary")):
            super().delete(key, value)


def kept(database: ExampleDatabase, name: str) -> int:
    """Return how many examples of a property the database holds."""
    return len({value for part in (b"", b".secondary", b".pareto") for value in database.fetch(name.encode() + part)})


def examples_of(name: str, database: ExampleDatabase, phases: list[Phase], seen: list[Any]) -> Any:
    """Return a function without arguments that tries a batch of examples, and appends what each led to to `seen`."""
    strategy, property_ = PROPERTIES[name]

    @settings(
        max_examples=BATCH if Phase.generate in phases else MOST_REPLAYED,
        deadline=None,
        database=database,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        print_blob=False,
    )
    @given(strategy)
    def examples(example: Any) -> None:
        result = property_(example)
        if isinstance(result, float):
            target(result, label="share of a bar")
        seen.append(result)

    examples._hypothesis_internal_database_key = name.encode()  # not a digest of this function's source
    return examples


def replay(name: str, path: Path = DATABASE) -> int:
    """Try what the database holds of a property, and nothing else; return how many examples that was."""
    seen: list[Any] = []
    database = ReadOnlyDatabase(KeptDatabase(path))
    if kept(database, name):  # hypothesis calls it skipped if there is nothing to try
        examples_of(name, database, [Phase.reuse], seen)()
    return len(seen)


def str_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:1000]


def notes_of(error: BaseException) -> list[str]:
    return [note[:1500] for note in getattr(error, "__notes__", [])]


def prune(name: str, database: ExampleDatabase) -> None:
    """Leave `MOST_KEPT` examples of the Pareto front: those that used most of a bar."""
    key, shares = name.encode() + b".pareto", {}
    for value in set(database.fetch(key)):
        alone, seen = InMemoryExampleDatabase(), []
        alone.save(key, value)
        with contextlib.suppress(Exception):  # a failure is kept elsewhere
            examples_of(name, alone, [Phase.reuse], seen)()
        shares[value] = max((share for share in seen if isinstance(share, float)), default=0.0)
    for value in sorted(shares, key=lambda v: shares[v])[:-MOST_KEPT]:
        database.delete(key, value)


def fuzz(name: str, seconds: float, start_seed: int, path: Path = DATABASE) -> dict[str, Any]:
    """Run batches of examples until the processor time is used up; stop at the first failure."""
    database = KeptDatabase(path)
    seen: list[Any] = []
    seeds, failures = [], []
    start = time.process_time()
    while time.process_time() - start < seconds and not failures:
        number = start_seed + len(seeds)
        seeds.append(number)
        hypothesis.core.global_force_seed = number  # `@seed` would switch the database off
        try:
            examples_of(name, database, [Phase.reuse, Phase.generate, Phase.target, Phase.shrink], seen)()
        except Exception as error:
            parts = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            failures += [{"seed": number, "error": str_of(part), "notes": notes_of(part)} for part in parts]
    prune(name, database)
    outcomes = Counter("judged" if isinstance(result, float) else result for result in seen)
    record = {"function": name, "examples": len(seen), "outcomes": dict(outcomes)}
    if outcomes["judged"]:
        record["largest_share_of_a_bar"] = round(max(seen), 3)
    return record | {
        "first_seed": start_seed,
        "batches": len(seeds),
        "processor_seconds": round(time.process_time() - start, 1),
        "failures": failures,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the log: what all runs amount to, and those since the library's last failure, and the runs.

    A failure whose cause was in the tests says so by hand: ``"cause": "tests: …"``.
    """

    def totals(some: list[dict[str, Any]]) -> dict[str, Any]:
        seconds = round(sum(run["processor_seconds"] for run in some), 1)
        functions = len({run["function"] for run in some})
        return {"processor_seconds": seconds, "examples": sum(r["examples"] for r in some), "functions": functions}

    failed = [any(not f.get("cause", "").startswith("tests") for f in run["failures"]) for run in runs]
    clean = failed[::-1].index(True) if any(failed) else len(runs)
    return {"all": totals(runs), "since the last failure": totals(runs[len(runs) - clean :]), "runs": runs}


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
    names = (chosen.functions or list(PROPERTIES))[part::parts]
    first_seed = random.randrange(2**31) if chosen.seed is None else chosen.seed
    failed = False
    for name in names:
        record = fuzz(name, chosen.minutes * 60 / len(names), first_seed)
        print(json.dumps({k: v for k, v in record.items() if k != "failures"}), flush=True)
        for failure in record["failures"]:
            print(f"  {failure['error']}\n  " + "\n  ".join(failure["notes"]), flush=True)
        failed |= bool(record["failures"])
        runs = json.loads(chosen.log.read_text())["runs"] if chosen.log.exists() else []
        chosen.log.write_text(json.dumps(summary([*runs, record]), indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
