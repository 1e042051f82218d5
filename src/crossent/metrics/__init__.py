"""Scores and calibration of predicted probabilities: ``metric(y_true, y_prob)``, scikit-learn's argument order."""

from .calibration import ReliabilityCurve, calibration_error, reliability_curve
from .scoring import accuracy, brier_score, log_loss

__all__ = ["ReliabilityCurve", "accuracy", "brier_score", "calibration_error", "log_loss", "reliability_curve"]
