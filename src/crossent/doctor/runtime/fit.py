"""Checks of outputs and target together: does the loss say that they belong together?"""

from __future__ import annotations

import math

import numpy as np

from .base import Check
from .batch import Batch, LeftOut, mean_and_error, nats
from .records import Symptom

__all__ = ["CHECKS"]

_BAR = 5.0
"""Standard errors that a mean must be from 0: by chance in one of 3.5 million batches."""


def _need_logits(batch: Batch) -> None:
    if batch.is_softmaxed:
        raise LeftOut("the outputs are probabilities, see XE802")


def _binary_target(batch: Batch) -> None:
    if batch.link == "sigmoid" and not np.isin(batch.t, (0.0, 1.0)).all():
        raise LeftOut("it needs labels")


class WorseThanUniform(Check):
    code = "XE821"
    name = "worse-than-uniform"
    severity = "advice"
    summary = (
        "The loss is above that of equal probabilities, log K (log 2 with the sigmoid link), by 5 standard errors."
    )
    harm = (
        "Such outputs are worse than none. At the start, 20 nats where 3.3 are right cost the first few hundred "
        "steps, which only shrink the logits; later they mean wrong labels, another order of classes, or much too "
        "certain outputs."
    )
    mend = "At the start: a smaller last layer. Later: compare the order of classes and labels, and the rows of both."
    ignore_when = "The model is untrained, or these rows were chosen because it is wrong on them."
    demonstration = """\
import numpy as np
from crossent.doctor import check

logits = np.random.default_rng(0).normal(size=(500, 27)) * 10
print(check(logits, np.arange(500) % 27)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        _need_logits(batch)
        number = batch.some(30)
        allowed = np.isfinite(batch.z).sum(axis=1)
        mass = batch.t.sum(axis=1) if batch.labels is None and batch.link == "softmax" else 1.0
        base = np.log(allowed) * mass if batch.link == "softmax" else np.full(number, math.log(2))
        excess, error = mean_and_error(batch.losses - base)
        if not excess > max(1e-3, _BAR * error):
            return None
        loss, uniform = float(batch.losses.mean()), float(base.mean())
        numbers = {"loss": loss, "uniform": uniform, "excess": excess, "standard_error": error, "rows": number}
        text = f"the loss is {nats(loss)} nats, and equal probabilities have {nats(uniform)} "
        return self.found(f"{text}({nats(excess)} ± {nats(error)} less)", numbers)


class ClassShares(Check):
    code = "XE822"
    name = "class-shares-and-no-more"
    severity = "advice"
    summary = (
        "The loss is the entropy of the class shares, to 5 %, and the accuracy is no better than the largest share."
    )
    harm = (
        "The model has learned the class shares and no more: 0.325 nats with 90 % of one class looks like success, "
        "and is what a constant gives."
    )
    mend = (
        "If it was trained: check that inputs reach the output, and that rows and labels are still in the same order."
    )
    ignore_when = "The model is untrained, or the inputs do not tell more."
    demonstration = """\
import numpy as np
from crossent.doctor import check

labels = (np.arange(2000) % 10 == 0).astype(int)
logits = np.log([0.9, 0.1]) + 0.05 * np.random.default_rng(0).normal(size=(2000, 2))
print(next(s.message for s in check(logits, labels) if s.code == "XE822"))
"""

    def look(self, batch: Batch) -> Symptom | None:
        _need_logits(batch)
        _binary_target(batch)
        batch.some(100)
        if batch.link == "softmax":
            counts = np.bincount(batch.y, minlength=batch.num_classes)[None]
            is_right = batch.z.argmax(axis=1) == batch.y
        else:
            yes = batch.t.sum(axis=0)
            counts, is_right = np.stack([len(batch.t) - yes, yes], axis=1), (batch.z > 0) == (batch.t == 1)
        if len(batch.losses) < 20 * (counts > 0).sum(axis=1).max():
            raise LeftOut("it needs 20 rows for each class")
        shares = counts / counts.sum(axis=1, keepdims=True)
        entropy = float(-(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1).mean())
        largest, accuracy = float(shares.max(axis=1).mean()), float(is_right.mean())
        loss, error = mean_and_error(batch.losses)
        lucky = 3 * math.sqrt(0.25 / len(batch.losses))
        if not abs(loss - entropy) + error <= 0.05 * entropy or accuracy > largest + lucky or entropy == 0:
            return None
        text = f"the loss, {nats(loss)} nats, is the entropy of the class shares, {nats(entropy)}, and the accuracy, "
        numbers = {"loss": loss, "entropy": entropy, "accuracy": accuracy, "largest_share": largest}
        return self.found(f"{text}{accuracy:.1%}, is no better than the largest share, {largest:.1%}", numbers)


class Temperature(Check):
    code = "XE823"
    name = "temperature-would-gain"
    severity = "advice"
    summary = "Dividing the logits by one number lowers the loss by 0.01 nats or more and by 5 standard errors."
    harm = (
        "The outputs are too certain or not certain enough: probabilities, thresholds and sampling are off, though "
        "the accuracy is not. A network that is 3 times too certain is easily 0.5 nats worse."
    )
    mend = (
        "Fit crossent.sklearn.TemperatureScaling on held-out rows; while training: label smoothing, weight decay, less."
    )
    ignore_when = "These are training rows in the middle of training."
    demonstration = """\
