"""One fit: its objective, and how the objective's parameters become an estimator's coefficients and back.

Two classes are fitted as one logit, the difference v of theirs: of all W with ``w_1 - w_0 = v`` the penalty wants
``±v/2``, whose squares sum to ``‖v‖²/2``, so that half the penalty on v is the same objective, in half the products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossent.losses import Loss

from .arrays import Array
from .interface import Objective
from .penalty import Penalty
from .targets import EncodedTarget

__all__ = ["Problem", "has_one_logit", "is_cross_entropy"]


@dataclass(frozen=True)
class Problem:
    """What an estimator minimises.

    Attributes
    ----------
    objective : Objective
    outputs : ndarray
        Which outputs take part.
    edge : ndarray
        The intercepts of the others, ±inf; one number for every output.
    total : float
        The sum of the sample weights times the largest class weight: F is f / (C total).
    target : EncodedTarget
        Of all outputs, for other weights of the rows.
    one_logit : bool
        The objective's parameters are the difference of two classes'.
    """

    objective: Objective
    outputs: NDArray[np.intp]
    edge: Array
    total: float
    target: EncodedTarget
    one_logit: bool = False

    def penalty(self, of_coefficients: Penalty) -> Penalty:
        """Return the objective's penalty for one on the coefficients."""
        return of_coefficients.of_difference() if self.one_logit else of_coefficients

    def parameters(self, coefficients: Array) -> Array:
        """Return the objective's parameters for those of the outputs that take part (K, D + 1)."""
        return coefficients[1:] - coefficients[:1] if self.one_logit else coefficients

    def coefficients(self, parameters: Array) -> Array:
        """Return the least coefficients (K, D + 1) that have these parameters."""
        return np.concatenate([-0.5 * parameters, 0.5 * parameters]) if self.one_logit else parameters


def is_cross_entropy(loss: Loss) -> bool:
    """Whether a loss is cross-entropy times a number."""
    return loss.cross_entropy_factor is not None


def has_one_logit(target: EncodedTarget, outputs: NDArray[np.intp], loss: Loss) -> bool:
    """Whether the outputs that take part are two classes of labels under cross-entropy."""
    return target.link == "softmax" and target.labels is not None and len(outputs) == 2 and is_cross_entropy(loss)
