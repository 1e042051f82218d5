"""The meta-estimators for rare classes, and softmax regression with one class against the rest."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import crossent as ce
from crossent.imbalance import class_weights, correct_prior, decide, realised_cost
from crossent.sklearn import (
    CalibratedClassifier,
    PriorCorrectedClassifier,
    SoftmaxRegression,
    SoftmaxRegressionCV,
    TunedDecision,
)

CENTRES = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
COST = np.array([[0.0, 1.0, 1.0], [5.0, 0.0, 5.0], [20.0, 20.0, 0.0]])


def sample(rows: int, prior: Any, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    y = rng.choice(3, rows, p=prior)
    return rng.normal(size=(rows, 2)) + CENTRES[y], y


RARE = [0.9, 0.07, 0.03]
X, Y = sample(3000, RARE, 0)
X_TEST, Y_TEST = sample(3000, RARE, 1)


@pytest.mark.parametrize(
    "model", [PriorCorrectedClassifier(GaussianNB(), trained_on="uniform"), TunedDecision(GaussianNB(), cv=2)]
)
def test_scikit_learn_takes_it_for_a_classifier(model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(model, on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.parametrize("weight", ["balanced", "inverse", "sqrt", "effective", {0: 1.0, 1: 3.0, 2: 10.0}])
def test_class_weights_are_taken_back(weight: Any) -> None:
    """The shift of the intercept that balanced weights make is undone: probabilities are as honest as without."""
    plain = SoftmaxRegression().fit(X, Y)
    model = PriorCorrectedClassifier(SoftmaxRegression(class_weight=weight)).fit(X, Y)
    weights = np.array([1.0, 3.0, 10.0]) if isinstance(weight, dict) else class_weights(Y, weight)
    shares = np.bincount(Y) / len(Y)
    np.testing.assert_allclose(model.trained_on_, weights * shares / (weights @ shares), rtol=1e-12)
    losses = [log_loss(Y_TEST, m.predict_proba(X_TEST)) for m in (plain, model, model.estimator_)]
    assert losses[1] == pytest.approx(losses[0], abs=0.005)
    assert losses[2] > losses[1] + 0.01
    assert pickle.loads(pickle.dumps(model)).predict(X[:5]).tolist() == model.predict(X[:5]).tolist()


def test_an_estimator_reads_schemes_off_its_training_rows() -> None:
    for scheme in ("inverse", "sqrt", "effective"):
        by_name = SoftmaxRegression(class_weight=scheme).fit(X, Y)
        by_hand = SoftmaxRegression(class_weight=dict(enumerate(class_weights(Y, scheme)))).fit(X, Y)
        np.testing.assert_array_equal(by_name.coef_, by_hand.coef_)


def test_a_pipeline_a_frame_and_a_given_prior() -> None:
    frame, names = pd.DataFrame(X, columns=["a", "b"]), np.array(["no", "perhaps", "yes"])[Y]
    piped = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    model = PriorCorrectedClassifier(piped).fit(frame, names)
    np.testing.assert_allclose(model.trained_on_, 1 / 3, rtol=1e-12)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    assert set(model.predict(frame[:50])) <= {"no", "perhaps", "yes"}
    given = clone(model).set_params(trained_on="uniform", deployed_on=[1, 1, 2]).fit(frame, names)
    np.testing.assert_allclose(given.deployed_on_, [0.25, 0.25, 0.5])
    named = clone(given).set_params(deployed_on={"yes": 2, "no": 1, "perhaps": 1}).fit(frame, names)
    np.testing.assert_array_equal(named.deployed_on_, given.deployed_on_)
    expected = correct_prior(given.estimator_.predict_proba(frame), np.ones(3), [1, 1, 2])
    np.testing.assert_allclose(given.predict_proba(frame), expected, rtol=1e-12)


def test_adapting_to_unlabelled_rows_finds_the_shift() -> None:
    model = PriorCorrectedClassifier(LogisticRegression(C=100.0)).fit(*sample(20_000, [0.6, 0.2, 0.2], 2))
    moved, truth = sample(4000, [0.1, 0.2, 0.7], 3)
    before = log_loss(truth, model.predict_proba(moved))
    model.adapt(moved)
    np.testing.assert_allclose(model.deployed_on_, [0.1, 0.2, 0.7], atol=0.05)
    assert log_loss(truth, model.predict_proba(moved)) < before - 0.1


def test_true_probabilities_need_no_tuning_and_wrong_ones_are_repaired() -> None:
    held_out = {}
    for name, inner in {
        "true": GaussianNB(),
        "wrong": GaussianNB(priors=[0.3, 0.3, 0.4]),
    }.items():
        model = TunedDecision(inner, cost=COST).fit(X, Y)
        held_out[name] = realised_cost(Y_TEST, model.decide(X_TEST), COST)
        held_out[f"{name}, plain"] = realised_cost(Y_TEST, decide(model.predict_proba(X_TEST), COST), COST)
        assert model.plain_cost_ > 0
    assert held_out["wrong"] < held_out["wrong, plain"] - 0.05
    assert held_out["wrong"] == pytest.approx(held_out["true"], abs=0.05)
    assert held_out["true"] == pytest.approx(held_out["true, plain"], abs=0.05)


def test_actions_that_are_no_classes() -> None:
    cost = np.column_stack([COST, [0.4, 0.4, 0.4]])
    model = TunedDecision(GaussianNB(), cost=cost, cv=None).fit(X, Y)
    assert set(model.predict(X)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(model.predict(X), decide(model.predict_proba(X), cost))
    named = clone(model).set_params(actions=["a", "b", "c", "ask"]).fit(X, Y, sample_weight=np.ones(len(Y)))
    assert set(named.predict(X)) == {"a", "b", "c", "ask"}


SIMPLE = np.arange(20.0).reshape(10, 2) % 7, np.arange(10) % 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (TunedDecision(GaussianNB(), cost=np.eye(3)), r"cost must be .*\(2, A\)"),
        (TunedDecision(GaussianNB(), cost=np.eye(2), actions=["a"]), "actions must name the 2 columns"),
        (TunedDecision(), "estimator must be a classifier with predict_proba; got NoneType"),
        (PriorCorrectedClassifier(GaussianNB(), trained_on="shares"), "trained_on must be an array or one of"),
        (
            PriorCorrectedClassifier(GaussianNB(), trained_on=[0.0, 1.0]),
            "trained_on .*positive; got 0.0 for class 0",
        ),
        (PriorCorrectedClassifier(GaussianNB(), deployed_on=[1.0]), r"deployed_on .*got an array of shape \(1,\)"),
        (PriorCorrectedClassifier(GaussianNB(), deployed_on={0: 1.0}), "the 2 classes as its keys; got no 1"),
        (PriorCorrectedClassifier(LogisticRegression(class_weight="odd")), "in one place; got 'odd'; set trained_on"),
    ],
)
def test_bad_parameters(model: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model.fit(*SIMPLE)


def test_named_weights_beside_sample_weights_are_not_guessed() -> None:
    model = PriorCorrectedClassifier(LogisticRegression(class_weight="balanced"))
    with pytest.raises(ValueError, match="libraries differ"):
        model.fit(X, Y, sample_weight=np.ones(len(Y)))


WINE_X, WINE = StandardScaler().fit_transform(load_wine().data), load_wine().target


def test_one_against_rest_is_a_regression_for_each_class() -> None:
    """scikit-learn's one-against-rest, which shares no code with it, has the same coefficients and probabilities."""
    model = SoftmaxRegression(0.1, link="sigmoid", tol=1e-10).fit(WINE_X, WINE)
    other = OneVsRestClassifier(LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000)).fit(WINE_X, WINE)
    coefficients = np.concatenate([part.coef_ for part in other.estimators_])
    np.testing.assert_allclose(model.coef_, coefficients, atol=1e-5)
    prob = model.predict_proba(WINE_X)
    np.testing.assert_allclose(prob, other.predict_proba(WINE_X), atol=1e-5)
    np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(model.predict(WINE_X), prob.argmax(axis=1))
    np.testing.assert_allclose(ce.softmax(model.logits(WINE_X)), prob, rtol=1e-12)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(WINE_X)), prob, rtol=1e-12)
    expected = -np.log(prob[np.arange(len(WINE)), WINE])
    np.testing.assert_allclose(model.row_losses(WINE_X, WINE), expected, rtol=1e-9, atol=1e-14)
    assert model.duality_gap_ <= 1e-10
    summary = model.summary(WINE_X, WINE)
    assert summary.contrasts == ["0", "1", "2"]


