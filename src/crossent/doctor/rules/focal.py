"""Rules on focal losses written by hand."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..calls import LossValue
from ..values import Value
from .base import Context, Found, Rule

__all__ = ["RULES"]

_ALPHA = re.compile(r"alpha", re.IGNORECASE)


def _power(node: ast.BinOp, left: Value) -> LossValue | None:
    """Return the loss whose exponential is the p of a factor ``(1 - p) ** gamma``."""
    is_power = isinstance(node.op, ast.Pow) and left.kind == "one_minus_focal"
    return left.payload if is_power and isinstance(left.payload, LossValue) else None


class FocalFromMean(Rule):
    code = "XE601"
    name = "focal-from-mean"
    severity = "error"
    summary = "A focal loss takes its probability from a cross-entropy that is averaged already."
    harm = (
        "pt = exp(-mean loss) is one number for the whole batch, so no row is weighted down: the easy rows that "
        "focal loss is for keep their share: in the example the one hard row of 100 gets 75 % of the gradient, "
        "not 100 %. It is cross-entropy times a factor that changes from batch to batch."
    )
    mend = 'Use reduction="none", and average at the end; or crossent\'s focal_loss.'
    ignore_when = "The input is a single row. A batch of 1 gives the same."
    bad = """\
import torch
import torch.nn.functional as F


def focal(logits, y, gamma=2.0):
    ce = F.cross_entropy(logits, y)
    pt = torch.exp(-ce)
    return (1 - pt) ** gamma * ce
"""
    good = """\
import torch
import torch.nn.functional as F


def focal(logits, y, gamma=2.0):
    ce = F.cross_entropy(logits, y, reduction="none")
    pt = torch.exp(-ce)
    return ((1 - pt) ** gamma * ce).mean()
"""
    demonstration = """\
import torch
import torch.nn.functional as F

logits = torch.tensor([[6.0, 0.0]] * 99 + [[0.0, 1.0]], requires_grad=True)  # 99 easy rows and a hard one
y = torch.zeros(100, dtype=torch.long)
for name, reduction in (("mean first", "mean"), ("row by row", "none")):
    ce = F.cross_entropy(logits, y, reduction=reduction)
    loss = ((1 - torch.exp(-ce)) ** 2 * ce).mean()
    (grad,) = torch.autograd.grad(loss, logits)
    print(f"{name}: the hard row has {(grad[99].abs().sum() / grad.abs().sum()).item():.1%} of the gradient")
"""

    def binary(self, node: ast.BinOp, left: Value, right: Value, context: Context) -> Iterator[Found]:
        loss = _power(node, left)
        if loss is not None and loss.reduction in ("mean", "sum"):
            where = context.where(left, node)
            yield Found(node, f"the probability of this focal loss{where} comes from a loss that is reduced already")


class FocalFromWeighted(Rule):
    code = "XE602"
    name = "focal-from-weighted"
    severity = "warning"
    summary = "A focal loss takes its probability from a cross-entropy with class weights."
    harm = (
        "exp(-w * nll) is p to the power of w, and not p: with a weight of 4, p = 0.9 becomes 0.656, and the "
        "factor (1 - p)^2 is 0.118 in the place of 0.010. The classes with large weights are not weighted down."
    )
    mend = "Compute the probability from the loss without weights, and multiply by weight[target] afterwards."
    ignore_when = "The weight is always None."
    bad = """\
import torch
import torch.nn.functional as F


def focal(logits, y, weight, gamma=2.0):
    ce = F.cross_entropy(logits, y, weight=weight, reduction="none")
    pt = torch.exp(-ce)
    return ((1 - pt) ** gamma * ce).mean()
"""
    good = """\
import torch
import torch.nn.functional as F


def focal(logits, y, weight, gamma=2.0):
    ce = F.cross_entropy(logits, y, reduction="none")
    pt = torch.exp(-ce)
    return (weight[y] * (1 - pt) ** gamma * ce).mean()
"""
    demonstration = """\
import math

p = 0.9
for weight in (0.25, 1.0, 4.0):
    pt = math.exp(weight * math.log(p))
    print(f"weight {weight:4}: p is taken as {pt:.3f}, the factor (1 - p)^2 as {(1 - pt) ** 2:.4f}")
"""

    def binary(self, node: ast.BinOp, left: Value, right: Value, context: Context) -> Iterator[Found]:
        loss = _power(node, left)
        if loss is not None and loss.reduction not in ("mean", "sum") and loss.is_weighted:
            where = context.where(left, node)
            yield Found(
                node, f"the probability of this focal loss{where} comes from a weighted loss: it is p ** weight"
            )


class FocalAlphaUpsideDown(Rule):
    code = "XE603"
    name = "focal-alpha-on-the-wrong-class"
    severity = "warning"
    summary = "alpha of a focal loss weighs the negatives: alpha * (1 - t) + (1 - alpha) * t."
    harm = (
        "In the paper, torchvision and Keras alpha is the weight of the positives. With alpha = 0.25 read the "
        "other way round positives count 3 times as much as negatives in the place of a third."
    )
    mend = "alpha * t + (1 - alpha) * (1 - t)."
    ignore_when = "Your alpha is defined as the weight of the negatives, and everybody who sets it knows."
    bad = """\
def weight(t, alpha=0.25):
    return alpha * (1 - t) + (1 - alpha) * t  # of the focal loss
"""
    good = """\
def weight(t, alpha=0.25):
    return alpha * t + (1 - alpha) * (1 - t)  # of the focal loss
"""
    demonstration = """\
alpha = 0.25
for name, t in (("positive", 1), ("negative", 0)):
    right, wrong = alpha * t + (1 - alpha) * (1 - t), alpha * (1 - t) + (1 - alpha) * t
    print(f"{name}: {right} in the paper, {wrong} the other way round")
"""

    def binary(self, node: ast.BinOp, left: Value, right: Value, context: Context) -> Iterator[Found]:
        if not isinstance(node.op, ast.Add):
            return
        for one, other in ((node.left, node.right), (node.right, node.left)):
            pair, mirrored = _factors(one), _factors(other)
            for alpha, rest in (pair, pair[::-1]) if pair and mirrored else ():
                label = _one_minus(rest)
                if label is None or not _ALPHA.search(_last(alpha)):
                    continue
                texts = {ast.dump(factor) for factor in mirrored or ()}
                others = [factor for factor in mirrored or () if ast.dump(factor) == ast.dump(label)]
                minus_alpha = [
                    f for f in mirrored or () if (inner := _one_minus(f)) and ast.dump(inner) == ast.dump(alpha)
                ]
                if len(texts) == 2 and others and minus_alpha:
                    yield Found(node, "alpha weighs the negatives here; in the focal loss it weighs the positives")
                    return


def _factors(node: ast.expr) -> tuple[ast.expr, ast.expr] | None:
    return (node.left, node.right) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) else None


def _one_minus(node: ast.expr) -> ast.expr | None:
    """Return the x of ``1 - x``."""
    is_difference = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)
    if not is_difference or not isinstance(node, ast.BinOp) or not isinstance(node.left, ast.Constant):
        return None
    return node.right if node.left.value in (1, 1.0) else None


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


RULES: tuple[type[Rule], ...] = (FocalFromMean, FocalFromWeighted, FocalAlphaUpsideDown)
