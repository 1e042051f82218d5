"""The script of examples/ that is written for JAX learns, and learns what it would by way of all logits."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "equinox_model.py"


def test_the_equinox_model_learns_as_by_way_of_all_logits() -> None:
    script = runpy.run_path(str(EXAMPLE))
    _, losses = script["train"](steps=40)
    _, wanted = script["train"](script["loss_of_logits"], steps=40)
    assert losses[-1] < losses[0] / 10
    np.testing.assert_allclose(losses[:10], wanted[:10], rtol=1e-5)
