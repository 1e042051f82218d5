"""The playground page computes what the library computes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from browser import NEEDS_CHROMIUM, chromium

import crossent as ce

PAGE = Path(__file__).resolve().parents[2] / "docs" / "playground" / "index.html"
pytestmark = NEEDS_CHROMIUM

# logits, target, gamma, label smoothing, temperature; the loss of the naive program
CASES = [
    ([2.0, -1.0, 0.0], 0, 2.0, 0.1, 2.5, None),
    ([-1.5, 3.0, 0.5], 2, 0.5, 0.0, 0.4, None),
    ([30.0, 0.0, -1.0], 0, 3.0, 0.0, 1.0, 0.0),
    ([100.0, 0.0, 0.0], 1, 0.0, 1.0, 1.0, np.inf),
]


@pytest.mark.parametrize(("logits", "target", "gamma", "eps", "temperature", "naive"), CASES)
def test_the_numbers_are_the_library_s(
    logits: list[float],
    target: int,
    gamma: float,
    eps: float,
    temperature: float,
    naive: float | None,
    tmp_path: Path,
) -> None:
    given = {f"z{k}": z for k, z in enumerate(logits)} | {"y": target, "gamma": gamma, "eps": eps, "T": temperature}
    address = "&".join(f"{name}={value}" for name, value in given.items())
    done = chromium(tmp_path, "--dump-dom", f"{PAGE.as_uri()}#{address}")
    assert "CONSOLE" not in done.stderr
    # A browser writes NaN and Infinity as JavaScript does, and float reads both.
    found = [float(value) for value in re.findall(r'data-value="([^"]*)"', done.stdout)]
    loss, p_and_gradient, programs = found[0], np.reshape(found[1:7], (3, 2)), np.reshape(found[7:], (4, 2))

    options = {"loss": ce.Focal(gamma), "label_smoothing": eps, "temperature": temperature}
    value, gradient = ce.value_and_grad([logits], [target], **options)
    assert loss == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(p_and_gradient[:, 0], ce.softmax(np.array(logits) / temperature), rtol=1e-12)
    np.testing.assert_allclose(p_and_gradient[:, 1], gradient[0], rtol=1e-11)

    row = (np.array([logits]) / temperature).astype(np.float32)
    value, gradient = ce.value_and_grad(row, [target])
    epsilon = float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(programs[2], [value, gradient[0, target]], rtol=4 * epsilon)
    value, gradient = ce.value_and_grad(row.astype(np.float64), [target])
    np.testing.assert_allclose(programs[3], [value, gradient[0, target]], rtol=1e-11)
    if naive is not None:
        assert programs[0, 0] == pytest.approx(naive, abs=0)
        assert programs[1, 0] == pytest.approx(0.0 if target == 0 else 100.0, abs=0)
