"""A target is a value: parts and copies of it are new ones, and what was asked of the logits is frozen with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossent.core.target import Target, Teacher
from crossent.numpy.options import Options
from crossent.numpy.problem import make_problem

RNG = np.random.default_rng(0)
TARGETS = {
    "labels": Target(3, labels=np.array([0, -1, 2, 1]), num_counted=3, label_smoothing=0.3),
    "distributions": Target(3, soft=RNG.dirichlet(np.ones(3), 4), class_weight=np.ones(3)),
    "entries": Target(3, labels=RNG.integers(0, 2, (4, 3)), link="sigmoid", class_weight=np.ones((2, 3))),
    "teacher": Target(3, teacher=RNG.normal(size=(4, 3)), temperature=2.0),
    "a teacher of one class": Target(3, teacher=Teacher(np.zeros((4, 1), int), np.full((4, 1), 0.5), np.full(4, 0.5))),
}


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([3, 0])], ids=["slice", "places"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_rows_of_a_target(target: Target, rows: Any) -> None:
    part = target.rows(rows)
    for name in ("labels", "soft"):
        whole = getattr(target, name)
        np.testing.assert_array_equal(getattr(part, name), None if whole is None else whole[rows])
    if isinstance(target.teacher, Teacher):
        assert [len(column) for column in part.teacher] == [2, 2, 2]
    elif target.teacher is not None:
        np.testing.assert_array_equal(part.teacher, target.teacher[rows])
    kept = ("num_classes", "class_weight", "label_smoothing", "temperature", "link")
    assert all(getattr(part, name) is getattr(target, name) for name in kept)
    assert part.num_counted is None


def test_entries_are_rows_of_two_classes() -> None:
    weight = np.array([[1.0, 2.0], [3.0, 4.0]])
    two = Target(2, soft=np.array([[0.25, 1.0]]), class_weight=weight, link="sigmoid").as_two_classes(np.zeros((1, 2)))
    np.testing.assert_array_equal(two.soft, [[0.75, 0.25], [0.0, 1.0]])
    np.testing.assert_array_equal(two.class_weight, [[1.0, 3.0], [2.0, 4.0]])
    assert two.link == "softmax"


def test_what_was_asked_is_frozen() -> None:
    problem = make_problem(np.zeros((2, 3)), np.array([0, 1]), Options())
    for record, name in (
        (problem, "evaluator"),
        (problem.evaluator, "scale"),
        (problem.evaluator.target, "labels"),
        (Options(), "weight"),
    ):
        with pytest.raises(AttributeError):
            setattr(record, name, None)
    assert problem.with_scale(2.0).evaluator.scale == 1.0
    assert problem.evaluator.scale == 0.5
