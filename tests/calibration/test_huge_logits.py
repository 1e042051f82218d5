"""Calibrators of finite logits that make nearly every probability 0 or 1, or whose squares leave float64's range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from crossent.calibration.classifier import METHODS
from crossent.calibration.newton import Point, minimize
from crossent.sklearn import PlattScaling

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(300, 3))
LABELS = (Z + RNG.normal(size=Z.shape)).argmax(axis=1)
SETS = (Z + RNG.normal(size=Z.shape) > 0).astype(int)
FACTORS = [1e3, 1e4, 1e15, 1e76, 1e78, 1e100, 1e150, 1e153, 1e155, 1e200, 1e307]
CASES: dict[str, tuple[Any, Any, str]] = {
    "two": (Z[:, 0], SETS[:, 0], "softmax"),
    "three": (Z, LABELS, "softmax"),
    "sets": (Z, SETS, "sigmoid"),
}


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("case", ["two", "sets"])
def test_platts_map_does_not_depend_on_the_unit_of_the_logits(case: str, factor: float) -> None:
    z, y, link = CASES[case]
    small = PlattScaling(link=link).fit(z, y).predict_proba(z)
    np.testing.assert_allclose(PlattScaling(link=link).fit(z * factor, y).predict_proba(z * factor), small, atol=1e-4)


@pytest.mark.parametrize("factor", FACTORS[1:])
def test_platts_map_of_three_classes_does_not_depend_on_the_unit_of_large_logits(factor: float) -> None:
    large = PlattScaling().fit(Z * FACTORS[0], LABELS).predict_proba(Z * FACTORS[0])
    np.testing.assert_allclose(PlattScaling().fit(Z * factor, LABELS).predict_proba(Z * factor), large, atol=1e-3)


METHODS_AND_CASES = [
    *((method, case) for method in ("temperature", "bias-corrected-temperature", "vector", "beta") for case in CASES),
    *((method, case) for method in ("matrix", "dirichlet") for case in ("two", "three")),  # of exclusive classes
]


@pytest.mark.parametrize("factor", FACTORS[1:])
@pytest.mark.parametrize(("method", "case"), METHODS_AND_CASES)
def test_no_map_depends_on_the_unit_of_large_logits(method: str, case: str, factor: float) -> None:
    z, y, link = CASES[case]
    options = {} if link == "softmax" else {"link": link}
    large = METHODS[method](**options).fit(z * FACTORS[0], y).predict_proba(z * FACTORS[0])
    found = METHODS[method](**options).fit(z * factor, y).predict_proba(z * factor)
    np.testing.assert_allclose(found, large, atol=1e-4)
    assert np.median(np.abs(large - 0.5)) < 0.49  # they are no certainties


@pytest.mark.parametrize(("method", "case"), [*METHODS_AND_CASES[3:], *(("platt", case) for case in CASES)])
def test_one_logit_whose_square_overflows_is_refused(method: str, case: str) -> None:
    z, y, link = CASES[case]
    z = z.copy()
    z[3] = 1e200 * (1 + np.arange(3) if z.ndim == 2 else 1)
    options = {} if link == "softmax" else {"link": link}
    with pytest.raises(ValueError, match=r"their squares to be finite.*up to [1-3]e\+200; divide them"):
        METHODS[method](**options).fit(z, y)


def test_platt_names_the_row_of_an_infinite_difference() -> None:
    z = np.stack([-Z[:, 0], Z[:, 0]], axis=1)
    z[7, 1 - SETS[7, 0]] = -np.inf
    with pytest.raises(ValueError, match="row 7"):
        PlattScaling().fit(z, SETS[:, 0])


def test_a_fit_that_no_step_improves_says_so() -> None:
    def rises(theta: np.ndarray) -> Point:
        return Point(float(np.abs(theta).sum()), np.ones(1), lambda v: v, True)  # with the slope of its other side

    with pytest.warns(ConvergenceWarning, match="no step of the calibrator reduces the loss.*divide the logits"):
        minimize(rises, np.zeros(1), 1e-9, 10)
