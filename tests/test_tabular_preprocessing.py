"""Preprocessing rebuilt from plain numbers is scikit-learn's own pipeline, bit for bit."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from crossent.tabular import InputError, Preprocessing, UnseenCategories
from crossent.tabular.preprocessing import MAX_CATEGORIES


def random_table(seed: int, rows: int, categories: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    words = [f"w{k}" for k in range(categories)]
    numbers = rng.normal(size=(rows, 2)) * [1e-3, 1e6] + [0, 5e5]
    return pl.DataFrame(
        {
            "x": [None if rng.random() < 0.2 else float(v) for v in numbers[:, 0]],
            "word": [None if rng.random() < 0.1 else str(rng.choice(words)) for _ in range(rows)],
            "count": pl.Series([None if rng.random() < 0.1 else int(v) for v in numbers[:, 1]], dtype=pl.Int64),
            "constant": [2.5] * rows,
            "flag": [bool(rng.random() < 0.3) for _ in range(rows)],
        }
    )


def scikit_learn(frame: pl.DataFrame, training: np.ndarray) -> np.ndarray:
    """The same, in the words of scikit-learn's documentation."""
    numbers = frame.select("x", "count", "constant").to_numpy().astype(np.float64, order="C")
    words = np.empty((frame.height, 2), dtype=object)
    for k, name in enumerate(["word", "flag"]):
        words[:, k] = [value if value is None else str(value).lower() for value in frame[name]]
    for_numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    for_words = make_pipeline(
        SimpleImputer(missing_values=None, strategy="most_frequent"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False),
    )
    for_numbers.fit(numbers[training])
    for_words.fit(words[training])
    return np.hstack([for_numbers.transform(numbers), for_words.transform(words)])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(8, 60), st.integers(1, 8))
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_equals_scikit_learn(seed: int, rows: int, categories: int) -> None:
    frame = random_table(seed, rows, categories)
    training = np.arange(0, rows, 2)
    if frame["x"].gather(training).null_count() == len(training):
        return
    expected = scikit_learn(frame, training)
    found = Preprocessing.fit(frame, training).transform(frame)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_equals_scikit_learn_with_rare_categories() -> None:
    rng = np.random.default_rng(3)
    frame = random_table(3, 600, 4).with_columns(
        pl.Series("word", [f"w{int(k)}" for k in rng.geometric(0.012, size=600)])
    )
    training = np.arange(0, 600, 2)
    preprocessing = Preprocessing.fit(frame, training)
    word = preprocessing.categories[0]
    assert word.other
    assert len(word.categories) == MAX_CATEGORIES - 1
    np.testing.assert_array_equal(preprocessing.transform(frame), scikit_learn(frame, training))


def test_only_training_rows_teach() -> None:
    frame = random_table(0, 40, 3)
    training = np.arange(20)
    changed = frame.with_columns(
        pl.when(pl.int_range(pl.len()) < 20).then(pl.col("x")).otherwise(1e9).alias("x"),
        pl.when(pl.int_range(pl.len()) < 20).then(pl.col("word")).otherwise(pl.lit("new")).alias("word"),
    )
    assert Preprocessing.fit(changed, training) == Preprocessing.fit(frame, training)
    other = Preprocessing.fit(changed, np.arange(40))
    assert other != Preprocessing.fit(frame, training)


def test_unknown_category_is_all_zeros() -> None:
    frame = pl.DataFrame({"word": ["a", "b", "a"]})
    preprocessing = Preprocessing.fit(frame, np.arange(3))
    found = preprocessing.transform(pl.DataFrame({"word": ["b", "z", None]}))
    assert found.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert preprocessing.input_names == ["word=a", "word=b"]


def test_unknown_categories_are_counted_with_an_example() -> None:
    frame = pl.DataFrame({"word": ["a", "b", "a"], "flag": [True, False, True], "x": [1, 2, 3]})
    preprocessing = Preprocessing.fit(frame, np.arange(3))
    unseen = UnseenCategories()
    later = pl.DataFrame({"word": ["B", "a", None, "A"], "flag": ["yes", None, "true", "false"], "x": [1, 2, 3, 4]})
    preprocessing.transform(later, unseen=unseen)
    preprocessing.transform(frame, unseen=unseen)
    assert unseen.sentences(7) == [
        "column 'word': 2 of 7 rows hold a category that was not there in training ('B'): they count as none",
        "column 'flag': 1 of 7 rows hold a category that was not there in training ('yes'): they count as none",
    ]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt8, pl.Float32])
def test_truth_values_may_come_back_as_0_and_1(dtype: type[pl.DataType]) -> None:
    training = pl.DataFrame({"flag": [True, False, True, None]})
    preprocessing = Preprocessing.fit(training, np.arange(4))
    unseen = UnseenCategories()
    found = preprocessing.transform(pl.DataFrame({"flag": pl.Series([1, 0, 1, None], dtype=dtype)}), unseen=unseen)
    np.testing.assert_array_equal(found, preprocessing.transform(training))
    assert unseen.sentences(4) == []
    with pytest.raises(InputError, match=r"'flag' held true and false in training and holds 2.* in row 11 \("):
        preprocessing.transform(pl.DataFrame({"flag": pl.Series([1, 2], dtype=dtype)}), first_row=10)


def test_columns_without_a_value_have_no_influence() -> None:
    frame = pl.DataFrame({"x": [None, None, 7.0], "word": [None, None, "a"], "nothing": [None, None, None]})
    found = Preprocessing.fit(frame, np.arange(2)).transform(frame[:2])
    assert found.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series("x", [1.0, float("nan"), 2.0]), "column 'x' holds NaN in row 1"),
        (pl.Series("x", [1.0, 2.0, float("inf")]), "column 'x' holds infinity in row 2"),
        (pl.Series("x", ["1", "inf", "2"]), "column 'x' holds infinity in row 1"),
        (pl.Series("x", [[1], [2], [3]]), "column 'x' holds values of type List"),
        (pl.Series("x", [b"1", b"2", b"3"]), "column 'x' holds values of type Binary"),
        (pl.Series("x", [1e308, -1e308, 1e308]), "column 'x' holds numbers too large"),
    ],
)
def test_refusals_when_fitting(column: pl.Series, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing.fit(pl.DataFrame([column]), np.arange(3))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series("y", [1.0]), "no column 'x' in 'the table'; its columns are 'y'"),
        (pl.Series("x", ["1", "red"]), "held numbers in training and holds 'red' in row 1"),
        (pl.Series("x", [True]), "held numbers in training and is of type Boolean here"),
        (pl.Series("x", [1.0, float("nan")]), "column 'x' holds NaN in row 1"),
        (pl.Series("x", [1.0, 1e308]), "too large to standardise in row 1"),
    ],
)
def test_refusals_when_transforming(column: pl.Series, message: str) -> None:
    preprocessing = Preprocessing.fit(pl.DataFrame({"x": [1e-3, 2e-3, 3e-3]}), np.arange(3))
    with pytest.raises(InputError, match=message):
        preprocessing.transform(pl.DataFrame([column]))
