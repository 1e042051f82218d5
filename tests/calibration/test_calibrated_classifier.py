"""CalibratedClassifier: scikit-learn's own checks, classifiers that say 0, label sets, and what it refuses."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from crossent.calibration.classifier import METHODS, Scores
from crossent.metrics import log_loss
from crossent.sklearn import CalibratedClassifier, MatrixScaling, PlattScaling, TemperatureScaling

CLASSIFIERS = {
    "forest": RandomForestClassifier(10, random_state=0),
    "neighbours": KNeighborsClassifier(),
    "naive Bayes": GaussianNB(),
    "tree": DecisionTreeClassifier(random_state=0),
    "weak logistic": LogisticRegression(C=1e-4),
}


def test_scikit_learn_takes_it_for_a_classifier() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(CalibratedClassifier(LogisticRegression(), cv=3), on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_method_calibrates_every_classifier(name: str, method: str, classes: int) -> None:
    """Votes of exactly 0, log-probabilities that underflow as probabilities, logits that all lie between 0 and 1."""
    rng = np.random.default_rng(0)
    y = (rng.random(240) < 0.35).astype(int) if classes == 2 else rng.integers(3, size=240)
    X = rng.normal(size=(240, 3)) + 1.2 * np.eye(3)[y]
    model = CalibratedClassifier(CLASSIFIERS[name], method=method, cv=3).fit(X[:160], y[:160])
    probabilities = model.predict_proba(X[160:])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-9)
    prior = np.bincount(y[:160]) / 160
    np.testing.assert_allclose(model.predict_proba(X[160:163]), probabilities[:3], rtol=1e-9)
    if name == "weak logistic":  # its intercept, which differs between folds, says more than its features
        return
    loss = log_loss(y[160:], probabilities, labels=np.arange(classes))
    assert loss < log_loss(y[160:], np.tile(prior, (80, 1)), labels=np.arange(classes)) + 0.1


def test_a_calibrated_forest_beats_the_forest() -> None:
    X, y = load_digits(return_X_y=True)
    forest = RandomForestClassifier(20, random_state=0)
    plain = log_loss(y[600:1200], forest.fit(X[:600], y[:600]).predict_proba(X[600:1200]), clip=1e-15)
    model = CalibratedClassifier(forest, cv=3).fit(X[:600], y[:600])
    assert model.floor_ == pytest.approx(0.5 / 20)
    assert log_loss(y[600:1200], model.predict_proba(X[600:1200])) < plain - 0.1


def test_weak_logits_between_0_and_1_are_logits() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 2))
    y = (rng.random(300) < 0.65).astype(int)
    weak = LogisticRegression(C=1e-4).fit(X, y)
    z = weak.decision_function(X)
    assert z.min() > 0
    assert z.max() < 1
    for method in ("temperature", PlattScaling()):
        CalibratedClassifier(weak, method=method, cv="prefit").fit(X, y).predict_proba(X)
    with pytest.raises(ValueError, match="input='any-logits'"):
        PlattScaling().fit(z, y)
    fitted = PlattScaling(input="any-logits").fit(z, y)
    strict = PlattScaling().fit(z - 1, y)
    np.testing.assert_allclose(strict.predict_proba(z - 1), fitted.predict_proba(z), rtol=1e-6)
    assert strict.predict_proba(np.linspace(0, 1, 25)).shape == (25, 2)  # whatever the size of the batch
    with pytest.raises(ValueError, match="looks like probabilities"):
        strict.fit(np.linspace(0, 1, 300), y)  # a second fit looks again


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", ["temperature", "vector", "platt", "isotonic", TemperatureScaling(link="sigmoid")])
@pytest.mark.parametrize("name", ["one-vs-rest", "forest"])
def test_label_sets(name: str, method: Any) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 3))
    sets = (rng.random((300, 3)) < 1 / (1 + np.exp(-3 * X))).astype(int)
    inner = OneVsRestClassifier(LogisticRegression(C=100.0)) if name == "one-vs-rest" else CLASSIFIERS["forest"]
    model = CalibratedClassifier(inner, method=method, cv=3).fit(X[:200], sets[:200])
    p, truth = model.predict_proba(X[200:]), sets[200:]
    assert p.shape == (100, 3)
    assert np.mean(-np.log(np.where(truth == 1, p, 1 - p))) < 0.6
    assert (model.predict(X[200:]) == (p > 0.5)).all()
    assert np.mean(model.predict(X[200:]) == truth) > 0.7


def test_refusals() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 3))
    sets = (X > 0).astype(int)
    for method in ("matrix", "dirichlet"):
        with pytest.raises(ValueError, match="a map of exclusive classes"):
            CalibratedClassifier(CLASSIFIERS["forest"], method=method).fit(X, sets)
    with pytest.raises(ValueError, match="link='sigmoid'"):
        CalibratedClassifier(CLASSIFIERS["forest"], method=TemperatureScaling(), cv=3).fit(X, sets)
    with pytest.raises(ValueError, match="label 1 is constant"):
        CalibratedClassifier(CLASSIFIERS["forest"]).fit(X, sets * [1, 0, 1])
    with pytest.raises(ValueError, match="the calibrator is given logits"):
        CalibratedClassifier(CLASSIFIERS["tree"], method=MatrixScaling(input="probabilities")).fit(X, sets[:, 0])
    for floor in (0.0, 1.0, "none", None):
        with pytest.raises(ValueError, match="floor must be"):
            CalibratedClassifier(CLASSIFIERS["tree"], floor=floor).fit(X, sets[:, 0])  # type: ignore[arg-type]


def test_the_floor_is_half_of_the_smallest_vote() -> None:
    with np.errstate(divide="ignore"):
        votes = Scores("log-probabilities", np.log([[0.0, 0.2, 0.8], [1.0, 0.0, 0.0]]))
    assert votes.floor() == pytest.approx(0.1)
    np.testing.assert_allclose(np.exp(votes.logits(0.1)), [[0.1, 0.2, 0.8], [1, 0.1, 0.1]])
    labels = Scores("label-probabilities", np.array([[0.25, 1.0]]))
    assert labels.floor() == 0.125
    np.testing.assert_allclose(labels.logits(0.125), [[np.log(1 / 3), np.log(8)]])
    assert Scores("log-probabilities", np.log([[0.3, 0.7]])).floor() is None
    assert Scores("logits", np.array([[-np.inf, 0.0]])).floor() is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fixed = CalibratedClassifier(CLASSIFIERS["tree"], floor=0.01, cv=2).fit(np.arange(40.0)[:, None], [0, 1] * 20)
    assert fixed.floor_ == 0.01
