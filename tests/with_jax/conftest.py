"""What all tests of `crossent.jax` share; they are skipped where JAX is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HAS_JAX = importlib.util.find_spec("jax") is not None


class Skipped(pytest.File):
    """A file of tests that cannot be imported."""

    def collect(self) -> Any:
        pytest.skip("crossent.jax is tested where JAX is installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.File | None:
    return None if HAS_JAX else Skipped.from_parent(parent, path=module_path)


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """Tests run as JAX starts, without float64, whatever a test before has switched on."""
    import jax

    with jax.enable_x64(False):
        yield
