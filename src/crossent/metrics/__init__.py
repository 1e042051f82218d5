"""Scores and calibration of predicted probabilities: ``metric(y_true, y_prob)``, scikit-learn's argument order."""

from .calibration import ReliabilityCurve, calibration_error, reliability_curve, wilson_interval
from .decomposition import ScoreDecomposition, score_decomposition
from .diagram import reliability_diagram, reliability_diagram_from_estimator
from .inference import CalibrationInterval, calibration_interval, calibration_test
from .scoring import (
    accuracy,
    brier_score,
    log_loss,
    perplexity,
    ranked_probability_score,
    skill_score,
    spherical_score,
)

__all__ = [
    "CalibrationInterval",
    "ReliabilityCurve",
    "ScoreDecomposition",
    "accuracy",
    "brier_score",
    "calibration_error",
    "calibration_interval",
    "calibration_test",
    "log_loss",
    "perplexity",
    "ranked_probability_score",
    "reliability_curve",
    "reliability_diagram",
    "reliability_diagram_from_estimator",
    "score_decomposition",
    "skill_score",
    "spherical_score",
    "wilson_interval",
]
