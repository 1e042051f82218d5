"""Rules on the labels of a loss: their place among the arguments, their form, and what marks a row to ignore."""

from __future__ import annotations

from collections.abc import Iterator

from ..records import LossCall
from .base import Context, Found, Rule, names_labels, names_predictions

__all__ = ["RULES"]

_LABELS = frozenset({"labels", "one_hot", "sentinel"})
_OUTPUTS = frozenset({"softmax", "log_softmax", "sigmoid", "log_sigmoid", "linear", "class_probabilities", "margin"})


def _are_swapped(call: LossCall) -> bool:
    if call.prediction is None or call.target is None:
        return False
    first, second = call.prediction, call.target
    if first.value.kind in _LABELS and second.value.kind in _OUTPUTS:
        return True
    if call.loss.library == "sklearn" and second.value.kind in ("class_probabilities", "margin"):
        return True
    is_named = names_labels(first.node) and names_predictions(second.node)
    return is_named and first.value.kind not in _OUTPUTS and second.value.kind not in _LABELS


class SwappedArguments(Rule):
    code = "XE301"
    name = "labels-and-output-swapped"
    severity = "error"
    summary = "The labels stand where the loss takes the model's output, and the output where it takes the labels."
    harm = (
        "PyTorch takes (input, target), Keras (y_true, y_pred), TensorFlow (labels, logits), optax (logits, "
        "labels). Where the shapes allow it nothing fails: one-hot labels as logits keep the loss above log(e + K"
        " - 1) - 1 = 1.461 for 10 classes, and the gradient flows through the targets."
    )
    mend = "Swap them, or name them: cross_entropy(input=logits, target=labels)."
    ignore_when = "The names mislead, for example where the output of one model is the label of another."
    bad = """\
import torch.nn.functional as F


def step(model, x, labels):
    logits = model(x)
    return F.cross_entropy(labels, logits)
"""
    good = """\
import torch.nn.functional as F


def step(model, x, labels):
    logits = model(x)
    return F.cross_entropy(logits, labels)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

y = F.one_hot(torch.tensor([3]), 10).float()
logits = 20 * y  # right, and certain
right, swapped = F.cross_entropy(logits, y), F.cross_entropy(y, logits.softmax(1))
print(f"right {abs(right.item()):.3f}, swapped {swapped.item():.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        if call.loss.library != "sklearn" and call.loss.link != "kl" and _are_swapped(call):
            first, second = call.loss.parameters[:2]
            yield Found(call.node, f"labels and output are swapped: {call.loss.name} takes ({first}, {second})")


class SwappedScores(Rule):
    code = "XE302"
    name = "log-loss-arguments-swapped"
    severity = "error"
    summary = "scikit-learn's log_loss or brier_score_loss gets the probabilities first."
    harm = (
        "They take (y_true, y_prob). Labels between 0 and 1 are refused; where the probabilities are rounded to 0"
        " and 1 nothing fails, and a wrong row costs 36.04 in the place of its loss."
    )
    mend = "Swap them: log_loss(y_true, y_prob)."
    ignore_when = "The names mislead."
    bad = """\
from sklearn.metrics import log_loss


def score(model, X, y):
    return log_loss(model.predict_proba(X), y)
"""
    good = """\
from sklearn.metrics import log_loss


def score(model, X, y):
    return log_loss(y, model.predict_proba(X))
"""
    demonstration = """\
from sklearn.metrics import log_loss

y_true, y_prob = [1, 0, 1, 1], [0.9, 0.2, 0.7, 0.6]
print(f"right {log_loss(y_true, y_prob):.3f}")
try:
    log_loss(y_prob, y_true)
except ValueError as error:
    print("swapped:", type(error).__name__)
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        if call.loss.library == "sklearn" and _are_swapped(call):
            first, second = call.loss.parameters
            yield Found(call.node, f"labels and probabilities are swapped: {call.loss.name} takes ({first}, {second})")


