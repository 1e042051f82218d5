"""Training on a table, the model file, and predictions from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import crossent as ce
from crossent.errors import check_number
from crossent.tabular import (
    ColumnOptions,
    FitOptions,
    InputError,
    Model,
    TrainedModel,
    fit_table,
    prediction_table,
    read_model,
    read_predictions,
    read_table,
)
from crossent.tabular.columns import read_column
from crossent.tabular.labels import encode_labels, label_notes


def mixed_table(rows: int = 120) -> pl.DataFrame:
    """Numbers, words, missing cells and three classes that they tell apart."""
    rng = np.random.default_rng(7)
    kind = rng.integers(3, size=rows)
    size = rng.normal(size=rows) + kind
    colour = (kind + rng.integers(2, size=rows)) % 3
    return pl.DataFrame(
        {
            "size": [None if rng.random() < 0.1 else float(v) for v in size],
            "colour": [None if rng.random() < 0.1 else ["red", "green", "blue"][k] for k in colour],
            "kind": [["ant", "bee", "cat"][k] for k in kind],
        }
    )


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return fit_table(mixed_table(), "mixed", "kind")


def test_file_and_back_is_the_same_model(trained: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(trained.model.to_bytes())
    again = read_model(str(path))
    assert again.preprocessing == trained.model.preprocessing
    assert (again.classes, again.target, again.training) == (
        trained.model.classes,
        trained.model.target,
        trained.model.training,
    )
    assert again.coef.tobytes() == trained.model.coef.tobytes()
    assert again.intercept.tobytes() == trained.model.intercept.tobytes()
    assert again.to_bytes() == trained.model.to_bytes()


def test_predictions_are_those_of_the_test_part(trained: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(trained.model.to_bytes())
    table = prediction_table(read_model(str(path)), mixed_table(), "mixed")
    names = [f"probability_{name}" for name in ("ant", "bee", "cat")]
    assert table.columns == ["kind", "prediction", *names]
    found = table.select(names).to_numpy()[trained.test]
    np.testing.assert_allclose(found, ce.softmax(trained.test_logits), rtol=1e-12)
    best = table.select(names).to_numpy().argmax(axis=1)
    assert table["prediction"].to_list() == [("ant", "bee", "cat")[k] for k in best]
    unlabelled = prediction_table(read_model(str(path)), mixed_table().drop("kind"), "mixed")
    assert unlabelled.equals(table.drop("kind"))


def test_the_model_has_learned_and_is_at_the_optimum(trained: TrainedModel) -> None:
    codes = trained.test_codes
    assert ce.cross_entropy(trained.test_logits, codes) < 0.8
    assert trained.estimator.duality_gap_ <= 1e-4
    training = np.setdiff1d(np.arange(120), trained.test)
    matrix = trained.model.preprocessing.transform(mixed_table())[training]
    truth = encode_labels(mixed_table()["kind"])[1][training]
    _, gradient = ce.linear_value_and_grad(
        matrix, trained.model.coef, truth, linear_bias=trained.model.intercept, reduction="sum"
    )
    # First-order condition of Σ ℓ + ½‖W‖², at the size of the gradient at W = 0.
    _, start = ce.linear_value_and_grad(matrix, np.zeros_like(trained.model.coef), truth, reduction="sum")
    excess = np.linalg.norm(gradient.weight + trained.model.coef)
    assert excess < 0.02 * np.linalg.norm(start.weight)


def test_split_is_stratified_seeded_and_disjoint(trained: TrainedModel) -> None:
    counts = trained.training_counts
    assert len(set(trained.test)) == 30
    assert counts.sum() == 90
    codes = encode_labels(mixed_table()["kind"])[1]
    np.testing.assert_array_equal(counts + np.bincount(codes[trained.test]), np.bincount(codes))
    np.testing.assert_array_equal(trained.test_codes, codes[trained.test])
    np.testing.assert_allclose(np.bincount(trained.test_codes) / 30, np.bincount(codes) / 120, atol=1 / 30)
    assert np.array_equal(fit_table(mixed_table(), "mixed", "kind").test, trained.test)
    assert not np.array_equal(fit_table(mixed_table(), "mixed", "kind", FitOptions(seed=1)).test, trained.test)


def test_labels_keep_the_order_of_their_type() -> None:
    classes, codes = encode_labels(pl.Series("y", [10, 9, 2, 10]))
    assert classes == ["2", "9", "10"]
    assert codes.tolist() == [2, 1, 0, 2]
    assert encode_labels(pl.Series("y", [True, False]))[0] == ["false", "true"]


def test_labels_that_are_integers_written_as_floats_are_integers() -> None:
    for dtype in (pl.Float32, pl.Float64):
        classes, codes = encode_labels(pl.Series("y", [10.0, -0.0, 2.0, 0.0], dtype=dtype))
        assert classes == ["0", "2", "10"]
        assert codes.tolist() == [2, 0, 1, 0]
    assert encode_labels(pl.Series("y", [0.0, 0.5]))[0] == ["0.0", "0.5"]
    assert encode_labels(pl.Series("y", [0.0, 1e300]))[0] == ["0.0", "1e+300"]


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (["01", "1", "2"], ["01", "1", "2"]),
        (["1.10", "1.1", "2"], ["1.1", "1.10", "2"]),
        (["1.0", "1", "2"], ["1", "1.0", "2"]),
        (["01", "02", "10"], ["01", "02", "10"]),
        (["10", "9", "2"], ["2", "9", "10"]),
        (["10.0", "-0.0", "2."], ["0", "2", "10"]),
        (["1.50", "2", "-3"], ["-3", "1.50", "2"]),
        (["red", "01", "1"], ["01", "1", "red"]),
        (["True", "FALSE", "True"], ["false", "true"]),
        (["True", "true", "False"], ["False", "True", "true"]),
        (["True", "False", "Maybe"], ["False", "Maybe", "True"]),
    ],
)
def test_labels_of_text_are_classes_as_written_or_plainer_where_that_merges_none(
    written: list[str], classes: list[str]
) -> None:
    found, codes = encode_labels(pl.Series("y", written))
    assert found == classes
    assert len(set(codes.tolist())) == len(set(written))


def test_labels_stay_as_written_where_other_classes_are_told_apart_so() -> None:
    assert encode_labels(pl.Series("y", ["1.0", "2"]))[0] == ["1", "2"]
    assert encode_labels(pl.Series("y", ["1.0", "2"]), ["1", "1.0", "2"])[0] == ["1.0", "2"]
    assert encode_labels(pl.Series("y", ["1.0", "2"]), ["1.0", "2", "red"])[0] == ["1", "2"]
    assert encode_labels(pl.Series("y", ["1.0", "2"]), ["1", "2"])[0] == ["1", "2"]
    assert encode_labels(pl.Series("y", ["True", "False"]), ["TRUE", "FALSE"])[0] == ["false", "true"]


def test_labels_that_look_the_same_get_a_note() -> None:
    rng = np.random.default_rng(0)
    words = ["yes", "yes ", "no", "caf\u00e9", "cafe\u0301", "No"]
    frame = pl.DataFrame({"x": rng.normal(size=60), "y": words * 10})
    expected = [
        "classes 'cafe\\u0301', 'caf\\xe9' of column 'y' differ in white space or Unicode form alone: if they are one, "
        "mend them",
        "classes 'yes', 'yes ' of column 'y' differ in white space or Unicode form alone: if they are one, mend them",
    ]
    assert [note for note in fit_table(frame, "t", "y").notes if note.startswith("classes")] == expected
    assert label_notes(["a", "A", "b"], "y") == []


def test_a_spelling_of_no_value_is_a_class_among_words() -> None:
    assert encode_labels(pl.Series("y", ["EU", "NA", "EU"]))[0] == ["EU", "NA"]
    assert encode_labels(pl.Series("y", ["+", "-", "+"]))[0] == ["+", "-"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 8, "constant \\('a'\\)"),
        (["a"] * 7 + ["b"], "class 'b' of column 'y' has one row: each class needs at least 2"),
        (["a"] * 6 + ["b", "c"], "class 'b' of column 'y' has one row \\(and 1 more"),
        (["a", "b"] * 3 + ["a", None], "no label in row 7"),
        (["a", "b"] * 3 + ["a", " "], "no label in row 7"),
        (["1", "2"] * 3 + ["NA", "1"], "no label in row 6"),
        (["1", "2"] * 3 + ["1", "nan"], "no label in row 7"),
        (["1", "2"] * 3 + ["1", "inf"], "no label in row 7 \\(counted from 0\\): it holds 'inf'"),
        ([0.1, 0.7, 0.5, 0.4, 0.3, 0.2, 0.9, 0.8], "looks like a quantity"),
        ([1.0, float("nan")] * 4, "holds nan in row 1"),
        ([[1], [2]] * 4, "name no class"),
        (["a", "b", "c", "d"] * 2, "leaves 6 to train and 2 to test"),
    ],
)
def test_targets_that_cannot_be_learned(labels: list, message: str) -> None:
    frame = pl.DataFrame({"x": np.arange(8.0), "y": labels}, strict=False)
    with pytest.raises(InputError, match=message):
        fit_table(frame, "t", "y")


STEPS = np.arange(400) % 40
QUANTITIES = {
    "decimals": pl.Series(STEPS / 4),
    "decimals, float32": pl.Series((STEPS / 4).astype(np.float32)),
    "decimals, Decimal": pl.Series(STEPS / 4).cast(pl.Decimal(10, 2)),
    "decimals, text": pl.Series([f"{k / 4}" for k in STEPS]),
    "decimals, categories": pl.Series([f"{k / 4}" for k in STEPS], dtype=pl.Categorical),
    "counts, one of them once": pl.Series([*(STEPS[:-1] ** 2), 10_000]),
    "counts as text, one of them once": pl.Series([*map(str, STEPS[:-1] ** 2), "10000"]),
    "days": pl.Series([*(STEPS[:-1] * 7), 3]).cast(pl.Date),
    "moments": pl.Series(STEPS * 7).cast(pl.Datetime("ms")),
}


@pytest.mark.parametrize("kind", QUANTITIES)
def test_a_quantity_is_no_target_whatever_its_type(kind: str) -> None:
    frame = pl.DataFrame({"x": np.arange(400.0), "y": QUANTITIES[kind]})
    with pytest.raises(InputError, match=r"different (numbers|times) in 400 rows: it looks like a quantity"):
        fit_table(frame, "t", "y")


@pytest.mark.parametrize(
    ("classes", "is_noted"),
    [(range(40), False), (range(1, 41), False), (range(17, 57), True), (range(0, 80, 2), True), (range(2, 22), False)],
)
def test_many_whole_numbers_are_noted_unless_they_count(classes: range, is_noted: bool) -> None:
    notes = label_notes(map(str, classes), "y")
    assert (
        notes
        == [
            "column 'y' has 40 different numbers, each a class of its own: if it is a quantity, a regression "
            "predicts it"
        ]
        * is_noted
    )


def test_a_number_of_many_digits_is_not_echoed_whole() -> None:
    digits = "9" * 400
    frame = pl.DataFrame({"x": np.arange(8.0), "y": ["1", "2"] * 3 + ["1", digits]})
    for attempt in (
        lambda: fit_table(frame, "t", "y"),
        lambda: fit_table(frame.rename({"x": digits}), "t", digits[:-1]),
        lambda: check_number("temperature", int(digits)),
        lambda: check_number("temperature", 10**5000),
        lambda: read_column(pl.Series("x", ["a" * 10**6]), "numbers"),
    ):
        with pytest.raises(ValueError, match=r"9999…|a longer integer|aaa…'") as caught:
            attempt()
        assert len(str(caught.value)) < 300


def test_other_refusals_of_training() -> None:
    frame = pl.DataFrame({"x": np.arange(8.0), "y": ["a", "b"] * 4})
    with pytest.raises(InputError, match="no column 'z' in 't'; its columns are 'x', 'y'"):
        fit_table(frame, "t", "z")
    with pytest.raises(InputError, match="no column 'z'"):
        fit_table(frame, "t", "y", FitOptions(drop=["z"]))
    with pytest.raises(InputError, match="column 'y' is the target and cannot be dropped as well"):
        fit_table(frame, "t", "y", FitOptions(drop=["y"]))
    with pytest.raises(InputError, match="no column beside 'y'"):
        fit_table(frame, "t", "y", FitOptions(drop=["x"]))
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_table(frame, "t", "y", FitOptions(test_size=1.0))
    with pytest.raises(InputError, match="NaN in row 3"):
        fit_table(frame.with_columns(x=pl.Series([0.0, 1.0, 2.0, float("nan"), 4.0, 5.0, 6.0, 7.0])), "t", "y")


def test_columns_without_a_name_are_refused() -> None:
    frame = pl.DataFrame({"": np.arange(8.0), "x": np.arange(8.0), "y": ["a", "b"] * 4})
    for target in ("y", ""):
        with pytest.raises(InputError, match="a column of 't' has no name: give it one"):
            fit_table(frame, "t", target)
    fit_table(frame, "t", "y", FitOptions(drop=[""]))


@pytest.mark.parametrize("name", ["*", "^x$"])
def test_names_that_are_patterns_to_polars_are_refused(name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({name: np.arange(8.0), "x": ["u", "v"] * 4, "y": ["a", "b"] * 4})
    path = tmp_path / "t.csv"
    frame.write_csv(path)
    for target in ("y", name):
        with pytest.raises(InputError, match="a pattern of names to polars: rename it"):
            fit_table(read_table(str(path)), "t", target)
        with pytest.raises(InputError, match="a pattern of names to polars: rename it"):
            read_predictions(read_table(str(path)), "t", target, "logits")


def test_codes_are_pointed_out() -> None:
    frame = mixed_table().with_columns(zip=pl.Series(["01234", "98765", "00501"] * 40))
    result = fit_table(frame, "t", "kind")
    assert [column.name for column in result.model.preprocessing.categories] == ["colour", "zip"]
    assert (
        "column 'zip' holds digits that begin with 0 ('00501'): they are codes, not numbers, and each is a category of "
        "its own" in result.notes
    )


def test_a_single_code_among_numbers_is_pointed_out() -> None:
    cells = [repr(float(value)) for value in np.random.default_rng(0).integers(0, 40, 120) / 4]
    frame = mixed_table().with_columns(x=pl.Series([*cells[:-1], "007"]))
    result = fit_table(frame, "t", "kind")
    assert sum("'x' holds digits that begin with 0 ('007')" in note for note in result.notes) == 1


def test_an_identifier_is_pointed_out_where_it_is_kept() -> None:
    frame = mixed_table().with_columns(name=pl.Series([f"n{k}" for k in range(120)]))
    notes = fit_table(frame, "t", "kind", FitOptions(columns=ColumnOptions(keep=["name"]))).notes
    assert any("'name' has 90 different values in 90 training rows" in note for note in notes)


def test_data_to_predict_on_must_have_the_columns(trained: TrainedModel) -> None:
    model: Model = trained.model
    with pytest.raises(InputError, match="no column 'size' in 'new'; its columns are 'colour', 'kind'"):
        model.predict_probabilities(mixed_table().drop("size"), "new")
    with pytest.raises(InputError, match="holds 'huge' in row 1"):
        model.predict_probabilities(pl.DataFrame({"size": ["1", "huge"], "colour": ["red", "red"]}))
    shuffled = mixed_table().select("colour", pl.lit("x").alias("extra"), "size")
    np.testing.assert_array_equal(model.predict_probabilities(shuffled), model.predict_probabilities(mixed_table()))


def predictions(**columns: list) -> pl.DataFrame:
    return pl.DataFrame(columns)


@pytest.mark.parametrize("written", ["1.00", "1.", "1.0", "1"])
def test_columns_are_called_after_labels_as_labels_are_written(written: str) -> None:
    labels = pl.Series([written, "2", written, "2"], dtype=pl.String)
    frame = pl.DataFrame({"y": labels, f"p_{written}": [0.9, 0.2, 0.8, 0.1], "p_2": [0.1, 0.8, 0.2, 0.9]})
    assert read_predictions(frame, "t", "y", "probabilities").classes == ("1", "2")


def test_columns_of_labels_that_differ_in_case_stay_apart() -> None:
    labels = pl.Series(["TRUE", "True", "false", "True"])
    columns = {f"p_{name}": [0.5, 0.2, 0.3, 0.1] for name in ("TRUE", "True")}
    frame = pl.DataFrame({"y": labels, **columns, "p_false": [0.0, 0.6, 0.4, 0.8]})
    assert set(read_predictions(frame, "t", "y", "probabilities").classes) == {"TRUE", "True", "false"}


def test_predictions_by_prefix_or_by_name() -> None:
    frame = predictions(y=["b", "a"], id=[7, 8], p_a=[0.25, 0.5], p_b=[0.25, 0.5], p_c=[0.5, 0.0])
    judged = read_predictions(frame, "t", "y", "probabilities")
    assert judged.classes == ("a", "b", "c")
    assert judged.codes.tolist() == [1, 0]
    np.testing.assert_allclose(judged.losses, [np.log(4), np.log(2)])
    assert judged.notes == []
    plain = predictions(y=["b", "a", "c"], a=[0.25, 0.5, 0.1], b=[0.25, 0.5, 0.2], c=[0.5, 0.0, 0.7], word=["x"] * 3)
    named = read_predictions(plain, "t", "y", "probabilities")
    prefixed = plain.rename({name: f"proba_{name}" for name in "abc"})
    np.testing.assert_array_equal(named.losses, read_predictions(prefixed, "t", "y", "probabilities").losses)


def test_the_prefix_of_the_declared_scale_comes_first() -> None:
    frame = predictions(y=["a", "b"], p_a=[0.5, 0.5], p_b=[0.5, 0.5], logit_a=[3.0, 0.0], logit_b=[0.0, 3.0])
    assert read_predictions(frame, "t", "y", "logits").losses.tolist() == pytest.approx([np.log1p(np.exp(-3))] * 2)
    assert read_predictions(frame, "t", "y", "probabilities").losses.tolist() == pytest.approx([np.log(2)] * 2)


def test_a_column_of_numbers_that_is_no_label_is_refused_by_name() -> None:
    frame = predictions(
        id=[1, 2], cat=[2.0, 0.1], dog=[0.3, 1.0], y=["cat", "dog"], empty=[None, None], word=["a", "b"]
    )
    with pytest.raises(InputError, match=r"column 'id' of 't', .*--drop, or .* with a prefix \('logit_id'\)"):
        read_predictions(frame, "t", "y", "logits")
    with pytest.raises(InputError, match="columns 'id', 'age' of 't'"):
        read_predictions(frame.with_columns(age=pl.lit(3)), "t", "y", "logits")
    assert read_predictions(frame, "t", "y", "logits", drop=["id"]).classes == ("cat", "dog")
    with pytest.raises(InputError, match="no column 'ID'"):
        read_predictions(frame, "t", "y", "logits", drop=["ID"])
    assert read_predictions(frame.with_columns(pl.lit(1).alias("")), "t", "y", "logits", drop=["id", ""]).notes == []
    with pytest.raises(InputError, match="column 'y' is the target and cannot be dropped"):
        read_predictions(frame, "t", "y", "logits", drop=["y"])
    # A class that no row has can only be told by a prefix.
    three = predictions(y=["a", "b"], a=[0.5, 0.2], b=[0.3, 0.3], c=[0.2, 0.5])
    with pytest.raises(InputError, match="column 'c' of 't'"):
        read_predictions(three, "t", "y", "probabilities")
    renamed = three.rename({name: f"p_{name}" for name in "abc"})
    assert read_predictions(renamed, "t", "y", "probabilities").classes == ("a", "b", "c")


@pytest.mark.parametrize("name", ["1", "1.0", "p_1", "probability_1", "p", "y_prob", "Score"])
def test_one_column_of_probabilities_is_enough_for_two_labels(name: str) -> None:
    frame = pl.DataFrame({"y": [0, 1, 0, 1], name: [1e-20, 1e-20, 0.25, 0.75]})
    judged = read_predictions(frame, "t", "y", "probabilities")
    assert judged.classes == ("0", "1")
    assert judged.losses[0] == 1e-20
    np.testing.assert_allclose(judged.losses[1:], [20 * np.log(10), -np.log(0.75), -np.log(0.75)], rtol=1e-15)
    np.testing.assert_array_equal(judged.probabilities[2:], [[0.75, 0.25], [0.25, 0.75]])
    assert judged.notes == [f"column {name!r} holds the probabilities of label '1'; '0' has 1 minus it"]
    assert judged.warnings == []


@pytest.mark.parametrize(("name", "sign"), [("dog", 1), ("logit_dog", 1), ("cat", -1)])
def test_one_column_of_logits_is_enough_for_two_labels(name: str, sign: int) -> None:
    values = [40.0, -40.0, 0.5, -np.inf]
    frame = pl.DataFrame({"y": ["dog", "cat", "cat", "dog"], name: values, "note": ["x"] * 4})
    judged = read_predictions(frame, "t", "y", "logits")
    margins = sign * np.array(values) * [1, -1, -1, 1]
    np.testing.assert_allclose(judged.losses, np.logaddexp(0, -margins), rtol=1e-14)
    assert "has logit 0" in judged.notes[0]
    between = frame.with_columns(pl.Series(name, [0.0, 1.0, 0.5, 0.2]))
    assert "use --probabilities" in read_predictions(between, "t", "y", "logits").warnings[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"p": [0.5, 0.1], "score": [1, 2]}, "'p', 'score' of 't' could each be the predictions for label '1'"),
        ({"1": [0.5, 0.1], "age": [30, 40]}, "column 'age' of 't'"),
        ({"1": [0.5, 1.1]}, "column '1' holds 1.1 in row 1 .*use --logits"),
        ({"1": [0.5, 0.1], "1.0": [0.5, 0.1]}, "'1' and '1.0' name the same class"),
        ({"age": [30, 40]}, "no column for label '0'.*or one of the two"),
    ],
)
def test_one_column_that_is_refused(columns: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_predictions(pl.DataFrame({"y": [0, 1], **columns}, strict=False), "t", "y", "probabilities")


def test_one_column_called_p_does_not_say_of_which_word_it_is() -> None:
    with pytest.raises(InputError, match="no column for label 'cat'"):
        read_predictions(predictions(y=["cat", "dog"], p=[0.5, 0.5]), "t", "y", "probabilities")
    with pytest.raises(InputError, match="every row of 't' is labelled 'a', and no other class has a column"):
        read_predictions(predictions(y=["a", "a"], a=[3.0, 4.0]), "t", "y", "logits")


def test_labels_read_as_floats_match_columns_of_integers() -> None:
    for names in (("0", "1"), ("0.0", "1.0"), ("p_0", "p_1"), ("p_0.0", "p_1.0")):
        frame = pl.DataFrame({"y": [0.0, 1.0], names[0]: [0.25, 0.5], names[1]: [0.75, 0.5]})
        judged = read_predictions(frame, "t", "y", "probabilities")
        assert judged.classes == ("0", "1")
        np.testing.assert_allclose(judged.losses, [np.log(4), np.log(2)])


def test_logits_keep_the_digits_that_probabilities_lose() -> None:
    frame = predictions(y=["a", "b"], a=[40.0, 0.0], b=[0.0, 40.0])
    judged = read_predictions(frame, "t", "y", "logits")
    np.testing.assert_allclose(judged.losses, np.exp(-40.0), rtol=1e-14)
    assert judged.warnings == []


def test_impossible_label_costs_infinity() -> None:
    frame = predictions(y=["a", "b"], a=[0.0, 0.0], b=[1.0, 1.0])
    assert read_predictions(frame, "t", "y", "probabilities").losses.tolist() == [np.inf, 0.0]
    frame = predictions(y=["a", "b"], a=[-np.inf, -np.inf], b=[1.0, 1.0])
    assert read_predictions(frame, "t", "y", "logits").losses.tolist() == [np.inf, 0.0]


def test_rounded_probabilities_are_rescaled_and_it_is_said() -> None:
    frame = predictions(y=["a", "b", "c"], a=[0.33, 0.2, 0.1], b=[0.33, 0.7, 0.1], c=[0.33, 0.1, 0.8])
    judged = read_predictions(frame, "t", "y", "probabilities")
    np.testing.assert_allclose(judged.probabilities.sum(axis=1), 1)
    assert judged.losses[0] == pytest.approx(np.log(3))
    assert "sums to 0.99" in judged.notes[0]


@pytest.mark.parametrize(
    ("columns", "scale", "message"),
    [
        ({"a": [2.0, 0.5], "b": [-1.0, 0.5]}, "probabilities", "column 'a' holds 2 in row 0 .*use --logits"),
        ({"a": [0.5, 0.5], "b": [0.5, 0.1]}, "probabilities", "row 1 .*sums to 0.6, not 1.*'a', 'b'"),
        ({"a": [0.5, 0.5], "b": [0.5, 0.5], "age": [30, 40]}, "probabilities", "column 'age' of 't'"),
        ({"A": [0.5, 0.5]}, "probabilities", "no column for label 'a'.*'probability_a'"),
        ({"a": [0.5, None], "b": [0.5, 0.5]}, "logits", "column 'a' has no value in row 1"),
        ({"a": [0.5, float("nan")], "b": [0.5, 0.5]}, "logits", "column 'a' holds nan in row 1"),
        ({"a": ["x", "y"], "b": [0.5, 0.5]}, "logits", "column 'a' should hold logits"),
        ({"a": [1.0, -np.inf], "b": [0.5, -np.inf]}, "logits", "row 1 .*-infinity for every class"),
    ],
)
def test_predictions_that_are_refused(columns: dict, scale: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_predictions(predictions(y=["a", "b"], **columns), "t", "y", scale)  # type: ignore[arg-type]


def test_probabilities_declared_as_logits_are_noticed() -> None:
    frame = predictions(y=["a", "b"], a=[0.25, 0.5], b=[0.75, 0.5])
    assert "use --probabilities" in read_predictions(frame, "t", "y", "logits").warnings[0]
    almost = predictions(y=["a", "b"], a=[0.25, 0.5], b=[0.75, 1.5])
    assert read_predictions(almost, "t", "y", "logits").warnings == []


def test_built_in_digits_reach_a_good_accuracy() -> None:
    result = fit_table(read_table("digits"), "digits", "target")
    hits = result.test_logits.argmax(axis=1) == result.test_codes
    assert hits.mean() > 0.95
    assert (
        len(result.estimator.history_) == result.estimator.n_iter_ + 1
        or len(result.estimator.history_) == result.estimator.n_iter_
    )
