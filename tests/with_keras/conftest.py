"""What all tests of `crossent.keras` share: the backend of the process, its gradients and its compiled functions.

Keras reads KERAS_BACKEND once. `make test` runs these tests with JAX and, in a process of its own, with PyTorch;
`make test-keras` with TensorFlow.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

HAS_KERAS = importlib.util.find_spec("keras") is not None


class Skipped(pytest.File):
    """A file of tests that cannot be imported."""

    def collect(self) -> Any:
        pytest.skip("crossent.keras is tested where Keras is installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.File | None:
    return None if HAS_KERAS else Skipped.from_parent(parent, path=module_path)
