"""The backends in processes of their own, and what an import says where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .calculus import BACKEND

ELSEWHERE = " or ".join(
    (
        "50_steps_are and False",
        "any_loss and softmax and True and (Poly1 or ZPenalty)",
        "in_probabilities and True and CrossEntropy",
        "bar_in_float32 and True",
        "label_out_of_range",
        "weights_classes",
        "layer_adds",
        "half_precision and bfloat16",
        "second_derivative",
    )
)
"""Of the tests beside this file those that the other backend takes, each in a compiled step where there is one."""


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
        cwd=Path(__file__).resolve().parents[2],
    )


@pytest.mark.skipif(BACKEND != "torch" or not find_spec("jax"), reason="PyTorch's process starts JAX's")
def test_the_same_with_jax() -> None:
    here = str(Path(__file__).parent)
    run = _python("-m", "pytest", "-q", "-n", "0", "-k", ELSEWHERE, here, KERAS_BACKEND="jax")
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout


@pytest.mark.parametrize(
    ("code", "backend", "words"),
    [
        ("import sys; sys.modules['keras'] = None; import crossent.keras", BACKEND, "pip install 'crossent[keras]'"),
        ("import sys; sys.modules['keras'] = None; import crossent", BACKEND, ""),
        ("import sys, crossent; assert 'keras' not in sys.modules", BACKEND, ""),
        ("import crossent.keras", "numpy", "crossent.keras needs a backend that trains; got numpy; set KERAS_BACKEND"),
    ],
)
def test_an_import(code: str, backend: str, words: str) -> None:
    if backend == "numpy" and not find_spec("jax"):
        pytest.skip("Keras' NumPy backend needs JAX")
    run = _python("-c", code, KERAS_BACKEND=backend)
    assert (run.returncode != 0) == bool(words), run.stderr
    assert not words or words in run.stderr.splitlines()[-1]
