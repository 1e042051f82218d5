"""Rules on what a model puts out and what the loss takes: logits, log-probabilities or probabilities."""

from __future__ import annotations

from ..records import Argument, LossCall
from .base import Pairing, Rule

__all__ = ["RULES"]


class SoftmaxBeforeCrossEntropy(Pairing):
    code = "XE101"
    name = "softmax-before-cross-entropy"
    severity = "error"
    fix = "unsafe"
    kinds, reads, link = ("softmax",), ("logits",), "softmax"
    takes = "takes logits and applies softmax itself"
    summary = "The output of softmax goes into a cross-entropy that takes logits and applies softmax itself."
    harm = (
        "The loss sees numbers between 0 and 1 as logits. With 10 classes it cannot fall below log(e + 9) - 1 = "
        "1.461, even when every prediction is right with certainty, and a confidently wrong one gets almost no "
        "gradient. Training runs, only slower and to a worse result."
    )
    mend = "Give the loss the logits, and apply softmax only where probabilities are wanted: for a metric, for output."
    ignore_when = "Numbers between 0 and 1 are meant as logits, for example to bound them on purpose."
    bad = """\
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(F.softmax(logits, dim=1), y)
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(logits, y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.tensor([3])
for scale in (0.0, 5.0, 100.0):  # from no idea to certainty, and right
    logits = scale * F.one_hot(y, 10).float()
    right, wrong = F.cross_entropy(logits, y), F.cross_entropy(F.softmax(logits, dim=1), y)
    print(f"logit of the true class {scale:5.1f}: cross-entropy {right:.4f}, after softmax {wrong:.4f}")
logits = torch.zeros(1, 10)
logits[0, 0] = 12.0  # certain, and wrong
logits.requires_grad_()
for name, loss in (
    ("cross-entropy", F.cross_entropy(logits, y)),
    ("after softmax", F.cross_entropy(F.softmax(logits, dim=1), y)),
):
    (grad,) = torch.autograd.grad(loss, logits)
    print(f"{name}: gradient of the true class {grad[0, 3]:.1e}")
"""


class LogSoftmaxBeforeCrossEntropy(Pairing):
    code = "XE102"
    name = "log-softmax-before-cross-entropy"
    severity = "advice"
    fix = "safe"
    kinds, reads, link = ("log_softmax",), ("logits",), "softmax"
    takes = "applies it itself: it changes nothing"
    libraries = ()
    summary = "The output of log_softmax goes into a cross-entropy that applies log_softmax itself."
    harm = (
        "Nothing is wrong: log_softmax of log_softmax is log_softmax, and 0 digits are lost. It costs a second "
        "pass, and a reader wonders."
    )
    mend = "Leave log_softmax out, or use nll_loss, which takes log-probabilities."
    ignore_when = "The log-probabilities are needed elsewhere and the second pass does not matter."
    bad = """\
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(F.log_softmax(logits, dim=1), y)
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.nll_loss(F.log_softmax(logits, dim=1), y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

logits, y = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([1])
print(f"{F.cross_entropy(logits, y):.6f} {F.cross_entropy(F.log_softmax(logits, dim=1), y):.6f}")
"""


class SigmoidBeforeLogits(Pairing):
    code = "XE103"
    name = "sigmoid-before-bce-with-logits"
    severity = "error"
    fix = "unsafe"
    kinds, reads, link = ("sigmoid",), ("logits",), "sigmoid"
    takes = "takes logits and applies sigmoid itself"
    summary = "The output of sigmoid goes into a binary cross-entropy that takes logits and applies sigmoid itself."
    harm = (
        "Sigmoid of a sigmoid lies between 0.5 and 0.731, so a negative never gets a probability below one half: "
        "its loss cannot fall below log 2 = 0.693, and that of a positive not below 0.313. Gradients shrink "
        "fourfold."
    )
    mend = "Give the loss the logits, or use the loss that takes probabilities."
    ignore_when = "Never, as far as we know."
    bad = """\
import torch
from torch import nn

criterion = nn.BCEWithLogitsLoss()


def step(logits, y):
    return criterion(torch.sigmoid(logits), y)
"""
    good = """\
from torch import nn

criterion = nn.BCEWithLogitsLoss()


def step(logits, y):
    return criterion(logits, y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

for y, logit in ((0.0, -30.0), (1.0, 30.0)):  # both are right with certainty
    z, t = torch.tensor([logit]), torch.tensor([y])
    right = F.binary_cross_entropy_with_logits(z, t)
    wrong = F.binary_cross_entropy_with_logits(torch.sigmoid(z), t)
    print(f"label {y:.0f}: {right:.3f}, after sigmoid {wrong:.3f}")
"""


