"""The report's answers: is it honest, what to do next, which of two is better; small, escaped and readable pages."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from crossent.metrics import calibration_error, log_loss
from crossent.report import compare_predictions, render_html, render_terminal, summarize_fit, summarize_predictions
from crossent.report.words import good, honest
from crossent.sklearn import TemperatureScaling
from crossent.tabular import FitOptions, InputError, Predictions, fit_table, read_predictions

NASTY = "<script>alert('x')</script>&\"{{ 7 * 7 }}"


def predictions(
    rows: int = 2000,
    sharpness: float = 1.0,
    seed: int = 0,
    noise: float = 0.0,
    names: tuple[str, ...] = ("a", "b", "c"),
) -> Predictions:
    rng = np.random.default_rng(seed)
    truth = 1.5 * rng.normal(size=(rows, len(names)))
    codes = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)
    z = sharpness * (truth + noise * np.random.default_rng(seed + 1).normal(size=truth.shape))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    frame = pl.DataFrame({f"p_{name}": p[:, k] for k, name in enumerate(names)})
    frame = frame.with_columns(y=pl.Series([names[k] for k in codes]))
    return read_predictions(frame, f"sharpness {sharpness}.csv", "y", "probabilities")


def rules(report: dict[str, Any]) -> list[str]:
    return [item["rule"] for item in report["advice"]]


def test_overconfidence_is_found_priced_and_mended() -> None:
    report = summarize_predictions(predictions(sharpness=2.5))
    state = report["honesty"]
    assert state["p_value"] < 0.001
    assert state["interval"]["lower"] > 0.05
    assert state["temperature"]["value"] == pytest.approx(2.5, rel=0.1)
    assert 0 < state["temperature"]["gain_lower"] < state["temperature"]["gain"] < state["temperature"]["gain_upper"]
    assert "recalibrate" in rules(report)
    assert any("softened" in sentence for sentence in honest(report))
    under = summarize_predictions(predictions(sharpness=0.4))
    assert any("sharpened" in sentence for sentence in honest(under))
    assert any("underconfident" in item["reason"] for item in under["advice"])


def test_the_gain_is_measured_on_rows_not_fitted_to() -> None:
    judged = predictions(300, sharpness=2.0)
    gain = summarize_predictions(judged)["honesty"]["temperature"]["gain"]
    logits = np.log(judged.probabilities)
    model = TemperatureScaling().fit(logits, judged.codes)
    fitted = log_loss(judged.codes, judged.probabilities) - log_loss(judged.codes, model.predict_proba(logits))
    assert gain < fitted


def test_calibrated_predictions_are_left_alone() -> None:
    report = summarize_predictions(predictions(sharpness=1.0))
    assert report["honesty"]["p_value"] > 0.05
    assert not {"recalibrate", "recalibrate-further", "worse-than-prior"} & set(rules(report))
    assert any("could look like this" in sentence for sentence in honest(report))


def test_rules_name_rows_and_classes() -> None:
    judged = predictions(1000)
    wrong = judged.probabilities.copy()
    losses = judged.losses.copy()
    sure = np.flatnonzero(judged.probabilities.max(axis=1) > 0.97)[:3]
    wrong[sure] = np.roll(wrong[sure], 1, axis=1)  # as if three labels had been mixed up
    for i in sure:
        losses[i] = -np.log(wrong[i, judged.codes[i]])
    report = summarize_predictions(Predictions(**{**judged.__dict__, "probabilities": wrong, "losses": losses}))
    suspects = next(item for item in report["advice"] if item["rule"] == "suspect-labels")
    assert set(sure.tolist()) <= set(suspects["rows"])
    page = render_html(report)
    for row in suspects["rows"]:
        assert f'href="#row-{row}"' in page
        assert f'id="row-{row}"' in page


def test_a_loss_whose_exponential_no_float_holds_is_put_in_words() -> None:
    """It is like guessing among 10^434 classes: finite, but for one over a probability that is 0."""
    frame = pl.DataFrame({"y": ["a", "b"] * 10, "logit_a": [-1000.0, 1000.0] * 10, "logit_b": [0.0, 0.0] * 10})
    report = summarize_predictions(read_predictions(frame, "t", "y", "logits"))
    assert "among 10^434 equally likely classes" in render_html(report)


def test_impossible_labels_and_useless_predictions_come_first() -> None:
    frame = pl.DataFrame({"y": ["a", "b"] * 30, "a": [1.0, 1.0] * 30, "b": [0.0, 0.0] * 30})
    report = summarize_predictions(read_predictions(frame, "p.csv", "y", "probabilities"))
    assert rules(report)[0] == "impossible"
    assert report["honesty"]["temperature"] is None
    frame = pl.DataFrame({"y": ["a", "b"] * 30, "a": [0.1, 0.9] * 30, "b": [0.9, 0.1] * 30})
    report = summarize_predictions(read_predictions(frame, "p.csv", "y", "probabilities"))
    assert rules(report)[0] == "worse-than-prior"
    render_html(report)


def test_probabilities_declared_as_logits() -> None:
    frame = pl.DataFrame({"y": ["a", "b", "b"] * 20, "a": [0.9, 0.2, 0.1] * 20, "b": [0.1, 0.8, 0.9] * 20})
    report = summarize_predictions(read_predictions(frame, "p.csv", "y", "logits"))
    assert "probabilities-as-logits" in rules(report)


def test_what_the_loss_means_in_words() -> None:
    frame = pl.DataFrame({"y": ["a", "b"] * 30, "a": [0.5, 0.5] * 30, "b": [0.5, 0.5] * 30})
    report = summarize_predictions(read_predictions(frame, "p.csv", "y", "probabilities"))
    assert "probability of 50.0 %" in good(report)[1]
    assert "2.00 equally likely classes" in good(report)[1]


def table(rows: int = 800) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 30))
    y = (2 * x[:, :3] + rng.gumbel(size=(rows, 3))).argmax(axis=1)
    return pl.DataFrame({**{f"x{k}": x[:, k] for k in range(30)}, "y": y})


def test_fit_calibrates_and_shows_before_and_after() -> None:
    result = fit_table(table(), "t", "y", FitOptions(calibration_size=0.2, strength=1e4))
    assert result.calibration is not None
    training = np.setdiff1d(np.arange(800), result.test)
    np.testing.assert_array_equal(result.calibration.rows, training)
    report = summarize_fit(result)
    assert (report["data"]["training_rows"], report["data"]["test_rows"], report["data"]["calibration_rows"]) == (
        len(training),
        len(result.test),
        len(training),
    )
    state = report["calibration"]
    assert 1 < state["temperature"] < state["best_temperature"]
    assert (state["rows"], state["folds"]) == (600, 5)
    assert state["after"]["loss"]["nats"] == report["loss"]["nats"]
    assert state["after"]["reliability"] == report["reliability"]
    assert state["after"]["loss"]["nats"] < state["before"]["loss"]["nats"]
    # The model's own coefficients carry the temperature: predict gives the calibrated probabilities.
    prob = result.model.predict_probabilities(table()[result.test.tolist()])
    codes = result.test_codes
    assert log_loss(codes, prob) == pytest.approx(report["loss"]["nats"], rel=1e-9)
    after = state["after"]["reliability"]["calibration_error"]
    assert calibration_error(codes, prob) == pytest.approx(after, rel=1e-9)
    # Before: the same training without calibration.
    plain = summarize_fit(fit_table(table(), "t", "y", FitOptions(strength=1e4)))
    assert plain["calibration"] is None
    assert plain["loss"]["nats"] == pytest.approx(state["before"]["loss"]["nats"], rel=1e-12)
    assert plain["brier_score"] == pytest.approx(state["before"]["brier_score"], rel=1e-12)
    assert any("The model was calibrated" in sentence for sentence in honest(report))
    page = render_html(report)
    for words in ("Before calibration", "After calibration", f"{state['before']['loss']['nats']:.4f}"):
        assert words in page
    assert page.count('alt="Reliability diagram, ') == 2
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_temperature_not_told_from_1_is_left_out_and_said() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = (x + rng.gumbel(size=(60, 2))).argmax(axis=1)
    result = fit_table(pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y}), "t", "y", FitOptions(calibration_size=0.2))
    assert result.calibration is not None
    assert result.calibration.temperature == 1
    report = summarize_fit(result)
    assert report["calibration"]["before"] == report["calibration"]["after"]
    assert any("left as it was trained: on 45 rows, the best temperature (" in sentence for sentence in honest(report))
    page = render_html(report)
    assert "Before calibration" not in page
    assert page.count('alt="Reliability diagram:') == 1


def test_logits_whose_probabilities_are_too_small_for_a_number() -> None:
    frame = pl.DataFrame({"y": ["a", "a", "b", "a"] * 20, "a": [900.0] * 80, "b": [0.0] * 80, "c": [-1.0] * 80})
    report = summarize_predictions(read_predictions(frame, "p.csv", "y", "logits", drop=["c"]))
    assert report["loss"]["nats"] == pytest.approx(225)
    state = report["honesty"]["temperature"]
    assert state["value"] == pytest.approx(900 / np.log(3), rel=1e-6)
    assert state["gain"] == pytest.approx(225 + np.log(0.75) * 0.75 + np.log(0.25) * 0.25, abs=0.1)
    assert report["surprising"][0]["cells"] == {"c": "-1"}
    render_html(report)


# -- two models ----------------------------------------------------------------------------------------------------


def test_two_models_are_compared_row_by_row() -> None:
    first, second = predictions(sharpness=3.0), predictions(sharpness=1.0)
    report = compare_predictions(first, second)
    paired = report["paired"]
    expected = second.losses - first.losses
    assert paired["difference"] == pytest.approx(expected.mean(), rel=1e-12)
    half = 1.959964 * expected.std() / np.sqrt(len(expected))
    assert paired["upper"] == pytest.approx(expected.mean() + half, rel=1e-6)
    assert paired["only_first_right"] == paired["only_second_right"] == 0
    assert paired["most_different"][0]["row"] == int(np.argmax(np.abs(expected)))
    page = render_html(report)
    assert "sharpness 1.0.csv is better" in page
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert len(set(re.findall(r'id="([^"]+)"', page))) == len(re.findall(r'id="', page))
    for row in [entry["row"] for entry in paired["most_different"]]:
        assert f'id="row-{row}"' in page
    linked = re.findall(r'href="#((?:first|second)-row-\d+)"', page)
    assert linked
    assert all(f'id="{name}"' in page for name in linked)
    same = compare_predictions(second, second)
    assert "do not tell which is better" in render_html(same)


def test_different_rows_are_not_paired_and_different_classes_are_refused() -> None:
    report = compare_predictions(predictions(100), predictions(120))
    assert report["paired"] is None
    assert "One file has 100 rows, the other 120 rows, so their rows cannot be compared one by one" in render_html(
        report
    )
    first, second = predictions(100), predictions(100)
    second.codes[[7, 9]] = (second.codes[[7, 9]] + 1) % 3
    report = compare_predictions(first, second)
    labels = [one.classes[one.codes[7]] for one in (first, second)]
    assert (report["paired"], report["first_different"]) == (None, {"row": 7, "labels": labels})
    told = f"Row 7 (counted from 0) has the label {labels[0]!r} in one file and {labels[1]!r} in the other"
    assert told in html.unescape(render_html(report))
    with pytest.raises(InputError, match="different classes"):
        compare_predictions(predictions(100), predictions(100, names=("a", "b", "d")))


def test_an_infinite_loss_is_never_better() -> None:
    good_one = predictions(200)
    broken = predictions(200)
    broken.probabilities[5] = np.eye(3)[(broken.codes[5] + 1) % 3]
    broken.losses[5] = np.inf
    report = compare_predictions(broken, good_one)
    assert "gave probability 0 to the label of 1 row" in render_html(report)
    assert "broken.csv is better" not in render_html(report)
    paired = report["paired"]
    assert (paired["zeros"], paired["floor"]) == ([1, 0], 0.5 / 200)
    wanted = (good_one.losses[5] + np.log(0.5 / 200)) / 200
    assert paired["difference"] == pytest.approx(wanted, rel=1e-9)


def test_measures_that_disagree_are_named() -> None:
    """Probabilities that are too sure are right as often, and cost more; others may be honest and wrong more often."""
    rng = np.random.default_rng(0)
    codes = np.zeros(3000, dtype=np.intp)
    sure = np.where(rng.random(3000) < 0.8, 0.9999, 0.0001)  # right in 80 %
    modest = np.where(rng.random(3000) < 0.7, 0.7, 0.3)  # right in 70 %, honest

    def judged(name: str, p: np.ndarray) -> Predictions:
        return Predictions(name, "y", "probabilities", ("a", "b"), codes, -np.log(p), np.stack([p, 1 - p], 1), [], [])

    report = compare_predictions(judged("sure", sure), judged("modest", modest))
    paired = report["paired"]
    assert paired["upper"] < 0 < paired["errors"]["lower"]
    both = np.array([(1 - sure) ** 2 * 2, (1 - modest) ** 2 * 2])
    assert paired["brier_score"]["difference"] == pytest.approx((both[1] - both[0]).mean(), abs=1e-12)
    assert paired["errors"]["difference"] == pytest.approx((modest < 0.5).mean() - (sure < 0.5).mean())
    page = render_html(report)
    assert "They disagree: on the same 3,000 rows sure is better by" in page
    assert "accuracy, modest by loss." in page


def test_a_comparison_escapes_what_it_shows() -> None:
    names = (f"class {NASTY}", "b", "c")
    both = [predictions(100, sharpness=s, names=names) for s in (1.0, 2.0)]
    both = [Predictions(**{**one.__dict__, "source": f"source {NASTY}", "target": NASTY}) for one in both]
    page = render_html(compare_predictions(*both))
    assert page.count("<script") == 1
    assert "alert(&#39;x&#39;)" in page


def test_the_terminal_shows_the_comparison() -> None:
    import io

    from rich.console import Console

    file = io.StringIO()
    report = compare_predictions(predictions(100), predictions(100, sharpness=2.0))
    render_terminal(report, Console(file=file, width=80, color_system=None))
    assert "calibration error" in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) <= 80
