"""A sweep finds what single fits find, with fewer passes, and C is chosen by what was held out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from plans import tune
from regression_oracle import blobs
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

import crossent as ce
from crossent.sklearn import SoftmaxRegression, SoftmaxRegressionCV, softmax_regression_path

CS = [1e-3, 1e-2, 1e-1, 1.0]


def wine() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_wine(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_path_is_certified_everywhere_and_agrees_with_single_fits(dtype: type) -> None:
    X, y = load_digits(return_X_y=True)
    X = X.astype(dtype)
    path = softmax_regression_path(X, y, Cs=reversed(CS))
    assert path.Cs.tolist() == CS
    assert (path.duality_gaps <= 1e-4).all()
    products = 0
    for C, objective, model in zip(CS, path.objectives, path.models, strict=True):
        single = SoftmaxRegression(C).fit(X, y)
        assert objective == pytest.approx(single.objective_, rel=1e-4)
        assert model.C == C
        np.testing.assert_array_equal(model.predict(X[:5]), single.predict(X[:5]))
        products += single.history_[-1]["hessian_products"]
    assert sum(model.history_[-1]["hessian_products"] for model in path.models) < products


def test_a_sweep_leaves_its_owner_unfitted_and_takes_weights() -> None:
    X, y = wine()
    owner = SoftmaxRegression(class_weight="balanced")
    weight = np.random.default_rng(0).uniform(0, 2, len(y))
    for C, fitted in zip((0.1, 1.0), owner.sweep(X, y, (0.1, 1.0), weight), strict=True):
        single = SoftmaxRegression(C, class_weight="balanced").fit(X, y, weight)
        assert fitted.objective_ == pytest.approx(single.objective_, rel=1e-4)
    assert not hasattr(owner, "coef_")


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_cv_losses_are_those_of_folds_fitted_by_hand(link: str) -> None:
    X, y = wine()
    if link == "sigmoid":
        y = (y == 1).astype(int)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=1).split(X, y))
    model = SoftmaxRegressionCV(Cs=CS, cv=folds, link=link, tol=1e-7).fit(X, y)
    for i, (train, test) in enumerate(folds):
        for j, C in enumerate(CS):
            single = SoftmaxRegression(C, link=link, tol=1e-7).fit(X[train], y[train])
            expected = log_loss(y[test], single.predict_proba(X[test]))
            assert model.losses_[i, j] == pytest.approx(expected, rel=1e-3)
    assert CS[int(np.argmin(model.mean_losses_))] == model.C_
    final = SoftmaxRegression(model.C_, link=link, tol=1e-7).fit(X, y)
    np.testing.assert_allclose(model.coef_, final.coef_, atol=1e-3)


def test_one_standard_error_takes_the_least_c_within_reach() -> None:
    X, y = blobs(300, 5, 3, seed=2)
    best = SoftmaxRegressionCV(Cs=9, rule="best").fit(X, y)
    simple = SoftmaxRegressionCV(Cs=9, rule="one_standard_error").fit(X, y)
    np.testing.assert_array_equal(best.losses_, simple.losses_)
    at = int(np.argmin(best.mean_losses_))
    limit = best.mean_losses_[at] + best.standard_errors_[at]
    assert min(C for C, loss in zip(best.Cs_, best.mean_losses_, strict=True) if loss <= limit) == simple.C_
    assert simple.C_ < best.C_


def test_a_hold_out_set_has_the_standard_error_of_its_rows() -> None:
    X, y = wine()
    model = SoftmaxRegressionCV(Cs=CS, cv=0.3).fit(X, y)
    assert model.losses_.shape == (1, len(CS))
    assert (model.standard_errors_ > 0).all()
    assert (model.standard_errors_ < model.mean_losses_ + 1).all()


def test_it_is_an_estimator() -> None:
    X, y = wine()
    model = SoftmaxRegressionCV(Cs=CS, cv=3)
    assert clone(model).get_params() == model.get_params()
    assert "C" not in model.get_params()
    assert model.fit(X, y).score(X, y) > 0.95
    assert clone(model.fit(X, y)).get_params() == model.get_params()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"Cs": [1.0, -1.0]}, "every C must be positive"),
        ({"Cs": 0}, "Cs must be a positive number"),
        ({"Cs": [math.inf]}, "every C must be positive and finite"),
        ({"Cs": "many"}, "Cs must be"),
    ],
)
def test_bad_values_are_refused(arguments: dict, message: str) -> None:
    X, y = wine()
    with pytest.raises(ValueError, match=message):
        softmax_regression_path(X, y, **arguments)
    with pytest.raises(ValueError, match=message):
        SoftmaxRegressionCV(**arguments).fit(X, y)


def test_a_path_sets_c_itself() -> None:
    X, y = wine()
    with pytest.raises(ValueError, match="sets C itself"):
        softmax_regression_path(X, y, C=1.0)
    with pytest.raises(ValueError, match="rule must be"):
        SoftmaxRegressionCV(rule="2se").fit(X, y)
    with pytest.raises(ValueError, match="share to hold out"):
        SoftmaxRegressionCV(cv=1.5).fit(X, y)


def test_an_interrupt_ends_a_path_early_and_leaves_no_choice() -> None:
    X, y = wine()

    def interrupt(entry: dict) -> None:
        if entry["iteration"] == 1 and entry["objective"] > 1.0:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        path = softmax_regression_path(X, y, Cs=CS, callback=interrupt)
    assert 1 <= len(path.Cs) == len(path.models) < len(CS)
    with pytest.warns(ConvergenceWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        SoftmaxRegressionCV(Cs=CS, cv=3, callback=interrupt).fit(X, y)


@pytest.mark.parametrize("fit", range(6))
def test_an_interrupt_in_any_fit_of_a_fold_ends_the_choice(fit: int) -> None:
    """Also in a fold's last: its loss would be that of coefficients on the way."""
    X, y = wine()
    started = 0

    def interrupt(entry: dict) -> None:
        nonlocal started
        started += entry["iteration"] == 0
        if started == fit + 1:
            raise KeyboardInterrupt

    model = SoftmaxRegressionCV(Cs=[0.01, 1.0], cv=3, callback=interrupt)
    with pytest.warns(ConvergenceWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert started == fit + 1
    assert not hasattr(model, "C_")


def test_folds_share_one_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossent.regression.objective import LinearObjective
    from crossent.regression.preconditioner import FeatureBasis

    made: list[LinearObjective] = []
    bases: list[FeatureBasis] = []
    starts: list[float] = []
    make, of = LinearObjective.__init__, FeatureBasis.of
    monkeypatch.setattr(LinearObjective, "__init__", lambda self, *a, **k: (made.append(self), make(self, *a, **k))[1])
    monkeypatch.setattr(FeatureBasis, "of", lambda *a: (bases.append(of(*a)), bases[-1])[1])
    X, y = load_digits(return_X_y=True)
    record = lambda entry: starts.append(entry["objective"]) if entry["iteration"] == 0 else None  # noqa: E731
    model = SoftmaxRegressionCV(Cs=[1e-4, 1e-2], cv=3, callback=record).fit(X, y)
    assert len(bases) == 3 + 1  # one for each fold, and one for the last fit
    assert sum(objective.cache_bytes > 0 for objective in made) == 1  # the others are samples
    assert len(starts) == 2 * 3 + 1
    assert starts[-1] < 1.5 * model.objective_  # the last fit began near its end
    assert model.objective_ < 0.1 * model.C_ * len(y) * math.log(10)  # which is far from a cold start


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_what_folds_share_changes_no_loss(monkeypatch: pytest.MonkeyPatch, kind: str, copied: bool) -> None:
    if not copied:
        tune(monkeypatch, cache_bytes=1000, block_elements=100)
    X, y = wine()
    weight = np.random.default_rng(0).uniform(0, 2, len(y)) * (np.arange(len(y)) % 7 > 0)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=1).split(X, y))
    given = csr_array(X) if kind == "sparse" else X
    parameters = {"class_weight": "balanced", "tol": 1e-8, "loss": 2.0 * ce.CrossEntropy()}
    model = SoftmaxRegressionCV(Cs=CS, cv=folds, **parameters).fit(given, y, weight)
    for i, (train, test) in enumerate(folds):
        for j, C in enumerate(CS):
            single = SoftmaxRegression(C, **parameters).fit(X[train], y[train], weight[train])
            expected = log_loss(y[test], single.predict_proba(X[test]), sample_weight=weight[test])
            assert model.losses_[i, j] == pytest.approx(expected, rel=1e-4)
    final = SoftmaxRegression(model.C_, **parameters).fit(X, y, weight)
    np.testing.assert_allclose(model.coef_, final.coef_, atol=1e-4)
    assert model.objective_ == pytest.approx(final.objective_, rel=1e-7)


