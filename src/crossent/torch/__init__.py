"""The losses for PyTorch: replace ``F.cross_entropy`` by ``crossent.torch.cross_entropy``, and lose nothing.

Positional arguments, the class axis (1; 0 for one row), target rules and defaults are PyTorch's; the options of the
family follow as keywords.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ModuleNotFoundError("crossent.torch needs PyTorch: pip install 'crossent[torch]'") from error

from crossent.core.target import TopK

from .calibration import TemperatureScaling, VectorScaling
from .functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    distillation_loss,
    focal_loss,
)
from .linear import LinearStatistics, LinearValue, linear_cross_entropy, linear_statistics
from .modules import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    FocalLoss,
    LinearCrossEntropyLoss,
)

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "LinearCrossEntropyLoss",
    "LinearStatistics",
    "LinearValue",
    "TemperatureScaling",
    "TopK",
    "VectorScaling",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "distillation_loss",
    "focal_loss",
    "linear_cross_entropy",
    "linear_statistics",
]
