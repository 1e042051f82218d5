"""The laws: what has to hold for every loss, twin, setting and dtype, whatever the code looks like.

A law takes a twin and one row of each table and raises AssertionError if it is broken. Each says where a broken twin
is to be damaged so that the law must notice (``test_teeth.py``): everywhere, in one function, or from the second call
on for laws that compare two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import crossent as ce

from .tables import (
    SETTINGS,
    LossCase,
    Problem,
    Setting,
    applies,
    frozen,
    problem,
)
from .twins import Twin

Where = Callable[[int, str], bool]


@dataclass(frozen=True)
class Law:
    check: Callable[[Twin, LossCase, Problem], None]
    name: str
    settings: tuple[Setting, ...]
    links: tuple[str, ...]
    dtypes: tuple[Any, ...]
    cases: Callable[[LossCase], bool]
    damaged: Where

    def __str__(self) -> str:
        return self.name

    def problems(self, case: LossCase) -> Iterator[tuple[str, Problem]]:
        """Every problem of the tables that the law speaks about, with a name."""
        for setting in self.settings:
            for link in self.links:
                for dtype in self.dtypes:
                    if self.cases(case) and applies(case, setting, link):
                        yield f"{case}, {setting}, {link}, {np.dtype(dtype)}", problem(setting, link, dtype)

    def hold(self, twin: Twin, case: LossCase) -> int:
        """Check every problem; return their number."""
        count = 0
        for name, drawn in self.problems(case):
            count += 1
            try:
                self.check(twin, case, drawn)
            except Exception as error:
                error.add_note(f"law {self.name!r}, twin {twin}: {name}")
                raise
        return count


LAWS: list[Law] = []


def everywhere(call: int, function: str) -> bool:
    return True


def after_the_first(call: int, function: str) -> bool:
    return call > 0


def inside(*functions: str) -> Where:
    return lambda call, function: function in functions


def law(
    settings: Any = SETTINGS,
    links: tuple[str, ...] = ("softmax", "sigmoid"),
    dtypes: Any = (np.float64,),
    cases: Callable[[LossCase], bool] = lambda case: True,
    damaged: Where = everywhere,
) -> Callable:
    def register(check: Callable) -> Callable:
        name = check.__name__.replace("_", " ")
        LAWS.append(Law(check, name, tuple(settings), links, tuple(dtypes), cases, damaged))
        return check

    return register


def only_cross_entropy(case: LossCase) -> bool:
    return case.loss == ce.CrossEntropy()


def agree(got: Any, want: Any, rtol: float) -> None:
    """Equal up to `rtol` of the largest entry wanted; if all are 0, equal."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, f"shape {got.shape}, not {want.shape}"
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.max(np.abs(want), initial=0.0))


def row_values(twin: Twin, case: LossCase, p: Problem, **changed: Any) -> np.ndarray:
    """The unreduced losses."""
    function = "cross_entropy" if p.link == "softmax" else "binary_cross_entropy_with_logits"
    logits, target = changed.pop("logits", p.logits), changed.pop("target", p.target)
    return twin(function, logits, target, **{"loss": case.loss, "reduction": "none", **p.options, **changed})


def row_gradients(twin: Twin, case: LossCase, p: Problem, **changed: Any) -> np.ndarray:
    logits, target = changed.pop("logits", p.logits), changed.pop("target", p.target)
    return twin("value_and_grad", logits, target, **{"loss": case.loss, "reduction": "none", **p.call, **changed})[1]


def finite_difference(f: Callable[[np.ndarray], np.ndarray], p: Problem, step: float = 2e-3) -> np.ndarray:
    """∂f/∂z by fourth-order differences, f mapping logits to one number per row (softmax) or entry (sigmoid)."""
    z = p.logits.astype(np.float64)
    if p.link == "sigmoid":
        return (8 * (f(z + step) - f(z - step)) - (f(z + 2 * step) - f(z - 2 * step))) / (12 * step)
    derivative = np.empty_like(z)
    for k in range(z.shape[1]):
        e = step * np.eye(z.shape[1])[k]
        derivative[:, k] = (8 * (f(z + e) - f(z - e)) - (f(z + 2 * e) - f(z - 2 * e))) / (12 * step)
    return derivative


def product(twin: Twin, case: LossCase, p: Problem, vector: np.ndarray, **changed: Any) -> np.ndarray:
    options = {"loss": case.loss, "reduction": "sum", **p.call, **changed}
    return twin("hessian_vector_product", p.logits, p.target, vector, **options)


def vector_like(p: Problem, seed: int) -> np.ndarray:
    return frozen(np.random.default_rng(seed).normal(size=p.logits.shape).astype(p.logits.dtype))