import numpy as np
import crossent as ce
from crossent.doctor import check

rng = np.random.default_rng(0)
logits = rng.normal(size=(2000, 5)) * 2
labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from softmax(logits)
print(f"{ce.cross_entropy(logits, labels):.3f} {ce.cross_entropy(3 * logits, labels):.3f}")
print(next(s.message for s in check(3 * logits, labels) if s.code == "XE823"))
"""

    def look(self, batch: Batch) -> Symptom | None:
        _need_logits(batch)
        _binary_target(batch)
        batch.some(100)
        try:
            from crossent.calibration.sample import Sample
            from crossent.calibration.temperature import best_factor
        except ModuleNotFoundError:
            raise LeftOut("it needs scikit-learn and SciPy") from None
        z = batch.z
        if not np.isfinite(z).all() and batch.link == "sigmoid":
            raise LeftOut("it needs finite logits")
        codes = batch.y if batch.link == "softmax" else np.zeros(len(z), np.intp)
        events = None if batch.link == "softmax" else batch.t == 1
        sample, units = Sample(z, codes, events, None, batch.link).scaled(lazily=True)
        factor = best_factor(sample, 1e-6).beta / float(units[0])
        if factor > 100:
            raise LeftOut("every row is classified right, and the loss falls with the temperature for ever")
        after = batch.losses_of(np.where(np.isfinite(z), z * factor, z))
        gain, error = mean_and_error(batch.losses - after)
        if not gain > max(0.01, _BAR * error):
            return None
        temperature = 1 / factor if factor > 1e-9 else math.inf
        what = f"a temperature of {temperature:.3g}" if factor > 1e-9 else "giving every class the same probability"
        text = f"{what} lowers the loss by {nats(gain)} ± {nats(error)} nats on these rows"
        return self.found(text, {"temperature": temperature, "gain": gain, "standard_error": error})


class Permuted(Check):
    code = "XE824"
    name = "labels-in-another-order"
    severity = "warning"
    summary = (
        "Another order of the outputs, found on half of the rows, halves the loss of the other half and lies below "
        "half of the entropy of the class shares, by 5 standard errors."
    )
    harm = (
        "Classes were numbered in two ways (sorted names against order of appearance, a shift by 1): a model that is "
        "right in 95 % is scored as wrong in nearly every row."
    )
    mend = "Number classes in one place, keep the list with the model, and compare it with the data's at loading."
    ignore_when = "The model is untrained and separates the classes by chance."
    demonstration = """\
import numpy as np
from crossent.doctor import check

labels = np.arange(400) % 4
logits = 5.0 * np.eye(4)[labels] + np.random.default_rng(0).normal(size=(400, 4))
print(next(s.message for s in check(logits, (labels + 1) % 4) if s.code == "XE824"))
"""

    def look(self, batch: Batch) -> Symptom | None:
        _need_logits(batch)
        if batch.link == "sigmoid":
            raise LeftOut("it needs the softmax link")
        order = np.random.default_rng(0).permutation(len(batch.y))
        number = batch.some(50)
        if batch.num_classes > 1000:
            raise LeftOut("it needs 1000 classes or fewer")
        try:
            from scipy.optimize import linear_sum_assignment
        except ModuleNotFoundError:
            raise LeftOut("it needs SciPy") from None
        log_probs = np.maximum(batch.log_probs, -1e3)
        half, other = order[: number // 2], order[number // 2 :]
        seen = np.unique(batch.y[half])
        if len(seen) < 2:
            raise LeftOut("it needs two classes")
        sums = (batch.y[half] == seen[:, None]).astype(np.float64) @ log_probs[half]
        rows, columns = linear_sum_assignment(sums, maximize=True)
        output = np.full(batch.num_classes, -1)
        output[seen[rows]] = columns
        other = other[output[batch.y[other]] >= 0]
        if len(other) < 25 or (output[seen] == seen).all():
            return None
        before, after = (-log_probs[other, which] for which in (batch.y[other], output[batch.y[other]]))
        gain, error = mean_and_error(before - after)
        shares = np.bincount(batch.y[other]) / len(other)
        entropy = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
        if not gain > _BAR * error or after.mean() > 0.5 * min(before.mean(), entropy):
            return None
        numbers = {"loss": before.mean(), "loss_permuted": after.mean(), "gain": gain, "standard_error": error}
        moved = [k for k in seen if output[k] != k]
        pairs = ", ".join(f"{k} is output {output[k]}" for k in moved[:5]) + (", ..." if len(moved) > 5 else "")
        text = (
            f"in another order the outputs fit: label {pairs}; on rows that it was not chosen on the loss falls from "
        )
        return self.found(
            f"{text}{nats(before.mean())} to {nats(after.mean())}", numbers | {"classes_moved": len(moved)}
        )


CHECKS: tuple[type[Check], ...] = (WorseThanUniform, ClassShares, Temperature, Permuted)
