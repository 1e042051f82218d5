"""Laws of linear heads, statistics and distillation."""

from __future__ import annotations

from typing import Any

import numpy as np

import crossent as ce

from .law import (
    after_the_first,
    agree,
    finite_difference,
    inside,
    law,
    only_cross_entropy,
    row_values,
    vector_like,
)
from .tables import BY_NAME, HARD, ROUNDING, SETTINGS, SOFT, LossCase, Problem, frozen
from .twins import Twin


def _head(p: Problem, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, W, b) with X Wᵀ + b of the problem's shape."""
    n, k = p.logits.shape
    rng = np.random.default_rng(6)
    x, w, b = rng.normal(size=(n, 3)), rng.normal(size=(k, 3)), rng.normal(size=k)
    return frozen(x, dtype), frozen(w, dtype), frozen(b, dtype)


LINEAR_SETTINGS = [s for s in SETTINGS if not s.masked]


@law(settings=LINEAR_SETTINGS, dtypes=(np.float64, np.float32), damaged=inside("linear_value_and_grad"))
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


@law(settings=[HARD, SOFT, BY_NAME["smoothed"]], damaged=inside("linear_value_and_grad"))
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
    cases=only_cross_entropy,
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


@law(settings=[HARD], links=("softmax",), dtypes=(np.float64, np.float32), cases=only_cross_entropy)
def distillation_is_a_divergence_with_gradient_t_times_p_minus_t(twin: Twin, case: LossCase, p: Problem) -> None:
    teacher = frozen(np.random.default_rng(7).normal(size=p.logits.shape), p.logits.dtype)
    rtol = 100 * ROUNDING[p.logits.dtype.type]
    for temperature in (1.0, 2.5, 0.5):
        student, t = (np.exp(z.astype(np.float64) / temperature) for z in (p.logits, teacher))
        student, t = (x / x.sum(axis=1, keepdims=True) for x in (student, t))
        loss = ce.Distillation(temperature)
        value, gradient = twin("value_and_grad", p.logits, teacher, loss=loss, reduction="none")
        divergence = temperature**2 * (t * np.log(t / student)).sum(axis=1)
        agree(value, divergence, rtol)
        agree(gradient, temperature * (student - t), rtol)
        agree(twin("distillation_loss", p.logits, teacher, temperature=temperature, reduction="none"), divergence, rtol)
        v = vector_like(p, 8)
        covariance = student * v - student * (student * v).sum(axis=1, keepdims=True)
        product = twin("hessian_vector_product", p.logits, teacher, v, loss=loss, reduction="sum")
        agree(product, covariance, rtol)


@law(settings=[HARD], links=("softmax",), cases=only_cross_entropy)
def a_teacher_known_on_all_classes_but_one_is_known(twin: Twin, case: LossCase, p: Problem) -> None:
    """TopK of K - 1 classes leaves one class in the bucket: the same loss as the full distribution."""
    k = p.logits.shape[1]
    t = np.random.default_rng(9).dirichlet(np.ones(k), len(p.logits))
    indices = np.argsort(np.random.default_rng(10).random(t.shape), axis=1)[:, : k - 1]
    teacher = ce.TopK(indices, np.take_along_axis(t, indices, axis=1))
    for temperature in (1.0, 2.0):
        options = {"loss": ce.Distillation(temperature), "reduction": "none"}
        z = p.logits / temperature
        student = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        value, gradient, diagonal = twin("value_grad_hess", p.logits, teacher, **options)
        agree(value, temperature**2 * (t * np.log(t / student)).sum(axis=1), 1e-12)
        agree(gradient, temperature * (student - t), 1e-12)
        agree(diagonal, student * (1 - student), 1e-12)


@law(settings=[HARD], links=("softmax",), cases=only_cross_entropy, damaged=inside("value_grad_hess"))
def a_bucket_is_one_class_of_summed_probability(twin: Twin, case: LossCase, p: Problem) -> None:
    """Value by its formula; gradient and Hessian by finite differences."""
    t = np.random.default_rng(11).dirichlet(np.ones(4), len(p.logits))[:, :2]
    indices = np.argsort(np.random.default_rng(12).random(p.logits.shape), axis=1)[:, :2]
    teacher = ce.TopK(indices, t)
    options = {"loss": ce.Distillation(1.5), "reduction": "none"}
    value, gradient, diagonal = twin("value_grad_hess", p.logits, teacher, **options)
    z = p.logits / 1.5
    student = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    listed = np.take_along_axis(student, indices, axis=1)
    left, rest = 1 - t.sum(axis=1), 1 - listed.sum(axis=1)
    agree(value, 1.5**2 * ((t * np.log(t / listed)).sum(axis=1) + left * np.log(left / rest)), 1e-12)

    def values(z: np.ndarray) -> np.ndarray:
        return twin("value_and_grad", z, teacher, **options)[0]

    agree(gradient, finite_difference(values, p), 1e-8)
    columns = [
        finite_difference(lambda z, k=k: twin("value_and_grad", z, teacher, **options)[1][:, k], p)[:, k]
        for k in range(p.logits.shape[1])
    ]
    agree(diagonal, np.stack(columns, axis=1), 1e-8)


@law(settings=[SOFT], links=("softmax",), cases=only_cross_entropy, damaged=after_the_first)
def cross_entropy_is_entropy_plus_divergence(twin: Twin, case: LossCase, p: Problem) -> None:
    """``H(t, q) = H(t) + KL(t ‖ q)``, from logits and from distributions, in nats and in bits."""
    q = np.exp(p.logits) / np.exp(p.logits).sum(axis=1, keepdims=True)
    total = row_values(twin, case, p)
    for base, unit in (("nats", 1.0), ("bits", np.log(2))):
        parts = twin("entropy", p.target, base=base), twin("kl_divergence", p.target, q, base=base)
        agree(sum(parts), total / unit, 1e-12)
