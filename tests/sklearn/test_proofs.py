"""What a fit reports is true of the coefficients that it returns: F there, and that the gap is at least the excess."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from attack import draws
from exact_oracle import ROUNDING, ExactProblem
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from crossent.regression.interface import Evaluation
from crossent.regression.penalty import Ridge
from crossent.regression.solvers import Bound, Solver, State
from crossent.sklearn import ParquetRows, SoftmaxRegression, SoftmaxRegressionCV, softmax_regression_path


@dataclass
class Case:
    """Data, the options of a fit, and what the oracle calls the same."""

    X: np.ndarray
    y: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None
    options: dict[str, Any]
    class_weight: np.ndarray | None = None

    def assert_true(self, model: SoftmaxRegression) -> None:
        problem = ExactProblem(
            self.X.astype(self.options.get("dtype", self.X.dtype)),
            self.target,
            model.C,
            self.weight,
            self.class_weight,
            self.options["label_smoothing"],
            self.options["fit_intercept"],
            self.options["link"],
        )
        value, excess = problem.excess(model.coef_, model.intercept_)
        assert abs(model.objective_ - value) <= 1e-8 * value, self.options
        assert model.duality_gap_ >= excess - ROUNDING, (model.duality_gap_, excess, self.options)


def draw(rng: np.random.Generator) -> Case:
    """Draw classes far apart or not, columns far from 0 or not, and every option of a fit."""
    rows, features, outputs = int(rng.integers(20, 90)), int(rng.integers(1, 7)), int(rng.integers(2, 6))
    if rng.random() < 0.15:
        rows, features, outputs = 2200, 8, 8  # products begin in float32
    labels = rng.integers(outputs, size=rows)
    labels[: 2 * outputs] = np.tile(np.arange(outputs), 2)
    X = rng.normal(size=(outputs, features))[labels] * 10 ** rng.uniform(-1, 2) + rng.normal(size=(rows, features))
    if rng.random() < 0.5:
        X += 10 ** rng.uniform(0, 10) * rng.normal(size=features)
    X = X.astype(rng.choice(["float32", "float64"]))
    link = str(rng.choice(["softmax", "sigmoid"]))
    target = np.eye(outputs)[labels]
    y: np.ndarray = labels if link == "softmax" else target.astype(int)
    if rng.random() < 0.3:
        y = target = rng.dirichlet(np.full(outputs, 0.5), rows) if link == "softmax" else rng.random((rows, outputs))
    options: dict[str, Any] = {
        "C": float(10 ** rng.uniform(-5, 10)),
        "link": link,
        "fit_intercept": bool(rng.random() < 0.8),
        "tol": float(rng.choice([1e-2, 1e-4, 1e-9, 1e-13])),
        "label_smoothing": float(rng.choice([0.0, 0.0, 0.1])),
        "max_iter": int(rng.choice([2, 5, 1000, 1000])),
    }
    if not options["fit_intercept"]:
        X = (X - X.mean(axis=0)).astype(X.dtype)
    if rng.random() < 0.3:
        options["dtype"] = str(rng.choice(["float32", "float64"]))
    class_weight = None
    if rng.random() < 0.3:
        class_weight = rng.uniform(0.1, 4, size=outputs if link == "softmax" else 2)
        options["class_weight"] = dict(enumerate(class_weight.tolist()))
        class_weight = class_weight if link == "softmax" else class_weight[:, None]
    weight = rng.uniform(0.1, 3, size=rows) * (np.arange(rows) % 7 != 6) if rng.random() < 0.4 else None
    return Case(X, y, target, weight, options, class_weight)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Fits that do not reach their tolerance are part of the law."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.mark.attack
def test_a_fit_proves_the_truth() -> None:
    for rng in draws(50):
        case = draw(rng)
        case.assert_true(SoftmaxRegression(**case.options).fit(case.X, case.y, case.weight))


def again(case: Case, folder: Path) -> SoftmaxRegression:
    model = SoftmaxRegression(**(case.options | {"max_iter": 2}), warm_start=True).fit(case.X, case.y, case.weight)
    return model.set_params(max_iter=case.options["max_iter"]).fit(case.X, case.y, case.weight)


def along_a_path(case: Case, folder: Path) -> SoftmaxRegression:
    options = {name: value for name, value in case.options.items() if name != "C"}
    Cs = case.options["C"] * np.array([0.1, 0.3, 1.0])
    path = softmax_regression_path(case.X, case.y, Cs=Cs, sample_weight=case.weight, **options)
    for model in path.models:
        case.assert_true(model)
    return path.models[-1]


def by_folds(case: Case, folder: Path) -> SoftmaxRegression:
    options = {name: value for name, value in case.options.items() if name != "C"}
    halves = np.arange(len(case.X)) % 2
    folds = [(np.flatnonzero(halves == i), np.flatnonzero(halves != i)) for i in range(2)]
    Cs = (case.options["C"] * np.array([0.1, 1.0])).tolist()
    return SoftmaxRegressionCV(Cs, cv=folds, **options).fit(case.X, case.y, case.weight)


def resumed(case: Case, folder: Path) -> SoftmaxRegression:
    kept = {"checkpoint": folder / "c", "checkpoint_interval": 0.0}
    SoftmaxRegression(**(case.options | {"max_iter": 1}), **kept).fit(case.X, case.y, case.weight)
    model = SoftmaxRegression(**case.options, **kept).fit(case.X, case.y, case.weight)
    whole = SoftmaxRegression(**case.options, checkpoint=folder / "none", checkpoint_interval=1e9)
    whole.fit(case.X, case.y, case.weight)
    if model.n_iter_ == whole.n_iter_:
        assert (model.objective_, model.duality_gap_) == (whole.objective_, whole.duality_gap_)
    return model


def from_files(case: Case, folder: Path) -> SoftmaxRegression:
    case.options.pop("dtype", None)  # files are not converted
    pl.DataFrame(case.X, schema=[f"x{j}" for j in range(case.X.shape[1])]).write_parquet(folder / "t.parquet")
    rows = ParquetRows(folder / "t.parquet", window_bytes=1 << 12)
    return SoftmaxRegression(**case.options).fit(rows, case.y, case.weight)


def sparse(case: Case, folder: Path) -> SoftmaxRegression:
    return SoftmaxRegression(**case.options).fit(csr_array(case.X), case.y, case.weight)


def on_dask(case: Case, folder: Path) -> SoftmaxRegression:
    da = pytest.importorskip("dask.array")
    third = -(-len(case.X) // 3)
    weight = None if case.weight is None else da.from_array(case.weight, chunks=third)
    y = da.from_array(case.y, chunks=(third, *case.y.shape[1:]))
    return SoftmaxRegression(**case.options).fit(da.from_array(case.X, chunks=(third, 3)), y, weight)


WAYS: list[Callable[[Case, Path], SoftmaxRegression]] = [
    again,
    along_a_path,
    by_folds,
    resumed,
    from_files,
    sparse,
    on_dask,
]


@pytest.mark.attack
@pytest.mark.parametrize("way", WAYS)
def test_so_does_every_other_way_to_fit(way: Callable[[Case, Path], SoftmaxRegression], tmp_path: Path) -> None:
    for number, rng in enumerate(draws(10)):
        folder = tmp_path / str(number)
        folder.mkdir()
        case = draw(rng)
        try:
            case.assert_true(way(case, folder))
        except ValueError as error:
            if not str(error).startswith("each fold must train"):  # where a half lacks a class
                raise


@pytest.mark.parametrize("case", [20, 590])
def test_a_direction_that_overflows_is_no_warning(case: int, tmp_path: Path) -> None:
    """Both were found by an attack of 20 minutes."""
    drawn = draw(np.random.default_rng([20261201, case]))
    drawn.assert_true(again(drawn, tmp_path))


def test_an_intercept_is_judged_as_it_is_stored() -> None:
    """Of columns 1e11 deviations from 0, b cannot hold the digits that were found."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=60)
    X = rng.normal(size=(3, 4))[y] + rng.normal(size=(60, 4)) + 1e11
    model = SoftmaxRegression(100.0, tol=1e-13)
    with pytest.warns(ConvergenceWarning, match="as float64 .*: subtract from each column its mean"):
        model.fit(X, y)
    _, excess = ExactProblem(X, np.eye(3)[y], 100.0).excess(model.coef_, model.intercept_)
    assert 1e-12 < excess - ROUNDING <= model.duality_gap_