def test_a_fold_without_a_class_is_refused() -> None:
    X, y = wine()
    folds = [(np.flatnonzero(y != 2), np.flatnonzero(y == 2)), (np.flatnonzero(y != 1), np.flatnonzero(y == 1))]
    with pytest.raises(ValueError, match=r"train on rows of every class.*2.*fold 0.*fewer or stratified folds"):
        SoftmaxRegressionCV(Cs=CS, cv=folds).fit(X, y)
    with pytest.raises(ValueError, match=r"with and without each label.*True.*fold 0"):
        SoftmaxRegressionCV(Cs=CS, cv=folds[:1], link="sigmoid").fit(X, y == 2)
    with pytest.raises(ValueError, match="hold out rows of positive weight"):
        SoftmaxRegressionCV(Cs=CS, cv=folds).fit(X, y, (y != 2).astype(float))
    model = SoftmaxRegressionCV(Cs=CS, cv=3).fit(X, y, (y != 2).astype(float))
    assert np.isfinite(model.losses_).all()


def test_it_does_what_softmax_regression_does() -> None:
    X, y = wine()
    model = SoftmaxRegressionCV(Cs=[0.01, 0.1], cv=3, tol=1e-8).fit(X[:, :2], y)
    assert model.C == model.C_
    expected = SoftmaxRegression(model.C_, tol=1e-8).fit(X[:, :2], y).summary(X[:, :2], y)
    np.testing.assert_allclose(model.summary(X[:, :2], y).standard_errors, expected.standard_errors, rtol=1e-3)
    swept = list(SoftmaxRegressionCV(link="softmax", tol=1e-6).sweep(X, y, [0.1, 1.0]))
    assert [fitted.C for fitted in swept] == [0.1, 1.0]
    assert all(fitted.duality_gap_ <= 1e-6 for fitted in swept)


