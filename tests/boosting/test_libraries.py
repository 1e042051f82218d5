"""Trees of XGBoost, LightGBM and CatBoost: those of each library's own objective."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from crossent.boosting import Metric, Objective

ROUNDS = 50
RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 5))
Y = np.where(X[:, 0] > 0.5, 2, RNG.integers(0, 3, 600))
SETS = np.stack([X[:, 0] > 0, X[:, 1] > 0.3], axis=1).astype(float)
WEIGHTS = RNG.uniform(0.5, 2.0, 600)
WEIGHTED = pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


@WEIGHTED
def test_xgboost_grows_the_trees_of_its_own_objectives(weight: Any) -> None:
    xgb = pytest.importorskip("xgboost")
    data = xgb.DMatrix(X, Y, weight=weight)
    shared = {"max_depth": 3, "nthread": 1}
    names = {"num_class": 3, "base_score": 0.0, **shared}
    log: dict[str, Any] = {}
    objective, metric = Objective(), Metric()
    arguments = {"evals": [(data, "train")], "verbose_eval": False, "evals_result": log}
    ours = xgb.train(names, data, ROUNDS, obj=objective, custom_metric=metric, **arguments)
    found = log["train"]["crossent"]
    assert len(found) == ROUNDS
    theirs = xgb.train(names | {"objective": "multi:softprob"}, data, ROUNDS, **arguments)
    np.testing.assert_allclose(softmax(ours.predict(data, output_margin=True)), theirs.predict(data), atol=1e-6)
    np.testing.assert_allclose(found, log["train"]["mlogloss"], atol=2e-5)
    as_class = type("Tree", (Objective, xgb.objective.TreeObjective), {})()
    np.testing.assert_array_equal(
        xgb.train(names, data, 5, obj=as_class).predict(data), xgb.train(names, data, 5, obj=objective).predict(data)
    )
    model = xgb.XGBClassifier(objective=objective, n_estimators=ROUNDS, base_score=0.0, max_depth=3, n_jobs=1)
    model.fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(model.predict(X, output_margin=True), ours.predict(data, output_margin=True), atol=1e-6)

    for label in (SETS[:, 0], SETS):
        data = xgb.DMatrix(X, label, weight=weight)
        names = shared | ({"num_target": 2} if label.ndim == 2 else {})
        ours = xgb.train(names | {"base_score": 0.0}, data, ROUNDS, obj=Objective(link="sigmoid"))
        theirs = xgb.train(shared | {"base_score": 0.5, "objective": "binary:logistic"}, data, ROUNDS)
        probabilities = 1 / (1 + np.exp(-ours.predict(data, output_margin=True)))
        np.testing.assert_allclose(probabilities, theirs.predict(data), atol=1e-6)


class TimesThreeHalves(Objective):
    def __call__(self, *arguments: Any) -> Any:
        grad, hess = super().__call__(*arguments)
        return grad, 1.5 * hess


@WEIGHTED
def test_lightgbm_grows_the_trees_of_its_own_objectives(weight: Any) -> None:
    lgb = pytest.importorskip("lightgbm")
    shared = {"verbosity": -1, "num_threads": 1, "min_sum_hessian_in_leaf": 0.0, "boost_from_average": False}

    def train(y: np.ndarray, objective: Any, **names: Any) -> np.ndarray:
        data = lgb.Dataset(X, y, weight=weight, params={"verbosity": -1})
        return np.asarray(lgb.train(shared | {"objective": objective} | names, data, ROUNDS).predict(X, raw_score=True))

    np.testing.assert_allclose(train(Y > 1, Objective(link="sigmoid")), train(Y > 1, "binary"), atol=1e-6)
    # Its multiclass has K/(K-1) p (1 - p).
    own = train(Y, "multiclass", num_class=3)
    np.testing.assert_allclose(train(Y, TimesThreeHalves(hessian="diagonal"), num_class=3), own, atol=1e-6)
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
    # Label sets need CatBoost's own base classes.
    of_sets = type("Sets", (Objective, catboost.MultiTargetCustomObjective), {})(link="sigmoid")
    metric = type("SetsLoss", (Metric, catboost.MultiTargetCustomMetric), {})(link="sigmoid")
    for method in ("Gradient", "Newton"):
        names = shared | {"leaf_estimation_method": method, "iterations": 5}
        found = []
        for objective, judge in ((of_sets, metric), ("MultiLogloss", None)):
            model = catboost.CatBoost(names | {"loss_function": objective, "eval_metric": judge or "MultiLogloss"})
            found.append(
                model.fit(X[:100], SETS[:100], sample_weight=None if weight is None else weight[:100]).predict(X)
            )
        np.testing.assert_allclose(*found, atol=1e-6)
