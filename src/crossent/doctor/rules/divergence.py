"""Rules on the Kullback-Leibler divergence of PyTorch, whose arguments and mean are not what one expects."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..records import Argument, Criterion, LossCall
from .base import Context, Found, Pairing, Rule

__all__ = ["RULES"]


class DivergenceOfProbabilities(Pairing):
    code = "XE401"
    name = "probabilities-into-kl-div"
    severity = "error"
    fix = "unsafe"
    kinds, reads, link = ("softmax", "sigmoid", "entry"), ("log_probabilities",), "kl"
    takes = "takes log-probabilities"
    summary = "Probabilities go into kl_div, whose input is log-probabilities."
    harm = (
        "The result is no divergence: for two equal distributions it is not 0 (-1.343 in the example), and its "
        "least value is not where they are equal."
    )
    mend = "Use log_softmax for the input: kl_div(log_softmax(student), softmax(teacher))."
    ignore_when = "Never, as far as we know."
    bad = """\
import torch.nn.functional as F


def distill(student, teacher):
    return F.kl_div(F.softmax(student, dim=1), F.softmax(teacher, dim=1), reduction="batchmean")
"""
    good = """\
import torch.nn.functional as F


def distill(student, teacher):
    return F.kl_div(F.log_softmax(student, dim=1), F.softmax(teacher, dim=1), reduction="batchmean")
"""
    demonstration = """\
import torch
import torch.nn.functional as F

z = torch.tensor([[1.0, 2.0, 3.0]])  # student and teacher agree
right = F.kl_div(F.log_softmax(z, dim=1), F.softmax(z, dim=1), reduction="batchmean")
wrong = F.kl_div(F.softmax(z, dim=1), F.softmax(z, dim=1), reduction="batchmean")
print(f"right {abs(right.item()):.3f}, of probabilities {wrong.item():.3f}")
"""


class LogTargetNotSaid(Rule):
    code = "XE402"
    name = "kl-div-log-target"
    severity = "error"
    summary = "The target of kl_div is log-probabilities, and log_target is not set."
    harm = (
        "kl_div then takes the logarithm of a negative number: target * log(target) is NaN, or with xlogy the "
        "loss is NaN from the first batch on. For two equal distributions of 3 classes it should be 0."
    )
    mend = "Pass log_target=True."
    ignore_when = "Never, as far as we know."
    bad = """\
import torch.nn.functional as F


def distill(student, teacher):
    return F.kl_div(F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1), reduction="batchmean")
"""
    good = """\
import torch.nn.functional as F


def distill(student, teacher):
    p, q = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    return F.kl_div(p, q, reduction="batchmean", log_target=True)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

log_p = F.log_softmax(torch.tensor([[1.0, 2.0, 3.0]]), dim=1)
for log_target in (False, True):
    loss = F.kl_div(log_p, log_p, reduction="batchmean", log_target=log_target)
    print(f"log_target={log_target}: {abs(loss.item()):.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        if call.loss.link != "kl" or call.target is None or call.target.value.kind != "log_softmax":
            return
        flag = call.option("log_target")
        if (flag is None and call.is_complete) or (flag is not None and flag.kind == "constant" and not flag.payload):
            where = context.where(call.target.value, call.node)
            yield Found(call.node, f"the target is log-probabilities{where}: pass log_target=True")


class DivergenceMean(Rule):
    code = "XE403"
    name = "kl-div-mean"
    severity = "warning"
    summary = 'kl_div is averaged by reduction="mean" (its default), over all entries and not over rows.'
    harm = (
        "The result is the divergence divided by the number of classes: K = 1000 classes make the term 1000 times"
        " smaller than the formula says, and a weight that was right for 10 classes is wrong for 100."
    )
    mend = 'Pass reduction="batchmean".'
    ignore_when = "The weight of the term was tuned with the factor in it."
    bad = """\
from torch import nn

criterion = nn.KLDivLoss()
"""
    good = """\
from torch import nn

criterion = nn.KLDivLoss(reduction="batchmean")
"""
    demonstration = """\
import torch
import torch.nn.functional as F

for k in (10, 1000):
    p, q = torch.zeros(1, k), torch.zeros(1, k)
    q[0, 0] = 5.0
    log_p, target = p.log_softmax(1), q.softmax(1)
    rows = F.kl_div(log_p, target, reduction="batchmean")
    entries = (target * (target.log() - log_p)).mean()  # what reduction="mean" computes, with a warning
    print(f"{k:4} classes: batchmean {rows.item():.4f}, mean {entries.item():.6f}")
"""

    def criterion(self, criterion: Criterion, context: Context) -> Iterator[Found]:
        is_known = criterion.is_complete and not {"size_average", "reduce"} & criterion.options.keys()
        if criterion.loss.link == "kl" and is_known and _is_mean(criterion.options.get("reduction")):
            yield Found(criterion.node, _MEAN)

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        if call.loss.link == "kl" and not call.loss.options and call.reduction == "mean":
            yield Found(call.node, _MEAN)


_MEAN = 'reduction="mean" divides a divergence by the number of entries, and not of rows: pass "batchmean"'


def _is_mean(given: Argument | None) -> bool:
    return given is None or (given.value.kind == "constant" and given.value.payload == "mean")


class DivergenceReversed(Rule):
    code = "XE404"
    name = "kl-div-reversed"
    severity = "advice"
    summary = "The teacher is the input of kl_div and the student its target: the divergence the other way round."
    harm = (
        "kl_div(input, target) is KL(target || input). With the student as target it is the reverse divergence, "
        "which forgives what the student finds unlikely: 0.64 in the place of 1.61 for a teacher of (0.5, 0.5) "
        "and a student of (0.99, 0.01)."
    )
    mend = "For a distillation: kl_div(log_softmax(student), softmax(teacher))."
    ignore_when = "The reverse divergence is meant, as in MiniLLM or on-policy distillation."
    bad = """\
import torch.nn.functional as F


def distill(student_logits, teacher_logits):
    return F.kl_div(F.log_softmax(teacher_logits, dim=1), F.softmax(student_logits, dim=1), reduction="batchmean")
"""
    good = """\
import torch.nn.functional as F


def distill(student_logits, teacher_logits):
    return F.kl_div(F.log_softmax(student_logits, dim=1), F.softmax(teacher_logits, dim=1), reduction="batchmean")
"""
    demonstration = """\
import torch
import torch.nn.functional as F

teacher, student = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.99, 0.01]])
right = F.kl_div(student.log(), teacher, reduction="batchmean")
reverse = F.kl_div(teacher.log(), student, reduction="batchmean")
print(f"KL(teacher || student) {right.item():.2f}, KL(student || teacher) {reverse.item():.2f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        if call.loss.link != "kl" or call.prediction is None or call.target is None:
            return
        first, second = _names(call.prediction), _names(call.target)
        if "teacher" in first and "student" in second and "student" not in first and "teacher" not in second:
            yield Found(call.node, "teacher and student are swapped: this is the reverse divergence")


def _names(argument: Argument) -> str:
    """Return the names in an argument, and in the expression that made its value."""
    nodes: list[ast.expr] = [argument.node, *([argument.value.node] if argument.value.node is not None else [])]
    return " ".join(part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)).lower()


RULES: tuple[type[Rule], ...] = (DivergenceOfProbabilities, LogTargetNotSaid, DivergenceMean, DivergenceReversed)
