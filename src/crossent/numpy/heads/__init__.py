"""Heads, one for each link."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossent.numpy.heads.base import Head
from crossent.numpy.heads.probability import (
    BinaryProbabilityHead,
    LogProbabilityHead,
    ProbabilityHead,
    check_probability_head,
)
from crossent.numpy.heads.sigmoid import SigmoidHead
from crossent.numpy.heads.softmax import SoftmaxHead
from crossent.numpy.options import Options

_OF_LINK: dict[str, type[SoftmaxHead] | type[SigmoidHead]] = {
    "softmax": SoftmaxHead,
    "sigmoid": SigmoidHead,
    "log_probability": LogProbabilityHead,
    "probability": ProbabilityHead,
    "binary_probability": BinaryProbabilityHead,
}


def make_head(target: Any, options: Options, shape: tuple[int, ...], num_classes: int, dtype: np.dtype) -> Head:
    """Return the head of the options' link for rows of the given shape."""
    head = _OF_LINK[options.link](target, options, shape, num_classes, dtype)
    if options.link not in ("softmax", "sigmoid"):
        check_probability_head(head)
    return head


__all__ = ["Head", "SigmoidHead", "SoftmaxHead", "make_head"]
