"""The losses of rows in PyTorch's own operations: for other devices, and where a target or weight wants a gradient.

The losses of `crossent.losses` read statistics of each row. These are computed when they are read, and PyTorch
differentiates both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.core.arrays import divergence_terms
from crossent.core.target import Teacher
from crossent.core.teachers import FAR
from crossent.losses import Loss

from .tensors import varies

__all__ = ["NativeRows", "entry_losses", "row_losses", "top_k_losses"]


def _kept(compute: Callable[[Any], Tensor]) -> Any:
    """A property that is computed once. The standard library's one takes a lock in Python 3.11: Dynamo fails on it."""
    name = f"_{compute.__name__}"

    def get(self: Any) -> Tensor:
        if name not in self.__dict__:
            self.__dict__[name] = compute(self)
        return self.__dict__[name]

    return property(get, doc=compute.__doc__)


class NativeRows:
    """Row statistics of logits (N, K) in PyTorch's operations; what a loss reads is computed when it is read."""

    def __init__(
        self, logits: Tensor, labels: Tensor | None, soft: Tensor | None, weight: Tensor | None, label_smoothing: float
    ):
        self.logits, self.soft, self.weight = logits, soft, weight
        self.labels = None if labels is None else labels.clamp(min=0)
        self.label_smoothing = label_smoothing

    @property
    def is_hard(self) -> bool:
        return self.labels is not None and self.label_smoothing == 0

    @_kept
    def log_probability(self) -> Tensor:
        return F.log_softmax(self.logits, dim=-1)

    @_kept
    def probability(self) -> Tensor:
        return self.log_probability.exp()

    @_kept
    def surprisal(self) -> Tensor:
        """``-log p``, and 0 for a masked class. Who multiplies it makes the loss of an impossible class infinite."""
        return torch.where(self.log_probability == -math.inf, 0.0, -self.log_probability)

    @_kept
    def distribution(self) -> Tensor:
        if self.soft is None:
            target = F.one_hot(self.labels, self.logits.shape[-1]).to(self.logits.dtype)  # type: ignore[arg-type]
        else:
            target = self.soft
        if not self.label_smoothing:
            return target
        return (1 - self.label_smoothing) * target + self.label_smoothing / self.logits.shape[-1]

    @_kept
    def weighted(self) -> Tensor:
        return self.distribution if self.weight is None else self.distribution * self.weight

    @_kept
    def mass(self) -> Tensor:
        if not self.is_hard:
            return self.weighted.sum(-1)
        return self.logits.new_ones(len(self.logits)) if self.weight is None else self.weight[self.labels]

    @_kept
    def is_empty(self) -> Tensor:
        """Whether no class of the row's target weighs anything."""
        return self.mass == 0 if self.is_hard else (self.weighted == 0).all(-1)

    @_kept
    def nll_plain(self) -> Tensor:
        return -self.log_probability.gather(-1, self.labels[:, None])[:, 0]  # type: ignore[index]

    @_kept
    def nll(self) -> Tensor:
        if self.is_hard:
            return torch.where(self.mass == 0, 0.0, self.mass * self.nll_plain)
        impossible = (self.weighted != 0) & (self.log_probability == -math.inf)
        total = (self.weighted * self.surprisal).sum(-1)
        return torch.where(impossible.any(-1), math.inf, total)

    @_kept
    def miss(self) -> Tensor:
        if self.is_hard:
            miss = -torch.expm1(-self.nll_plain)
        else:
            miss = ((1 - self.distribution) * self.probability).sum(-1)
        # A power below 1 has no slope at 0. The clamp gives the slope 0, which is the limit in every use.
        return miss.clamp(min=torch.finfo(miss.dtype).tiny)

    def lost_likelihood(self, q: float) -> Tensor:
        return -torch.expm1(-q * self.nll_plain)

    @_kept
    def lse(self) -> Tensor:
        return torch.logsumexp(self.logits, dim=-1)

    @_kept
    def entropy(self) -> Tensor:
        return (self.probability * self.surprisal).sum(-1)

    @_kept
    def brier(self) -> Tensor:
        return ((self.probability - self.distribution) ** 2).sum(-1)


def row_losses(
    logits: Tensor, labels: Tensor | None, soft: Tensor | None, weight: Tensor | None, loss: Loss, smoothing: float
) -> Tensor:
    """Return the losses (N,) of logits (N, K), as `rows.row_losses` does; the arguments have one dtype."""
    if loss.needs_teacher:
        return distillation_losses(logits, soft, loss.parameter)  # type: ignore[arg-type]
    if labels is not None and loss.is_cross_entropy and (weight is None or not varies(weight)):
        # PyTorch's fused function does the same. It has no derivative in the weights.
        return F.cross_entropy(logits, labels, weight, ignore_index=-1, reduction="none", label_smoothing=smoothing)
    rows = NativeRows(logits, labels, soft, weight, smoothing)
    silent = rows.is_empty if labels is None else rows.is_empty | (labels < 0)
    return torch.where(silent, 0.0, loss.of(rows))


