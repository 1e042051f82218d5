"""Rules on softmax and sigmoid by themselves: applied twice, or over one number."""

from __future__ import annotations

from collections.abc import Iterator

from ..records import Operation
from .base import Context, Found, Rule

__all__ = ["RULES"]


class ActivationTwice(Rule):
    code = "XE110"
    name = "activation-twice"
    severity = "error"
    summary = "Softmax or sigmoid is applied to what is a probability already."
    harm = (
        "The second softmax takes probabilities for logits and flattens them: with 10 classes a certain "
        "prediction becomes 0.232. A second sigmoid never goes below 0.5, so a threshold of 0.5 calls everything "
        "positive."
    )
    mend = "Apply it once: in the model or after it."
    ignore_when = "Probabilities are sharpened or flattened on purpose."
    bad = """\
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 3), nn.Softmax(dim=1))


def predict(x):
    return torch.softmax(model(x), dim=1)
"""
    good = """\
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 3))


def predict(x):
    return torch.softmax(model(x), dim=1)
"""
    demonstration = """\
import torch

logits = torch.zeros(10)
logits[0] = 20.0
once = torch.softmax(logits, dim=0)
twice = torch.softmax(once, dim=0)
print(f"softmax: once {once[0]:.3f}, twice {twice[0]:.3f}")
z = torch.tensor(-20.0)
print(f"sigmoid: once {torch.sigmoid(z):.3f}, twice {torch.sigmoid(torch.sigmoid(z)):.3f}")
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        if operation.op not in ("softmax", "sigmoid", "log_softmax") or operation.first is None:
            return
        value = operation.first.value
        if value.kind in ("softmax", "sigmoid") and not value.marks & {"eps", "complement"}:
            if value.node is operation.result.node:
                return
            where = context.where(value, operation.node)
            yield Found(operation.node, f"{operation.op} of what is a {value.kind} already{where}", (), value)


class SoftmaxOverOne(Rule):
    code = "XE111"
    name = "softmax-over-one-class"
    severity = "error"
    summary = "Softmax is taken over one number, which is 1 whatever the number is."
    harm = "The output is 1 for every row and the gradient is 0, so nothing is ever learned."
    mend = "For two classes use one output with sigmoid, or two outputs with softmax."
    ignore_when = "Never, as far as we know."
    bad = """\
from torch import nn

model = nn.Sequential(nn.Linear(8, 1), nn.Softmax(dim=-1))


def predict(x):
    return model(x)
"""
    good = """\
from torch import nn

model = nn.Sequential(nn.Linear(8, 1), nn.Sigmoid())


def predict(x):
    return model(x)
"""
    demonstration = """\
import torch

z = torch.tensor([[-3.0], [0.0], [5.0]], requires_grad=True)
p = torch.softmax(z, dim=-1)
print(p.detach().flatten().tolist(), torch.autograd.grad(p.sum(), z)[0].flatten().tolist())
"""

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        if operation.op in ("softmax", "log_softmax") and "one_class" in operation.result.marks:
            given = operation.arguments
            axis = given.get("dim", 0 if operation.name == "layer" else 1) or given.get("axis")
            is_dense = operation.name == "layer" and "activation" in given.keywords
            if is_dense or (axis is not None and axis.value.payload == -1):
                yield Found(operation.node, "softmax over one number is 1 for every row", (), operation.result)


RULES: tuple[type[Rule], ...] = (
    ActivationTwice,
    SoftmaxOverOne,
)