def test_a_prediction_that_is_worse_is_not_used() -> None:
    from crossent.losses import DEFAULT_LOSS
    from crossent.regression.objective import LinearObjective
    from crossent.regression.penalty import Ridge
    from crossent.regression.solvers import predicted_start
    from crossent.regression.targets import encode_target

    X, y = wine()
    share = np.full(len(y), 1 / len(y))
    objective = LinearObjective(X, encode_target(y, "softmax"), share, Ridge(1.0), DEFAULT_LOSS, True)
    fits = [SoftmaxRegression(C / len(y), tol=1e-8).fit(X, y) for C in (1, 2, 4)]
    optima = [
        objective.evaluate(np.column_stack([fit.coef_, fit.intercept_ + fit.coef_ @ objective.center])) for fit in fits
    ]
    objective.restart(Ridge(1 / 4))
    values = [objective.evaluate(at.theta).value for at in optima]
    start = predicted_start(objective, optima[0], optima[1], 1.0)
    assert values[2] < objective.evaluate(start).value < values[1]
    assert predicted_start(objective, optima[2], optima[1], 1.0) is optima[1].theta  # the wrong way
    far = objective.evaluate(-100 * optima[1].theta)
    assert predicted_start(objective, far, optima[1], 1.0) is optima[1].theta
