"""Objectives and metrics: against difference quotients, and each library's own objective, tree by tree."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from laws.tables import LOSSES, LossCase

import crossent as ce
from crossent.boosting import Metric, Objective

ROUNDS = 50
RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 5))
Y = np.where(X[:, 0] > 0.5, 2, RNG.integers(0, 3, 600))
WEIGHTS = RNG.uniform(0.5, 2.0, 600)
WEIGHTED = pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def difference_quotient(function: Any, z: np.ndarray, step: float = 1e-5) -> np.ndarray:
    found = np.empty_like(z)
    for index in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[index] += step
        down[index] -= step
        found[index] = (function(up) - function(down))[index] / (2 * step)
    return found


@pytest.mark.parametrize("case", LOSSES, ids=str)
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_every_loss_has_the_derivatives_of_its_difference_quotients(case: LossCase, link: str) -> None:
    z = RNG.normal(size=(4, 3)) * 2
    y = np.array([0, 2, 1, 1]) if link == "softmax" else np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1]])
    weight = np.array([1.0, 2.0, 0.5, 0.0])
    objective = Objective(case.loss, link=link, prior=[0.5, 0.2, 0.3], temperature=2.0)
    if link == "softmax":
        objective = replace(objective, weight=[1.0, 3.0, 0.5])
    metric = Metric(**{name: vars(objective)[name] for name in vars(objective) if name != "hessian"})
    grad, hess = objective(y, z, weight)

    def value(at: np.ndarray) -> np.ndarray:
        return np.full(at.shape, metric.total(at, y, weight)[0])

    np.testing.assert_allclose(grad, difference_quotient(value, z), atol=1e-8)
    quotient = difference_quotient(lambda at: objective(y, at, weight)[0], z)
    np.testing.assert_allclose(hess, np.maximum(quotient, 0), atol=1e-8)
    upper = replace(objective, hessian="upper")(y, z, weight)[1]
    assert (upper >= quotient - 1e-8).all()
    if "lse" not in case.loss.reads and "entropy" not in case.loss.reads and "brier" not in case.loss.reads:
        assert (upper[weight > 0] > 0).all()
    np.testing.assert_allclose(replace(objective, hessian="gradient")(y, z, weight)[1], np.abs(grad), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_short_way_of_cross_entropy_is_p_times_one_minus_p(dtype: type) -> None:
    z, y = (RNG.normal(size=(50, 4)) * 3).astype(dtype), RNG.integers(0, 4, 50)
    s, w = RNG.uniform(size=50), np.array([1.0, 0.5, 2.0, 3.0])
    grad, hess = Objective(weight=w)(y.astype(np.float32), z, s)
    p, t, factor = softmax(z.astype(np.float64)), np.eye(4)[y], (s * w[y])[:, None]
    assert grad.dtype == hess.dtype == dtype
    atol = 3 * np.finfo(dtype).eps * 3
    np.testing.assert_allclose(grad, factor * (p - t), atol=atol)
    np.testing.assert_allclose(hess, factor * p * (1 - p), atol=atol)
    # XGBoost's tutorial has 2 p (1 - p), which is an upper bound of the whole matrix.
    upper = Objective(hessian="upper")(y, z)[1].astype(np.float64)
    for row, h in zip(p, upper, strict=True):
        assert np.linalg.eigvalsh(np.diag(h) - np.diag(row) + np.outer(row, row)).min() >= -atol


def test_focal_has_a_hessian_on_positive_rows() -> None:
    # bokbokbok 1.0.5 returns 0 for each of them.
    z, gamma = np.linspace(-3, 3, 7), 2.0
    hess = Objective(ce.Focal(gamma), link="sigmoid", hessian="upper")(np.ones(7), z)[1]
    assert (hess > 1e-6).all()


def test_multi_class_focal_gradients_of_a_row_sum_to_zero() -> None:
    # imlightgbm's (-0.798, 0.540, 0.004) does not; (-0.798, 0.675, 0.123) does.
    grad = Objective(ce.Focal(2.0))([0], RNG.normal(size=(1, 3)))[0]
    assert abs(grad.sum()) < 1e-15 < abs(grad).min()


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
    z = RNG.normal(size=(600, 3))
    np.testing.assert_array_equal(again(Y, z), objective(Y, z))
    assert pickle.loads(pickle.dumps(Metric(name="mine"))).__name__ == "mine"


class Array:
    """What crossent sees of an array on a GPU."""

    __module__ = "cupy.core"

    def __init__(self, array: np.ndarray):
        self.get = lambda: array


def test_arrays_on_a_gpu_are_copied_with_a_warning() -> None:
    z = np.zeros((2, 3), np.float32)
    with pytest.warns(UserWarning, match="copies cupy arrays"):
        grad = Objective()(np.array([0, 1]), Array(z))[0]
    assert grad.dtype == np.float32


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


@WEIGHTED
def test_xgboost_grows_the_trees_of_its_own_objectives(weight: Any) -> None:
    xgb = pytest.importorskip("xgboost")
    data = xgb.DMatrix(X, Y, weight=weight)
    shared = {"max_depth": 3, "nthread": 1}
    names = {"num_class": 3, "base_score": 0.0, **shared}
    log: dict[str, Any] = {}
    objective, metric = Objective(hessian="upper"), Metric()
    arguments = {"evals": [(data, "train")], "verbose_eval": False, "evals_result": log}
    ours = xgb.train(names, data, ROUNDS, obj=objective, custom_metric=metric, **arguments)
    found = log["train"]["crossent"]
    assert len(found) == ROUNDS
    theirs = xgb.train(names | {"objective": "multi:softprob"}, data, ROUNDS, **arguments)
    np.testing.assert_allclose(softmax(ours.predict(data, output_margin=True)), theirs.predict(data), atol=1e-6)
    np.testing.assert_allclose(found, log["train"]["mlogloss"], atol=2e-5)
    as_class = type("Tree", (Objective, xgb.objective.TreeObjective), {})(hessian="upper")
    np.testing.assert_array_equal(
        xgb.train(names, data, 5, obj=as_class).predict(data), xgb.train(names, data, 5, obj=objective).predict(data)
    )
    model = xgb.XGBClassifier(objective=objective, n_estimators=ROUNDS, base_score=0.0, max_depth=3, n_jobs=1)
    model.fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(model.predict(X, output_margin=True), ours.predict(data, output_margin=True), atol=1e-6)

    sets = np.stack([X[:, 0] > 0, X[:, 1] > 0.3], axis=1).astype(float)
    for label in (sets[:, 0], sets):
        data = xgb.DMatrix(X, label, weight=weight)
        names = shared | ({"num_target": 2} if label.ndim == 2 else {})
        ours = xgb.train(names | {"base_score": 0.0}, data, ROUNDS, obj=Objective(link="sigmoid"))
        theirs = xgb.train(shared | {"base_score": 0.5, "objective": "binary:logistic"}, data, ROUNDS)
        probabilities = 1 / (1 + np.exp(-ours.predict(data, output_margin=True)))
        np.testing.assert_allclose(probabilities, theirs.predict(data), atol=1e-6)


@WEIGHTED
def test_lightgbm_grows_the_trees_of_its_own_objectives(weight: Any) -> None:
    lgb = pytest.importorskip("lightgbm")
    shared = {"verbosity": -1, "num_threads": 1, "min_sum_hessian_in_leaf": 0.0, "boost_from_average": False}

    def train(y: np.ndarray, objective: Any, weight: Any = weight, **names: Any) -> np.ndarray:
        data = lgb.Dataset(X, y, weight=weight, params={"verbosity": -1})
        return np.asarray(lgb.train(shared | {"objective": objective} | names, data, ROUNDS).predict(X, raw_score=True))

    np.testing.assert_allclose(train(Y > 1, Objective(link="sigmoid")), train(Y > 1, "binary"), atol=1e-6)
    # Its multiclass has K/(K-1) p (1 - p). Without weights of rows the trees differ from the first one on.
    of_rows = WEIGHTS if weight is None else weight
    ours = train(Y, Objective(), of_rows, num_class=3, learning_rate=0.1 * 2 / 3)
    np.testing.assert_allclose(ours, train(Y, "multiclass", of_rows, num_class=3, learning_rate=0.1), atol=1e-6)
    model = lgb.LGBMClassifier(objective=Objective(link="sigmoid"), n_estimators=ROUNDS, n_jobs=1, verbosity=-1)
    held = {"eval_X": X, "eval_y": Y > 1}
    model.fit(X, Y > 1, sample_weight=weight, eval_metric=Metric(link="sigmoid"), **held)
    (log,) = model.evals_result_.values()
    assert log["crossent"][-1] < log["crossent"][0]
    theirs = lgb.LGBMClassifier(n_estimators=ROUNDS, n_jobs=1, verbosity=-1, boost_from_average=False)
    theirs.fit(X, Y > 1, sample_weight=weight)
    np.testing.assert_allclose(model.predict(X, raw_score=True), theirs.predict(X, raw_score=True), atol=1e-6)


@WEIGHTED
def test_catboost_grows_the_trees_of_its_own_objectives(weight: Any) -> None:
    catboost = pytest.importorskip("catboost")
    shared = {"verbose": 0, "thread_count": 1, "allow_writing_files": False, "bootstrap_type": "No"}
    shared |= {"random_strength": 0, "leaf_estimation_iterations": 1, "boost_from_average": False}

    def train(y: np.ndarray, objective: Any, rounds: int, method: str, rows: int, **names: Any) -> np.ndarray:
        model = catboost.CatBoostClassifier(
            loss_function=objective, iterations=rounds, leaf_estimation_method=method, **shared, **names
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X[:rows], y[:rows], sample_weight=None if weight is None else weight[:rows])
        return np.asarray(model.predict(X, prediction_type="RawFormulaVal"))

    ours = train(Y > 1, Objective(link="sigmoid"), ROUNDS, "Newton", 600, eval_metric=Metric(link="sigmoid"))
    np.testing.assert_allclose(ours, train(Y > 1, "Logloss", ROUNDS, "Newton", 600), atol=1e-6)
    # One call a row, so few of them. CatBoost's own Newton step for classes is another one, so here its gradient step.
    ours = train(Y, Objective(), 5, "Gradient", 100, classes_count=3, eval_metric=Metric())
    np.testing.assert_allclose(ours, train(Y, "MultiClass", 5, "Gradient", 100), atol=1e-6)