class OneHotForClassNumbers(Rule):
    code = "XE303"
    name = "one-hot-where-class-numbers-are-meant"
    severity = "error"
    summary = "One-hot labels go into a loss that takes the number of the class."
    harm = (
        "PyTorch refuses a one-hot of integers (cross_entropy takes a float one). Keras' and optax' losses on "
        "class numbers broadcast or refuse: a one-hot row of 10 classes is read as 10 labels, 9 of them class 0."
    )
    mend = "Pass the class numbers, or use the loss for distributions; for PyTorch's cross_entropy add .float()."
    ignore_when = "Never, as far as we know."
    bad = """\
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(logits, F.one_hot(y, 10))
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(logits, F.one_hot(y, 10).float())
"""
    demonstration = """\
import torch
import torch.nn.functional as F

try:
    F.cross_entropy(torch.zeros(2, 10), F.one_hot(torch.tensor([1, 2]), 10))
except RuntimeError as error:
    print(error)
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        target = call.target
        if target is None or target.value.kind != "one_hot":
            return
        is_refused = call.loss.integer_labels is None and call.loss.library == "torch" and call.loss.link == "softmax"
        if call.loss.integer_labels or (is_refused and "float" not in target.value.marks):
            where = context.where(target.value, call.node)
            if call.loss.integer_labels:
                message = f"one-hot labels{where} go into {call.loss.name}, which takes class numbers"
            else:
                message = f"one-hot labels{where} of integers go into {call.loss.name}, which takes them as floats only"
            yield Found(call.node, message, (), target.value)


class ClassNumbersForDistribution(Rule):
    code = "XE304"
    name = "class-numbers-where-a-distribution-is-meant"
    severity = "error"
    summary = "Integer labels go into a loss that takes a distribution, or zeros and ones as floats."
    harm = (
        "PyTorch's binary cross-entropy refuses integers. optax' and Keras' losses on distributions take class "
        "number 3 as a weight of 3 where the shapes allow it: the loss is 3 times too large, and 0 for class 0."
    )
    mend = "Use the loss on class numbers (sparse, with_integer_labels), a one-hot, or .float()."
    ignore_when = "Never, as far as we know."
    bad = """\
import torch.nn.functional as F


def step(logits, y):
    return F.binary_cross_entropy_with_logits(logits, y.long())
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.binary_cross_entropy_with_logits(logits, y.float())
"""
    demonstration = """\
import torch
import torch.nn.functional as F

try:
    F.binary_cross_entropy_with_logits(torch.zeros(2), torch.tensor([1, 0]))
except RuntimeError as error:
    print(error)
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        target = call.target
        if target is None or call.loss.integer_labels is not False or "float" in target.value.marks:
            return
        is_binary_torch = call.loss.library == "torch" and call.loss.link == "sigmoid"
        is_softmax = call.loss.library in ("optax", "keras", "tensorflow") and call.loss.link == "softmax"
        if target.value.kind == "labels" and (is_binary_torch or is_softmax):
            takes = "floats" if is_binary_torch else "a distribution"
            where = context.where(target.value, call.node)
            yield Found(call.node, f"integer labels{where} go into {call.loss.name}, which takes {takes}")


class SmoothedTwice(Rule):
    code = "XE309"
    name = "labels-smoothed-twice"
    severity = "warning"
    summary = "Labels that are smoothed already go into a loss with label_smoothing."
    harm = "0.1 twice is a smoothing of 0.19: with 10 classes the loss cannot fall below 0.83 in the place of 0.50."
    mend = "Smooth once: in the labels or in the loss."
    ignore_when = "Both are meant."
    bad = """\
import torch.nn.functional as F


def step(logits, y):
    target = F.one_hot(y, 10) * 0.9 + 0.1 / 10
    return F.cross_entropy(logits, target, label_smoothing=0.1)
"""
    good = """\
import torch.nn.functional as F


def step(logits, y):
    return F.cross_entropy(logits, y, label_smoothing=0.1)
"""
    demonstration = """\
import torch
import torch.nn.functional as F

y = F.one_hot(torch.tensor([3]), 10).float()
once = 0.9 * y + 0.1 / 10
twice = 0.9 * once + 0.1 / 10
for name, t in (("once", once), ("twice", twice)):
    print(f"{name}: never below {-(t * t.log()).sum().item():.2f}, weight of the label {t[0, 3].item():.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        smoothing = call.option("label_smoothing")
        is_on = smoothing is not None and not (smoothing.kind == "constant" and not smoothing.payload)
        if is_on and call.target is not None and call.target.value.kind == "smoothed":
            where = context.where(call.target.value, call.node)
            yield Found(call.node, f"labels that are smoothed already{where} go into a loss with label_smoothing")


class IgnoredLabelsWithoutIgnore(Rule):
    code = "XE310"
    name = "ignored-labels-not-ignored"
    severity = "error"
    summary = "Labels that hold -1 or -100 for rows to ignore go into a loss that does not ignore them."
    harm = (
        "optax and TensorFlow know no ignored label: -1 is the last class, and -100 gives NaN, or a finite "
        "gradient that is wrong. PyTorch ignores -100 and no other number by itself, and raises an error for -1."
    )
    mend = "Mask the rows (jnp.where(mask, losses, 0), with labels of 0 there), or set ignore_index to the number."
    ignore_when = "The labels are replaced before the loss in a way that the linter does not see."
    bad = """\
