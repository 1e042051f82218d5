"""A fit that fails leaves the estimator as it was: unfitted, or the last fit whole, never a mixture of two."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from crossent.calibration.classifier import METHODS
from crossent.sklearn import CalibratedClassifier, SoftmaxRegression, SoftmaxRegressionCV

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 6))
Y = (X[:, :3] + 0.5 * RNG.normal(size=(120, 3))).argmax(axis=1)
NAMES = np.array(["c", "b", "a"])[Y]  # whose order is not that of Y
BINARY = X[:, 0] > 0
RARE = np.array(["c"] * 116 + ["b"] * 3 + ["a"])  # a class that some fold cannot train on
ONE_CLASS = (Y == 0).astype(float)
SHORTER = X[:, :3] * 1e200


class Stopped(RuntimeError):
    """What a callback raises in these tests."""


def stop(_: Any) -> bool:
    raise Stopped


def interrupt(_: Any) -> bool:
    raise KeyboardInterrupt


def fails(model: Any, error: Any, *arguments: Any, **parameters: Any) -> None:
    model.set_params(**parameters)
    with pytest.raises(error):
        model.fit(*arguments)


CALIBRATORS: list[tuple[str, dict[str, str]]] = [
    *((method, {}) for method in METHODS),
    *((method, {"link": "sigmoid"}) for method, make in METHODS.items() if "link" in make().get_params()),
]

Failure = Callable[[Any, Path], None]

OF_ANY: dict[str, Failure] = {
    "one class": lambda model, _: fails(model, ValueError, X, NAMES, ONE_CLASS),
    "columns that overflow": lambda model, _: fails(model, ValueError, SHORTER, NAMES),
    "a number that is missing": lambda model, _: fails(model, ValueError, np.where(X > 2, np.nan, X), NAMES),
    "callback": lambda model, _: fails(model, Stopped, X, BINARY, callback=stop),
    "callback, other columns": lambda model, _: fails(model, Stopped, X[:, :3], NAMES, callback=stop),
    "class weights": lambda model, _: fails(model, ValueError, X, NAMES, class_weight={"c": -1.0}),
}


def refused_checkpoint(model: Any, folder: Path) -> None:
    (folder / "fit").write_bytes(b"not a checkpoint")
    fails(model, ValueError, X, NAMES, checkpoint=folder / "fit")


def calibrated() -> CalibratedClassifier:
    return CalibratedClassifier(SoftmaxRegression(), cv=3)


def choice() -> SoftmaxRegressionCV:
    return SoftmaxRegressionCV([0.1, 1.0], cv=3)


FAILURES: list[tuple[Callable[[], Any], str, Failure]] = [
    *((SoftmaxRegression, name, failure) for name, failure in OF_ANY.items()),
    *((partial(SoftmaxRegression, warm_start=True), f"{name}, warm", failure) for name, failure in OF_ANY.items()),
    *((choice, f"{name}, folds", failure) for name, failure in OF_ANY.items()),
    (SoftmaxRegression, "checkpoint", refused_checkpoint),
    (
        SoftmaxRegression,
        "one class of Dask rows",
        lambda model, _: fails(
            model, ValueError, *(da.from_array(part, chunks=(60, *part.shape[1:])) for part in (X, NAMES, ONE_CLASS))
        ),
    ),
    (
        choice,
        "a fold that lacks a class",
        lambda model, _: fails(model, ValueError, X, RARE),
    ),
    (
        calibrated,
        "a fold to calibrate on that lacks a class",
        lambda model, _: fails(model, ValueError, X, RARE),
    ),
    (
        calibrated,
        "an estimator that fails",
        lambda model, _: fails(model, Stopped, X, NAMES, estimator__callback=stop),
    ),
    (
        calibrated,
        "label sets that one estimator cannot learn",
        lambda model, _: fails(model, ValueError, X, np.stack([BINARY, ~BINARY], axis=1).astype(int)),
    ),
]


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize(("make", "failure"), [pytest.param(make, run, id=name) for make, name, run in FAILURES])
def test_a_failed_fit_changes_nothing(make: Callable[[], Any], failure: Failure, tmp_path: Path) -> None:
    model = make().fit(X, Y)
    before = model.predict(X), model.predict_proba(X)
    held = fitted(model)
    failure(model, tmp_path)
    assert fitted(model) == held
    for got, want in zip((model.predict(X), model.predict_proba(X)), before, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize(("make", "failure"), [pytest.param(make, run, id=name) for make, name, run in FAILURES])
def test_a_failed_first_fit_leaves_an_unfitted_estimator(
    make: Callable[[], Any], failure: Failure, tmp_path: Path
) -> None:
    model = make()
    failure(model, tmp_path)
    with pytest.raises(NotFittedError):
        model.predict(X)


def fitted(model: Any) -> dict[str, int]:
    """Return which object each attribute is that a fit sets."""
    return {name: id(value) for name, value in vars(model).items() if name.endswith("_") or name.startswith("_")}


@pytest.mark.parametrize("fitted_before", [True, False])
def test_an_interrupted_choice_of_c_changes_nothing(fitted_before: bool) -> None:
    model = choice()
    held = fitted(model.fit(X, Y) if fitted_before else model)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        fails(model, KeyboardInterrupt, X, NAMES, callback=interrupt)
    assert fitted(model) == held


def test_a_callback_sees_the_last_fit_whole() -> None:
    model = SoftmaxRegression().fit(X, Y)
    before, seen = model.predict(X), []
    model.set_params(callback=lambda _: seen.append(model.predict(X))).fit(X, NAMES)
    assert seen
    for got in seen:
        np.testing.assert_array_equal(got, before)


@pytest.mark.parametrize(("method", "options"), CALIBRATORS)
def test_a_calibrator_that_fails_changes_nothing(method: str, options: dict[str, str]) -> None:
    make = partial(METHODS[method], **options)
    link = options.get("link", "softmax")
    z = X[:, :3] if link == "softmax" else X[:, 0] - X[:, 1]
    target, names = (Y, NAMES) if link == "softmax" else (BINARY.astype(int), np.where(BINARY, "a", "b"))
    bad = z.copy()
    bad[3] = np.inf
    model = make().fit(z, target)
    before, held = model.predict(z), fitted(model)
    fails(model, ValueError, bad, names)
    assert fitted(model) == held
    np.testing.assert_array_equal(model.predict(z), before)
    model = make()
    fails(model, ValueError, bad, names)
    with pytest.raises(NotFittedError):
        model.predict(z)


def test_a_summary_leaves_the_features_of_the_fit() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = SoftmaxRegression().fit(frame, Y)
    held, want = fitted(model), model.summary(frame, Y)
    with pytest.raises(ValueError, match="3 features"):
        model.summary(X[:, :3], Y)
    with pytest.raises(ValueError, match="feature names"):
        model.summary(frame[list("bacdef")], Y)
    assert str(model.summary(X, Y)) == str(want)
    assert fitted(model) == held
