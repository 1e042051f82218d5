"""SoftmaxRegression behaves as scikit-learn's users expect."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
from regression_oracle import blobs
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import crossent as ce
from crossent.sklearn import SoftmaxRegression, SoftmaxRegressionCV

X, LABELS = blobs(120, 4, 3, seed=20)


def expected_failures(estimator: SoftmaxRegression) -> dict[str, str]:
    if estimator.fit_intercept:
        return {}
    return {
        "check_class_weight_classifiers": "a linear classifier without an intercept cannot predict one class nearly "
        "everywhere; LogisticRegression(fit_intercept=False) does not pass either"
    }


@pytest.mark.filterwarnings("ignore:.*:sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [
        SoftmaxRegression(),
        SoftmaxRegression(link="sigmoid"),
        SoftmaxRegression(fit_intercept=False),
        SoftmaxRegression(loss=ce.Focal(2.0), label_smoothing=0.1),
        SoftmaxRegression(link="sigmoid", label_smoothing=0.1),
        SoftmaxRegressionCV(Cs=[1e-2, 1.0], cv=2),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator: SoftmaxRegression, check: Any) -> None:
    check(estimator)


def test_the_expected_failure_is_scikit_learns_own() -> None:
    from sklearn.utils.estimator_checks import check_class_weight_classifiers

    with pytest.raises(AssertionError):
        check_class_weight_classifiers("LogisticRegression", LogisticRegression(fit_intercept=False, max_iter=1000))


def test_shapes_and_dtypes() -> None:
    for dtype in (np.float32, np.float64):
        model = SoftmaxRegression().fit(X.astype(dtype), LABELS)
        assert model.coef_.shape == (3, 4)
        assert model.intercept_.shape == (3,)
        for method in ("logits", "decision_function", "predict_proba", "predict_log_proba"):
            out = getattr(model, method)(X.astype(dtype))
            assert out.shape == (120, 3)
            assert out.dtype == dtype
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    assert model.n_features_in_ == 4


def test_two_classes() -> None:
    names = np.where(LABELS > 0, "yes", "no")
    model = SoftmaxRegression().fit(X, names)
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.decision_function(X).shape == (120,)
    assert model.logits(X).shape == (120, 2)
    np.testing.assert_allclose(model.decision_function(X), model.logits(X)[:, 1] - model.logits(X)[:, 0])
    assert set(model.predict(X)) == {"no", "yes"}
    sigmoid = SoftmaxRegression(link="sigmoid").fit(X, names)
    assert sigmoid.coef_.shape == (1, 4)
    assert sigmoid.logits(X).shape == (120, 1)
    assert sigmoid.decision_function(X).shape == (120,)
    assert sigmoid.predict_proba(X).shape == sigmoid.predict_log_proba(X).shape == (120, 2)
    np.testing.assert_array_equal(sigmoid.predict(X), np.where(sigmoid.decision_function(X) > 0, "yes", "no"))


def test_label_sets() -> None:
    sets = np.stack([LABELS == 0, X[:, 1] > 0], axis=1).astype(int)
    model = SoftmaxRegression(link="sigmoid").fit(X, sets)
    assert model.predict(X).shape == model.predict_proba(X).shape == model.decision_function(X).shape == (120, 2)
    np.testing.assert_array_equal(model.predict(X), model.predict_proba(X) > 0.5)
    assert 0.5 < model.score(X, sets) <= 1
    assert model.classes_.tolist() == [0, 1]


def test_log_probabilities_do_not_underflow() -> None:
    data = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    for link in ("softmax", "sigmoid"):
        model = SoftmaxRegression(1e6, link=link).fit(data, [0, 1, 0, 1])
        log_proba = model.predict_log_proba(np.array([[1e4]]))
        assert log_proba[0, 0] < -1e4
        assert log_proba[0, 1] == 0.0


def test_pipeline_clone_grid_search_and_pickle() -> None:
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression())
    search = GridSearchCV(pipeline, {"softmaxregression__C": [1e-3, 1.0]}, scoring="neg_log_loss", cv=3)
    search.fit(X, LABELS)
    assert search.best_params_ == {"softmaxregression__C": 1.0}
    assert cross_val_score(pipeline, X, LABELS, cv=3).min() > 0.5
    model = SoftmaxRegression(2.0, loss=ce.Focal(1.5) + ce.ZPenalty(1e-3), tol=1e-3)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert "Focal(gamma=1.5)" in repr(model)
    model.fit(X, LABELS)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.history_ == model.history_


def test_feature_names() -> None:
    frame = pl.DataFrame(X, schema=["a", "b", "c", "d"])
    model = SoftmaxRegression().fit(frame, LABELS)
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(model.predict(frame), SoftmaxRegression().fit(X, LABELS).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.select(["b", "a", "c", "d"]))


def test_sample_weight_is_routed() -> None:
    weight = np.random.default_rng(0).uniform(size=120)
    pipeline = make_pipeline(StandardScaler(), SoftmaxRegression())
    pipeline.fit(X, LABELS, softmaxregression__sample_weight=weight)
    direct = SoftmaxRegression().fit(StandardScaler().fit_transform(X), LABELS, weight)
    np.testing.assert_allclose(pipeline[-1].coef_, direct.coef_)


def test_verbose_prints_a_line_per_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    model = SoftmaxRegression(verbose=1).fit(X, LABELS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(model.history_)
    assert all("objective" in line and "gap" in line for line in lines)
    SoftmaxRegression().fit(X, LABELS)
    assert capsys.readouterr().out == ""


def test_arguments_are_not_written_to() -> None:
    data, labels, weight = X.copy(), LABELS.copy(), np.linspace(0, 1, 120)
    soft = np.eye(3)[LABELS]
    for array in (data, labels, weight, soft):
        array.setflags(write=False)
    SoftmaxRegression().fit(data, labels, weight)
    SoftmaxRegression(fit_intercept=False, loss=ce.Focal(1.0)).fit(data, soft, weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"C": 0}, "C must be a positive number.*got 0"),
        ({"C": float("nan")}, "C must be a positive number"),
        ({"C": "1"}, "C must be a positive number.*got '1'"),
        ({"link": "probit"}, "link must be 'softmax' or 'sigmoid'.*'probit'"),
        ({"tol": 0.0}, "tol must be a positive number"),
        ({"max_iter": 0}, "max_iter must be a positive integer"),
        ({"max_iter": 1.5}, "max_iter must be a positive integer"),
        ({"label_smoothing": 1.5}, r"label_smoothing must lie in \[0, 1\]"),
        ({"dtype": "float16"}, "dtype must be None, 'float32' or 'float64'; got 'float16'"),
        ({"loss": "focal"}, "loss must be None or a loss"),
        ({"loss": ce.Distillation(2.0)}, "teacher's probabilities"),
        ({"loss": -1.0 * ce.CrossEntropy()}, "negatively"),
        ({"loss": ce.GeneralizedCrossEntropy(0.5), "label_smoothing": 0.1}, "takes labels only"),
        ({"class_weight": "auto"}, "class_weight must be None, a dict or one of 'inverse', 'balanced', .*; got 'auto'"),
        ({"class_weight": [1, 2, 3]}, "class_weight must be None"),
        ({"class_weight": {0: -1.0, 1: 1.0, 2: 1.0}}, "must be finite and not negative"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftmaxRegression(**arguments).fit(X, LABELS)


def test_bad_targets() -> None:
    soft = np.full((120, 3), 1 / 3)
    soft[7, 0] = 0.5
    with pytest.raises(ValueError, match=r"sum to 1; got a sum of 1.1666.* in row 7"):
        SoftmaxRegression().fit(X, soft)
    with pytest.raises(ValueError, match="not be negative"):
        SoftmaxRegression().fit(X, np.tile([-0.5, 0.5, 1.0], (120, 1)))
    with pytest.raises(ValueError, match="floating"):
        SoftmaxRegression().fit(X, np.tile([1, 1, 0], (120, 1)))
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        SoftmaxRegression(link="sigmoid").fit(X, np.tile([1.5, 0.5], (120, 1)))
    with pytest.raises(ValueError, match="at least two classes"):
        SoftmaxRegression().fit(X, np.zeros(120))
    with pytest.raises(ValueError, match="positive weight"):
        SoftmaxRegression().fit(X, LABELS, LABELS == 1)
    with pytest.raises(ValueError, match="takes labels only"):
        SoftmaxRegression(loss=ce.GeneralizedCrossEntropy(0.5)).fit(X, np.full((120, 3), 1 / 3))
    with pytest.raises(ValueError, match="keys 0 and 1"):
        SoftmaxRegression(link="sigmoid", class_weight={2: 1.0}).fit(X, np.tile([[0, 1], [1, 0]], (60, 1)))


def test_real_data() -> None:
    iris, y = load_iris(return_X_y=True)
    assert SoftmaxRegression().fit(iris, y).score(iris, y) > 0.95
    digits, y = load_digits(return_X_y=True)
    assert SoftmaxRegression(0.01).fit(digits[::2], y[::2]).score(digits[1::2], y[1::2]) > 0.94
