"""Rules on formulas that are right on paper and lose their digits, or overflow, in floating point."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..records import Edit, Operation
from ..values import Value
from .base import Context, Found, Rule

__all__ = ["RULES"]


def _logged(operation: Operation, kinds: tuple[str, ...]) -> Value | None:
    """Return what a logarithm is taken of, if it is of one of these kinds."""
    if operation.op != "log" or operation.first is None or operation.first.value.kind not in kinds:
        return None
    return operation.first.value


def _renamed(operation: Operation, context: Context, names: dict[str, str]) -> tuple[Edit, ...]:
    """Return the edit that puts the inner call, under its other name, in the place of the logarithm of it."""
    inner = operation.first
    if inner is None or inner.node is not inner.value.node or not isinstance(inner.node, ast.Call):
        return ()
    head, bracket, rest = context.text(inner.node).partition("(")
    for name, other in names.items():
        if head == name or (name[0] == "." and head.endswith(name)):
            text = f"{head[: len(head) - len(name)]}{other}{bracket}{rest}"
            return (context.replaced(operation.node, text, is_safe=True),)
    return ()


class LogOfSoftmax(Rule):
    code = "XE201"
    name = "log-of-softmax"
    severity = "warning"
    fix = "safe"
    summary = "The logarithm of a softmax is taken in two steps."
    harm = (
        "Where one logit leads by 104 or more (float32) the probability of another is exactly 0 and its logarithm"
        " is -inf; the gradient is NaN, and so are all weights after the next step. In float16 a lead of 17 is "
        "enough."
    )
    mend = "Use log_softmax, which never forms the probability."
    ignore_when = "The logits are known to lie close together and the array is small."
    bad = """\
import torch
import torch.nn.functional as F


def entropy(logits):
    p = F.softmax(logits, dim=-1)
    return -(p * torch.log(F.softmax(logits, dim=-1))).sum(-1)
"""
    good = """\
import torch
import torch.nn.functional as F


def entropy(logits):
    log_p = F.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(-1)
"""
    demonstration = """\
import torch

