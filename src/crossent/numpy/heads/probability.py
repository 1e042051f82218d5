"""Heads on probabilities and log-probabilities: the identity link, exact at 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossent.core.arrays import guarded_product
from crossent.errors import refuse
from crossent.kernels.reference import blocks
from crossent.numpy.heads.base import Head
from crossent.numpy.heads.sigmoid import SigmoidHead
from crossent.numpy.heads.softmax import SoftmaxHead

SUM_TOLERANCE = 1e-2  # rows of bfloat16 probabilities come this close


def check_probability_head(head: Head) -> None:
    """Refuse options that only logits can have.

    Raises
    ------
    TypeError
    """
    if not head.loss.is_cross_entropy:
        raise TypeError(
            refuse("on probabilities the loss is cross-entropy", repr(head.loss), "other losses take logits")
        )
    for name in ("temperature", "prior", "margin", "softcap", "pos_weight", "alpha"):
        if getattr(head.options, name) is not None:
            raise TypeError(refuse(f"{name} applies to logits", f'link="{head.options.link}"'))


def _refuse_entry(values: np.ndarray, bad: np.ndarray, rows: slice, what: str) -> None:
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            refuse(
                what, f"{values[row, column]} in row {row + rows.start}, column {column}", "cross_entropy takes logits"
            )
        )


class _TakesNoLogits:
    """The kernels that read bits, or logits where they lie, would take probabilities for logits."""

    forms: frozenset[str] = frozenset()


class _CategoricalHead(_TakesNoLogits, SoftmaxHead):
    """``Σ q_k s_k`` with q = w∘t' and a surprisal s, of which the link knows the value and two derivatives."""

    def _surprisal(self, values: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raise NotImplementedError

    def second_order(self, logits: np.ndarray, rows: slice, vector: np.ndarray | None) -> tuple[Any, Any, Any]:
        values = logits.astype(np.float64)
        surprisal, slope, curvature = self._surprisal(values, rows)
        weighted = self.reference_rows(np.zeros_like(values), rows).weighted
        losses = np.sum(np.where((weighted == 0) & ~np.isnan(values), 0.0, weighted * surprisal), axis=1)
        is_nan = np.isnan(values).any(axis=1, keepdims=True)
        gradient = np.where(is_nan, np.nan, guarded_product(weighted, slope))
        hessian = np.where(is_nan, np.nan, guarded_product(weighted, curvature))
        second = hessian if vector is None else hessian * vector
        return self._weigh(rows, np.sum(weighted, axis=1), losses, gradient, second)

    def evaluate(self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None) -> Any:
        losses = np.empty(len(logits))
        for block in blocks(*logits.shape):
            here = slice(rows.start + block.start, rows.start + block.stop)
            losses[block], gradient, _ = self.second_order(logits[block], here, None)
            if grad is not None:
                grad[block] = gradient
        return losses


class LogProbabilityHead(_CategoricalHead):
    """Rows of log-probabilities."""

    def _surprisal(self, values: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _refuse_entry(values, values > 1e-6, rows, "log-probabilities must be at most 0")
        return -values, np.full_like(values, -1.0), np.zeros_like(values)


class ProbabilityHead(_CategoricalHead):
    """Rows of probabilities that sum to 1."""

    def _surprisal(self, values: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _refuse_entry(values, (values < 0) | (values > 1 + 1e-6), rows, "probabilities must lie in [0, 1]")
        total = values.sum(axis=1)
        off = np.abs(total - 1) > SUM_TOLERANCE
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(
                refuse("a row of probabilities must sum to 1", f"a sum of {total[row]:.6g} in row {row + rows.start}")
            )
        return -np.log(values), -1 / values, 1 / values**2


class BinaryProbabilityHead(_TakesNoLogits, SigmoidHead):
    """Entries that are probabilities of the positive class."""

    def second_order(self, logits: np.ndarray, rows: slice, vector: np.ndarray | None) -> tuple[Any, Any, Any]:
        p = logits.astype(np.float64)
        _refuse_entry(p, (p < 0) | (p > 1), rows, "probabilities must lie in [0, 1]")
        two_class = self.reference_rows(np.zeros_like(p), rows)
        negative, positive = np.moveaxis(two_class.weighted.reshape(*p.shape, 2), -1, 0)

        def total(of_positive: np.ndarray, of_negative: np.ndarray) -> np.ndarray:
            terms = guarded_product(positive, of_positive) + guarded_product(negative, of_negative)
            return np.where(np.isnan(p), np.nan, terms)

        losses = total(-np.log(p), -np.log1p(-p))
        gradient = total(-1 / p, 1 / (1 - p))
        hessian = total(1 / p**2, 1 / (1 - p) ** 2)
        second = hessian if vector is None else hessian * vector
        return self._weigh(rows, positive + negative, losses, gradient, second)

    def evaluate(self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None) -> Any:
        losses = np.empty(len(logits))
        for block in blocks(*logits.shape):
            here = slice(rows.start + block.start, rows.start + block.stop)
            block_losses, gradient, _ = self.second_order(logits[block], here, None)
            losses[block] = block_losses.sum(axis=1)
            if entries is not None:
                entries[block] = block_losses
            if grad is not None:
                grad[block] = gradient
        return losses
