"""Is it honest? What the report says about calibration: how far off, how sure that is, and what a temperature gains."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import calibration_error, calibration_interval, calibration_test
from ..sklearn import TemperatureScaling

__all__ = ["honesty", "temperature_gain"]

LEVEL = 0.9
FEWEST_ROWS = 50


def honesty(
    codes: NDArray[np.intp], probabilities: NDArray[np.float64], losses: NDArray[np.float64], bins: int
) -> dict[str, Any]:
    """Return the smooth error, an interval of the squared error's root, a p-value, and the gain of a temperature."""
    labels = np.arange(probabilities.shape[1])
    try:
        found = calibration_interval(codes, probabilities, labels=labels, bins=bins, level=LEVEL)
        ends = {"level": LEVEL, "lower": math.sqrt(found.lower), "upper": math.sqrt(found.upper)}
        p_value = calibration_test(codes, probabilities, labels=labels, bins=bins)
    except ValueError:  # no bin holds two rows
        ends, p_value = None, None
    return {
        "smooth_error": calibration_error(codes, probabilities, labels=labels, binning="smooth"),
        "interval": ends,
        "p_value": p_value,
        "temperature": temperature_gain(codes, probabilities, losses),
    }


def temperature_gain(
    codes: NDArray[np.intp], probabilities: NDArray[np.float64], losses: NDArray[np.float64]
) -> dict[str, Any] | None:
    """Return the best temperature, and the nats per row that it gains on rows that it was not fitted to.

    Each half of the rows, drawn at random, is judged at the temperature of the other. None where that says nothing: few
    rows, an infinite loss, or no finite temperature.
    """
    if len(codes) < FEWEST_ROWS or not np.isfinite(losses).all():
        return None
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities)
    half = np.random.default_rng(0).permutation(len(codes)) % 2 == 0
    after = np.empty(len(codes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            for fitted, judged in ((half, ~half), (~half, half)):
                model = TemperatureScaling().fit(logits[fitted], codes[fitted])
                calibrated = model.predict_proba(logits[judged])
                after[judged] = -np.log(calibrated[np.arange(judged.sum()), codes[judged]])
            temperature = TemperatureScaling().fit(logits, codes).temperature_
        except Warning:
            return None
    gain = losses - after
    error = float(np.std(gain) / math.sqrt(len(gain)))
    mean = float(np.mean(gain))
    return {"value": temperature, "gain": mean, "gain_lower": mean - 1.645 * error, "gain_upper": mean + 1.645 * error}
