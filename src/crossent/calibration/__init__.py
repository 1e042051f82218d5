"""Calibrators: ``fit(logits, y)``, then ``predict_proba(logits)`` whose confidence can be believed."""

from .affine import BiasCorrectedTemperatureScaling, VectorScaling
from .beta import BetaCalibration
from .classifier import CalibratedClassifier
from .matrix import DirichletCalibration, MatrixScaling
from .one_vs_rest import HistogramBinning, IsotonicCalibration, PlattScaling
from .temperature import TemperatureScaling

__all__ = [
    "BetaCalibration",
    "BiasCorrectedTemperatureScaling",
    "CalibratedClassifier",
    "DirichletCalibration",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "PlattScaling",
    "TemperatureScaling",
    "VectorScaling",
]
