"""Distillation, KL and JS: far apart, near equality and equal, judged by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
from oracle import Row

import crossent as ce

from .errors import Errors, Key
from .judge import DIVERGENCE_BAR, DTYPES, GRADIENT_BAR, HESSIAN_BAR, slack_of

Rows = tuple[np.ndarray, np.ndarray]
"""A student's logits and a teacher's, (N, K)."""
Function = Callable[..., Any]
TEMPERATURES = (1e-3, 0.1, 1.0, 20.0, 1e3, 1e4)
DIFFERENCES = (1e-15, 1e-12, 1e-8, 1e-4, 1e-2, 0.1, 1.0)


@dataclass(frozen=True)
class Family:
    """A name, the temperatures it is tried at, and how to draw students and teachers for one of them."""

    name: str
    draw: Callable[[np.random.Generator, int, float], Rows]
    temperatures: Sequence[float] = TEMPERATURES

    def problems(self, dtype: Any, num_rows: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Student, teacher and temperature, `num_rows` rows for each temperature."""
        for i, temperature in enumerate(self.temperatures):
            rng = np.random.default_rng([seed, i, *self.name.encode()])
            student, teacher = self.draw(rng, num_rows, temperature)
            yield student.astype(dtype), teacher.astype(dtype), temperature


def _teacher(rng: np.random.Generator, n: int, k: int, temperature: float) -> np.ndarray:
    """Logits that are spread out at their temperature or, if that is high, as logits are."""
    return rng.normal(scale=rng.choice([0.5, 4.0, 20.0], (n, 1)), size=(n, k)) * min(1.0, temperature)


def _near(rng: np.random.Generator, n: int, temperature: float) -> Rows:
    v = _teacher(rng, n, int(rng.choice([2, 3, 10])), temperature)
    return v * (1 + rng.choice(DIFFERENCES, (n, 1)) * rng.normal(size=v.shape)), v


def _one_differs(rng: np.random.Generator, n: int, temperature: float) -> Rows:
    v = np.zeros((n, int(rng.choice([2, 10, 60]))))
    z = v.copy()
    z[np.arange(n), rng.integers(0, v.shape[1], n)] = rng.normal(size=n) * rng.choice([1e-4, 0.1, 5.0], n)
    return z * min(1.0, temperature), v


def _shifted(rng: np.random.Generator, n: int, temperature: float) -> Rows:
    v = np.rint(_teacher(rng, n, 5, temperature) * 64 / min(1.0, temperature)) / 64
    return v + rng.choice([1.0, -1e3, 1e5], (n, 1)), v


def _nearly_shifted(rng: np.random.Generator, n: int, temperature: float) -> Rows:
    z, v = _shifted(rng, n, temperature)
    return z + rng.choice([1e-2, 0.5], (n, 1)) * rng.normal(size=v.shape) * min(1.0, temperature), v


def _far(rng: np.random.Generator, n: int, temperature: float) -> Rows:
    v = _teacher(rng, n, int(rng.choice([2, 5, 10])), temperature)
    return rng.permuted(v, axis=1) * rng.choice([1.0, 3.0], (n, 1)), v


