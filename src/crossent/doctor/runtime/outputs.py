"""Checks of the outputs: are they logits, finite, alive, and resolved by their dtype?"""

from __future__ import annotations

import math

import numpy as np

from crossent.numpy.dense import cross_entropy
from crossent.numpy.elementwise import logsumexp

from .base import Check
from .batch import Batch, Float64, LeftOut, nats, plural
from .records import Symptom

__all__ = ["CHECKS"]

_LARGE_GAP = 17.0
"""Beyond it, 1 - p is below half the distance of 1 to its neighbour in float32: ``e^-17 = 4e-8``."""


class NotFinite(Check):
    code = "XE801"
    name = "not-finite"
    severity = "error"
    summary = "Outputs hold NaN or +inf, a row is masked (-inf) everywhere, or the true class is masked."
    harm = "One such row among 10,000 makes the mean loss and every gradient behind it NaN or infinite."
    mend = "Look at the layer that makes this row: a division by 0, log of 0, an overflow of float16, a mask too wide."
    ignore_when = "Never, as far as we know: the loss of such a row is NaN or infinite."
    demonstration = """\
import numpy as np
from crossent.doctor import check

logits = np.zeros((4, 3))
logits[2, 1] = np.nan
print(check(logits, [0, 1, 2, 0])[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        z, bad = batch.logits, ~batch.is_sane
        if bad.any():
            first = int(np.argmax(bad))
            is_bad = np.isnan(z[first]) | ((batch.link == "softmax") & (z[first] == np.inf))
            column = int(np.argmax(is_bad))
            where = f"{z[first, column]} in {batch.row_name(batch.rows[first])}, column {column}"
            numbers = {"row": batch.rows[first], "column": column, "rows": bad.sum(), "nan": np.isnan(z).sum()}
            return self.found(f"{where}: the loss is NaN ({plural(bad.sum(), 'such row')} in all)", numbers)
        infinite = batch.is_ruled_out
        if not infinite.any():
            return None
        row = batch.rows[int(np.argmax(infinite))]
        text = f"a logit rules out what the target says in {batch.row_name(row)}, so the loss is infinite "
        return self.found(f"{text}({plural(infinite.sum(), 'such row')} in all)", {"row": row, "rows": infinite.sum()})


class AlreadySoftmax(Check):
    code = "XE802"
    name = "outputs-are-probabilities"
    severity = "error"
    summary = "Every row lies in [0, 1] and sums to 1, so softmax was applied already."
    harm = (
        "The loss applies softmax to probabilities and cannot fall below log(e + K - 1) - 1, which is 1.461 for 10 "
        "classes, however good the model is."
    )
    mend = "Give the loss what comes before the softmax, or take the logarithm and nll_loss."
    ignore_when = "The rows are logits that happen to be distributions, such as one-hot rows in a test."
    demonstration = """\
import numpy as np
import crossent as ce
from crossent.doctor import check

