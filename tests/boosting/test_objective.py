"""Objectives and metrics: against the oracle, published wrong numbers, and bad input."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from laws.tables import LOSSES, LossCase
from mpmath import mp, mpf
from oracle import Options, hard_term, sigmoid_row, softmax_row

import crossent as ce
from crossent.boosting import Metric, Objective
from crossent.imbalance import class_weights

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(4, 3)) * 2
WEIGHT = np.array([1.0, 2.0, 0.5, 0.0])
TEMPERATURE, CLASS_WEIGHT, PRIOR, RATES = 2.0, [1.0, 3.0, 0.5], [0.5, 0.2, 0.3], [0.4, 0.6, 0.3]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


# What trees are grown for: raw predictions, targets, options of the objective, and whether a target is a class.
PROBLEMS: dict[str, tuple[np.ndarray, Any, dict[str, Any], bool]] = {
    "classes": (Z, np.array([0, 2, 1, 1]), {"weight": CLASS_WEIGHT, "prior": PRIOR}, True),
    "distributions": (Z, softmax(RNG.normal(size=(4, 3))), {"weight": CLASS_WEIGHT, "prior": PRIOR}, False),
    "smoothed classes": (Z, np.array([0, 2, 1, 1]), {"label_smoothing": 0.1}, False),
    "two classes": (Z[:, 0], np.array([1, 0, 0, 1]), {"link": "sigmoid", "pos_weight": 3.0}, True),
    "probabilities": (Z[:, 0], np.array([0.2, 0.7, 1.0, 0.1]), {"link": "sigmoid"}, False),
    "label sets": (Z, RNG.integers(0, 2, (4, 3)), {"link": "sigmoid", "prior": RATES}, True),
}


def oracle_rows(case: LossCase, problem: str) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """The sum of the losses, gradient and Hessian of (4, K) predictions, and f' p (1 - p) + max(f'', 0) (p - t)²."""
    z, y, options, is_hard = PROBLEMS[problem]
    shared = {"terms": case.terms, "temperature": TEMPERATURE, "label_smoothing": options.get("label_smoothing", 0.0)}
    rows, bounds = [], []
    if options.get("link") == "sigmoid":
        for i, index in enumerate(np.ndindex(z.shape)):
            prior = [options["prior"][i % 3]] if "prior" in options else None
            weight = (1.0, options.get("pos_weight", 1.0))
            rows.append(sigmoid_row(z[index], y[index], Options(**shared, prior=prior, weight=weight)))
            shift = mp.log(mpf(prior[0]) / (1 - mpf(prior[0]))) if prior else 0
            p = 1 / (1 + mp.exp(-(mpf(z[index]) / 2 + shift)))
            bounds.append(_bound(case, [p], [y[index]], [weight[int(y[index])]]) if is_hard else [0])
    else:
        for values, target in zip(z, y, strict=True):
            given = Options(**shared, prior=options.get("prior"), weight=options.get("weight"))
            rows.append(softmax_row(values, int(target) if is_hard or target.ndim == 0 else target, given))
            e = [mp.exp(mpf(x) / 2) * c for x, c in zip(values, options.get("prior", [1] * 3), strict=True)]
            p = [x / sum(e) for x in e]
            bounds.append(_bound(case, p, np.eye(3)[target], [CLASS_WEIGHT[target]] * 3) if is_hard else [0] * 3)
    found = [np.array([getattr(row, name) for row in rows], float) for name in ("gradient", "hessian")]
    factor = WEIGHT.reshape(-1, *[1] * (z.ndim - 1))
    values = np.array([float(row.value) for row in rows]).reshape(len(z), -1)
    grad, hess, bound = (factor * a.reshape(z.shape) for a in (*found, np.array(bounds, float)))
    return float((values.sum(axis=1) * WEIGHT).sum()), grad, hess, bound


