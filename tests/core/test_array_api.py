"""core runs unchanged on every array library: read-only NumPy, the standard's strict referee, torch and JAX."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from laws import naive
from laws.law import agree
from laws.tables import BY_NAME, LOSSES, LossCase, Problem, applies, problem
from libraries import Library

from crossent import information
from crossent.core import composition
from crossent.core.logit_maps import LogitMap
from crossent.core.statistics import STATISTICS, Rows
from crossent.core.target import Target, Teacher

SETTINGS = ["hard", "soft", "weighted", "weighted-soft", "weighted-smoothed", "soft-smoothed", "masked"]


def rows_of(library: Library, p: Problem) -> Rows:
    """The statistics of a softmax or sigmoid problem in a library's arrays."""
    weight, target = p.options.get("weight"), p.target
    soft = target.dtype.kind == "f"
    made = Target(
        p.logits.shape[1],
        labels=None if soft else library.array(target),
        soft=library.array(target) if soft else None,
        class_weight=None if weight is None else library.array(weight),
        label_smoothing=p.options.get("label_smoothing", 0.0),
        link=p.link,
    )
    return composition.rows_of(library.array(p.logits), made)


@pytest.fixture(autouse=True)
def _quiet_infinities() -> Iterator[None]:
    """NumPy remarks on inf - inf even where the result is not used; silencing that is a front end's business."""
    with np.errstate(invalid="ignore"):
        yield


def is_native(library: Library, array: Any) -> bool:
    return type(array) is type(library.array(np.zeros(1)))


@cache
def expected_of(case: LossCase, setting: str, link: str) -> tuple[Problem, np.ndarray, dict[str, np.ndarray]]:
    """A problem, a vector, and what autodiff of naive code makes of them."""
    p = problem(BY_NAME[setting], link, shape=(4, 3))
    vector = np.random.default_rng(0).normal(size=p.logits.shape)
    results = {
        "value": naive.values(p, case),
        "gradient": naive.gradient(p, case),
        "diagonal": naive.hessian_diagonal(p, case),
        "product": naive.hessian_vector_product(p, case, vector),
    }
    return p, vector, results


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_value_and_derivatives(library: Library, case: LossCase, link: str) -> None:
    checked = 0
    for name in SETTINGS:
        if not applies(case, BY_NAME[name], link):
            continue
        p, vector, expected = expected_of(case, name, link)
        checked += 1
        rows = rows_of(library, p)
        results = {
            "value": composition.value(case.loss, rows),
            "gradient": composition.gradient(case.loss, rows),
            "diagonal": composition.hessian_diagonal(case.loss, rows),
        }
        if link == "softmax":
            results["product"] = composition.hessian_product(case.loss, rows, library.array(vector))
        for what, result in results.items():
            assert is_native(library, result), f"{name}: {what} is a {type(result)}"
            got = library.numpy(result)
            if link == "sigmoid" and got.ndim == 2:
                got = got[:, 1]
            agree(got.reshape(expected[what].shape), expected[what], 2e-12)
    assert checked > 0


def test_statistics_stay_in_their_library(library: Library) -> None:
    for name in ("hard", "soft"):
        p = problem(BY_NAME[name], "softmax")
        rows = rows_of(library, p)
        for statistic in STATISTICS:
            if statistic != "nll_plain" or name == "hard":
                assert is_native(library, getattr(rows, statistic))
                assert is_native(library, rows.gradient_row(statistic))


def test_top_k_teacher(library: Library) -> None:
    z = np.array([[0.3, -1.2, 2.5, 0.7], [1.0, 1.0, -2.0, 0.0]])
    indices, t = np.array([[2, 0], [3, 1]]), np.array([[0.6, 0.2], [0.5, 0.5]])
    teacher = Teacher(library.array(indices), library.array(t), library.array(1 - t.sum(axis=1)))
    rows: Any = composition.rows_of(library.array(z), Target(4, teacher=teacher, temperature=2.0))
    p = np.exp(z / 2) / np.exp(z / 2).sum(axis=1, keepdims=True)
    listed = np.take_along_axis(p, indices, axis=1)
    rest, left = 1 - listed.sum(axis=1), 1 - t.sum(axis=1)
    bucket = left * np.log(np.where(left > 0, left, 1) / rest)
    gradient = p.copy()
    for i in range(2):
        share = left[i] * p[i] / rest[i]
        share[indices[i]] = t[i]
        gradient[i] -= share
    agree(library.numpy(rows.divergence), 4 * ((t * np.log(t / listed)).sum(axis=1) + bucket), 1e-13)
    agree(library.numpy(rows.gradient_row("divergence")), 2 * gradient, 1e-13)


