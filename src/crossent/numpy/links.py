"""What a link makes of its numbers: logits go to the kernels; probabilities have formulas that are exact at 0 and 1."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from crossent.core.arrays import guarded_product
from crossent.errors import refuse
from crossent.kernels.reference import blocks
from crossent.numpy.evaluator import Evaluator
from crossent.numpy.options import Options

__all__ = ["EVALUATORS"]

SUM_TOLERANCE = 1e-2  # rows of bfloat16 probabilities come this close


class _OfProbabilities(Evaluator):
    """Values that are no logits: the kernels would take them for some."""

    forms = frozenset()

    @classmethod
    def of(cls, target: Any, options: Options, *arguments: Any, **given: Any) -> Self:
        if options.loss is not None and not options.loss.is_cross_entropy:
            asked = "on probabilities the loss is cross-entropy"
            raise TypeError(refuse(asked, repr(options.loss), "other losses take logits"))
        for name in ("temperature", "prior", "margin", "softcap", "pos_weight", "alpha"):
            if getattr(options, name) is not None:
                raise TypeError(refuse(f"{name} applies to logits", f'link="{options.link}"'))
        return super().of(target, options, *arguments, **given)

    def compute(
        self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None
    ) -> np.ndarray:
        losses = np.empty(len(logits))
        for block in blocks(*logits.shape):
            here = slice(rows.start + block.start, rows.start + block.stop)
            found, gradient, _ = self.second_order(logits[block], here, None)
            losses[block] = found.sum(axis=1) if found.ndim == 2 else found
            if entries is not None:
                entries[block] = found
            if grad is not None:
                grad[block] = gradient
        return losses

    def q(self, values: np.ndarray, rows: slice) -> np.ndarray:
        """Return class weights times smoothed target: (n, K), or (n, K, 2) of the entries' two classes."""
        target = self.target.rows(rows)
        like = values
        if self.is_binary:
            target = target.as_two_classes(values)
            like = np.empty((values.size, 2))
        distribution = target.distribution(like)
        weighted: np.ndarray = distribution if target.class_weight is None else distribution * target.class_weight
        return weighted.reshape(*values.shape, 2) if self.is_binary else weighted


class _Categorical(_OfProbabilities):
    """``Σ q_k s_k`` with q = w∘t' and a surprisal s, of which the link knows the value and two derivatives."""

    def surprisal(self, values: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raise NotImplementedError

    def second_order(
        self, logits: np.ndarray, rows: slice, vector: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values = logits.astype(np.float64)
        surprisal, slope, curvature = self.surprisal(values, rows)
        weighted = self.q(values, rows)
        losses = np.sum(np.where((weighted == 0) & ~np.isnan(values), 0.0, weighted * surprisal), axis=1)
        is_nan = np.isnan(values).any(axis=1, keepdims=True)
        gradient = np.where(is_nan, np.nan, guarded_product(weighted, slope))
        hessian = np.where(is_nan, np.nan, guarded_product(weighted, curvature))
        second = hessian if vector is None else hessian * vector
        return self.weigh(rows, np.sum(weighted, axis=1), losses, gradient, second)


class LogProbabilities(_Categorical):
    """Rows of log-probabilities."""

    def surprisal(self, values: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _refuse_entry(values, values > 1e-6, rows, "log-probabilities must be at most 0")
        return -values, np.full_like(values, -1.0), np.zeros_like(values)


class Probabilities(_Categorical):
    """Rows of probabilities that sum to 1."""

    def surprisal(self, values: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _refuse_entry(values, (values < 0) | (values > 1 + 1e-6), rows, "probabilities must lie in [0, 1]")
        total = values.sum(axis=1)
        off = np.abs(total - 1) > SUM_TOLERANCE
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(
                refuse("a row of probabilities must sum to 1", f"a sum of {total[row]:.6g} in row {row + rows.start}")
            )
        return -np.log(values), -1 / values, 1 / values**2


class BinaryProbabilities(_OfProbabilities):
    """Entries that are probabilities of the positive class."""

    def second_order(
        self, logits: np.ndarray, rows: slice, vector: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        p = logits.astype(np.float64)
        _refuse_entry(p, (p < 0) | (p > 1), rows, "probabilities must lie in [0, 1]")
        negative, positive = np.moveaxis(self.q(p, rows), -1, 0)

        def total(of_positive: np.ndarray, of_negative: np.ndarray) -> np.ndarray:
            terms = guarded_product(positive, of_positive) + guarded_product(negative, of_negative)
            return np.where(np.isnan(p), np.nan, terms)

        losses = total(-np.log(p), -np.log1p(-p))
        gradient = total(-1 / p, 1 / (1 - p))
        hessian = total(1 / p**2, 1 / (1 - p) ** 2)
        second = hessian if vector is None else hessian * vector
        return self.weigh(rows, positive + negative, losses, gradient, second)


def _refuse_entry(values: np.ndarray, bad: np.ndarray, rows: slice, what: str) -> None:
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        got = f"{values[row, column]} in row {row + rows.start}, column {column}"
        raise ValueError(refuse(what, got, "cross_entropy takes logits"))


EVALUATORS: dict[str, type[Evaluator]] = {
    "softmax": Evaluator,
    "sigmoid": Evaluator,
    "log_probability": LogProbabilities,
    "probability": Probabilities,
    "binary_probability": BinaryProbabilities,
}