def test_one_against_rest_where_every_class_is_most_unlikely() -> None:
    model = SoftmaxRegression(10.0, link="sigmoid").fit(WINE_X, WINE)
    far = model.predict_proba(-300 * WINE_X[:20] - 300 * model.coef_.sum(axis=0))
    assert np.isfinite(far).all()
    np.testing.assert_allclose(far.sum(axis=1), 1, rtol=1e-14)


def test_one_against_rest_is_not_distributed() -> None:
    array = pytest.importorskip("dask.array")
    rows, labels = (array.from_array(values, chunks=len(values)) for values in (WINE_X, WINE))
    with pytest.raises(ValueError, match="rows that this process reads; got a Dask collection; use link='softmax'"):
        SoftmaxRegression(link="sigmoid").fit(rows, labels)


def test_class_weights_of_one_against_rest_weigh_rows() -> None:
    weights = {0: 1.0, 1: 3.0, 2: 0.5}
    by_class = SoftmaxRegression(0.1, link="sigmoid", class_weight=weights, tol=1e-9).fit(WINE_X, WINE)
    by_row = SoftmaxRegression(0.1, link="sigmoid", tol=1e-9)
    by_row.fit(WINE_X, WINE, sample_weight=np.array([1.0, 3.0, 0.5])[WINE])
    np.testing.assert_allclose(by_class.coef_, by_row.coef_, atol=1e-9)
    assert by_class.objective_ == pytest.approx(by_row.objective_, rel=1e-12)
    plain = CalibratedClassifier(by_class).fit(WINE_X, WINE)
    assert 0.2 < plain.calibrator_.temperature_ < 2  # the softmax of its logits are its probabilities
    chosen = SoftmaxRegressionCV([0.01, 0.1], cv=3, link="sigmoid", class_weight="balanced").fit(WINE_X, WINE)
    assert chosen.predict_proba(WINE_X).shape == (178, 3)