def _bound(case: LossCase, p: Any, t: Any, weight: Any) -> list[Any]:
    """The bound of each entry for a loss f of -log p_y, whose derivatives the oracle knows."""
    if not is_of_nll(case):
        return [mpf(0)] * len(p)
    miss = sum((1 - p_k) if t_k else p_k * (len(p) == 1) for p_k, t_k in zip(p, t, strict=True))
    parts = [[mpf(scale) * d for d in hard_term(name, a, -mp.log(1 - miss))] for name, scale, a in case.terms]
    first, second = (sum(part[i] for part in parts) for i in (1, 2))
    return [
        w * (first * q * (1 - q) + max(second, 0) * (q - mpf(float(t_k))) ** 2) / mpf(TEMPERATURE) ** 2
        for q, t_k, w in zip(p, t, weight, strict=True)
    ]


def is_of_nll(case: LossCase) -> bool:
    return all(name in ("cross_entropy", "focal", "poly1", "gce") for name, _, _ in case.terms)


FALLING = LossCase(ce.Poly1(-3.0), (("poly1", 1.0, -3.0),))  # it falls where the likelihood of the label does


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("case", [*LOSSES, FALLING], ids=str)
def test_gradient_hessians_and_metric_are_the_oracles(case: LossCase, problem: str) -> None:
    z, y, options, is_hard = PROBLEMS[problem]
    given = {"loss": case.loss, "temperature": TEMPERATURE, **options}
    if case.hard_only and not is_hard:
        with pytest.raises((TypeError, ValueError), match="; got "):
            Objective(**given)(y, z, WEIGHT)
        return
    value, grad, hess, bound = oracle_rows(case, problem)
    found = {name: Objective(**given, hessian=name)(y, z, WEIGHT) for name in ("diagonal", "upper", "gradient")}
    for of_name, _ in found.values():
        np.testing.assert_allclose(of_name, grad, atol=1e-13)
    np.testing.assert_allclose(found["diagonal"][1], np.maximum(hess, 0), atol=1e-13)
    np.testing.assert_allclose(found["gradient"][1], np.abs(grad), atol=1e-13)
    factor = 1 if options.get("link") == "sigmoid" else 2
    assert (found["upper"][1] >= factor * hess - 1e-13).all()
    if is_hard and is_of_nll(case):
        np.testing.assert_allclose(found["upper"][1], factor * np.maximum(bound, 0), atol=1e-13)
    total, mass = Metric(**given).total(z, y, WEIGHT)
    np.testing.assert_allclose(total, value, rtol=1e-12)
    assert mass == WEIGHT.sum()


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_rows_that_are_certain_have_finite_derivatives(case: LossCase) -> None:
    for dtype in (np.float32, np.float64):
        z = np.array([[0, 1000, 0], [-60, 0, 60], [90, 0, -50], [0, 0, 1e-30]], dtype)
        for link, y in (("softmax", np.array([1, 2, 1, 0])), ("sigmoid", np.array([[0, 1, 0]] * 3 + [[1, 0, 1]]))):
            for hessian in ("upper", "diagonal"):
                grad, hess = Objective(case.loss, link=link, hessian=hessian)(y, z)
                assert np.isfinite(grad).all()
                assert (np.isfinite(hess) & (hess >= 0)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_short_way_of_cross_entropy_is_p_times_one_minus_p(dtype: type) -> None:
    z, y = (RNG.normal(size=(50, 4)) * 3).astype(dtype), RNG.integers(0, 4, 50)
    s, w = RNG.uniform(size=50), np.array([1.0, 0.5, 2.0, 3.0])
    grad, hess = Objective(weight=w, hessian="diagonal")(y.astype(np.float32), z, s)
    p, t, factor = softmax(z.astype(np.float64)), np.eye(4)[y], (s * w[y])[:, None]
    assert grad.dtype == hess.dtype == dtype
    atol = 3 * np.finfo(dtype).eps * 3
    np.testing.assert_allclose(grad, factor * (p - t), atol=atol)
    np.testing.assert_allclose(hess, factor * p * (1 - p), atol=atol)
    # XGBoost's tutorial has 2 p (1 - p), which is an upper bound of the whole matrix.
    upper = Objective()(y, z)[1].astype(np.float64)
    for row, h in zip(p, upper, strict=True):
        assert np.linalg.eigvalsh(np.diag(h) - np.diag(row) + np.outer(row, row)).min() >= -atol


# Three packages on PyPI, 2026-11: what they return for these arguments, and what the oracle says is right.
FOCAL = Options(terms=(("focal", 1.0, 2.0),))


@pytest.mark.parametrize(
    ("z", "y", "published"),
    [(-1.0, 1, 0.0), (2.0, 1, 0.0), (-1.0, 0, 0.06219451), (2.0, 0, 0.0607767)],
)
def test_the_hessian_of_focal_loss_is_not_that_of_bokbokbok(z: float, y: int, published: float) -> None:
    right = float(sigmoid_row(z, y, FOCAL).hessian[0])
    assert abs(right - published) > 0.01
    found = Objective(ce.Focal(2.0), link="sigmoid", hessian="diagonal")(np.array([y]), np.array([z]))[1]
    np.testing.assert_allclose(found, [right], rtol=1e-13)


def test_the_gradient_of_multi_class_focal_loss_is_not_that_of_imlightgbm() -> None:
    z, published = [0.3, 1.2, -0.5], (-0.798, 0.540, 0.004)
    row = softmax_row(z, 0, FOCAL)
    right = np.array(row.gradient, float)
    assert tuple(right.round(3)) == (-0.798, 0.675, 0.123)
    assert abs(sum(published)) > 0.25 > 1e-15 > abs(right.sum())
    grad, hess = Objective(ce.Focal(2.0), hessian="diagonal")([0], np.array([z]))
    np.testing.assert_allclose(grad[0], right, rtol=1e-13)
    np.testing.assert_allclose(hess[0], np.array(row.hessian, float), rtol=1e-13)


def test_class_balanced_weights_are_not_alike_as_those_of_gbdtcbl() -> None:
    y, beta, z = np.repeat([0, 1, 2], [90, 9, 1]), 0.999, np.zeros((100, 3))
    with mp.workdps(30):
        raw = [(1 - mpf(beta)) / (1 - mpf(beta) ** n) for n in (90, 9, 1)]
        right = np.array([3 * w / sum(raw) for w in raw], float)
    np.testing.assert_allclose(right, (0.031, 0.298, 2.671), atol=5e-4)
    grad = Objective(weight=class_weights(y, "effective", beta=beta))(y, z)[0]
    np.testing.assert_allclose(-grad[np.arange(100), y], right[y] * 2 / 3, rtol=1e-12)
    # gbdtCBL 0.2.0 returns -0.0609 for the true class of every row, common or rare.


def test_soft_targets_and_label_sets() -> None:
    z = RNG.normal(size=(5, 3))
    t = softmax(RNG.normal(size=(5, 3)))
    np.testing.assert_allclose(Objective()(t, z)[0], softmax(z) - t, atol=1e-15)
    np.testing.assert_allclose(Objective(target=t)(np.zeros(5), z)[0], softmax(z) - t, atol=1e-15)
    sets = (t > 0.3).astype(np.float32)
    sigma = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(Objective(link="sigmoid")(sets.ravel(), z)[0], sigma - sets, atol=1e-15)
    np.testing.assert_allclose(Objective(link="sigmoid")(t, z)[1], sigma * (1 - sigma), atol=1e-15)


def test_objectives_and_metrics_survive_pickle() -> None:
    objective = Objective(ce.Focal(1.5) + ce.ZPenalty(0.1), weight=[1.0, 2.0, 3.0], hessian="upper")
    again = pickle.loads(pickle.dumps(objective))
    z, y = RNG.normal(size=(60, 3)), RNG.integers(0, 3, 60)
    np.testing.assert_array_equal(again(y, z), objective(y, z))
    assert pickle.loads(pickle.dumps(Metric(name="mine"))).__name__ == "mine"


class OnGPU:
    """What crossent sees of an array of cupy."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.__cuda_array_interface__ = {"shape": array.shape, "typestr": array.dtype.str, "version": 3}

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def get(self) -> np.ndarray:
        return self.array


def test_arrays_on_a_gpu_are_copied_with_a_warning() -> None:
    z, y = RNG.normal(size=(2, 3)).astype(np.float32), np.array([0, 1])
    with pytest.warns(UserWarning, match="copies arrays on a GPU"):
        grad, hess = Objective()(y, OnGPU(z))
    assert grad.dtype == hess.dtype == np.float32
    np.testing.assert_array_equal(grad, Objective()(y, z)[0])


class Rows:
    """A DMatrix or a Dataset."""

    def __init__(self, label: Any, weight: Any = None, **more: Any):
        self.get_label, self.get_weight = lambda: label, lambda: weight
        vars(self).update(more)


def test_weights_count_once() -> None:
    z, y, w = RNG.normal(size=(6, 3)), RNG.integers(0, 3, 6), RNG.uniform(0.5, 2, 6)
    once = Objective()(y, z)[0] * w[:, None]
    for arguments in ((y, z, w), (z, Rows(y, w)), (3, z, Rows(y, w))):
        np.testing.assert_allclose(Objective()(*arguments)[0], once, rtol=1e-14)
    losses = ce.cross_entropy(z, y, reduction="none")
    for found in (Metric()(y, z, sample_weight=w), Metric()(z, Rows(y, w))[1], Metric()(y, z, w, None)[1]):
        np.testing.assert_allclose(found, (losses * w).sum() / w.sum(), rtol=1e-14)


@pytest.mark.parametrize(
    ("data", "link", "message"),
    [
        (Rows(np.array([0, 1])), "softmax", "got 2 rows of probabilities"),
        (Rows(np.array([0, 1]), params={"objective": "binary"}), "sigmoid", "got a booster with objective='binary'"),
        (Rows(None), "softmax", "must have labels"),
    ],
)
def test_a_metric_refuses_boosters_of_another_objective(data: Any, link: str, message: str) -> None:
    z = softmax(RNG.normal(size=(2, 3)))
    with pytest.raises(ValueError, match=message):
        Metric(link=link)(z if link == "softmax" else z[:, 0], data)
    assert Metric()(np.zeros((2, 3)), Rows(np.array([0, 1]), params={"objective": "none"}))[0] == "crossent"


@pytest.mark.parametrize(
    ("label", "raw", "weight", "message"),
    [
        ([1, 2, 3], np.zeros((3, 3)), None, r"labels must be whole numbers in 0\.\.2; got 3.* in row 2"),
        ([-1.0, 2, 0], np.zeros((3, 3)), None, r"in 0\.\.2; got -1\.0 in row 0"),
        ([0.5, 2, 0], np.zeros((3, 3)), None, r"in 0\.\.2; got 0\.5 in row 0"),
        ([0, np.nan, 0], np.zeros((3, 3)), None, "labels must be numbers; got nan in row 1"),
        ([0, 1], np.zeros((3, 3)), None, "targets must be labels or one number"),
        ([0, 1, 0], np.zeros((3, 3)), [1, -1, 1], "sample_weight"),
        ([0, 1, 0], np.array([[0.0, np.nan, 0.0]] * 3), None, "raw predictions must be finite; got .* in row 0"),
        ([0, 1, 0], np.zeros(3), None, "needs a prediction for each class"),
        ([0, 1e30, 0], np.zeros((3, 3)), None, r"in 0\.\.2; got 1e\+30 in row 1"),
    ],
)
def test_bad_input_is_refused(label: Any, raw: Any, weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective()(np.asarray(label), raw, weight)


@pytest.mark.parametrize(
    "options",
    [{"link": "logit"}, {"hessian": "exact"}, {"loss": ce.Distillation(2.0)}, {"link": "sigmoid", "weight": [1, 2]}],
    ids=str,
)
def test_bad_options_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="; got "):
        Objective(**options)


def test_a_prior_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="prior must be positive; got 0 for class 1"):
        Objective(prior=[0.5, 0.0, 0.5])(np.array([0]), np.zeros((1, 3)))
