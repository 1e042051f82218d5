"""`check`: every check on one batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossent.core.target import NO_INDEX
from crossent.losses import Loss

from ..explained import SEVERITIES
from . import fit, labels, outputs
from .base import Check
from .batch import LeftOut
from .reading import read
from .records import Diagnosis

__all__ = ["CHECKS", "check"]

CHECKS: tuple[Check, ...] = tuple(made() for group in (outputs, labels, fit) for made in group.CHECKS)
"""All checks, by code."""


def check(
    logits: Any, target: Any, *, link: str | None = None, loss: Loss | None = None, ignore_index: int = NO_INDEX
) -> Diagnosis:
    """Return what the numbers of a batch say about how outputs, loss and labels are paired.

    No loss complains about outputs that were softmaxed before, labels that are numbered in another order, or a padded
    vocabulary; the numbers show it. They are read, and never changed. Of a large batch at most 4096 rows and 2 million
    logits are looked at (drawn with a fixed seed, and the first that hold NaN); labels all are. What is judged by
    chance, such as a loss above log K, must be 5 standard errors away. Finding nothing is no approval.

    Parameters
    ----------
    logits : array (N, K), (N,) or with more axes
        What the loss is given as logits: of NumPy, PyTorch (any device and floating dtype), JAX, TensorFlow, or lists.
        Classes lie on the last axis, in PyTorch with more than two axes on axis 1 unless only the last fits the target.
    target : integer array (N,) of labels, or array of the logits' shape
        Of the latter each row is a distribution, or its entries are answers of yes (1) and no (0). For a
        :class:`~crossent.losses.Distillation` the teacher's logits or a :class:`~crossent.TopK`.
    link : {"softmax", "sigmoid"}, optional
        None: softmax for labels and for rows that sum to 1, else sigmoid.
    loss : Loss, optional
        The loss of the family that is trained with; cross-entropy by default.
    ignore_index : int
        The label of rows that do not count.

    Returns
    -------
    Diagnosis
        A sequence of :class:`Symptom`, worst first. ``print`` shows it, and what was looked at.

    Raises
    ------
    TypeError
        If an argument is no array of numbers, is masked, or is no loss of this library.
    ValueError
        If logits are empty or shapes do not fit.

    References
    ----------
    .. [1] PyTorch issue 55902, "CrossEntropyLoss is often misused with a softmax before it".

    Examples
    --------
    >>> import numpy as np
    >>> import crossent as ce
    >>> labels = np.arange(60) % 3
    >>> print(check(ce.softmax(4.0 * np.eye(3)[labels]), labels)[0])
    XE802 error: every row lies in [0, 1] and sums to 1: softmax was applied already, and this loss cannot fall below
    0.551 for 3 classes. Give the loss what comes before the softmax, or take the logarithm and nll_loss.
    """
    batch = read(logits, target, link, loss, ignore_index)
    symptoms, ran, left_out = [], [], {}
    for one in CHECKS:
        try:
            with np.errstate(over="ignore"):  # squares of logits of 1e300
                symptom = one.look(batch)
        except LeftOut as reason:
            left_out[one.code] = str(reason)
            continue
        ran.append(one.code)
        if symptom is not None:
            symptoms.append(symptom)
    symptoms.sort(key=lambda symptom: SEVERITIES.index(symptom.severity))
    return Diagnosis(
        tuple(symptoms),
        batch.shape,
        batch.dtype,
        len(batch.rows),
        batch.link,
        batch.link_from,
        "CrossEntropy()" if loss is None else repr(loss),
        tuple(ran),
        left_out,
    )
