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

from . import naive
from .tables import (
    BY_NAME,
    DTYPES,
    HARD,
    ROUNDING,
    SETTINGS,
    SOFT,
    VALUE_ROUNDING,
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


def _everywhere(call: int, function: str) -> bool:
    return True


def _after_the_first(call: int, function: str) -> bool:
    return call > 0


def _in(*functions: str) -> Where:
    return lambda call, function: function in functions


def law(
    settings: Any = SETTINGS,
    links: tuple[str, ...] = ("softmax", "sigmoid"),
    dtypes: Any = (np.float64,),
    cases: Callable[[LossCase], bool] = lambda case: True,
    damaged: Where = _everywhere,
) -> Callable:
    def register(check: Callable) -> Callable:
        name = check.__name__.replace("_", " ")
        LAWS.append(Law(check, name, tuple(settings), links, tuple(dtypes), cases, damaged))
        return check

    return register


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


# --- Values and derivatives -------------------------------------------------------------------------------------------


@law(dtypes=DTYPES)
def value_is_the_formula(twin: Twin, case: LossCase, p: Problem) -> None:
    agree(row_values(twin, case, p), naive.values(p, case), 10 * VALUE_ROUNDING[p.logits.dtype.type])


@law(dtypes=DTYPES)
def gradient_is_autodiff_of_the_formula(twin: Twin, case: LossCase, p: Problem) -> None:
    agree(row_gradients(twin, case, p), naive.gradient(p, case), 10 * ROUNDING[p.logits.dtype.type])


@law(damaged=_in("value_and_grad"))
def gradient_is_a_finite_difference_of_the_value(twin: Twin, case: LossCase, p: Problem) -> None:
    difference = finite_difference(lambda z: row_values(twin, case, p, logits=z), p)
    agree(row_gradients(twin, case, p), difference, 1e-8)


@law(damaged=_in("value_grad_hess"))
def hessian_diagonal_is_a_finite_difference_of_the_gradient(twin: Twin, case: LossCase, p: Problem) -> None:
    hess = twin("value_grad_hess", p.logits, p.target, loss=case.loss, reduction="none", **p.call)[2]
    if p.link == "sigmoid":
        agree(hess, finite_difference(lambda z: row_gradients(twin, case, p, logits=z), p), 1e-8)
        return
    columns = [
        finite_difference(lambda z, k=k: row_gradients(twin, case, p, logits=z)[:, k], p)[:, k]
        for k in range(p.logits.shape[1])
    ]
    agree(hess, np.stack(columns, axis=1), 1e-8)


@law(dtypes=(np.float64, np.float32))
def hessian_diagonal_is_autodiff_of_the_formula(twin: Twin, case: LossCase, p: Problem) -> None:
    hess = twin("value_grad_hess", p.logits, p.target, loss=case.loss, reduction="none", **p.call)[2]
    size = p.logits.size
    want = np.diagonal(naive.hessian(p, case).reshape(size, size)).reshape(p.logits.shape)
    agree(hess, want, 20 * ROUNDING[p.logits.dtype.type])


def _product(twin: Twin, case: LossCase, p: Problem, vector: np.ndarray, **changed: Any) -> np.ndarray:
    options = {"loss": case.loss, "reduction": "sum", **p.call, **changed}
    return twin("hessian_vector_product", p.logits, p.target, vector, **options)


def _vector(p: Problem, seed: int) -> np.ndarray:
    return frozen(np.random.default_rng(seed).normal(size=p.logits.shape).astype(p.logits.dtype))


@law(dtypes=(np.float64, np.float32))
def hessian_vector_product_is_autodiff_of_the_formula(twin: Twin, case: LossCase, p: Problem) -> None:
    v = _vector(p, 1)
    want = np.tensordot(naive.hessian(p, case), v.astype(np.float64), axes=2)
    agree(_product(twin, case, p, v), want, 20 * ROUNDING[p.logits.dtype.type])


@law(settings=[HARD, SOFT, BY_NAME["every-map"]], damaged=_in("hessian_vector_product"))
def hessian_vector_product_is_a_finite_difference_of_the_gradient(twin: Twin, case: LossCase, p: Problem) -> None:
    v, h = _vector(p, 2), 2e-3

    def moved(step: float) -> np.ndarray:
        return row_gradients(twin, case, p, logits=p.logits + step * v)

    difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    agree(_product(twin, case, p, v), difference, 1e-8)


@law(damaged=_after_the_first)
def hessian_is_symmetric(twin: Twin, case: LossCase, p: Problem) -> None:
    u, v = _vector(p, 3), _vector(p, 4)
    left = v * _product(twin, case, p, u)
    right = u * _product(twin, case, p, v)
    scale = np.abs(left).sum() + np.abs(right).sum()
    assert abs(left.sum() - right.sum()) <= 1e-13 * scale


@law(damaged=_in("hessian_vector_product"))
def products_with_unit_vectors_have_the_diagonal(twin: Twin, case: LossCase, p: Problem) -> None:
    hess = twin("value_grad_hess", p.logits, p.target, loss=case.loss, reduction="sum", **p.call)[2]
    columns = []
    for k in range(p.logits.shape[1]):
        unit = np.zeros_like(p.logits)
        unit[:, k] = 1
        columns.append(_product(twin, case, p, unit)[:, k])
    # at least one column is damaged in all four ways: the last one, read last
    agree(np.stack(columns, axis=1), hess, 1e-12)


@law(damaged=_in("value_grad_hess"), dtypes=DTYPES)
def the_three_functions_agree(twin: Twin, case: LossCase, p: Problem) -> None:
    """Value and gradient do not depend on what else is asked for."""
    value = row_values(twin, case, p)
    rtol = 4 * VALUE_ROUNDING[p.logits.dtype.type]
    for function in ("value_and_grad", "value_grad_hess"):
        result = twin(function, p.logits, p.target, loss=case.loss, reduction="none", **p.call)
        agree(result[0], value, rtol)
        agree(result[1], row_gradients(twin, case, p), 4 * ROUNDING[p.logits.dtype.type])


# --- Structure --------------------------------------------------------------------------------------------------------


@law(
    settings=[s for s in SETTINGS if not {"softcap", "temperature"} & s.options.keys() and s.name != "sample-weight"],
    links=("softmax",),
    cases=lambda case: case.z_penalty != 0,
)
def gradient_rows_sum_to_the_slope_in_lse(twin: Twin, case: LossCase, p: Problem) -> None:
    """``Σ_k ∂L/∂z_k = 2 λ LSE``, which is 0 for every loss without a z-penalty (see the shift law)."""
    lse = twin_free_lse(p)
    weight = p.options.get("sample_weight", np.ones(len(lse))) * p.counted
    agree(row_gradients(twin, case, p).sum(axis=1), 2 * case.z_penalty * lse * weight, 1e-13)


def twin_free_lse(p: Problem) -> np.ndarray:
    z = p.logits.astype(np.float64)
    if "prior" in p.options:
        z = z + p.options.get("prior_strength", 1.0) * np.log(p.options["prior"])
    if "margin" in p.options:
        margin = np.broadcast_to(p.options["margin"], z.shape[1])[p.target]
        z = z.copy()
        z[np.arange(len(z)), p.target] -= margin
    return np.log(np.exp(z).sum(axis=1))


@law(
    settings=[HARD, SOFT, BY_NAME["ignored"], BY_NAME["weighted-soft"]],
    links=("softmax",),
    damaged=_after_the_first,
    cases=lambda case: case.z_penalty == 0,
)
def a_constant_added_to_a_row_changes_nothing(twin: Twin, case: LossCase, p: Problem) -> None:
    shifted = p.logits + np.linspace(-64, 64, len(p.logits))[:, None]
    value, gradient = row_values(twin, case, p), row_gradients(twin, case, p)
    agree(row_values(twin, case, p, logits=shifted), value, 1e-12)
    agree(row_gradients(twin, case, p, logits=shifted), gradient, 1e-12)


@law(settings=[HARD], links=("softmax",), damaged=_after_the_first, cases=lambda case: case.looks_at_target)
def class_weights_multiply(twin: Twin, case: LossCase, p: Problem) -> None:
    weight = np.linspace(0.5, 3.0, p.logits.shape[1])
    value, gradient = row_values(twin, case, p), row_gradients(twin, case, p)
    agree(row_values(twin, case, p, weight=weight), weight[p.target] * value, 1e-13)
    agree(row_gradients(twin, case, p, weight=weight), weight[p.target][:, None] * gradient, 1e-13)


@law(settings=[HARD, SOFT, BY_NAME["ignored"]], damaged=_after_the_first)
def sample_weights_repeat_rows(twin: Twin, case: LossCase, p: Problem) -> None:
    """A row of weight k is the row k times; a row of weight 0 is not there."""
    times = np.arange(len(p.logits)) % 4
    repeated = Problem(np.repeat(p.logits, times, axis=0), np.repeat(p.target, times, axis=0), p.options, p.link)
    for reduction in ("sum", "mean"):
        options = {"loss": case.loss, "reduction": reduction, **p.call}
        value, gradient = twin("value_and_grad", repeated.logits, repeated.target, **options)
        weighted = twin("value_and_grad", p.logits, p.target, sample_weight=times.astype(float), **options)
        if p.link == "sigmoid" and reduction == "mean":
            continue  # its default mean divides by the entries, whatever the weights
        agree(weighted[0], value, 1e-13)
        summed = np.zeros(p.logits.shape)
        np.add.at(summed, np.repeat(np.arange(len(times)), times), gradient)
        agree(weighted[1], summed, 1e-13)


@law(damaged=_after_the_first)
def a_sum_is_the_sum_of_the_rows(twin: Twin, case: LossCase, p: Problem) -> None:
    rows = row_values(twin, case, p)
    value, gradient = twin("value_and_grad", p.logits, p.target, loss=case.loss, reduction="sum", **p.call)
    agree(value, rows.sum(), 1e-13)
    agree(gradient, naive.gradient(p, case), 1e-12)


@law(damaged=_after_the_first)
def a_mean_is_the_sum_over_the_normalizer(twin: Twin, case: LossCase, p: Problem) -> None:
    options = {"loss": case.loss, **p.call}
    total, gradient = twin("value_and_grad", p.logits, p.target, reduction="sum", **options)
    count = p.counted.sum()
    s = p.options.get("sample_weight", np.ones(len(p.logits)))
    if p.link == "sigmoid":
        default = count
    elif p.target.dtype.kind == "f":
        default = s.sum()
    else:
        weight = p.options.get("weight", np.ones(p.logits.shape[1]))
        default = (weight[p.target[p.counted]] * s[p.counted]).sum()
    for normalizer, denominator in ((None, default), ("count", count), (7.5, 7.5)):
        mean = twin("value_and_grad", p.logits, p.target, reduction="mean", normalizer=normalizer, **options)
        agree(mean[0], total / denominator, 1e-13)
        agree(mean[1], gradient / denominator, 1e-13)


@law(settings=[HARD, BY_NAME["weighted"], BY_NAME["smoothed"], BY_NAME["pos-weight"]], damaged=_after_the_first)
def losses_add_and_scale(twin: Twin, case: LossCase, p: Problem) -> None:
    other = LossCase(__import__("crossent").Focal(3.0), (("focal", 1.0, 3.0),))
    both = LossCase(2 * case.loss + other.loss * 0.25, ())
    if case.hard_only and "label_smoothing" in p.options:
        return
    value = 2 * row_values(twin, case, p) + 0.25 * row_values(twin, other, p)
    gradient = 2 * row_gradients(twin, case, p) + 0.25 * row_gradients(twin, other, p)
    agree(row_values(twin, both, p), value, 1e-13)
    agree(row_gradients(twin, both, p), gradient, 1e-13)


@law(settings=[HARD, SOFT, BY_NAME["weighted"], BY_NAME["every-map"]], links=("softmax",), damaged=_after_the_first)
def classes_have_no_order(twin: Twin, case: LossCase, p: Problem) -> None:
    order = np.random.default_rng(5).permutation(p.logits.shape[1])
    rank = np.argsort(order)
    target = p.target[:, order] if p.target.ndim == 2 else rank[p.target]
    options = {k: v[order] if isinstance(v, np.ndarray) else v for k, v in p.options.items()}
    q = Problem(p.logits[:, order], target, options, p.link)
    value, gradient = row_values(twin, case, p), row_gradients(twin, case, p)
    agree(row_values(twin, case, q), value, 1e-13)
    agree(row_gradients(twin, case, q), gradient[:, order], 1e-13)


@law(
    settings=[HARD, SOFT, BY_NAME["smoothed"], BY_NAME["pos-weight"], BY_NAME["ignored"]],
    links=("sigmoid",),
    damaged=_after_the_first,
)
def the_sigmoid_is_a_softmax_of_two_classes(twin: Twin, case: LossCase, p: Problem) -> None:
    z = p.logits.ravel()
    pair = np.stack([np.zeros_like(z), z], axis=1)
    target = p.target.ravel()
    if target.dtype.kind == "f":
        target = np.stack([1 - target, target], axis=1)
    options = {k: v for k, v in p.options.items() if k != "pos_weight"}
    columns = np.arange(z.size) % p.logits.shape[1]
    pos_weight = np.broadcast_to(p.options.get("pos_weight", 1.0), p.logits.shape[1])
    value, gradient = np.empty(z.size), np.empty(z.size)
    for column in range(p.logits.shape[1]):
        at = columns == column
        q = Problem(pair[at], target[at], {**options, "weight": np.array([1.0, pos_weight[column]])}, "softmax")
        value[at], gradient[at] = row_values(twin, case, q), row_gradients(twin, case, q)[:, 1]
    calls = [row_values(twin, case, p), row_gradients(twin, case, p)]
    agree(calls[0].ravel(), value, 1e-12)
    agree(calls[1].ravel(), gradient, 1e-12)


# --- Limits, propriety ------------------------------------------------------------------------------------------------


@law(
    settings=[HARD, BY_NAME["weighted"], BY_NAME["pos-weight"]],
    damaged=_after_the_first,
    cases=lambda case: str(case) == "CrossEntropy()",
)
def limits_are_cross_entropy(twin: Twin, case: LossCase, p: Problem) -> None:
    """ε, γ, q and c → 0: at the limit to the last digits, near it to first order."""
    import crossent as ce

    value, gradient = row_values(twin, case, p), row_gradients(twin, case, p)
    tiny = 1e-9
    neighbours: list[dict[str, Any]] = [
        {"loss": ce.Focal(0.0)},
        {"loss": ce.Poly1(0.0)},
        {"label_smoothing": 0.0},
        {"loss": ce.Focal(tiny)},
        {"loss": ce.Poly1(tiny)},
        {"loss": ce.GeneralizedCrossEntropy(tiny)},
        {"label_smoothing": tiny},
    ]
    for i, changed in enumerate(neighbours):
        rtol = 1e-13 if i < 3 else 1e-7
        agree(row_values(twin, case, p, **changed), value, rtol)
        agree(row_gradients(twin, case, p, **changed), gradient, rtol)


@law(settings=[SOFT], links=("softmax", "sigmoid"), cases=lambda case: str(case) in ("CrossEntropy()", "Brier()"))
def proper_losses_are_least_at_the_truth(twin: Twin, case: LossCase, p: Problem) -> None:
    """The excess over the loss at the truth t is a divergence: KL(t ‖ p), or Σ (p_k - t_k)² (sigmoid: both classes)."""
    t = p.target
    pair = np.stack([1 - t, t], axis=-1) if p.link == "sigmoid" else t
    truth = np.log(t) - np.log1p(-t) if p.link == "sigmoid" else np.log(t)
    z = np.stack([np.zeros_like(p.logits), p.logits], axis=-1) if p.link == "sigmoid" else p.logits
    q = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    if str(case) == "Brier()":
        divergence, least = ((q - pair) ** 2).sum(axis=-1), np.zeros(t.shape[: q.ndim - 1])
    else:
        divergence, least = (pair * np.log(pair / q)).sum(axis=-1), -(pair * np.log(pair)).sum(axis=-1)
    here = row_values(twin, case, p)
    assert (divergence > 0).all()
    agree(here, divergence + least, 1e-12)
    at_truth = row_values(twin, case, p, logits=truth)
    assert (here > at_truth).all()
    np.testing.assert_allclose(at_truth, least, rtol=1e-12, atol=1e-30)
    slope = row_gradients(twin, case, p, logits=truth)
    np.testing.assert_allclose(slope, 0, atol=1e-15)


# --- Linear heads, statistics, distillation ---------------------------------------------------------------------------


def _head(p: Problem, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, W, b) with X Wᵀ + b of the problem's shape."""
    n, k = p.logits.shape
    rng = np.random.default_rng(6)
    x, w, b = rng.normal(size=(n, 3)), rng.normal(size=(k, 3)), rng.normal(size=k)
    return frozen(x, dtype), frozen(w, dtype), frozen(b, dtype)


LINEAR_SETTINGS = [s for s in SETTINGS if not s.masked]


@law(settings=LINEAR_SETTINGS, dtypes=(np.float64, np.float32), damaged=_in("linear_value_and_grad"))
def a_linear_head_is_the_dense_loss_and_the_chain_rule(twin: Twin, case: LossCase, p: Problem) -> None:
    dtype = p.logits.dtype.type
    x, w, b = _head(p, dtype)
    rtol = 100 * ROUNDING[dtype]
    for bias in (None, b):
        z = x @ w.T + (0 if bias is None else bias)
        for reduction in ("mean", "sum", "none"):
            options = {"loss": case.loss, "reduction": reduction, **p.call}
            value, g = twin("value_and_grad", z, p.target, **options)
            got, gradients = twin("linear_value_and_grad", x, w, p.target, linear_bias=bias, **options)
            agree(got, value, rtol)
            agree(gradients.weight, g.T @ x, rtol)
            agree(gradients.input, g @ w, rtol)
            if bias is None:
                assert gradients.bias is None
            else:
                agree(gradients.bias, g.sum(axis=0), rtol)
            agree(twin("linear_cross_entropy", x, w, p.target, linear_bias=bias, **options), value, rtol)


@law(settings=[HARD, SOFT, BY_NAME["smoothed"]], damaged=_in("linear_value_and_grad"))
def linear_gradients_are_finite_differences(twin: Twin, case: LossCase, p: Problem) -> None:
    x, w, b = _head(p, np.float64)
    options = {"loss": case.loss, **p.call}
    _, gradients = twin("linear_value_and_grad", x, w, p.target, linear_bias=b, **options)

    def value(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> float:
        return float(twin("linear_cross_entropy", x, w, p.target, linear_bias=b, **options))

    h = 2e-3
    arguments = [x, w, b]
    for which, gradient in enumerate((gradients.input, gradients.weight, gradients.bias)):
        difference = np.empty(arguments[which].shape)
        for at in np.ndindex(difference.shape):
            moved = []
            for step in (h, -h, 2 * h, -2 * h):
                changed = arguments[which].copy()
                changed[at] += step
                moved.append(value(*[changed if i == which else a for i, a in enumerate(arguments)]))
            difference[at] = (8 * (moved[0] - moved[1]) - (moved[2] - moved[3])) / (12 * h)
        agree(gradient, difference, 1e-8)


@law(
    settings=[HARD, BY_NAME["temperature"]],
    links=("softmax",),
    dtypes=(np.float64, np.float32),
    cases=lambda case: str(case) == "CrossEntropy()",
)
def statistics_are_their_formulas(twin: Twin, case: LossCase, p: Problem) -> None:
    x, w, b = _head(p, p.logits.dtype)
    rtol = 100 * ROUNDING[p.logits.dtype.type]
    for name, z, arguments, extra in (
        ("statistics", p.logits, (p.logits,), {}),
        ("linear_statistics", x @ w.T + b, (x, w), {"linear_bias": b}),
    ):
        z = z.astype(np.float64) / p.options.get("temperature", 1.0)
        logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        got = twin(name, *arguments, p.target, **p.options, **extra)
        agree(got.lse, np.log(np.exp(z).sum(axis=1)), rtol)
        agree(got.entropy, -(np.exp(logp) * logp).sum(axis=1), rtol)
        agree(got.log_prob, logp[np.arange(len(z)), p.target], rtol)
        np.testing.assert_array_equal(got.argmax, z.argmax(axis=1))
        np.testing.assert_array_equal(got.correct, z.argmax(axis=1) == p.target)
