"""The compiled twin and the reference on the rows where conventions decide: silent, masked, NaN, massless, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import crossent as ce
from crossent.core.target import Target
from crossent.kernels import reference

cpu = pytest.importorskip("crossent.kernels.cpu", reason="numba is not installed")

LOSSES = [
    ce.CrossEntropy(),
    ce.Focal(2.0) + ce.ZPenalty(0.1),
    ce.CrossEntropy() + ce.EntropyPenalty(0.3),
    ce.Brier() + ce.ZPenalty(0.2),
    ce.EntropyPenalty(1.0),
    ce.Poly1(2.0),
    ce.GeneralizedCrossEntropy(0.5),
    ce.Focal(0.5),
    0.0 * ce.CrossEntropy() + ce.ZPenalty(1.0),
]
ROWS = 9


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("num_classes", [1, 2, 3, 10, 70, 1500])
@pytest.mark.parametrize("kind", ["labels", "smoothed", "soft", "soft, smoothed"])
def test_softmax(loss: ce.Loss, num_classes: int, kind: str) -> None:
    smoothing = 0.1 if "smoothed" in kind else 0.0
    if loss.needs_hard_target and kind != "labels":
        pytest.skip("defined for unsmoothed labels only")
    rng = np.random.default_rng(num_classes)
    logits = 4 * rng.normal(size=(ROWS, num_classes))
    logits[2, rng.integers(num_classes)] = -np.inf
    logits[3, 0] = np.nan
    labels = rng.integers(0, num_classes, ROWS)
    labels[0] = -1
    weight = rng.random(num_classes)
    weight[labels[1]] = weight[labels[3]] = 0.0
    soft = rng.dirichlet(np.ones(num_classes), ROWS)
    soft[4] = 0.0
    row_weight = rng.random(ROWS)
    row_weight[5] = 0.0
    target: tuple[Any, Any] = (None, soft) if "soft" in kind.split(", ") else (labels, None)
    for class_weight in (None, weight):
        for rows in (None, row_weight):
            for in_place in (False, True):
                results = []
                for twin in (cpu, reference):
                    z = logits.copy()
                    grad = z if in_place else np.empty_like(z)
                    asked = Target(num_classes, *target, class_weight=class_weight, label_smoothing=smoothing)
                    values = twin.row_losses(z, asked, loss, 0.3, rows, grad)
                    weighing = np.ones(ROWS) if rows is None else rows
                    results.append([np.where(weighing == 0, 0.0, values), grad])
                assert_same(*results)


@pytest.mark.parametrize("num_classes", [1, 3, 10, 70, 1500])
@pytest.mark.parametrize("kind", ["labels", "smoothed", "soft"])
def test_statistics_and_their_gradients(num_classes: int, kind: str) -> None:
    rng = np.random.default_rng(num_classes)
    logits = 4 * rng.normal(size=(ROWS, num_classes))
    if num_classes > 1:
        logits[2, 1] = -np.inf
    target: tuple[Any, Any] = (rng.integers(0, num_classes, ROWS), None)
    target[0][3] = -1
    if kind == "soft":
        target = (None, rng.dirichlet(np.ones(num_classes), ROWS) * np.isfinite(logits))
    smoothing = 0.1 if kind == "smoothed" else 0.0
    asked = Target(num_classes, *target, class_weight=rng.random(num_classes), label_smoothing=smoothing)
    found, expected = (twin.statistics(logits, asked) for twin in (cpu, reference))
    assert set(found) >= set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-14, err_msg=name)
    for name in ("nll", "miss", "lse", "entropy", "brier"):
        results = []
        for twin in (cpu, reference):
            out = np.empty_like(logits)
            twin.pullback(logits, asked, {name: np.arange(1.0, ROWS + 1)}, out)
            results.append([out])
        assert_same(*results)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("kind", ["labels", "smoothed", "soft"])
def test_sigmoid(loss: ce.Loss, kind: str) -> None:
    smoothing = 0.1 if kind == "smoothed" else 0.0
    if loss.needs_hard_target and kind != "labels":
        pytest.skip("defined for unsmoothed labels only")
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(ROWS, 7))
    logits[2, :3] = [-np.inf, np.inf, np.nan]
    labels = rng.integers(0, 2, (ROWS, 7)).astype(np.int8)
    labels[0, 0] = -1
    weight = rng.random((2, 7))
    weight[1, 0] = 0.0
    row_weight = rng.random(ROWS)
    row_weight[5] = 0.0
    target: tuple[Any, Any] = (None, rng.random((ROWS, 7))) if kind == "soft" else (labels, None)
    for class_weight in (None, weight):
        for rows in (None, row_weight):
            results = []
            for twin in (cpu, reference):
                grad, entries = np.empty_like(logits), np.empty_like(logits)
                asked = Target(7, *target, class_weight=class_weight, label_smoothing=smoothing, link="sigmoid")
                values = twin.row_losses(logits, asked, loss, 0.3, rows, grad, entries)
                silent = np.zeros(ROWS, dtype=bool) if rows is None else rows == 0
                values, entries = np.where(silent, 0.0, values), np.where(silent[:, None], 0.0, entries)
                results.append([values, grad, entries])
            assert_same(*results)