logits = torch.tensor([[0.0, 120.0]], requires_grad=True)
for name, log_p in (("log of softmax", torch.log(logits.softmax(-1))), ("log_softmax", logits.log_softmax(-1))):
    (grad,) = torch.autograd.grad(-log_p[0, 0], logits)
    print(f"{name:14} loss {-log_p[0, 0].item():8.3f}, gradient {grad[0].tolist()}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        value = _logged(operation, ("softmax", "entry"))
        if value is not None and not value.marks & {"eps", "complement"}:
            edits = _renamed(operation, context, {".softmax": ".log_softmax"})
            where = context.where(value, operation.node)
            yield Found(operation.node, f"logarithm of a softmax{where}: use log_softmax", edits, value)


class LogOfSigmoid(Rule):
    code = "XE202"
    name = "log-of-sigmoid"
    severity = "warning"
    fix = "safe"
    summary = "The logarithm of a sigmoid is taken in two steps."
    harm = (
        "Below a logit of -104 (float32) the sigmoid is exactly 0, its logarithm -inf and its gradient NaN. In "
        "float16 that happens below -17."
    )
    mend = "Use logsigmoid (PyTorch) or log_sigmoid (JAX, TensorFlow), or the loss with logits."
    ignore_when = "The logits are known to be small."
    bad = """\
import torch


def positives(scores):
    return -torch.log(torch.sigmoid(scores)).mean()
"""
    good = """\
import torch.nn.functional as F


def positives(scores):
    return -F.logsigmoid(scores).mean()
"""
    demonstration = """\
import torch
import torch.nn.functional as F

for name, function in (("log of sigmoid", lambda z: torch.log(torch.sigmoid(z))), ("logsigmoid", F.logsigmoid)):
    z = torch.tensor(-120.0, requires_grad=True)
    value = function(z)
    print(f"{name:14} {value.item():8.1f}, gradient {torch.autograd.grad(value, z)[0].item()}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        value = _logged(operation, ("sigmoid",))
        if value is not None and not value.marks & {"eps", "complement"}:
            names = {
                "torch.sigmoid": "torch.nn.functional.logsigmoid",
                "F.sigmoid": "F.logsigmoid",
                "jax.nn.sigmoid": "jax.nn.log_sigmoid",
                "nn.sigmoid": "nn.log_sigmoid",
            }
            is_plain = operation.name in ("torch.log", "numpy.log")
            edits = _renamed(operation, context, names) if is_plain else ()
            where = context.where(value, operation.node)
            yield Found(operation.node, f"logarithm of a sigmoid{where}: use logsigmoid", edits, value)


class LogOfComplement(Rule):
    code = "XE203"
    name = "log-of-one-minus-probability"
    severity = "warning"
    summary = "The logarithm of one minus a sigmoid or softmax is taken."
    harm = (
        "From a logit of 17 on (float32) the sigmoid rounds to 1, the difference is 0 and the logarithm -inf. Its"
        " digits go before that: at a logit of 16 the probability is off by 6 %."
    )
    mend = "log(1 - sigmoid(z)) is logsigmoid(-z)."
    ignore_when = "The probabilities are known to stay away from 1."
    bad = """\
import torch


def negatives(scores):
    return -torch.log(1 - torch.sigmoid(scores)).mean()
"""
    good = """\
import torch.nn.functional as F


def negatives(scores):
    return -F.logsigmoid(-scores).mean()
"""
    demonstration = """\
import torch
import torch.nn.functional as F

for logit in (5.0, 14.0, 16.0, 20.0):
    z = torch.tensor(logit)
    print(f"{logit:4.0f}: {torch.log(1 - torch.sigmoid(z)).item():9.4f}, logsigmoid {F.logsigmoid(-z).item():9.4f}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        value = _logged(operation, ("sigmoid", "softmax", "entry"))
        if value is not None and "complement" in value.marks and "eps" not in value.marks:
            where = context.where(value, operation.node)
            of = "sigmoid" if value.kind == "sigmoid" else "softmax"
            hint = ": use logsigmoid(-z)" if of == "sigmoid" else ": it is -inf where the probability rounds to 1"
            yield Found(operation.node, f"logarithm of one minus a {of}{where}{hint}", (), value)


class LogWithEpsilon(Rule):
    code = "XE204"
    name = "log-with-epsilon"
    severity = "warning"
    summary = "A small number, or a clamp, keeps the logarithm of a softmax or sigmoid finite."
    harm = (
        "The loss is then capped: with 1e-7 it never exceeds 16.1, and a row that is more wrong than that gets no"
        " gradient (a clamp) or almost none. With 1e-8 in float16 the small number is 0 and nothing is mended."
    )
    mend = "Use log_softmax, logsigmoid, or the loss that takes logits; they need no small number."
    ignore_when = "The cap is meant, as a bound on what one row may contribute."
    bad = """\
import torch
import torch.nn.functional as F


def loss(logits, onehot):
    p = F.softmax(logits, dim=1)
    return -(onehot * torch.log(p + 1e-7)).sum(1).mean()
"""
    good = """\
import torch.nn.functional as F


def loss(logits, onehot):
    return F.cross_entropy(logits, onehot)
"""
    demonstration = """\
import torch

logits = torch.tensor([[0.0, 30.0]], requires_grad=True)  # the first class is the true one
for name, loss in (
    ("log(p + 1e-7)", -torch.log(logits.softmax(1) + 1e-7)[0, 0]),
    ("log(clamp(p))", -torch.log(logits.softmax(1).clamp(min=1e-7))[0, 0]),
    ("log_softmax", -logits.log_softmax(1)[0, 0]),
):
    (grad,) = torch.autograd.grad(loss, logits)
    print(f"{name:13} loss {loss.item():6.2f}, gradient {grad[0, 0].item():9.1e}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        value = _logged(operation, ("sigmoid", "softmax", "entry"))
        if value is not None and "eps" in value.marks:
            where = context.where(value, operation.node)
            of = "sigmoid" if value.kind == "sigmoid" else "softmax"
            better = "logsigmoid" if of == "sigmoid" else "log_softmax"
            yield Found(operation.node, f"logarithm of a {of}{where} plus a small number: use {better}", (), value)


class LogSumExpByHand(Rule):
    code = "XE205"
    name = "log-sum-exp-by-hand"
    severity = "warning"
    summary = "log(sum(exp(x))) is written out without taking the maximum off first."
    harm = (
        "An entry above 88.7 (float32), 709.8 (float64) or 11.1 (float16) gives inf; entries all below -104 give -inf."
    )
    mend = "Use logsumexp: torch.logsumexp, scipy.special.logsumexp, jax.nn.logsumexp, tf.reduce_logsumexp."
    ignore_when = "The entries are bounded and you know the bound."
    bad = """\
import numpy as np


def partition(energies):
    return np.log(np.sum(np.exp(energies), axis=1))
"""
    good = """\
from scipy.special import logsumexp


def partition(energies):
    return logsumexp(energies, axis=1)
"""
    demonstration = """\
import torch

for x in (10.0, 100.0, -200.0):
    z = torch.tensor([x, x])
    by_hand, logsumexp = torch.log(torch.exp(z).sum()), torch.logsumexp(z, 0)
    print(f"{x:6.0f}: by hand {by_hand.item():7.3f}, logsumexp {logsumexp.item():8.3f}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        if _logged(operation, ("sum_exp",)) is not None and not context.is_guarded():
            yield Found(operation.node, "log-sum-exp by hand overflows: use logsumexp")


class SoftmaxByHand(Rule):
    code = "XE206"
    name = "softmax-by-hand"
    severity = "warning"
    summary = "exp(x) / sum(exp(x)) is written out without taking the maximum off first."
    harm = "An entry above 88.7 (float32) or 11.1 (float16) gives inf / inf = NaN; if all are below -104, 0 / 0 = NaN."
    mend = "Use the library's softmax, or take the maximum of each row off before exp."
    ignore_when = "The entries are bounded and you know the bound."
    bad = """\
import numpy as np


def softmax(x):
    return np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True)
"""
    good = """\
import numpy as np


def softmax(x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)
"""
    demonstration = """\
import torch

for x in (10.0, 100.0):
    z = torch.tensor([x, 0.0])
    by_hand, softmax = z.exp() / z.exp().sum(), z.softmax(0)
    print(f"{x:4.0f}: by hand {by_hand[0].item():.3f}, softmax {softmax[0].item():.3f}")
"""

    def binary(self, node: ast.BinOp, left: Value, right: Value, context: Context) -> Iterator[Found]:
        if not isinstance(node.op, ast.Div) or left.kind != "exp" or right.kind != "sum_exp":
            return
        if left.operand is not None and right.operand is not None and ast.dump(left.operand) == ast.dump(right.operand):
            yield Found(node, "softmax by hand overflows: take the maximum off before exp, or use softmax")


class SoftplusByHand(Rule):
    code = "XE207"
    name = "softplus-by-hand"
    severity = "warning"
    summary = "log(1 + exp(x)) is written out, with log or log1p."
    harm = "An x above 88.7 (float32) gives inf instead of x; log(1 + exp(x)) is 0 below -16.6, and should be exp(x)."
    mend = "Use softplus (PyTorch, JAX, TensorFlow), or np.logaddexp(0, x)."
    ignore_when = "The x is bounded and you know the bound, as in log1p(exp(-abs(x)))."
    bad = """\
import numpy as np


def logistic_loss(margin):
    return np.log(1 + np.exp(-margin)).mean()
"""
    good = """\
import numpy as np


def logistic_loss(margin):
    return np.logaddexp(0, -margin).mean()
"""
    demonstration = """\
import torch
import torch.nn.functional as F

for x in (100.0, -20.0):
    z = torch.tensor(x)
    print(f"{x:5.0f}: by hand {torch.log(1 + torch.exp(z)).item():9.3e}, softplus {F.softplus(z).item():9.3e}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        if operation.first is None or context.is_guarded():
            return
        kind = operation.first.value.kind
        if (operation.op == "log" and kind == "one_plus_exp") or (
            operation.op == "log1p" and kind in ("exp", "exp_difference")
        ):
            yield Found(operation.node, "softplus by hand overflows: use softplus, or logaddexp(0, x)")


RULES: tuple[type[Rule], ...] = (
    LogOfSoftmax,
    LogOfSigmoid,
    LogOfComplement,
    LogWithEpsilon,
    LogSumExpByHand,
    SoftmaxByHand,
    SoftplusByHand,
)