def distillation_losses(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² KL(softmax(teacher/T) ‖ softmax(logits/T))``, differentiable in both: the terms of `crossent.core.teachers`.

    The log-ratios are differences of logits less their mean under the teacher.
    """
    is_ruled_out = logits == -math.inf
    counted = ~is_ruled_out & (teacher != -math.inf)
    log_t, log_p = (F.log_softmax(z / temperature, dim=-1) for z in (teacher, logits))
    t, p = log_t.exp(), log_p.exp()
    difference = torch.where(counted, logits, 0.0) - torch.where(counted, teacher, 0.0)
    first = difference.gather(-1, teacher.detach().argmax(-1, keepdim=True))
    ratio = difference - first
    ratio = ratio - (t * ratio).sum(-1, keepdim=True)
    gap = -(t * (torch.where(counted, log_p, 0.0) - torch.where(counted, log_t, 0.0))).sum(-1)
    is_near = gap.detach() < FAR
    # Rows that are far apart are replaced by rows of equal logits: an overflow here would be NaN in backward.
    ratio = torch.where(is_near[:, None], ratio, 0.0)
    grown = torch.where(is_near[:, None], p * torch.where(is_near, gap, 0.0).exp()[:, None], t)
    total = divergence_terms(torch, t, grown, ratio, temperature).sum(-1)
    excess = total / temperature**2
    is_positive = is_near & (excess.detach() > 0)
    safe = torch.where(is_positive, excess, 1.0)
    near = torch.where(is_positive, temperature**2 * torch.log1p(safe), total)
    losses = torch.where(is_near, near, temperature**2 * gap)
    return torch.where((is_ruled_out & (t.detach() > 0)).any(-1), math.inf, losses)


def top_k_losses(logits: Tensor, teacher: Teacher, temperature: float) -> Tensor:
    """``T² KL`` with a teacher of k classes and one bucket for the rest, compared with the student's summed tail."""
    logits, indices = logits / temperature, teacher.indices
    listed, rest = teacher.probabilities.to(logits.dtype), teacher.remainder.to(logits.dtype)[:, None]
    log_p = F.log_softmax(logits, dim=-1)
    unlisted = log_p.scatter(-1, indices, -math.inf)
    has_others = (unlisted > -math.inf).any(-1, keepdim=True)
    others = torch.logsumexp(torch.where(has_others, unlisted, 0.0), -1, keepdim=True)
    others = torch.where(has_others, others, -math.inf)
    t, log_p = torch.cat([listed, rest], -1), torch.cat([log_p.gather(-1, indices), others], -1)
    possible = log_p > -math.inf
    log_p = torch.where(possible, log_p, 0.0)
    ratio = torch.where((t > 0) & possible, log_p - torch.where(t > 0, t, 1.0).log(), 0.0)
    terms = divergence_terms(torch, t, torch.where(possible, log_p.exp(), 0.0), temperature * ratio, temperature)
    return torch.where((~possible & (t.detach() > 0)).any(-1), math.inf, terms.sum(-1))


class NativeEntries:
    """The statistics of entries z as rows ``(0, z)``, elementwise."""

    def __init__(self, logits: Tensor, target: Tensor, negative: Any, positive: Any):
        self.logits, self.target, self.negative, self.positive = logits, target, negative, positive
        self.log_p, self.log_other = F.logsigmoid(logits), F.logsigmoid(-logits)

    @_kept
    def mass(self) -> Tensor:
        return self.negative * (1 - self.target) + self.positive * self.target

    def _product(self, factor: Tensor, log: Tensor) -> Tensor:
        return torch.where(factor == 0, 0.0, -factor * torch.where(factor == 0, 0.0, log))

    @_kept
    def nll(self) -> Tensor:
        positive = self._product(self.positive * self.target, self.log_p)
        return positive + self._product(self.negative * (1 - self.target), self.log_other)

    @_kept
    def nll_plain(self) -> Tensor:
        return -torch.where(self.target > 0.5, self.log_p, self.log_other)

    @_kept
    def miss(self) -> Tensor:
        p = torch.sigmoid(self.logits)
        miss = self.target * torch.sigmoid(-self.logits) + (1 - self.target) * p
        return miss.clamp(min=torch.finfo(miss.dtype).tiny)

    def lost_likelihood(self, q: float) -> Tensor:
        return -torch.expm1(-q * self.nll_plain)

    @_kept
    def lse(self) -> Tensor:
        return -self.log_other

    @_kept
    def entropy(self) -> Tensor:
        p = torch.sigmoid(self.logits)
        return self._product(p, self.log_p) + self._product(1 - p, self.log_other)

    @_kept
    def brier(self) -> Tensor:
        return 2 * (torch.sigmoid(self.logits) - self.target) ** 2


def entry_losses(logits: Tensor, target: Tensor, negative: Tensor, positive: Tensor, loss: Loss) -> Tensor:
    """Return the losses of entries of logits; `negative` and `positive` are factors of the two terms."""
    entries = NativeEntries(logits, target, negative, positive)
    return torch.where(entries.mass == 0, 0.0, loss.of(entries))
