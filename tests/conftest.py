"""Fixtures: the array libraries that core runs on, the twins that everything public is tested with."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from libraries import HAS_NUMBA, LIBRARIES, Library

from crossent.kernels import registry

TWINS = {"numba": "crossent.kernels.cpu", "reference": "crossent.kernels.reference"}

# Keras takes TensorFlow by default, which has an environment of its own (`make test-keras`). PyTorch's backend compiles
# nothing, so its tests are the quickest.
os.environ.setdefault("KERAS_BACKEND", "torch")

# A shell starts what it puts in the background deaf to Ctrl-C, and tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs with every twin anyway, so that a run without numba need not repeat it."""
    for item in items:
        if "twin" in getattr(item, "fixturenames", ()):
            item.add_marker("every_twin")


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    """An array library, imported when first asked for. JAX computes in float64 as long as it is asked for."""
    yield LIBRARIES[request.param]()
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", False)


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Makes the public functions compute with one twin, and makes sure that they do; its value is the twin's name."""
    name = request.param
    if name == "numba" and not HAS_NUMBA:
        pytest.skip("numba is not installed or disabled")
    if name == "reference":
        monkeypatch.setenv("CROSSENT_DISABLE_NUMBA", "1")
    registry._forget()
    for dtype in (np.float32, np.float64):
        found = registry.find(np.dtype(dtype)).__name__
        assert found == TWINS[name], f"{found} computes, not {TWINS[name]}: {registry.why_refused()}"
    yield name
    registry._forget()