labels = np.arange(200) % 10
logits = 20.0 * np.eye(10)[labels]
print(f"loss of the logits {ce.cross_entropy(logits, labels):.3f}")
print(f"after softmax      {ce.cross_entropy(ce.softmax(logits), labels):.3f}")
print(check(ce.softmax(logits), labels)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        if batch.num_classes < 2:
            raise LeftOut("there is one logit a row")
        if not batch.is_softmaxed:
            return None
        numbers: dict[str, float] = {"rows": len(batch.sane), "classes": batch.num_classes}
        text = "every row lies in [0, 1] and sums to 1: softmax was applied already"
        least = _floor(batch)
        if least is not None:
            numbers["floor"] = least
            text += f", and this loss cannot fall below {least:.3f} for {batch.num_classes} classes"
        return self.found(text, numbers)


def _floor(batch: Batch) -> float | None:
    """Return the least loss of a label that probabilities taken for logits can have; None where we do not know."""
    classes = batch.num_classes
    if batch.link == "sigmoid":  # one entry of 1, which is right, and K - 1 of 0
        return (math.log1p(math.exp(-1)) + (classes - 1) * math.log(2)) / classes
    if batch.loss is None or batch.loss.is_cross_entropy:
        return math.log(math.e + classes - 1) - 1
    if batch.loss.reads <= {"nll", "miss", "likelihood"}:
        return float(cross_entropy(np.eye(1, classes), [0], loss=batch.loss))
    return None


class LogProbabilities(Check):
    code = "XE803"
    name = "outputs-are-log-probabilities"
    severity = "advice"
    summary = "Every row is a vector of log-probabilities. With the sigmoid link that is an error."
    harm = (
        "Softmax of log-probabilities changes nothing: the loss is right, and a pass over all logits is wasted. "
        "Sigmoid of a log-probability never exceeds 0.5."
    )
    mend = "Take log_softmax out before a loss that has its own, or call nll_loss."
    ignore_when = "The log-probabilities are needed elsewhere as well."
    demonstration = """\
import numpy as np
import crossent as ce
from crossent.doctor import check

z = np.random.default_rng(0).normal(size=(64, 5))
labels = np.arange(64) % 5
once, twice = ce.cross_entropy(z, labels), ce.cross_entropy(ce.log_softmax(z), labels)
print(f"{once:.6f} {twice:.6f}")
print(check(ce.log_softmax(z), labels)[0])
"""

    def look(self, batch: Batch) -> Symptom | None:
        z = batch.sane
        if batch.num_classes < 2:
            raise LeftOut("there is one logit a row")
        if len(z) * -math.log10(max(1e-5, batch.eps)) < 5 or not (z <= 1e-5).all():
            return None
        lse = np.asarray(logsumexp(z))
        size = (np.exp(z) * np.abs(np.where(np.isfinite(z), z, 0.0))).sum(axis=1)
        if not (np.abs(lse) <= 1e-5 + 2 * batch.eps * size).all():
            return None
        text, severity = "every row is a vector of log-probabilities: log_softmax was applied already", "advice"
        if batch.link == "sigmoid":
            text, severity = f"{text}, and the sigmoid of one never exceeds 0.5", "error"
        return self.found(text, {"rows": len(z), "classes": batch.num_classes}, severity)


class UnitInterval(Check):
    code = "XE804"
    name = "outputs-in-unit-interval"
    severity = "error"
    summary = (
        "Every output lies in [0, 1], as after a sigmoid. An error where 5 % of logits of this spread, and 30 or more, "
        "would have crossed 0 or 1; else, with the sigmoid link and 64 outputs, advice."
    )
    harm = (
        "The loss applies sigmoid again, and the sigmoid of [0, 1] is [0.5, 0.731]: the loss of an entry of 0 cannot "
        "fall below 0.693, and a threshold of 0.5 calls everything positive."
    )
    mend = "Give the loss what comes before the sigmoid, or use a binary cross-entropy of probabilities."
    ignore_when = "The logits happen to lie there, as with an untrained model of a positive bias."
    demonstration = """\
import numpy as np
import crossent as ce
from crossent.doctor import check

truth = np.random.default_rng(0).random((500, 8)) < 0.3
logits = np.where(truth, 12.0, -12.0) + np.random.default_rng(1).normal(size=(500, 8))
for name, outputs in [("logits", logits), ("sigmoid", ce.sigmoid(logits))]:
    print(f"{name}: loss {ce.binary_cross_entropy_with_logits(outputs, truth):.3f}")
print(check(ce.sigmoid(logits), truth)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        z = batch.sane
        if len(z) < 2 or batch.is_softmaxed or not ((z >= 0) & (z <= 1)).all() or (z == z[0]).all():
            return None
        spread, middle = z.std(axis=0, ddof=1), z.mean(axis=0)
        varies = spread > 0
        outside = sum(
            _upper_tail(float(gap / width))
            for m, width in zip(middle[varies], spread[varies], strict=True)
            for gap in (m, 1 - m)
        )
        expected = len(z) * outside
        numbers = {"entries": z.size, "least": z.min(), "greatest": z.max(), "crossings_expected": expected}
        again = "the loss applies sigmoid again" if batch.link == "sigmoid" else "the loss takes them for logits"
        text = f"all {z.size} outputs lie in [0, 1], like probabilities, and {again}"
        if len(z) >= 30 and expected >= max(30, 0.05 * z.size):
            return self.found(text, numbers)
        return self.found(text, numbers, "advice") if batch.link == "sigmoid" and z.size >= 64 else None


def _upper_tail(x: float) -> float:
    """Return the probability that a standard normal number exceeds x."""
    return 0.5 * math.erfc(x / math.sqrt(2))


class Constant(Check):
    code = "XE805"
    name = "constant-outputs"
    severity = "warning"
    summary = (
        "Four rows or more with different targets have the same outputs. Advice where all outputs are 0, or in half "
        "precision."
    )
    harm = (
        "The outputs say nothing about the row, so the loss cannot fall below the entropy of the class shares: 0.693 "
        "for two equal classes. Behind dead units there is no gradient either."
    )
    mend = "Look for dead ReLUs, inputs of zeros, weights of zeros, or a detached or overwritten activation."
    ignore_when = "The last layer starts at zero, and this is the first step."
    demonstration = """\
import numpy as np
from crossent.doctor import check

weight, bias = np.full((4, 3), -1.0), np.array([0.2, 0.0, -0.1])
inputs = np.random.default_rng(0).random((50, 4))
hidden = np.maximum(inputs @ -np.ones((4, 4)), 0.0)  # dead: every input is positive, every weight negative
print(check(hidden @ weight + bias, np.arange(50) % 3)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        number, z, t = batch.some(4), batch.z, np.nan_to_num(batch.t, nan=-1.0)
        if (t == t[0]).all():
            raise LeftOut("all rows have the same target")
        finite = np.isfinite(z)
        if not (finite == finite[0]).all() or not finite.any():
            return None
        kept = z[:, finite[0]]
        largest, spread = float(np.abs(kept).max()), float(np.ptp(kept, axis=0).max())
        if spread > 1e-6 * largest:
            return None
        numbers = {"rows": number, "spread": spread, "largest": largest}
        if largest == 0:
            return self.found(f"all outputs of {number} rows are 0", numbers, "advice")
        severity = "advice" if batch.eps > 2.0**-24 else "warning"  # an untrained network may be rounded to that
        return self.found(f"{number} rows with different targets have the same outputs", numbers, severity)


class Saturated(Check):
    code = "XE806"
    name = "saturated-outputs"
    severity = "warning"
    summary = (
        "Half of the predictions or more are certain to the last digit of float32, and a tenth are certain and wrong. "
        "Advice where fewer are wrong."
    )
    harm = (
        "A logit 17 above all others is a probability of 1 in float32: a right row has a gradient of at most 4e-8 and "
        "teaches nothing, a wrong one costs 17 nats or more."
    )
    mend = "Scale the logits down: normalised inputs, a smaller initial last layer, weight decay, or a soft cap."
    ignore_when = "The model is meant to be certain, and it is right."
    demonstration = """\
import numpy as np
from crossent.doctor import check

logits = np.random.default_rng(0).normal(size=(200, 5)) * 60
print(check(logits, np.arange(200) % 5)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        batch.some(8)
        z, t = batch.z, batch.t
        if batch.link == "sigmoid":
            counts = ~np.isnan(t)
            is_certain, is_wrong = (np.abs(z) >= _LARGE_GAP)[counts], ((z > 0) != (t >= 0.5))[counts]
        elif batch.num_classes < 2:
            raise LeftOut("there is one class")
        else:
            top = np.partition(z, -2, axis=1)[:, -2:]
            is_certain = (top[:, 1] - top[:, 0] >= _LARGE_GAP) & np.isfinite(top[:, 0])
            is_wrong = np.take_along_axis(t, z.argmax(axis=1)[:, None], axis=1)[:, 0] < t.max(axis=1)
        certain, wrong = int(is_certain.sum()), int((is_certain & is_wrong).sum())
        if certain < 0.5 * is_certain.size:
            return None
        what = "rows" if batch.link == "softmax" else "entries"
        text = f"{certain} of {is_certain.size} {what} are certain to the last digit of float32, {wrong} of them wrong"
        severity = "warning" if wrong >= max(5, 0.1 * is_certain.size) else "advice"
        return self.found(text, {"of": is_certain.size, "certain": certain, "wrong": wrong}, severity)


class Coarse(Check):
    code = "XE807"
    name = "logits-too-large-for-bfloat16"
    severity = "advice"
    summary = (
        "Rounding the logits to bfloat16 changes a row's loss by more than 0.1 nats. A warning where they are bfloat16."
    )
    harm = (
        "bfloat16 keeps 8 bits: neighbours are 0.5 apart from 64 to 128 and 4 apart from 512 to 1024, so "
        "probabilities are wrong by a factor of up to e^0.25 and e^2."
    )
    mend = (
        "Compute the last layer in float32, subtract a common offset, or keep the logits small (z-penalty, soft cap)."
    )
    ignore_when = "The logits are never rounded to bfloat16, on the way to the loss either."
    demonstration = """\
import numpy as np
from crossent.doctor import check

logits = np.random.default_rng(0).normal(size=(200, 5)) + 1000.0  # softmax does not see the offset, bfloat16 does
print(check(logits, np.arange(200) % 5)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        batch.some(1)
        z = batch.z
        error = _bfloat16_spacing(z) * np.where(np.isfinite(z), np.exp(batch.log_probs) - batch.t, 0.0)
        rows = (np.nansum if batch.link == "softmax" else np.nanmean)(error**2, axis=1) / 12
        rms = float(np.sqrt(rows.mean()))
        if rms <= 0.1:
            return None
        largest = float(np.abs(z[np.isfinite(z)]).max())
        text = f"bfloat16 cannot resolve logits of up to {largest:.4g}: rounding moves a row's loss by {nats(rms)} nats"
        severity = "warning" if batch.dtype == "bfloat16" else "advice"
        return self.found(text, {"largest": largest, "loss_error": rms}, severity)


def _bfloat16_spacing(z: Float64) -> Float64:
    """Return the distance of neighbours of bfloat16 at finite numbers: 2^-7 times their power of two."""
    return np.asarray(np.ldexp(1.0, np.frexp(np.where(np.isfinite(z), z, 0.0))[1] - 8))


class Padding(Check):
    code = "XE808"
    name = "padded-classes-take-mass"
    severity = "warning"
    summary = (
        "The last classes have the same output in every row and are no label, as in a padded vocabulary, and take 1 % "
        "of the probability or more. Advice from 0.1 %."
    )
    harm = (
        "What padding takes is lost to the real classes: a mass of m costs -log(1 - m) nats in every row, 0.105 for "
        "10 %, and sampling may draw a class that does not exist."
    )
    mend = "Cut the padded columns off, or set them to -inf, before the loss."
    ignore_when = "These classes are real, and these labels do not hold them by chance."
    demonstration = """\
import numpy as np
from crossent.doctor import check

logits = np.random.default_rng(0).normal(size=(300, 512)) - 3.0
logits[:, 500:] = 0.0  # weights of padding are zeros
print(check(logits, np.arange(300) % 500)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        if batch.link != "softmax" or batch.num_classes < 32:
            raise LeftOut("it needs the softmax link and 32 classes")
        batch.some(4)
        z = batch.z
        differs = np.flatnonzero((z != z[:, -1:]).any(axis=0))
        first = int(differs[-1]) + 1 if len(differs) else 0
        number = batch.num_classes - first
        is_label = batch.t[:, first:].any() if batch.labels is None else batch.counts[first:].any()
        if number < 2 or first == 0 or is_label:
            return None
        mass = float(np.exp(batch.log_probs[:, first:]).sum(axis=1).mean())
        if mass < 1e-3:
            return None
        text = f"the last {number} of {batch.num_classes} classes have one output and no label, and take {mass:.1%}"
        numbers = {"classes": number, "mass": mass, "loss": -math.log1p(-min(mass, 1 - 1e-16))}
        return self.found(f"{text} of the probability", numbers, "warning" if mass >= 0.01 else "advice")


CHECKS: tuple[type[Check], ...] = (
    NotFinite,
    AlreadySoftmax,
    LogProbabilities,
    UnitInterval,
    Constant,
    Saturated,
    Coarse,
    Padding,
)
