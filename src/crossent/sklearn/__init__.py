"""scikit-learn estimators: softmax regression that proves how close to the optimum it is, and calibrators."""

try:
    import narwhals as _narwhals  # noqa: F401
    import safetensors as _safetensors  # noqa: F401
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "crossent.sklearn needs scikit-learn, narwhals and safetensors: pip install 'crossent[sklearn]'"
    ) from error

from crossent.calibration import (
    BetaCalibration,
    BiasCorrectedTemperatureScaling,
    CalibratedClassifier,
    DirichletCalibration,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
)
from crossent.regression.data.parquet import ParquetRows

from .decisions import PriorCorrectedClassifier, TunedDecision
from .export import to_onnx
from .inference import CoefficientSummary
from .path import RegressionPath, SoftmaxRegressionCV, softmax_regression_path
from .softmax_regression import SoftmaxRegression

__all__ = [
    "BetaCalibration",
    "BiasCorrectedTemperatureScaling",
    "CalibratedClassifier",
    "CoefficientSummary",
    "DirichletCalibration",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "ParquetRows",
    "PlattScaling",
    "PriorCorrectedClassifier",
    "RegressionPath",
    "SoftmaxRegression",
    "SoftmaxRegressionCV",
    "TemperatureScaling",
    "TunedDecision",
    "VectorScaling",
    "softmax_regression_path",
    "to_onnx",
]
