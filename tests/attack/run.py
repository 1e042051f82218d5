"""Attack every law for a share of the given time, and add what happened to log.json.

python -m attack.run [--minutes M] [--seed S] [PYTEST ARGUMENTS ...]      (in tests/; `make attack`)

Case n of a run is drawn by `numpy.random.default_rng([seed, n])`. A law that fails ends with its last case, or lists
the cases that were wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attack import CURRENT
from crossent._version import __version__

HERE = Path(__file__).parent
LOG = HERE / "log.json"


class Recorder:
    """A plugin of pytest: divides the time among the laws and notes how each went."""

    def __init__(self, minutes: float, seed: int) -> None:
        self._seconds = 60 * minutes
        self._started = 0.0
        self.laws: list[dict[str, Any]] = []
        CURRENT.seed = seed

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        CURRENT.seconds = self._seconds / max(1, len(session.items))

    def pytest_runtest_setup(self) -> None:
        CURRENT.cases = 0
        self._started = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        law: dict[str, Any] = {
            "law": report.nodeid.removeprefix("tests/"),
            "cases": CURRENT.cases,
            "seconds": round(time.monotonic() - self._started),
        }
        if report.skipped:
            law["skipped"] = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
        if report.failed:
            law["finding"] = getattr(report.longrepr, "reprcrash", None) and report.longrepr.reprcrash.message[:500]
            law["finding"] = law["finding"] or str(report.longrepr)[-500:]
        self.laws.append(law)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments, others = parser.parse_known_args()
    recorder = Recorder(arguments.minutes, arguments.seed)
    options = ["-m", "attack", "-p", "no:xdist", "-p", "no:cacheprovider", "-v", f"--rootdir={HERE.parents[1]}"]
    status = pytest.main([*options, *(others or [str(HERE.parent)])], plugins=[recorder])
    run = {
        "date": datetime.now(UTC).date().isoformat(),
        "version": __version__,
        "minutes": arguments.minutes,
        "seed": arguments.seed,
        "cases": sum(law["cases"] for law in recorder.laws),
        "findings": sum("finding" in law for law in recorder.laws),
        "laws": recorder.laws,
    }
    runs = json.loads(LOG.read_text()) if LOG.exists() else []
    LOG.write_text(json.dumps([*runs, run], indent=1, ensure_ascii=False) + "\n")
    print(f"{run['cases']:,} cases of {len(recorder.laws)} laws, {run['findings']} findings: see {LOG.name}")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
