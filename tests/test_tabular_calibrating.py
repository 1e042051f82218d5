"""The temperature of `fit`: from rows that no model had seen, no further from 1 than proven, and no harm done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

import crossent as ce
from crossent.sklearn import TemperatureScaling
from crossent.tabular import FitOptions, InputError, calibrating, default_target, fit_table, read_table
from crossent.tabular.calibrating import cautious_temperature, cross_fit


class Witness:
    """An estimator that knows which rows it saw: the first column holds their numbers."""

    def __init__(self, log: list[tuple[set[int], set[int]]]) -> None:
        self.log = log

    def fit(self, matrix: Any, codes: Any) -> Witness:
        self.seen = set(matrix[:, 0].astype(int).tolist())
        return self

    def logits(self, matrix: Any) -> Any:
        rows = matrix[:, 0].astype(int)
        self.log.append((self.seen, set(rows.tolist())))
        return np.column_stack([np.sin(rows), np.cos(rows)])


def problem(rows: int = 120) -> tuple[Any, Any, Any]:
    matrix = np.arange(rows, dtype=float)[:, None]
    codes = np.arange(rows) % 2
    return matrix, codes, np.flatnonzero(np.arange(rows) % 4 != 0)


def test_no_row_is_judged_by_a_model_that_saw_it() -> None:
    matrix, codes, training = problem()
    log: list[tuple[set[int], set[int]]] = []
    found, notes = cross_fit(lambda: Witness(log), matrix, codes, training, 0.2, 0)
    assert found is not None
    assert notes == []
    assert found.folds == len(log) == 5
    for seen, judged in log:
        assert not seen & judged
        assert seen | judged == set(training.tolist())
    assert sorted(row for _, judged in log for row in judged) == training.tolist() == found.rows.tolist()
    # Every logit stands at its own row.
    expected = cautious_temperature(np.column_stack([np.sin(training), np.cos(training)]), codes[training])
    assert (found.best, found.temperature) == expected


def test_folds_end_where_rows_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "_ENOUGH_ROWS", 30)
    log: list[tuple[set[int], set[int]]] = []
    found, _ = cross_fit(lambda: Witness(log), *problem(), 0.2, 0)
    assert found is not None
    assert len(log) == 2
    assert len(found.rows) == sum(len(judged) for _, judged in log) == 36


def test_a_class_of_one_row_cannot_be_left_out() -> None:
    matrix, codes, training = problem()
    codes = np.where(np.arange(120) == 1, 2, codes)
    found, notes = cross_fit(lambda: Witness([]), matrix, codes, training, 0.2, 0)
    assert found is None
    assert "1 training row" in notes[0]
    assert cross_fit(lambda: Witness([]), matrix, codes, training, 0.0, 0) == (None, [])
    for share in (-0.1, 0.6, float("nan")):
        with pytest.raises(InputError, match="calibration part must be a share of the rows from 0 to"):
            cross_fit(lambda: Witness([]), matrix, codes, training, share, 0)


def sample(sharpness: float, rows: int = 400) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    truth = 1.5 * rng.normal(size=(rows, 3))
    return sharpness * truth, (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)


@pytest.mark.parametrize("sharpness", [0.3, 3.0])
def test_the_temperature_is_the_end_of_the_interval_nearest_to_1(sharpness: float) -> None:
    logits, codes = sample(sharpness)
    best, temperature = cautious_temperature(logits, codes)
    assert best == pytest.approx(TemperatureScaling().fit(logits, codes).temperature_, rel=1e-9)
    assert min(1, best) < temperature < max(1, best)
    losses = [float(ce.cross_entropy(logits / t, codes, reduction="sum")) for t in (best, temperature, 1.0)]
    assert 2 * (losses[1] - losses[0]) == pytest.approx(3.84, rel=1e-5)
    assert losses[0] < losses[1] < losses[2]
    # Of more rows, the two are closer.
    more = cautious_temperature(*sample(sharpness, 4000))
    assert abs(np.log(more[1] / more[0])) < 0.5 * abs(np.log(temperature / best))


def test_temperatures_at_the_ends() -> None:
    logits, codes = sample(1.0)
    assert cautious_temperature(logits, codes)[1] == 1
    right = np.eye(3)[codes]  # no error: the loss falls for ever; and they look like probabilities
    best, temperature = cautious_temperature(right, codes)
    assert best < 0.01
    assert 0.01 < temperature < 1
    wrong = np.eye(3)[(codes + 1) % 3]
    best, temperature = cautious_temperature(wrong, codes)
    assert best == np.inf
    assert 1 < temperature < np.inf


def overconfident(seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(800, 30))
    y = (2 * x[:, :3] + rng.gumbel(size=(800, 3))).argmax(axis=1)
    return pl.DataFrame({**{f"x{k}": x[:, k] for k in range(30)}, "y": y})


def gain(read: Callable[[int], tuple[pl.DataFrame, str]], seed: int) -> float:
    """Nats a row that the default calibration takes off the loss of test rows, which no choice has seen."""
    frame, target = read(seed)
    result = fit_table(frame, "t", target, FitOptions(calibration_size=0.2, seed=seed))
    assert result.calibration is not None
    codes = result.test_codes
    before = float(ce.cross_entropy(result.test_logits * result.calibration.temperature, codes))
    return before - float(ce.cross_entropy(result.test_logits, codes))


def built_in(name: str) -> Callable[[int], tuple[pl.DataFrame, str]]:
    return lambda seed: (read_table(name), str(default_target(name)))


def test_the_default_calibration_helps_and_does_no_harm() -> None:
    cases = {
        "digits": (built_in("digits"), [1]),
        "wine": (built_in("wine"), range(4)),
        "breast_cancer": (built_in("breast_cancer"), range(4)),
        "overconfident": (lambda seed: (overconfident(seed), "y"), range(4)),
    }
    gains = {name: [gain(read, seed) for seed in seeds] for name, (read, seeds) in cases.items()}
    for name, values in gains.items():
        assert min(values) > -0.001, (name, values)
        assert np.mean(values) >= 0, (name, values)
    assert np.mean(gains["overconfident"]) > 0.003
    assert np.mean(gains["digits"]) > 0.0005
