"""Slices of higher loss, what drives a model, its card and its learning curve: against scikit-learn and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import ttest_ind
from sklearn.inspection import partial_dependence
from sklearn.linear_model import LogisticRegression

from crossent.report import evaluate, from_estimator, render_html, summarize_fit
from crossent.report.drivers import coefficients, drivers
from crossent.report.slices import grouped, slices
from crossent.sklearn import SoftmaxRegression
from crossent.tabular import FitOptions, InputError, fit_table

from .test_sections import table


def cut(cells: dict[str, Any], losses: Any) -> dict[str, Any]:
    found = slices(pl.DataFrame(cells, strict=False), np.asarray(losses), np.zeros(len(losses)), np.arange(len(losses)))
    assert found is not None
    return found


def test_a_slice_of_higher_loss_is_found_and_tested_as_scipy_does() -> None:
    rng = np.random.default_rng(0)
    port = rng.choice(["Q", "S"], 300, p=[0.3, 0.7])
    losses = rng.exponential(size=300) + 0.9 * (port == "Q")
    found = cut({"port": port, "noise": rng.normal(size=300)}, losses)
    (worst,) = found["worse"]
    assert (worst["slice"], worst["rows"]) == ("port = Q", int(np.sum(port == "Q")))
    inside, outside = losses[port == "Q"], losses[port != "Q"]
    assert (worst["loss"], worst["others"]) == pytest.approx((inside.mean(), outside.mean()), rel=1e-12)
    raw = ttest_ind(inside, outside, equal_var=False, alternative="greater").pvalue
    assert found["tested"] == 7  # two ports, five bins
    assert worst["p_value"] == pytest.approx(7 * raw, rel=1e-9)  # Holm: the least of seven counts seven times


def test_chance_names_a_slice_in_one_of_twenty_tables_at_most() -> None:
    rng = np.random.default_rng(1)
    named = 0
    for _ in range(200):
        cells = {"a": rng.integers(5, size=200), "b": rng.normal(size=200)}
        named += bool(cut(cells, rng.exponential(size=200) ** 2)["worse"])
    assert named <= 18  # 5 % of 200, and the binomial's 99 % point above it


def test_rows_are_grouped_by_bin_category_and_missing() -> None:
    numbers = grouped(pl.Series("x", ["1", "NA", *map(str, range(2, 101))]))
    assert numbers.names == ["x from 1 to 20", "x from 21 to 40", "x from 41 to 60", "x from 61 to 80",
                             "x from 81 to 100", "x is missing"]  # fmt: skip
    assert np.bincount(numbers.code).tolist() == [20, 20, 20, 20, 20, 1]
    few = grouped(pl.Series("x", [3.0, 1.0, 3.0, None]))
    assert [few.names[k] for k in few.code] == ["x = 3.0", "x = 1.0", "x = 3.0", "x is missing"]
    assert grouped(pl.Series("x", [None, None], dtype=pl.String)).code.tolist() == [0, 0]
    many = grouped(pl.Series("x", [f"id {k}" for k in range(60)]))
    assert sorted(set(many.code.tolist())) == [*range(-1, 50)]  # beyond 50 categories: of no group


@pytest.fixture(scope="module")
def wine() -> tuple[pd.DataFrame, Any, Any]:
    from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True, as_frame=True)
    X = ((X - X.mean()) / X.std()).iloc[:, :4].set_axis(list("abcd"), axis=1)
    return X, y, LogisticRegression().fit(X, y)


@pytest.mark.parametrize("make", [lambda X: X, lambda X: pl.from_pandas(X), lambda X: X.to_numpy()])
def test_importance_is_the_loss_of_shuffled_columns(wine: Any, make: Any) -> None:
    X, y, model = wine
    given = make(X)
    model = LogisticRegression().fit(X.to_numpy(), y)
    cells = pl.from_pandas(X)
    found = drivers(lambda X: model.predict_proba(np.asarray(X)), given, cells, y.to_numpy(), ("0", "1", "2"))
    assert found is not None
    P = model.predict_proba(X.to_numpy())
    for entry in found["columns"]:
        # The mean over all shuffles is that over all pairs of rows.
        j, losses = X.columns.get_loc(entry["column"]), []
        for value in X.iloc[:, j]:
            changed = X.to_numpy().copy()
            changed[:, j] = value
            losses.append(-np.log(model.predict_proba(changed)[np.arange(len(y)), y]))
        gain = float(np.mean(losses) - np.mean(-np.log(P[np.arange(len(y)), y])))
        reach = (entry["upper"] - entry["lower"]) / 2
        assert abs(entry["gain"] - gain) < reach
        rows = np.bincount(y)
        assert float(np.dot(entry["per_class"], rows) / rows.sum()) == pytest.approx(entry["gain"], rel=1e-9)
    assert [e["gain"] for e in found["columns"]] == sorted((e["gain"] for e in found["columns"]), reverse=True)


def test_dependence_is_scikit_learns(wine: Any) -> None:
    X, y, model = wine
    report = from_estimator(model, X, y).to_dict()
    assert len(report["drivers"]["dependence"]) == 4
    for entry in report["drivers"]["dependence"]:
        values = np.array(entry["values"])
        wanted = partial_dependence(
            model, X, [entry["column"]], custom_values={entry["column"]: values}, response_method="predict_proba"
        )["average"]
        for curve in entry["curves"]:
            np.testing.assert_allclose(curve["probabilities"], wanted[int(curve["label"])], rtol=1e-9)


def test_a_column_that_is_not_used_is_worth_nothing_exactly() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"used": rng.normal(size=80), "word": pd.Categorical(rng.choice(["a", "b"], 80))})
    y = np.where(X["used"] > 0, "yes", "no")

    class Half:
        classes_ = np.array(["no", "yes"])

        def predict_proba(self, X: Any) -> Any:
            assert X["word"].dtype == "category"
            p = 1 / (1 + np.exp(-X["used"].to_numpy()))
            return np.column_stack([1 - p, p])

    report = from_estimator(Half(), X, y).to_dict()
    word = next(e for e in report["drivers"]["columns"] if e["column"] == "word")
    assert (word["gain"], word["lower"], word["upper"]) == (0, 0, 0)
    assert [d["column"] for d in report["drivers"]["dependence"]] == ["used"]


def test_coefficients_of_a_fit_have_the_intervals_of_its_hessian() -> None:
    result = fit_table(table(300), "t", "y", FitOptions(calibration_size=0.2, strength=1e3))
    assert result.coefficients is not None
    assert result.calibration is not None
    temperature = result.calibration.temperature
    assert temperature > 1
    found = coefficients(
        result.model, result.coefficients, temperature, result.model.preprocessing.transform(result.cells)
    )
    assert [one["label"] for one in found] == list(result.model.classes)
    # Each class less the mean of all, from contrasts with the first class, one by one.
    contrasts = result.coefficients
    K, size = len(found), contrasts.coefficients.shape[1]
    for k, one in enumerate(found):
        share = np.full(K - 1, -1 / K)
        if k:
            share[k - 1] += 1
        for entry in one["inputs"]:
            d = result.model.preprocessing.input_names.index(entry["input"])
            value = share @ contrasts.coefficients[:, d] / temperature
            places = [i * size + d for i in range(K - 1)]
            error = np.sqrt(share @ contrasts.covariance[np.ix_(places, places)] @ share) / temperature
            assert entry["value"] == pytest.approx(value, rel=1e-6, abs=1e-9)
            assert entry["upper"] - entry["lower"] == pytest.approx(2 * 1.959964 * error, rel=1e-5)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_learning_curve_ends_at_the_model_itself(link: str) -> None:
    frame = table(400)
    result = fit_table(frame, "t", "y", FitOptions(learning_curve=True, link=link, tolerance=1e-8))
    points = result.learning_curve
    assert [point.rows for point in points] == [75, 150, 300]
    report = summarize_fit(result)
    assert points[-1].test_loss == pytest.approx(report["loss"]["nats"], rel=1e-4)
    assert points[-1].training_loss == pytest.approx(report["training_loss"]["nats"], rel=1e-4)
    assert "Learning curve" in render_html(report)
    rare = frame.with_columns(y=pl.when(pl.int_range(pl.len()) < 4).then(pl.lit("rare")).otherwise(pl.col("y")))
    assert "Learning curve" not in render_html(summarize_fit(fit_table(rare, "t", "y")))


def test_a_learning_curve_needs_every_class_in_each_part() -> None:
    frame = pl.DataFrame({"x": np.arange(60.0), "y": ["a", "b"] * 29 + ["rare"] * 2})
    with pytest.raises(InputError, match="needs each class in 25% of the training rows"):
        fit_table(frame, "t", "y", FitOptions(learning_curve=True, test_size=0.5))


def test_a_card_says_what_became_of_each_column() -> None:
    frame = table(200).with_columns(id=pl.int_range(200).cast(pl.String), word=pl.lit("w"))
    card = summarize_fit(fit_table(frame, "t", "y", FitOptions(drop=["id"])), command=["crossent", "fit"])["card"]
    became = {entry["column"]: entry["became"] for entry in card["columns"]}
    assert became["id"] == "not read"
    assert became["x0"].startswith("number: (x - ")
    assert (card["C"], card["seed"], card["sha256"], card["command"]) == (1.0, 0, None, ["crossent", "fit"])


def test_slices_are_shown_from_python_too() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"port": rng.choice(["Q", "S"], 400)})
    y = rng.integers(2, size=400)
    p = np.where(X["port"] == "Q", np.where(y == 1, 0.2, 0.8), np.where(y == 1, 0.8, 0.2))
    report = evaluate(y, np.column_stack([1 - p, p]), X=X)
    assert [entry["slice"] for entry in report.to_dict()["slices"]["worse"]] == ["port = Q"]
    assert "port = Q" in str(report)
    assert "port = Q" in report._repr_html_()


def test_a_sparse_matrix_is_judged_without_its_columns() -> None:
    from scipy.sparse import csr_array

    X = csr_array(np.eye(40, 3))
    y = np.arange(40) % 2
    report = from_estimator(SoftmaxRegression().fit(X, y), X, y)
    assert report.to_dict()["drivers"] is None
