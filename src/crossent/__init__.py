"""crossent: the cross-entropy family of losses done right, on NumPy arrays.

Examples
--------
>>> import crossent as ce
>>> value, grad = ce.value_and_grad([[1.0, 2.0, 3.0]], [2], loss=ce.Focal(2.0))
"""

import importlib
import typing

from crossent import information
from crossent._version import __version__
from crossent.core.target import TopK
from crossent.information import entropy, js_divergence, kl_divergence, perplexity
from crossent.kernels.threads import get_num_threads, set_num_threads
from crossent.losses import (
    Brier,
    CrossEntropy,
    Distillation,
    EntropyPenalty,
    Focal,
    GeneralizedCrossEntropy,
    Loss,
    Poly1,
    ZPenalty,
)
from crossent.numpy.dense import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    distillation_loss,
    focal_loss,
    hessian_vector_product,
    value_and_grad,
    value_grad_hess,
)
from crossent.numpy.elementwise import log_sigmoid, log_softmax, logsumexp, sigmoid, softmax, softplus
from crossent.numpy.linear import linear_cross_entropy, linear_value_and_grad
from crossent.numpy.probabilities import binary_cross_entropy, cross_entropy_from_probabilities, nll_loss
from crossent.numpy.statistics import linear_statistics, statistics

__all__ = [
    "Brier",
    "CrossEntropy",
    "Distillation",
    "EntropyPenalty",
    "Focal",
    "GeneralizedCrossEntropy",
    "Loss",
    "Poly1",
    "TopK",
    "ZPenalty",
    "__version__",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "cross_entropy_from_probabilities",
    "distillation_loss",
    "entropy",
    "focal_loss",
    "get_num_threads",
    "hessian_vector_product",
    "information",
    "js_divergence",
    "kl_divergence",
    "linear_cross_entropy",
    "linear_statistics",
    "linear_value_and_grad",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "perplexity",
    "set_num_threads",
    "sigmoid",
    "softmax",
    "softplus",
    "statistics",
    "value_and_grad",
    "value_grad_hess",
]


def __getattr__(name: str) -> typing.Any:
    if name == "load_model":  # needs polars and scikit-learn, as nothing else here does
        return importlib.import_module("crossent.tabular").load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
