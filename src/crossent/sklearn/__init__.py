"""scikit-learn estimators: softmax regression that proves how close to the optimum it is."""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("crossent.sklearn needs scikit-learn: pip install 'crossent[sklearn]'") from error

from .export import to_onnx
from .path import RegressionPath, SoftmaxRegressionCV, softmax_regression_path
from .softmax_regression import SoftmaxRegression

__all__ = ["RegressionPath", "SoftmaxRegression", "SoftmaxRegressionCV", "softmax_regression_path", "to_onnx"]
