"""Rules on the weights of a loss: their type, what they weigh, and what divides the mean."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..calls import LossValue
from ..records import Criterion, LossCall, Operation
from ..values import Value
from .base import Context, Found, Rule

__all__ = ["RULES"]

_CLASS_WEIGHTS = re.compile(r"(^|_)(class|cls|label|pos)_?w(eigh)?ts?$", re.IGNORECASE)


class WeightAsList(Rule):
    code = "XE305"
    name = "weight-is-no-tensor"
    severity = "error"
    summary = "The class weights of a PyTorch loss are a list, a NumPy array or a text."
    harm = "The call raises a TypeError at the first batch: 1 mistake that nobody sees before the training starts."
    mend = "Pass torch.tensor(weights, dtype=torch.float32), on the device of the logits."
    ignore_when = "Never, as far as we know."
    bad = """\
from torch import nn

criterion = nn.CrossEntropyLoss(weight=[1.0, 5.0])
"""
    good = """\
import torch
from torch import nn

criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))
"""
    demonstration = """\
import torch
import torch.nn.functional as F

try:
    F.cross_entropy(torch.zeros(1, 2), torch.tensor([0]), weight=[1.0, 5.0])
except TypeError as error:
    print(str(error).splitlines()[0])
"""

    def criterion(self, criterion: Criterion, context: Context) -> Iterator[Found]:
        if criterion.loss.library == "torch":
            for name in ("weight", "pos_weight"):
                given = criterion.options.get(name)
                if given is not None and _is_list(given.value):
                    yield Found(given.node, f"{name} of {criterion.loss.name} must be a tensor")

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        if call.loss.library == "torch" and not call.loss.options:
            for name in ("weight", "pos_weight"):
                given = call.options.get(name)
                if given is not None and _is_list(given.value):
                    yield Found(given.node, f"{name} of {call.loss.name} must be a tensor")


def _is_list(value: Value) -> bool:
    if value.kind == "constant":
        return isinstance(value.payload, str)  # such as a reduction, which stands further back
    return value.kind in ("tuple", "class_weights") and "tensor" not in value.marks


class ClassWeightsForBinary(Rule):
    code = "XE306"
    name = "class-weights-as-bce-weight"
    severity = "warning"
    summary = "Class weights are given to `weight` of a binary cross-entropy, which weighs elements and not classes."
    harm = (
        "`weight` multiplies element by element: a vector of 2 class weights is broadcast along the last axis, so"
        " it weighs columns (or the rows of a batch of 2), and a positive costs as much as a negative."
    )
    mend = "Use pos_weight = negatives / positives, or a weight for each element: weights[target]."
    ignore_when = "The outputs are several labels and the weights are theirs."
    bad = """\
from torch import nn


def make(class_weights):
    return nn.BCELoss(weight=class_weights)
"""
    good = """\
from torch import nn


def make(num_neg, num_pos):
    return nn.BCEWithLogitsLoss(pos_weight=num_neg / num_pos)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

logits, weights = torch.zeros(4, 2), torch.tensor([1.0, 9.0])
for name, y in (("all positive", torch.ones(4, 2)), ("all negative", torch.zeros(4, 2))):
    print(f"{name}: {F.binary_cross_entropy_with_logits(logits, y, weight=weights).item():.3f}")
"""

    def criterion(self, criterion: Criterion, context: Context) -> Iterator[Found]:
        given = criterion.options.get("weight")
        if criterion.loss.link == "sigmoid" and criterion.loss.library == "torch" and given is not None:
            text = context.text(given.node).partition("(")[0].partition(".to")[0].rpartition(".")[2].strip()
            is_for_classes = given.value.kind == "class_weights" or _CLASS_WEIGHTS.search(text) is not None
            if is_for_classes and not criterion.loss.name.startswith("MultiLabel"):
                message = f"weight of {criterion.loss.name} weighs elements: class weights belong into pos_weight"
                yield Found(given.node, message)


class PositiveWeightUpsideDown(Rule):
    code = "XE307"
    name = "pos-weight-upside-down"
    severity = "warning"
    summary = "pos_weight is positives / negatives; what balances is negatives / positives."
    harm = (
        "pos_weight multiplies the loss of a positive. With 10 positives to 990 negatives the ratio the wrong way"
        " round is 0.0101 in the place of 99, so the rare class counts 9801 times less than meant."
    )
    mend = "pos_weight = negatives / positives."
    ignore_when = "Positives are the frequent class and are to count less still."
    bad = """\
import torch
from torch import nn


def make(num_pos, num_neg):
    return nn.BCEWithLogitsLoss(pos_weight=torch.tensor(num_pos / num_neg))
"""
    good = """\
import torch
from torch import nn


def make(num_pos, num_neg):
    return nn.BCEWithLogitsLoss(pos_weight=torch.tensor(num_neg / num_pos))
"""
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.zeros(1000)
y[:10] = 1
for name, weight in (("negatives / positives", 99.0), ("positives / negatives", 1 / 99)):
    losses = F.binary_cross_entropy_with_logits(torch.zeros(1000), y, pos_weight=torch.tensor(weight), reduction="none")
    print(f"{name}: positives are {(losses[:10].sum() / losses.sum()).item():.4f} of the loss")
"""

    def criterion(self, criterion: Criterion, context: Context) -> Iterator[Found]:
        given = criterion.options.get("pos_weight")
        if given is not None and given.value.kind == "positives_per_negative":
            yield Found(given.node, "pos_weight is positives / negatives: what balances is negatives / positives")

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        given = call.options.get("pos_weight")
        if not call.loss.options and given is not None and given.value.kind == "positives_per_negative":
            yield Found(given.node, "pos_weight is positives / negatives: what balances is negatives / positives")


class WeightedMeanByHand(Rule):
    code = "XE308"
    name = "mean-of-weighted-losses"
    severity = "advice"
    summary = "The weighted losses of rows are averaged by mean(), which divides by the number of rows."
    harm = (
        'reduction="mean" divides by the sum of the weights of the labels, mean() by the number of rows: with '
        "weights of 1 and 9 and all rows of the second class one is 9 times the other, and the step size with it."
    )
    mend = 'Use reduction="mean", or divide by weight[target].sum(), or know which of the two you want.'
    ignore_when = "The sum over the rows, scaled, is what is meant: it does not change with the labels of the batch."
    bad = """\
import torch.nn.functional as F


def loss(logits, y, w):
    return F.cross_entropy(logits, y, weight=w, reduction="none").mean()
"""
    good = """\
import torch.nn.functional as F


def loss(logits, y, w):
    return F.cross_entropy(logits, y, weight=w, reduction="none").sum() / w[y].sum()
"""
    demonstration = """\
import torch
import torch.nn.functional as F

logits, w = torch.zeros(4, 2), torch.tensor([1.0, 9.0])
for y in (torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 1, 1])):
    by_hand = F.cross_entropy(logits, y, weight=w, reduction="none").mean()
    weighted = F.cross_entropy(logits, y, weight=w)
    print(f"labels {y.tolist()}: mean() {by_hand.item():.3f}, reduction='mean' {weighted.item():.3f}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        if operation.op != "mean" or operation.first is None or operation.first.value.kind != "loss":
            return
        loss = operation.first.value.payload
        if isinstance(loss, LossValue) and loss.link == "softmax" and loss.reduction == "none" and loss.is_weighted:
            yield Found(operation.node, "mean() divides weighted losses by the number of rows, not by their weights")


RULES: tuple[type[Rule], ...] = (
    WeightAsList,
    ClassWeightsForBinary,
    PositiveWeightUpsideDown,
    WeightedMeanByHand,
)