def _confident(rng: np.random.Generator, n: int, temperature: float) -> Rows:
    v = rng.normal(size=(n, 4)) * temperature
    v[:, 0] += rng.choice([20.0, 40.0, 300.0], n) * temperature
    z = v + rng.normal(size=v.shape) * temperature
    z[: n // 2, 1] += 30.0 * temperature
    return z, v


def _masked(rng: np.random.Generator, n: int, temperature: float) -> Rows:
    z, v = _near(rng, n, temperature)
    z, v = np.pad(z, ((0, 0), (0, 2))), np.pad(v, ((0, 0), (0, 2)))
    v[:, -1] = -np.inf
    z[: n // 2, -1] = -np.inf
    z[: n // 4, 0] = -np.inf  # a class that the teacher has: an infinite loss
    return z, v


FAMILIES = [
    Family("near equality", _near),
    Family("one class differs", _one_differs),
    Family("shifted by a constant", _shifted),
    Family("nearly shifted by a constant", _nearly_shifted, (0.1, 1.0, 20.0, 1e4)),
    Family("far apart", _far),
    Family("confident teacher", _confident, (1.0, 20.0)),
    Family("masked classes", _masked, (1.0, 20.0)),
]


def _errors(dtype: Any) -> Errors:
    return Errors({"value": DIVERGENCE_BAR[dtype], "gradient": GRADIENT_BAR[dtype], "diagonal": HESSIAN_BAR})


def distilled(student: np.ndarray, teacher: np.ndarray, temperature: float) -> Any:
    """Value, gradient and Hessian diagonal of the rows."""
    loss = ce.Distillation(temperature)
    value, gradient = ce.value_and_grad(student, teacher, loss=loss, reduction="none")
    return value, gradient, ce.value_grad_hess(student, teacher, loss=loss, reduction="none").hess


def distillation(
    num_rows: int, function: Function = distilled, families: Sequence[Family] = FAMILIES
) -> dict[Key, Errors]:
    """A teacher's logits: value by itself, gradient by what it is a sum of near equality."""
    found = {}
    for family in families:
        for dtype in DTYPES:
            errors = found["Distillation", family.name, np.dtype(dtype).name] = _errors(dtype)
            for student, teacher, temperature in family.problems(dtype, num_rows):
                rows = [oracle.distilled_row(z, v, temperature) for z, v in zip(student, teacher, strict=True)]
                slack = slack_of(student.shape[1], dtype, max(1.0, temperature**2))
                errors.judge(function(student, teacher, temperature), rows, dtype, slack)
    return found


def many_classes(counts: Sequence[int]) -> dict[Key, Errors]:
    """Teachers of many classes, near and far."""
    found = {}
    for dtype in DTYPES:
        errors = found["Distillation", "many classes", np.dtype(dtype).name] = _errors(dtype)
        for k in counts:
            rng = np.random.default_rng(k)
            v = rng.normal(scale=2.0, size=(3, k)).astype(dtype)
            z = (v + rng.normal(size=v.shape) * np.array([[1e-5], [0.1], [2.0]])).astype(dtype)
            rows = [oracle.distilled_row(a, b, 2.0) for a, b in zip(z, v, strict=True)]
            errors.judge(distilled(z, v, 2.0), rows, dtype, slack_of(k, dtype, 4.0))
    return found


def top_k(num_rows: int) -> dict[Key, Errors]:
    """Teachers known on some classes, near the student's probabilities and far: judged by ``Σ t |log(t/p)|``."""
    found = {}
    for dtype in DTYPES:
        errors = found["Distillation", "top-k teacher", np.dtype(dtype).name] = _errors(dtype)
        for i, temperature in enumerate((0.1, 1.0, 3.0, 20.0)):
            rng = np.random.default_rng([i, 23])
            z = _teacher(rng, num_rows, 5, temperature).astype(dtype)
            others = z * (1 + rng.choice([1e-9, 1e-4, 0.3], (num_rows, 1)) * rng.normal(size=z.shape))
            t = ce.softmax(others.astype(np.float64) / temperature).astype(dtype)
            indices = np.argsort(rng.random(z.shape), axis=1)[:, :2]
            listed = np.take_along_axis(t, indices, axis=1)
            has_rest = 1 - listed.sum(axis=1) > 1e-5  # less is what rounding left of a full list, and no mass
            z, indices, listed = z[has_rest], indices[has_rest], listed[has_rest]
            pairs = zip(z, indices.tolist(), listed.tolist(), strict=True)
            rows = [oracle.distillation_row(row, (where, of), temperature) for row, where, of in pairs]
            loss = ce.Distillation(temperature)
            results = ce.value_and_grad(z, ce.TopK(indices, listed), loss=loss, reduction="none")
            errors.judge(results, rows, dtype, slack_of(5, dtype, max(1.0, temperature**2)))
    return found


MEASURES = {"KL": (ce.kl_divergence, oracle.divergence), "JS": (ce.js_divergence, oracle.js_divergence)}


def measures(repeats: int, functions: dict[str, Function] | None = None) -> dict[Key, Errors]:
    """KL and JS of probabilities apart by all orders of magnitude, an ulp, and nothing."""
    found = {}
    for name, (function, exact) in MEASURES.items():
        ours = (functions or {}).get(name, function)
        for dtype in DTYPES:
            errors = found[name, "divergences of probabilities", np.dtype(dtype).name] = _errors(dtype)
            for seed in range(repeats):
                rng = np.random.default_rng([seed, 29])
                k = (2, 3, 10, 300)[seed % 4]
                p = np.maximum(rng.dirichlet(np.full(k, (0.1, 1.0, 10.0)[seed % 3])), 1e-30).astype(dtype)
                apart = (0.0, *DIFFERENCES)[seed // 4 % 8]
                q = (p * np.exp(apart * rng.normal(size=k))).astype(dtype)
                q[rng.integers(k)] *= 1 + np.finfo(dtype).eps * (seed % 5 == 0)
                p, q = np.minimum(p, dtype(1)), np.minimum(q, dtype(1))
                value = exact(p, q)
                errors.judge(([ours(p, q)],), [Row(value, value_scale=value)], dtype, slack_of(k, dtype), 1)
    return found
