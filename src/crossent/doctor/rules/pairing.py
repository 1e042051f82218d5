"""Rules on what a model puts out and what the loss takes: logits, log-probabilities or probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from ..records import Argument, Edit, LossCall
from .base import Context, Found, Rule

__all__ = ["RULES"]


def _pair(call: LossCall, kinds: tuple[str, ...], reads: str, link: str) -> Argument | None:
    """Return the prediction if it is of one of these kinds and the loss reads it as something else."""
    prediction = call.prediction
    if prediction is None or prediction.value.kind not in kinds or call.reads != reads or call.loss.link != link:
        return None
    return prediction


def _is_direct(argument: Argument) -> bool:
    """Return whether the activation is written in the argument itself, so that it can be taken out there."""
    value = argument.value
    return value.node is argument.node and value.operand is not None and not value.marks & {"eps", "complement"}


def _without(argument: Argument, context: Context, *, is_safe: bool) -> tuple[Edit, ...]:
    operand = argument.value.operand
    if operand is None or not _is_direct(argument):
        return ()
    return (context.replaced(argument.node, context.text(operand), is_safe=is_safe),)


def _is_keras(call: LossCall) -> bool:
    return call.loss.library == "keras"


class SoftmaxBeforeCrossEntropy(Rule):
    code = "XE101"
    name = "softmax-before-cross-entropy"
    severity = "error"
    fix = "unsafe"
    summary = "The output of softmax goes into a cross-entropy that takes logits and applies softmax itself."
    harm = (
        "The loss sees numbers between 0 and 1 as logits. With 10 classes it cannot fall below log(e + 9) - 1 = "
        "1.461, even when every prediction is right with certainty, and a confidently wrong one gets almost no "
        "gradient. Training runs, only slower and to a worse result."
    )
    mend = "Give the loss the logits, and apply softmax only where probabilities are wanted: for a metric, for output."
    ignore_when = "Numbers between 0 and 1 are meant as logits, for example to bound them on purpose."
    bad = (
        "import torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.cross_entropy(F.softmax(logits, dim=1), y)\n"
    )
    good = "import torch.nn.functional as F\n\n\ndef step(logits, y):\n    return F.cross_entropy(logits, y)\n"
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

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("softmax",), "logits", "softmax")
        if found is not None and not _is_keras(call):
            where = context.where(found.value, call.node)
            message = f"softmax{where} goes into {call.loss.name}, which takes logits and applies softmax itself"
            yield Found(call.node, message, _without(found, context, is_safe=False), found.value)


class LogSoftmaxBeforeCrossEntropy(Rule):
    code = "XE102"
    name = "log-softmax-before-cross-entropy"
    severity = "advice"
    fix = "safe"
    summary = "The output of log_softmax goes into a cross-entropy that applies log_softmax itself."
    harm = (
        "Nothing is wrong: log_softmax of log_softmax is log_softmax, and 0 digits are lost. It costs a second "
        "pass, and a reader wonders."
    )
    mend = "Leave log_softmax out, or use nll_loss, which takes log-probabilities."
    ignore_when = "The log-probabilities are needed elsewhere and the second pass does not matter."
    bad = (
        "import torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.cross_entropy(F.log_softmax(logits, dim=1), y)\n"
    )
    good = (
        "import torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.nll_loss(F.log_softmax(logits, dim=1), y)\n"
    )
    demonstration = """\
import torch
import torch.nn.functional as F