@pytest.mark.parametrize("seed", [231, 277, 335, 340])
def test_class_masses_that_agree_to_16_digits_are_not_the_same(seed: int) -> None:
    """Where all rows are sure, what masses lack of agreement is less than their last digit and more than the loss."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 1], [14, 6]))
    X = rng.normal(size=(20, 3)) * rng.choice([1, 10]) + rng.choice([8, 30, 100]) * y[:, None]
    X, C = X.astype(np.float32), 10.0 ** rng.integers(8, 13)
    model = SoftmaxRegression(C).fit(X, y)
    _, excess = ExactProblem(X, np.eye(2)[y], C).excess(model.coef_, model.intercept_)
    assert model.duality_gap_ >= excess - ROUNDING


def test_a_bound_above_the_objective_is_not_believed() -> None:
    def at(value: float) -> Evaluation:
        return Evaluation(np.array([[value]]), value, np.zeros((1, 1)), Ridge(1.0), value)

    bound = Bound().better(at(4.0), 2.0)
    assert bound.relative_gap(at(4.0)) == 0.5
    bound = bound.better(at(3.0), 2.0)
    assert bound.relative_gap(at(3.0)) == pytest.approx(1 / 3)  # by the first point's bound, which is 2
    bound = bound.better(at(1.5), 0.75)
    assert bound.relative_gap(at(1.5)) == 0.5  # 2 bounds nothing: 0.75 does


def test_an_interrupt_within_the_change_to_float64_leaves_no_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(8, size=2200)
    X = rng.normal(size=(8, 8))[y] + rng.normal(size=(2200, 8))
    promoted = Solver._promoted
    calls: list[None] = []

    def interrupted(self: Solver, state: State) -> State:
        calls.append(None)
        if len(calls) == 1:
            self.objective.promote()
            raise KeyboardInterrupt
        return promoted(self, state)

    monkeypatch.setattr(Solver, "_promoted", interrupted)
    model = SoftmaxRegression(100.0, tol=1e-5).fit(X, y)
    value, excess = ExactProblem(X, np.eye(8)[y], 100.0).excess(model.coef_, model.intercept_)
    assert calls
    assert model.objective_ == pytest.approx(value, rel=1e-13)
    assert excess <= model.duality_gap_
