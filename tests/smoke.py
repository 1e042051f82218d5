"""What must work in a fresh environment with the wheel and nothing compiled: `make smoke` runs it there.

README's Python blocks (those of PyTorch where it is installed), a fit of the digits, and the first calls of a fresh
process with compilation forbidden. In an environment without Numba, that the reference serves with one notice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from documents import blocks

from crossent.kernels import why_chosen

ROOT = Path(__file__).resolve().parents[1]


def fresh(*arguments: str, **environment: str) -> str:
    """What a fresh process prints, with an empty cache."""
    with tempfile.TemporaryDirectory() as empty:
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, *arguments],
            env=clean | {"NUMBA_CACHE_DIR": empty} | environment,
            cwd=empty,
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        sys.exit(f"failed: {' '.join(arguments)[:200]}")
    return done.stdout


WITHOUT_NUMBA = """
import logging
notices = []
handler = logging.Handler()
handler.emit = notices.append
logging.getLogger("crossent").addHandler(handler)
import crossent as ce
from crossent.kernels import why_chosen
print(ce.value_and_grad([[1.0, 2.0, 3.0]], [2])[0], ce.focal_loss([[1.0, 2.0]], [0]), len(notices), why_chosen())
"""


def main() -> None:
    """Run everything; the first failure ends it."""
    if find_spec("numba") is None:
        value, _, notices, why = fresh("-c", WITHOUT_NUMBA).split(maxsplit=3)
        assert (value[:10], notices) == ("0.40760596", "1")
        assert why.startswith("plain NumPy")
        print("all works without Numba, with one notice")
        return
    print(fresh("-m", "crossent", "--version", "--verbose"))
    if not why_chosen().startswith("the package's own"):
        sys.exit("the kernels that the wheel brings do not serve")
    forbidden = {"CROSSENT_DISABLE_COMPILE": "1"}
    network, table, *_ = [
        block.text for block in blocks((ROOT / "README.md").read_text()) if block.language == "python"
    ]
    if find_spec("torch") is None:
        print("PyTorch is not installed: its block of README is left out")
    else:
        fresh("-c", network, **forbidden)
    assert fresh("-c", table, **forbidden) == "True\n"
    report = fresh("-m", "crossent", "fit", "digits", "--output", "out", **forbidden)
    assert "Duality gap" in report
    print("all works, and nothing had to be compiled")


if __name__ == "__main__":
    main()
