"""Data frames as X and series as y, from more than one library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_array

from crossent.sklearn import SoftmaxRegression, SoftmaxRegressionCV
from crossent.sklearn.inputs import check_values

MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
SERIES: dict[str, Callable[[Any], Any]] = {"pandas": pd.Series, "polars": pl.Series}


def columns(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 3)).astype(dtype)
    return {"a": X[:, 0], "b": X[:, 1], "flag": X[:, 2] > 0}


def labels() -> np.ndarray:
    values = columns()
    return np.where(values["a"] + values["b"] > 0, "yes", "no")


@pytest.mark.parametrize("library", MAKERS)
def test_frames_are_fitted_as_arrays_and_keep_their_names(library: str) -> None:
    frame, y = MAKERS[library](columns()), SERIES[library](labels().tolist())
    X = np.column_stack(list(columns().values())).astype(np.float64)
    model, expected = SoftmaxRegression().fit(frame, y), SoftmaxRegression().fit(X, labels())
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    assert model.feature_names_in_.tolist() == ["a", "b", "flag"]
    assert model.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(model.predict_proba(frame), expected.predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(MAKERS[library](dict(reversed(columns().items()))))
    assert SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=2).fit(frame, y).feature_names_in_.tolist() == ["a", "b", "flag"]


@pytest.mark.parametrize("library", MAKERS)
def test_frames_of_float32_stay_float32(library: str) -> None:
    values = columns(np.float32)
    del values["flag"]
    assert SoftmaxRegression().fit(MAKERS[library](values), labels()).coef_.dtype == np.float32


@pytest.mark.parametrize("library", MAKERS)
@pytest.mark.parametrize("values", [["x"] * 120, ["1.5"] * 120])
def test_columns_that_are_not_of_numbers_are_named(library: str, values: list[str]) -> None:
    frame = MAKERS[library]({**columns(), "town": values})
    with pytest.raises(ValueError, match=r"^every column of X must hold numbers; got column 'town' of type String"):
        SoftmaxRegression().fit(frame, labels())
    good = SoftmaxRegression().fit(MAKERS[library]({**columns(), "town": np.ones(120)}), labels())
    with pytest.raises(ValueError, match="got column 'town' of type String"):
        good.predict(frame)


@pytest.mark.parametrize("library", MAKERS)
def test_dates_and_categories_are_named(library: str) -> None:
    dates = np.array(["2020-01-01"] * 120, dtype="datetime64[us]")
    with pytest.raises(ValueError, match="column 'day' of type Datetime"):
        SoftmaxRegression().fit(MAKERS[library]({**columns(), "day": dates}), labels())
    category = pd.Categorical(["x"] * 120) if library == "pandas" else pl.Series(["x"] * 120, dtype=pl.Categorical)
    with pytest.raises(ValueError, match="column 'kind' of type Categorical"):
        SoftmaxRegression().fit(MAKERS[library]({**columns(), "kind": category}), labels())


@pytest.mark.parametrize("library", MAKERS)
def test_missing_cells_are_named(library: str) -> None:
    number = pd.array([None, *range(119)], dtype="Int64") if library == "pandas" else [*range(7), None, *range(112)]
    row = 0 if library == "pandas" else 7
    with pytest.raises(ValueError, match=f"^X must have no missing cell; got one in column 'n', row {row}; impute it$"):
        SoftmaxRegression().fit(MAKERS[library]({**columns(), "n": number}), labels())


def test_frames_whose_columns_have_no_text_names_or_hold_objects() -> None:
    X = np.column_stack([columns()["a"], columns()["b"]])
    expected = SoftmaxRegression().fit(X, labels())
    plain = SoftmaxRegression().fit(pd.DataFrame(X), labels())
    np.testing.assert_array_equal(plain.coef_, expected.coef_)
    assert not hasattr(plain, "feature_names_in_")
    objects = SoftmaxRegression().fit(pd.DataFrame(X.astype(object), columns=["a", "b"]), labels())
    np.testing.assert_array_equal(objects.coef_, expected.coef_)


def test_repeated_names_are_refused() -> None:
    frame = pd.concat([pd.DataFrame(columns())] * 2, axis=1)
    with pytest.raises(ValueError, match=r"^the columns of X must have names of their own; got 'a' several times"):
        SoftmaxRegression().fit(frame, labels())


@pytest.mark.parametrize(("dtype", "factor"), [(np.float64, 1e160), (np.float32, 1e18)])
@pytest.mark.parametrize("make", [np.asarray, csr_array])
def test_numbers_whose_squares_overflow_are_refused_by_column(make: Any, dtype: Any, factor: float) -> None:
    X = np.column_stack([columns()["a"], np.abs(columns()["b"]) * factor]).astype(dtype)
    with pytest.raises(ValueError, match=r"^the squares of X must be finite; got .*e\+.* in column 1; scale it"):
        SoftmaxRegression().fit(make(X), labels())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [5, 300_000])
def test_one_sum_of_squares_sees_every_number_that_is_not_moderate(dtype: Any, rows: int) -> None:
    X = np.ones((rows, 3), dtype)
    check_values(SoftmaxRegression(), X)
    for place in ((0, 0), (rows - 1, 2)):
        for value in (np.nan, np.inf, -np.inf, 2e-2 * float(np.sqrt(np.finfo(dtype).max))):
            bad = X.copy()
            bad[place] = value
            with pytest.raises(ValueError, match=r"^Input X contains (NaN|infinity)|^the squares of X must be finite"):
                check_values(SoftmaxRegression(), bad)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_in_scikit_learn_s_words(value: float) -> None:
    X = np.ones((6, 2))
    X[3, 1] = value
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        SoftmaxRegression().fit(X, [0, 1] * 3)