logits, y = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([1])
print(f"{F.cross_entropy(logits, y):.6f} {F.cross_entropy(F.log_softmax(logits, dim=1), y):.6f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("log_softmax",), "logits", "softmax")
        if found is not None:
            where = context.where(found.value, call.node)
            message = f"log_softmax{where} before {call.loss.name} changes nothing: the loss applies it itself"
            yield Found(call.node, message, _without(found, context, is_safe=True), found.value)


class SigmoidBeforeLogits(Rule):
    code = "XE103"
    name = "sigmoid-before-bce-with-logits"
    severity = "error"
    fix = "unsafe"
    summary = "The output of sigmoid goes into a binary cross-entropy that takes logits and applies sigmoid itself."
    harm = (
        "Sigmoid of a sigmoid lies between 0.5 and 0.731, so a negative never gets a probability below one half: "
        "its loss cannot fall below log 2 = 0.693, and that of a positive not below 0.313. Gradients shrink "
        "fourfold."
    )
    mend = "Give the loss the logits, or use the loss that takes probabilities."
    ignore_when = "Never, as far as we know."
    bad = (
        "import torch\nfrom torch import nn\n\ncriterion = nn.BCEWithLogitsLoss()\n\n\ndef step(logits, y):\n"
        "    return criterion(torch.sigmoid(logits), y)\n"
    )
    good = (
        "from torch import nn\n\ncriterion = nn.BCEWithLogitsLoss()\n\n\ndef step(logits, y):\n"
        "    return criterion(logits, y)\n"
    )
    demonstration = """\
import torch
import torch.nn.functional as F

for y, logit in ((0.0, -30.0), (1.0, 30.0)):  # both are right with certainty
    z, t = torch.tensor([logit]), torch.tensor([y])
    right = F.binary_cross_entropy_with_logits(z, t)
    wrong = F.binary_cross_entropy_with_logits(torch.sigmoid(z), t)
    print(f"label {y:.0f}: {right:.3f}, after sigmoid {wrong:.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("sigmoid",), "logits", "sigmoid")
        if found is not None and not _is_keras(call):
            where = context.where(found.value, call.node)
            message = f"sigmoid{where} goes into {call.loss.name}, which takes logits and applies sigmoid itself"
            yield Found(call.node, message, _without(found, context, is_safe=False), found.value)


class SigmoidBeforeCrossEntropy(Rule):
    code = "XE104"
    name = "sigmoid-before-cross-entropy"
    severity = "error"
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
    bad = (
        "import torch\nimport torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.cross_entropy(torch.sigmoid(logits), y)\n"
    )
    good = "import torch.nn.functional as F\n\n\ndef step(logits, y):\n    return F.cross_entropy(logits, y)\n"
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.tensor([3])
logits = 100 * (2 * F.one_hot(y, 10).float() - 1)
print(f"{F.cross_entropy(logits, y):.3f}, after sigmoid {F.cross_entropy(torch.sigmoid(logits), y):.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("sigmoid",), call.reads, "softmax")
        if found is None or call.reads not in ("logits", "probabilities") or "one_class" in found.value.marks:
            return
        if call.reads == "probabilities" and not _is_keras(call):
            return
        where = context.where(found.value, call.node)
        message = f"sigmoid{where} goes into {call.loss.name}, which is for exclusive classes (softmax)"
        yield Found(call.node, message, (), found.value)


class SoftmaxBeforeBinary(Rule):
    code = "XE105"
    name = "softmax-before-bce"
    severity = "warning"
    summary = "The output of softmax goes into a binary cross-entropy that takes probabilities."
    harm = (
        "Each class is scored as a question of its own, though softmax makes them share one probability. The "
        "gradient then pushes on all wrong classes as well: on three equal logits it is 1.5 times that of "
        "cross-entropy, and several labels at once can never be reached."
    )
    mend = "For exclusive classes use cross-entropy on the logits; for labels that may hold together use sigmoid."
    ignore_when = "The method is defined so, as the distillation of LwF is (a softmax as target is not reported)."
    bad = (
        "import torch\nimport torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.binary_cross_entropy(torch.softmax(logits, dim=1), y)\n"
    )
    good = (
        "import torch\nimport torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.binary_cross_entropy(torch.sigmoid(logits), y)\n"
    )
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

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("softmax",), "probabilities", "sigmoid")
        if found is None or found.value.marks & {"one_class", "two_classes", "complement"}:
            return
        if call.target is not None and call.target.value.kind in ("softmax", "sigmoid", "entry"):
            return  # a distillation, such as LwF's
        where = context.where(found.value, call.node)
        message = f"softmax{where} goes into {call.loss.name}, which scores every class by itself (sigmoid)"
        yield Found(call.node, message, (), found.value)


class ProbabilitiesIntoNll(Rule):
    code = "XE106"
    name = "probabilities-into-nll"
    severity = "error"
    fix = "unsafe"
    summary = "Probabilities go into nll_loss, which takes log-probabilities."
    harm = (
        "Without the logarithm the loss is -p, between -1 and 0, and not cross-entropy. A confidently wrong row "
        "gets no gradient: with p = 1e-6 it is 1e-6 instead of 1."
    )
    mend = "Use log_softmax in the place of softmax, or cross_entropy on the logits."
    ignore_when = "The expected accuracy is maximised on purpose, as REINFORCE does with a reward."
    bad = (
        "import torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.nll_loss(F.softmax(logits, dim=1), y)\n"
    )
    good = (
        "import torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.nll_loss(F.log_softmax(logits, dim=1), y)\n"
    )
    demonstration = """\
import torch
import torch.nn.functional as F

logits, y = torch.tensor([[14.0, 0.0]], requires_grad=True), torch.tensor([1])  # certain, and wrong
for name, output in (("log_softmax", F.log_softmax(logits, dim=1)), ("softmax", F.softmax(logits, dim=1))):
    loss = F.nll_loss(output, y)
    (grad,) = torch.autograd.grad(loss, logits)
    print(f"{name:12} loss {loss:8.4f}, gradient {grad[0, 1]:9.1e}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("softmax", "sigmoid"), "log_probabilities", "softmax")
        if found is None:
            return
        value = found.value
        edits: tuple[Edit, ...] = ()
        where = context.where(value, call.node)
        if value.kind == "softmax" and _is_direct(found):
            edits = _log_softmax(found, context)
        message = f"{value.kind}{where} goes into {call.loss.name}, which takes log-probabilities (log_softmax)"
        yield Found(call.node, message, edits, value)


def _log_softmax(argument: Argument, context: Context) -> tuple[Edit, ...]:
    """Return the edit that turns ``softmax`` into ``log_softmax`` in the argument."""
    text = context.text(argument.node)
    head, bracket, rest = text.partition("(")
    if head.endswith(".softmax") and "log_softmax" not in text:
        return (context.replaced(argument.node, f"{head[:-7]}log_softmax{bracket}{rest}", is_safe=False),)
    return ()


class SoftmaxBeforeBinaryLogits(Rule):
    code = "XE107"
    name = "softmax-before-bce-with-logits"
    severity = "error"
    summary = "The output of softmax goes into a binary cross-entropy that takes logits."
    harm = (
        "Numbers between 0 and 1 as logits mean probabilities between 0.5 and 0.731: the loss of a class that is "
        "absent cannot fall below log 2 = 0.693."
    )
    mend = "Give the loss the logits. For exclusive classes use cross-entropy instead."
    ignore_when = "Never, as far as we know."
    bad = (
        "import torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.binary_cross_entropy_with_logits(logits.softmax(dim=-1), y)\n"
    )
    good = (
        "import torch.nn.functional as F\n\n\ndef step(logits, y):\n"
        "    return F.binary_cross_entropy_with_logits(logits, y)\n"
    )
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.tensor([[1.0, 0.0, 0.0]])
logits = 100 * (2 * y - 1)
right = F.binary_cross_entropy_with_logits(logits, y)
wrong = F.binary_cross_entropy_with_logits(logits.softmax(dim=-1), y)
print(f"a perfect row: {right:.3f}, after softmax {wrong:.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("softmax", "entry"), "logits", "sigmoid")
        if found is not None and not _is_keras(call):
            where = context.where(found.value, call.node)
            message = f"softmax{where} goes into {call.loss.name}, which takes logits"
            yield Found(call.node, message, (), found.value)


class LogitsIntoNll(Rule):
    code = "XE108"
    name = "logits-into-nll"
    severity = "error"
    summary = "The output of a linear layer goes into nll_loss without log_softmax."
    harm = (
        "The loss is then minus one logit, and has no lower bound: raising every logit lowers it for ever, "
        "whatever the labels are. A loss below 0 is the sign."
    )
    mend = "Use cross_entropy, or put log_softmax before nll_loss."
    ignore_when = "The layer's output is normalised in another way that the linter does not see."
    bad = (
        "from torch import nn\n\nmodel = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))\n"
        "criterion = nn.NLLLoss()\n\n\ndef step(x, y):\n    return criterion(model(x), y)\n"
    )
    good = (
        "from torch import nn\n\nmodel = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))\n"
        "criterion = nn.CrossEntropyLoss()\n\n\ndef step(x, y):\n    return criterion(model(x), y)\n"
    )
    demonstration = """\
import torch
import torch.nn.functional as F

y = torch.tensor([0])
for shift in (0.0, 10.0, 1000.0):  # the same prediction, for softmax does not see a shift
    logits = torch.tensor([[1.0, 2.0, 3.0]]) + shift
    print(f"shift {shift:6.1f}: cross_entropy {F.cross_entropy(logits, y):.3f}, nll_loss {F.nll_loss(logits, y):.1f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("linear",), "log_probabilities", "softmax")
        if found is not None:
            where = context.where(found.value, call.node)
            message = f"the output of a linear layer{where} goes into {call.loss.name}, which takes log-probabilities"
            yield Found(call.node, message, (), found.value)


class LogitsIntoBinary(Rule):
    code = "XE109"
    name = "logits-into-bce"
    severity = "error"
    summary = "The output of a linear layer or of log_softmax goes into a binary cross-entropy of probabilities."
    harm = (
        "PyTorch raises an error at the first number outside [0, 1], on CUDA as an assertion far from the line at"
        " fault; until then, numbers that happen to lie between 0 and 1 are taken for probabilities."
    )
    mend = "Use binary cross-entropy with logits."
    ignore_when = "The layer's output is brought to [0, 1] in a way that the linter does not see."
    bad = (
        "from torch import nn\n\nmodel = nn.Linear(8, 1)\ncriterion = nn.BCELoss()\n\n\ndef step(x, y):\n"
        "    return criterion(model(x), y)\n"
    )
    good = (
        "from torch import nn\n\nmodel = nn.Linear(8, 1)\ncriterion = nn.BCEWithLogitsLoss()\n\n\ndef step(x, y):\n"
        "    return criterion(model(x), y)\n"
    )
    demonstration = """\
import torch
import torch.nn.functional as F

try:
    F.binary_cross_entropy(torch.tensor([1.5]), torch.tensor([1.0]))
except RuntimeError as error:
    print(str(error).splitlines()[0])
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = _pair(call, ("linear", "log_softmax", "log_sigmoid"), "probabilities", "sigmoid")
        if found is not None and not _is_keras(call):
            where = context.where(found.value, call.node)
            kind = "a linear layer" if found.value.kind == "linear" else found.value.kind
            message = f"the output of {kind}{where} goes into {call.loss.name}, which takes probabilities"
            yield Found(call.node, message, (), found.value)


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