def test_teacher(library: Library) -> None:
    z = np.array([[0.3, -1.2, 2.5, 0.7], [1.0, 1.0, -2.0, 0.0], [0.5, 1.0, 2.0, 3.0]])
    v = np.array([[1.3, 0.2, -9.5, 0.4], [1.0, 1.0, -2.0, 1e-9], [9.0, 1.0, 2.0, 3.0]])
    rows: Any = composition.rows_of(library.array(z), Target(4, teacher=library.array(v), temperature=2.0))
    p, t = (np.exp(x / 2) / np.exp(x / 2).sum(axis=1, keepdims=True) for x in (z, v))
    exact = 4 * (t * np.log(t / p)).sum(axis=1)
    exact[1] = 1e-18 * t[1, 3] * (1 - t[1, 3]) / 2
    assert is_native(library, rows.divergence)
    agree(library.numpy(rows.divergence), exact, 1e-8)
    agree(library.numpy(rows.gradient_row("divergence")), 2 * (p - t), 1e-13)


def test_logit_maps(library: Library) -> None:
    z = np.array([[0.3, -1.2, 9.5], [-math.inf, 1.0, -20.0]])
    offset, labels = np.log([0.2, 0.3, 0.5]), np.array([2, 1])
    mapping = LogitMap(softcap=3.0, temperature=0.7, offset=library.array(offset), margin=0.25)
    expected = 3 * np.tanh(z / 3) / 0.7 + offset
    expected[0, 2] -= 0.25
    expected[1, 1] -= 0.25
    expected[1, 0] = -math.inf
    forward = mapping.forward(library.array(z), library.array(labels))
    assert is_native(library, forward)
    np.testing.assert_allclose(library.numpy(forward), expected, rtol=1e-14)
    finite = np.array([[0.3, -1.2, 9.5]])
    h = 1e-3
    mapped = [
        library.numpy(mapping.forward(library.array(finite + s * h), library.array(labels[:1]))) for s in (1, 0, -1)
    ]
    slope, curvature = mapping.slope(library.array(finite)), mapping.curvature(library.array(finite))
    np.testing.assert_allclose(library.numpy(slope), (mapped[0] - mapped[2]) / (2 * h), rtol=1e-5)
    np.testing.assert_allclose(library.numpy(curvature), (mapped[0] - 2 * mapped[1] + mapped[2]) / h**2, rtol=1e-4)


@pytest.mark.parametrize("measure", ["cross_entropy", "kl_divergence", "js_divergence"])
def test_measures_of_two_distributions(library: Library, measure: str) -> None:
    p, q = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]), np.array([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]])
    log = np.log(np.where(p > 0, p, 1))
    middle = (p + q) / 2
    expected = {
        "cross_entropy": -(p * np.log(q)).sum(1),
        "kl_divergence": (p * (log - np.log(q))).sum(1),
        "js_divergence": ((p * (log - np.log(middle))).sum(1) + (q * (np.log(q) - np.log(middle))).sum(1)) / 2,
    }
    result = getattr(information, measure)(library.array(p), library.array(q))
    assert is_native(library, result)
    np.testing.assert_allclose(library.numpy(result), expected[measure], rtol=1e-13, atol=1e-17)


def test_measures_of_one_distribution(library: Library) -> None:
    joint = np.array([[0.5, 0.0], [0.125, 0.375]])
    margins = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    expected = (joint * np.log(np.where(joint > 0, joint / margins, 1))).sum()
    assert float(information.mutual_information(library.array(joint))) == pytest.approx(expected, rel=1e-13, abs=0)
    entropies = information.entropy(library.array(joint / joint.sum(1, keepdims=True)), base="bits")
    assert is_native(library, entropies)
    np.testing.assert_allclose(library.numpy(entropies), [0.0, 2 - 0.75 * math.log2(3)], rtol=1e-13)
    assert float(information.perplexity(library.array(math.log(3.0)))) == pytest.approx(3.0, rel=1e-12, abs=0)