class SigmoidBeforeCrossEntropy(Pairing):
    code = "XE104"
    name = "sigmoid-before-cross-entropy"
    severity = "error"
    kinds, reads, link = ("sigmoid",), ("logits", "probabilities"), "softmax"
    takes = "is for exclusive classes (softmax)"
    libraries = ()
    summary = "The output of sigmoid goes into a cross-entropy over exclusive classes."
    harm = (
        "Cross-entropy takes the numbers between 0 and 1 for logits and compares them by softmax: with 10 classes"
        " a perfect row (1 for the true class, 0 for the others) still has a loss of 1.461."
    )
    mend = (
        "For exclusive classes give cross-entropy the logits. For labels that may hold together use binary "
        "cross-entropy with logits on each class."
    )
    ignore_when = "One-against-rest scores are compared by softmax on purpose; say so in the comment."
    bad = """\
import torch
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(torch.sigmoid(logits), y)
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(logits, y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.tensor([3])
logits = 100 * (2 * F.one_hot(y, 10).float() - 1)
print(f"{F.cross_entropy(logits, y):.3f}, after sigmoid {F.cross_entropy(torch.sigmoid(logits), y):.3f}")
"""

    def is_meant(self, found: Argument, call: LossCall) -> bool:
        return "one_class" in found.value.marks


class SoftmaxBeforeBinary(Pairing):
    code = "XE105"
    name = "softmax-before-bce"
    severity = "warning"
    kinds, reads, link = ("softmax",), ("probabilities",), "sigmoid"
    takes = "scores every class by itself (sigmoid)"
    libraries = ()
    summary = "The output of softmax goes into a binary cross-entropy that takes probabilities."
    harm = (
        "Each class is scored as a question of its own, though softmax makes them share one probability. The "
        "gradient then pushes on all wrong classes as well: on three equal logits it is 1.5 times that of "
        "cross-entropy, and several labels at once can never be reached."
    )
    mend = "For exclusive classes use cross-entropy on the logits; for labels that may hold together use sigmoid."
    ignore_when = "The method is defined so, as the distillation of LwF is (a softmax as target is not reported)."
    bad = """\
import torch
import torch.nn.functional as F


def step(logits, y):
    return F.binary_cross_entropy(torch.softmax(logits, dim=1), y)
"""
    good = """\
import torch
import torch.nn.functional as F


def step(logits, y):
    return F.binary_cross_entropy(torch.sigmoid(logits), y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

logits, y = torch.zeros(1, 3, requires_grad=True), torch.tensor([[1.0, 0.0, 0.0]])
losses = (F.cross_entropy(logits, y), F.binary_cross_entropy(torch.softmax(logits, dim=1), y, reduction="sum"))
for loss in losses:
    print(torch.autograd.grad(loss, logits)[0].numpy().round(3))
both = torch.tensor([[1.0, 1.0, 0.0]])
best = torch.tensor([[0.5, 0.5, 0.0]])  # the best that softmax can say
print(f"two labels at once: never below {F.binary_cross_entropy(best, both, reduction='sum'):.3f}")
"""

    def is_meant(self, found: Argument, call: LossCall) -> bool:
        is_distilled = call.target is not None and call.target.value.kind in ("softmax", "sigmoid", "entry")  # as LwF
        return is_distilled or bool(found.value.marks & {"one_class", "two_classes", "complement"})


class ProbabilitiesIntoNll(Pairing):
    code = "XE106"
    name = "probabilities-into-nll"
    severity = "error"
    fix = "unsafe"
    kinds, reads, link = ("softmax", "sigmoid"), ("log_probabilities",), "softmax"
    takes = "takes log-probabilities (log_softmax)"
    summary = "Probabilities go into nll_loss, which takes log-probabilities."
    harm = (
        "Without the logarithm the loss is -p, between -1 and 0, and not cross-entropy. A confidently wrong row "
        "gets no gradient: with p = 1e-6 it is 1e-6 instead of 1."
    )
    mend = "Use log_softmax in the place of softmax, or cross_entropy on the logits."
    ignore_when = "The expected accuracy is maximised on purpose, as REINFORCE does with a reward."
    bad = """\
import torch.nn.functional as F


def step(logits, y):
    return F.nll_loss(F.softmax(logits, dim=1), y)
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.nll_loss(F.log_softmax(logits, dim=1), y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

logits, y = torch.tensor([[14.0, 0.0]], requires_grad=True), torch.tensor([1])  # certain, and wrong
for name, output in (("log_softmax", F.log_softmax(logits, dim=1)), ("softmax", F.softmax(logits, dim=1))):
    loss = F.nll_loss(output, y)
    (grad,) = torch.autograd.grad(loss, logits)
    print(f"{name:12} loss {loss:8.4f}, gradient {grad[0, 1]:9.1e}")
"""


