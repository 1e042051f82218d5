"""Laws of values and derivatives: formulas, autodiff, finite differences."""

from __future__ import annotations

import numpy as np

from . import naive
from .law import (
    after_the_first,
    agree,
    finite_difference,
    inside,
    law,
    product,
    row_gradients,
    row_values,
    vector_like,
)
from .tables import BY_NAME, DTYPES, HARD, ROUNDING, SOFT, VALUE_ROUNDING, LossCase, Problem
from .twins import Twin


@law(dtypes=DTYPES)
def value_is_the_formula(twin: Twin, case: LossCase, p: Problem) -> None:
    agree(row_values(twin, case, p), naive.values(p, case), 10 * VALUE_ROUNDING[p.logits.dtype.type])


@law(dtypes=DTYPES)
def gradient_is_autodiff_of_the_formula(twin: Twin, case: LossCase, p: Problem) -> None:
    agree(row_gradients(twin, case, p), naive.gradient(p, case), 10 * ROUNDING[p.logits.dtype.type])


@law(damaged=inside("value_and_grad"))
def gradient_is_a_finite_difference_of_the_value(twin: Twin, case: LossCase, p: Problem) -> None:
    difference = finite_difference(lambda z: row_values(twin, case, p, logits=z), p)
    agree(row_gradients(twin, case, p), difference, 1e-8)


@law(damaged=inside("value_grad_hess"))
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
    agree(hess, naive.hessian_diagonal(p, case), 20 * ROUNDING[p.logits.dtype.type])


@law(dtypes=(np.float64, np.float32))
def hessian_vector_product_is_autodiff_of_the_formula(twin: Twin, case: LossCase, p: Problem) -> None:
    v = vector_like(p, 1)
    want = naive.hessian_vector_product(p, case, v)
    agree(product(twin, case, p, v), want, 20 * ROUNDING[p.logits.dtype.type])


@law(settings=[HARD, SOFT, BY_NAME["every-map"]], damaged=inside("hessian_vector_product"))
def hessian_vector_product_is_a_finite_difference_of_the_gradient(twin: Twin, case: LossCase, p: Problem) -> None:
    v, h = vector_like(p, 2), 2e-3

    def moved(step: float) -> np.ndarray:
        return row_gradients(twin, case, p, logits=p.logits + step * v)

    difference = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    agree(product(twin, case, p, v), difference, 1e-8)


@law(damaged=after_the_first)
def hessian_is_symmetric(twin: Twin, case: LossCase, p: Problem) -> None:
    u, v = vector_like(p, 3), vector_like(p, 4)
    left = v * product(twin, case, p, u)
    right = u * product(twin, case, p, v)
    scale = np.abs(left).sum() + np.abs(right).sum()
    assert abs(left.sum() - right.sum()) <= 1e-13 * scale


@law(damaged=inside("hessian_vector_product"))
def products_with_unit_vectors_have_the_diagonal(twin: Twin, case: LossCase, p: Problem) -> None:
    hess = twin("value_grad_hess", p.logits, p.target, loss=case.loss, reduction="sum", **p.call)[2]
    columns = []
    for k in range(p.logits.shape[1]):
        unit = np.zeros_like(p.logits)
        unit[:, k] = 1
        columns.append(product(twin, case, p, unit)[:, k])
    agree(np.stack(columns, axis=1), hess, 1e-12)


@law(damaged=inside("value_grad_hess"), dtypes=DTYPES)
def the_three_functions_agree(twin: Twin, case: LossCase, p: Problem) -> None:
    """Value and gradient do not depend on what else is asked for."""
    value = row_values(twin, case, p)
    rtol = 4 * VALUE_ROUNDING[p.logits.dtype.type]
    for function in ("value_and_grad", "value_grad_hess"):
        result = twin(function, p.logits, p.target, loss=case.loss, reduction="none", **p.call)
        agree(result[0], value, rtol)
        agree(result[1], row_gradients(twin, case, p), 4 * ROUNDING[p.logits.dtype.type])