import jax.numpy as jnp
import optax


def loss(logits, labels, mask):
    labels = jnp.where(mask, labels, -100)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
"""
    good = """\
import jax.numpy as jnp
import optax


def loss(logits, labels, mask):
    labels = jnp.where(mask, labels, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.where(mask, losses, 0).sum() / mask.sum()
"""
    demonstration = """\
import jax
import jax.numpy as jnp

logits = jnp.array([[2.0, 0.0, -1.0]])
log_p = jax.nn.log_softmax(logits)
for label in (2, -1, -100):  # what optax computes
    loss = -jnp.take_along_axis(log_p, jnp.array([[label]]), axis=-1)
    print(f"label {label:4}: loss {loss.item():.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        target = call.target
        if target is None or target.value.kind != "sentinel" or call.loss.link != "softmax":
            return
        number = target.value.payload
        where = context.where(target.value, call.node)
        if call.loss.library in ("optax", "tensorflow") and call.loss.integer_labels:
            message = f"labels of {number}{where} go into {call.loss.name}, which ignores no label"
            yield Found(call.node, message, (), target.value)
        elif call.loss.library == "torch" and number == -1 and call.is_complete and "ignore_index" not in call.options:
            message = f"labels of -1{where} go into {call.loss.name}, whose ignore_index is -100"
            yield Found(call.node, message, (), target.value)


class FloatsForClassNumbers(Rule):
    code = "XE311"
    name = "floats-where-class-numbers-are-meant"
    severity = "error"
    summary = "Class numbers that were cast to floats go into a loss that takes integers."
    harm = (
        "PyTorch, optax and TensorFlow refuse them at batch 1. Where a float target has the logits' shape, PyTorch's "
        "cross_entropy takes its numbers for probabilities: a 3 that meant class 3 weighs 3 times."
    )
    mend = "Leave the cast out: class numbers are int64 (.long()). A distribution goes into cross_entropy as floats."
    ignore_when = "Never, as far as we know."
    bad = """\
import torch.nn.functional as F


def step(log_probs, y):
    return F.nll_loss(log_probs, y.float())
"""
    good = """\
import torch.nn.functional as F


def step(log_probs, y):
    return F.nll_loss(log_probs, y.long())
"""
    demonstration = """\
import torch
import torch.nn.functional as F

for loss in (F.nll_loss, F.cross_entropy):
    try:
        loss(torch.zeros(2, 3), torch.tensor([1.0, 0.0]))
    except RuntimeError as error:
        print(str(error).splitlines()[0])
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        target = call.target
        if target is None or "float" not in target.value.marks or call.loss.library == "keras":
            return
        known = ("labels", "sentinel")  # cross_entropy takes floats that are a distribution
        kinds = (*known, "unknown") if call.loss.integer_labels else known if call.loss.integer_labels is None else ()
        if target.value.kind in kinds and call.loss.link == "softmax":
            where = context.where(target.value, call.node)
            yield Found(call.node, f"labels that were cast to floats{where} go into {call.loss.name}", (), target.value)


RULES: tuple[type[Rule], ...] = (
    SwappedArguments,
    SwappedScores,
    OneHotForClassNumbers,
    ClassNumbersForDistribution,
    SmoothedTwice,
    IgnoredLabelsWithoutIgnore,
    FloatsForClassNumbers,
)
