"""Is it honest? What the report says about calibration: how far off, how sure that is, and what a temperature gains."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent as ce

from ..metrics import calibration_error, calibration_interval, calibration_test
from ..sklearn import TemperatureScaling

LEVEL = 0.9
FEWEST_ROWS = 50


def honesty(
    codes: NDArray[np.intp],
    probabilities: NDArray[np.float64],
    logits: NDArray[np.float64],
    losses: NDArray[np.float64],
    bins: int,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Return the smooth error, an interval of the squared error's root, a p-value, and the gain of a temperature.

    The gain of a temperature is left out where rows have weights.
    """
    options: dict[str, Any] = {"labels": np.arange(probabilities.shape[1]), "sample_weight": weights}
    try:
        found = calibration_interval(codes, probabilities, bins=bins, level=LEVEL, **options)
        ends = {"level": LEVEL, "lower": math.sqrt(found.lower), "upper": math.sqrt(found.upper)}
        p_value = calibration_test(codes, probabilities, bins=bins, **options)
    except ValueError:  # no bin holds two rows
        ends, p_value = None, None
    return {
        "smooth_error": calibration_error(codes, probabilities, binning="smooth", **options),
        "interval": ends,
        "p_value": p_value,
        "temperature": temperature_gain(codes, logits, losses) if weights is None else None,
    }


def temperature_gain(
    codes: NDArray[np.intp], logits: NDArray[np.float64], losses: NDArray[np.float64]
) -> dict[str, Any] | None:
    """Return the best temperature, and the nats per row that it gains on rows that it was not fitted to.

    Each half of the rows, drawn at random, is judged at the temperature of the other. None where that says nothing: few
    rows, an infinite loss, or no finite temperature. From logits: the loss of a label may be finite where its
    probability is too small for a number.
    """
    if len(codes) < FEWEST_ROWS or not np.isfinite(losses).all():
        return None
    # A shift changes no probability. Without it, logits from 0 to 1 would be refused as probabilities.
    logits = logits - logits.max(axis=1, keepdims=True)
    half = np.random.default_rng(0).permutation(len(codes)) % 2 == 0
    after = np.empty(len(codes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            for fitted, judged in ((half, ~half), (~half, half)):
                model = TemperatureScaling().fit(logits[fitted], codes[fitted])
                calibrated = logits[judged] / model.temperature_
                after[judged] = ce.cross_entropy(calibrated, codes[judged], reduction="none")
            temperature = TemperatureScaling().fit(logits, codes).temperature_
        except Warning:
            return None
    gain = losses - after
    error = float(np.std(gain) / math.sqrt(len(gain)))
    mean = float(np.mean(gain))
    return {"value": temperature, "gain": mean, "gain_lower": mean - 1.645 * error, "gain_upper": mean + 1.645 * error}
