"""scikit-learn's own checks of CalibratedClassifier."""

from __future__ import annotations

import warnings

from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from crossent.sklearn import CalibratedClassifier


def test_scikit_learn_takes_it_for_a_classifier() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(CalibratedClassifier(LogisticRegression(), cv=3), on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) > 40
