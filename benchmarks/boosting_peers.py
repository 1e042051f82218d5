"""What `make bench-boosting` compares: XGBoost's tutorial, the libraries' own objectives, and published packages."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import catboost
import lightgbm as lgb
import numpy as np
import xgboost as xgb
from scipy.special import expit, softmax

import crossent as ce
from crossent.boosting import BoostedClassifier, Metric, Objective
from crossent.imbalance import class_weights

ROUNDS, PATIENCE, RATE = 300, 20, 0.1
Data = tuple[np.ndarray, np.ndarray]
Fit = Callable[[Data, Data, Data], np.ndarray]


def tutorial_loop(z: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """XGBoost 3.2's example of a custom softmax objective: a loop over rows and classes, in doubles."""
    rows, classes = z.shape
    grad, hess = np.zeros((rows, classes)), np.zeros((rows, classes))
    for r in range(rows):
        e = np.exp(z[r])
        p = e / e.sum()
        target = label[r]
        for c in range(classes):
            grad[r, c] = p[c] - 1.0 if c == target else p[c]
            hess[r, c] = max(2.0 * p[c] * (1.0 - p[c]), 1e-6)
    return grad, hess


def tutorial_numpy(z: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same formula on whole arrays, in the dtype of the predictions, with the shift that keeps it finite."""
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    grad = p.copy()
    grad[np.arange(len(z)), label.astype(np.int64)] -= 1
    return grad, np.maximum(2 * p * (1 - p), 1e-6)


def _probabilities(raw: np.ndarray) -> np.ndarray:
    if raw.ndim == 2:
        return np.asarray(softmax(raw.astype(np.float64), axis=1))
    p = expit(raw.astype(np.float64))
    return np.column_stack([1 - p, p])


def _link(classes: int) -> str:
    return "sigmoid" if classes == 2 else "softmax"


def _xgboost(objective: Any, classes: int) -> Fit:
    """Return how XGBoost is trained with an objective of its own (a name) or another."""

    def fit(train: Data, valid: Data, test: Data) -> np.ndarray:
        a, b, c = (xgb.DMatrix(X, y) for X, y in (train, valid, test))
        names: dict[str, Any] = {"learning_rate": RATE, "max_depth": 4, "nthread": 1}
        names |= {"num_class": classes} if classes > 2 else {}
        given: dict[str, Any] = {"evals": [(b, "valid")], "early_stopping_rounds": PATIENCE, "verbose_eval": False}
        if isinstance(objective, str):
            model = xgb.train(names | {"objective": objective}, a, ROUNDS, **given)
        else:
            names |= {"base_score": 0.0, "disable_default_eval_metric": True}
            metric = Metric(link=_link(classes))
            model = xgb.train(names, a, ROUNDS, obj=objective, custom_metric=metric, **given)
        return _probabilities(model.predict(c, output_margin=True, iteration_range=(0, model.best_iteration + 1)))

    return fit


def _lightgbm(objective: Any, classes: int) -> Fit:
    """Return how LightGBM is trained; an objective may be a function of the training labels that returns one."""

    def fit(train: Data, valid: Data, test: Data) -> np.ndarray:
        names: dict[str, Any] = {"learning_rate": RATE, "num_leaves": 15, "num_threads": 1, "verbosity": -1}
        names |= {"num_class": classes} if classes > 2 else {}
        chosen = objective(train[1]) if getattr(objective, "of_labels", False) else objective
        data = lgb.Dataset(*train, params={"verbosity": -1})
        model = lgb.train(
            names | {"objective": chosen, "metric": "" if isinstance(chosen, str) else "none"},
            *(data, ROUNDS),
            valid_sets=[lgb.Dataset(*valid, reference=data)],
            feval=None if isinstance(chosen, str) else Metric(link=_link(classes)),
            callbacks=[lgb.early_stopping(PATIENCE, verbose=False)],
        )
        return _probabilities(np.asarray(model.predict(test[0], raw_score=True)))

    return fit


def _cat(**options: Any) -> catboost.CatBoostClassifier:
    names = {"iterations": ROUNDS, "learning_rate": RATE, "depth": 4, "thread_count": 1, "verbose": 0}
    return catboost.CatBoostClassifier(allow_writing_files=False, **names, **options)


def _catboost(objective: Any, metric: Any) -> Fit:
    """Return how CatBoost is trained with an objective of its own (a name) or another."""

    def fit(train: Data, valid: Data, test: Data) -> np.ndarray:
        method = {} if isinstance(objective, str) else {"leaf_estimation_method": "Newton"}
        model = _cat(loss_function=objective, eval_metric=metric, early_stopping_rounds=PATIENCE, **method)
        model.fit(*train, eval_set=valid)
        return _probabilities(np.asarray(model.predict(test[0], prediction_type="RawFormulaVal")))

    return fit


def _classifier(estimator: Any) -> Fit:
    """Return how crossent's classifier around a library's is trained; it starts at the log prior."""

    def fit(train: Data, valid: Data, test: Data) -> np.ndarray:
        model = BoostedClassifier(estimator, early_stopping_rounds=PATIENCE).fit(*train, eval_set=valid)
        return np.asarray(model.predict_proba(test[0]))

    return fit


def _ours(classes: int) -> dict[str, Objective]:
    link = _link(classes)
    return {"crossent": Objective(link=link), "crossent, focal": Objective(ce.Focal(2.0), link=link)}


def xgboost_contenders(classes: int) -> dict[str, Fit]:
    """Return own objective, crossent's, and the packages that are installed."""
    found: dict[str, Any] = {"own": "multi:softprob" if classes > 2 else "binary:logistic"} | _ours(classes)
    if classes == 2 and find_spec("bokbokbok"):
        from bokbokbok.loss_functions.classification import WeightedFocalLoss

        found["bokbokbok, focal"] = WeightedFocalLoss(alpha=1.0, gamma=2.0)
    if classes == 2 and find_spec("imxgboost"):
        from imxgboost.focal_loss import Focal_Binary_Loss

        found["imbalance-xgboost, focal"] = Focal_Binary_Loss(2.0).focal_binary_object
    fits = {name: _xgboost(objective, classes) for name, objective in found.items()}
    estimator = xgb.XGBClassifier(n_estimators=ROUNDS, learning_rate=RATE, max_depth=4, n_jobs=1)
    return fits | {"`BoostedClassifier`": _classifier(estimator)}


def lightgbm_contenders(classes: int) -> dict[str, Fit]:
    """Return own objective, crossent's, and the packages that are installed."""
    found: dict[str, Any] = {"own": "multiclass" if classes > 2 else "binary"} | _ours(classes)
    if find_spec("imlightgbm"):
        from imlightgbm.objective import binary_focal_lgb_objective, multiclass_focal_lgb_objective

        def focal(raw: Any, data: Any) -> Any:
            if classes == 2:
                return binary_focal_lgb_objective(raw, data, 2.0)
            return multiclass_focal_lgb_objective(raw, data, 2.0, classes)

        found["imlightgbm, focal"] = focal
    if classes > 2:
        found["crossent, effective number"] = _balanced
    if classes > 2 and find_spec("gbdtCBL"):
        from gbdtCBL.lgbmulti import LGBCBEMulti, LGBFLMulti

        for name, theirs in (("gbdtCBL, focal", LGBFLMulti(2.0)), ("gbdtCBL, effective number", LGBCBEMulti(0.999))):
            found[name] = lambda raw, data, theirs=theirs: theirs(data.get_label().astype(int), raw)
    fits = {name: _lightgbm(objective, classes) for name, objective in found.items()}
    estimator = lgb.LGBMClassifier(
        n_estimators=ROUNDS, learning_rate=RATE, num_leaves=15, n_jobs=1, verbosity=-1, min_child_samples=20
    )
    return fits | {"`BoostedClassifier`": _classifier(estimator)}


def _balanced(y: np.ndarray) -> Objective:
    return Objective(weight=class_weights(y, "effective", beta=0.999, classes=int(y.max()) + 1))


_balanced.of_labels = True  # type: ignore[attr-defined]


def catboost_contenders(classes: int) -> dict[str, Fit]:
    """Return own objective and crossent's; of several classes, CatBoost calls a custom objective row by row."""
    if classes > 2:
        return {"own": _catboost("MultiClass", "MultiClass"), "`BoostedClassifier`": _classifier(_cat())}
    fits = {name: _catboost(objective, Metric(link="sigmoid")) for name, objective in _ours(2).items()}
    return {"own": _catboost("Logloss", "Logloss"), **fits, "`BoostedClassifier`": _classifier(_cat())}


LIBRARIES: dict[str, Callable[[int], dict[str, Fit]]] = {
    "XGBoost": xgboost_contenders,
    "LightGBM": lightgbm_contenders,
    "CatBoost": catboost_contenders,
}