class SoftmaxBeforeBinaryLogits(Pairing):
    code = "XE107"
    name = "softmax-before-bce-with-logits"
    severity = "error"
    kinds, reads, link = ("softmax", "entry"), ("logits",), "sigmoid"
    takes = "takes logits"
    summary = "The output of softmax goes into a binary cross-entropy that takes logits."
    harm = (
        "Numbers between 0 and 1 as logits mean probabilities between 0.5 and 0.731: the loss of a class that is "
        "absent cannot fall below log 2 = 0.693."
    )
    mend = "Give the loss the logits. For exclusive classes use cross-entropy instead."
    ignore_when = "Never, as far as we know."
    bad = """\
import torch.nn.functional as F


def step(logits, y):
    return F.binary_cross_entropy_with_logits(logits.softmax(dim=-1), y)
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.binary_cross_entropy_with_logits(logits, y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.tensor([[1.0, 0.0, 0.0]])
logits = 100 * (2 * y - 1)
right = F.binary_cross_entropy_with_logits(logits, y)
wrong = F.binary_cross_entropy_with_logits(logits.softmax(dim=-1), y)
print(f"a perfect row: {right:.3f}, after softmax {wrong:.3f}")
"""


class LogitsIntoNll(Pairing):
    code = "XE108"
    name = "logits-into-nll"
    severity = "error"
    kinds, reads, link = ("linear",), ("log_probabilities",), "softmax"
    takes = "takes log-probabilities"
    summary = "The output of a linear layer goes into nll_loss without log_softmax."
    harm = (
        "The loss is then minus one logit, and has no lower bound: raising every logit lowers it for ever, "
        "whatever the labels are. A loss below 0 is the sign."
    )
    mend = "Use cross_entropy, or put log_softmax before nll_loss."
    ignore_when = "The layer's output is normalised in another way that the linter does not see."
    bad = """\
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
criterion = nn.NLLLoss()


def step(x, y):
    return criterion(model(x), y)
"""
    good = """\
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
criterion = nn.CrossEntropyLoss()


def step(x, y):
    return criterion(model(x), y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.tensor([0])
for shift in (0.0, 10.0, 1000.0):  # the same prediction, for softmax does not see a shift
    logits = torch.tensor([[1.0, 2.0, 3.0]]) + shift
    print(f"shift {shift:6.1f}: cross_entropy {F.cross_entropy(logits, y):.3f}, nll_loss {F.nll_loss(logits, y):.1f}")
"""


class LogitsIntoBinary(Pairing):
    code = "XE109"
    name = "logits-into-bce"
    severity = "error"
    kinds, reads, link = ("linear", "log_softmax", "log_sigmoid"), ("probabilities",), "sigmoid"
    takes = "takes probabilities"
    summary = "The output of a linear layer or of log_softmax goes into a binary cross-entropy of probabilities."
    harm = (
        "PyTorch raises an error at the first number outside [0, 1], on CUDA as an assertion far from the line at"
        " fault; until then, numbers that happen to lie between 0 and 1 are taken for probabilities."
    )
    mend = "Use binary cross-entropy with logits."
    ignore_when = "The layer's output is brought to [0, 1] in a way that the linter does not see."
    bad = """\
from torch import nn

model = nn.Linear(8, 1)
criterion = nn.BCELoss()


def step(x, y):
    return criterion(model(x), y)
"""
    good = """\
from torch import nn

model = nn.Linear(8, 1)
criterion = nn.BCEWithLogitsLoss()


def step(x, y):
    return criterion(model(x), y)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

try:
    F.binary_cross_entropy(torch.tensor([1.5]), torch.tensor([1.0]))
except RuntimeError as error:
    print(str(error).splitlines()[0])
"""


RULES: tuple[type[Rule], ...] = (
    SoftmaxBeforeCrossEntropy,
    LogSoftmaxBeforeCrossEntropy,
    SigmoidBeforeLogits,
    SigmoidBeforeCrossEntropy,
    SoftmaxBeforeBinary,
    ProbabilitiesIntoNll,
    SoftmaxBeforeBinaryLogits,
    LogitsIntoNll,
    LogitsIntoBinary,
)
