"""`make accuracy` with few rows: every bar holds, the page is what the results say, and a wrong digit is found."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import crossent as ce

from . import families, measure, report
from .compare import compare
from .judge import DTYPES
from .peers import available
from .run import records_of


@pytest.mark.parametrize("case", measure.CASES, ids=[f"{c.name}-{c.families[0].name}" for c in measure.CASES])
def test_every_bar_holds(case: measure.Case) -> None:
    found = measure.dense(24, 8, cases=[case])
    assert {dtype for _, _, dtype in found} == {"float32", "float64"}
    assert [text for errors in found.values() for text in errors.broken()] == []


def test_labels_are_judged_by_the_numbers_themselves() -> None:
    for errors in measure.dense(24, 8, cases=measure.CASES[:1]).values():
        assert errors.by_itself > 0
        assert errors.by_magnitudes == 0


@pytest.mark.parametrize("part", [measure.sigmoid, lambda: measure.linear(9), lambda: measure.many_classes([5000])])
def test_the_other_heads_keep_their_bars(part: Any) -> None:
    assert [text for errors in part().values() for text in errors.broken()] == []


def plain(logits: np.ndarray, target: np.ndarray, **options: Any) -> Any:
    """Cross-entropy by the log-sum-exp trick."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1)
    rows = np.arange(len(target))
    gradient = np.exp(shifted) / total[:, None]
    gradient[rows, target] -= 1
    return np.log(total) - shifted[rows, target], gradient


def slightly_wrong(*args: Any, **options: Any) -> Any:
    value, gradient = ce.value_and_grad(*args, **options)
    return value, gradient * gradient.dtype.type(1 + 12 * np.finfo(gradient.dtype).eps)


@pytest.mark.parametrize("function", [plain, slightly_wrong])
def test_the_bars_have_teeth(function: Any) -> None:
    case = measure.Case(ce.CrossEntropy(), (measure.CE,), families.HARD[:1])
    found = measure.dense(24, 8, (function, ce.value_grad_hess), [case])
    assert all(errors.broken() for errors in found.values())
    assert all(record["gradient"]["max"] > record["gradient"]["bar"] for record in records_of(found))


def test_families_are_the_same_every_time_and_differ_by_seed() -> None:
    for family in [*families.HARD, *families.WEIGHTED, *families.SMOOTHED, *families.SOFT]:
        for dtype in DTYPES:
            first, again, other = (list(family.problems(dtype, 20, seed)) for seed in (0, 0, 1))
            for a, b in zip(first, again, strict=True):
                np.testing.assert_array_equal(a.logits, b.logits)
            assert any(a.logits.tobytes() != c.logits.tobytes() for a, c in zip(first, other, strict=True))


def test_peers_lose_digits_where_crossent_does_not() -> None:
    peers = [peer for peer in available() if peer.name in ("crossent", "SciPy", "scikit-learn", "PyTorch")]
    assert {"crossent", "SciPy", "scikit-learn"} <= {peer.name for peer in peers}
    for record in compare(peers, 13):
        if record["library"] == "crossent":
            assert record["right"] == record["rows"], record
        elif record["family"] == "confident, right":
            assert record["right"] < 0.7 * record["rows"], record
            assert record["relative"]["value"] == pytest.approx(1.0)


def test_the_page_is_what_the_results_say() -> None:
    results = json.loads(report.RESULTS.read_text())
    speed = json.loads(report.SPEED.read_text())
    assert results["budget"] == "full"
    assert report.PAGE.read_text() == report.page(results, speed)
    for record in results["records"]:
        for what in ("value", "gradient", "diagonal"):
            assert what not in record or record[what]["max"] <= record[what]["bar"]
