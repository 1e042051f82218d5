"""Laws of structure: symmetries, weights, reductions, limits, propriety."""

from __future__ import annotations

from typing import Any

import numpy as np

import crossent as ce

from . import naive
from .law import (
    after_the_first,
    agree,
    law,
    only_cross_entropy,
    row_gradients,
    row_values,
)
from .tables import BY_NAME, HARD, SETTINGS, SOFT, LossCase, Problem
from .twins import Twin


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
    damaged=after_the_first,
    cases=lambda case: case.z_penalty == 0,
)
def a_constant_added_to_a_row_changes_nothing(twin: Twin, case: LossCase, p: Problem) -> None:
    shifted = p.logits + np.linspace(-64, 64, len(p.logits))[:, None]
    value, gradient = row_values(twin, case, p), row_gradients(twin, case, p)
    agree(row_values(twin, case, p, logits=shifted), value, 1e-12)
    agree(row_gradients(twin, case, p, logits=shifted), gradient, 1e-12)


@law(settings=[HARD], links=("softmax",), damaged=after_the_first, cases=lambda case: case.looks_at_target)
def class_weights_multiply(twin: Twin, case: LossCase, p: Problem) -> None:
    weight = np.linspace(0.5, 3.0, p.logits.shape[1])
    value, gradient = row_values(twin, case, p), row_gradients(twin, case, p)
    agree(row_values(twin, case, p, weight=weight), weight[p.target] * value, 1e-13)
    agree(row_gradients(twin, case, p, weight=weight), weight[p.target][:, None] * gradient, 1e-13)


@law(settings=[HARD, SOFT, BY_NAME["ignored"]], damaged=after_the_first)
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


@law(damaged=after_the_first)
def a_sum_is_the_sum_of_the_rows(twin: Twin, case: LossCase, p: Problem) -> None:
    rows = row_values(twin, case, p)
    value, gradient = twin("value_and_grad", p.logits, p.target, loss=case.loss, reduction="sum", **p.call)
    agree(value, rows.sum(), 1e-13)
    agree(gradient, naive.gradient(p, case), 1e-12)


@law(damaged=after_the_first)
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


@law(settings=[HARD, BY_NAME["weighted"], BY_NAME["smoothed"], BY_NAME["pos-weight"]], damaged=after_the_first)
def losses_add_and_scale(twin: Twin, case: LossCase, p: Problem) -> None:
    other = LossCase(ce.Focal(3.0), (("focal", 1.0, 3.0),))
    both = LossCase(2 * case.loss + other.loss * 0.25, ())
    if case.hard_only and "label_smoothing" in p.options:
        return
    value = 2 * row_values(twin, case, p) + 0.25 * row_values(twin, other, p)
    gradient = 2 * row_gradients(twin, case, p) + 0.25 * row_gradients(twin, other, p)
    agree(row_values(twin, both, p), value, 1e-13)
    agree(row_gradients(twin, both, p), gradient, 1e-13)


@law(settings=[HARD, SOFT, BY_NAME["weighted"], BY_NAME["every-map"]], links=("softmax",), damaged=after_the_first)
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
    damaged=after_the_first,
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
    damaged=after_the_first,
    cases=only_cross_entropy,
)
def limits_are_cross_entropy(twin: Twin, case: LossCase, p: Problem) -> None:
    """ε, γ, q and c → 0: at the limit to the last digits, near it to first order."""
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
