"""Checks of the target: are the labels classes, are there any, and what do their shares do?"""

from __future__ import annotations

import numpy as np

from .base import Check
from .batch import Batch, LeftOut, plural
from .records import Symptom

__all__ = ["CHECKS"]


def _bad(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that count, and the numbers of the rows whose labels are whole numbers and no classes."""
    if batch.labels is None:
        raise LeftOut("it needs one label a row")
    kept = batch.labels != batch.ignore_index
    return batch.labels[kept], np.flatnonzero(kept & ~batch.is_label & (np.floor(batch.labels) == batch.labels))


def _counts_from_one(batch: Batch) -> bool:
    """Return whether K is a label, and 0 and others out of range are not."""
    labels, bad = _bad(batch)
    return len(bad) > 0 and bool((batch.labels[bad] == batch.num_classes).all() and (labels >= 1).all())  # type: ignore[index]


class OutOfRange(Check):
    code = "XE811"
    name = "labels-out-of-range"
    severity = "error"
    summary = "A label is no class, or a number of the target is outside [0, 1]."
    harm = (
        "PyTorch stops on a CPU and asserts on a GPU. optax takes -1 for the last class in silence: where 1 row in 3 "
        "is -1, a third of the batch trains the last class."
    )
    mend = "Mend the labels, pass ignore_index for those that do not count (-1, 255), or give the model more outputs."
    ignore_when = "Never: no loss is defined there."
    demonstration = """\
import numpy as np
from crossent.doctor import check

print(check(np.zeros((4, 3)), [0, 2, -1, 1])[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        if batch.labels is None:
            return self._entries(batch)
        bad = _bad(batch)[1]
        if not len(bad) or _counts_from_one(batch):
            return None
        row, value = int(bad[0]), batch.labels[bad[0]]
        text = f"label {value:.15g} in {batch.row_name(row)} is no class of 0..{batch.num_classes - 1}"
        return self.found(
            f"{text} ({plural(len(bad), 'such row')} in all)", {"row": row, "label": value, "rows": len(bad)}
        )

    def _entries(self, batch: Batch) -> Symptom | None:
        if batch.target is None:
            raise LeftOut("no target could be read")
        most = 1.0 if batch.link == "sigmoid" else np.inf
        bad = (batch.target < 0) | (batch.target > most)
        if not bad.any():
            return None
        i, column = (int(number) for number in np.argwhere(bad)[0])
        row, value = int(batch.rows[i]), batch.target[i, column]
        text = f"the target is {value:g} in {batch.row_name(row)}, column {column}, and must lie in [0, 1]"
        return self.found(text, {"row": row, "column": column, "value": value, "entries": bad.sum()})


class FromOne(Check):
    code = "XE812"
    name = "labels-count-from-one"
    severity = "error"
    summary = "The labels run from 1 to K, and classes count from 0."
    harm = (
        "Label K is out of range; where the model has K + 1 outputs instead, output 0 is never a label, and every "
        "number that a class name is looked up by is off by 1."
    )
    mend = "Take 1 from the labels."
    ignore_when = "Never: label K has no output."
    demonstration = """\
import numpy as np
from crossent.doctor import check

print(check(np.zeros((6, 3)), [1, 2, 3, 3, 2, 1])[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        if not _counts_from_one(batch):
            return None
        number = int((_bad(batch)[0] == batch.num_classes).sum())
        text = f"{number} labels are {batch.num_classes} and none is 0, so they count from 1; classes count from 0"
        return self.found(text, {"classes": batch.num_classes, "rows": number})


class AllIgnored(Check):
    code = "XE813"
    name = "all-labels-ignored"
    severity = "error"
    summary = "Every label is the ignored one, so the mean is over nothing."
    harm = "The mean is 0 / 0 = NaN, and one such batch makes every weight NaN after 1 step."
    mend = "Skip such batches, use on_empty='zero', or look why nothing is left: truncated prompts, a mask too wide."
    ignore_when = "The loss's on_empty or a global normaliser takes care of it."
    demonstration = """\
import numpy as np
import crossent as ce
from crossent.doctor import check

z, labels = np.zeros((2, 3)), [-100, -100]
print(ce.cross_entropy(z, labels), ce.cross_entropy(z, labels, on_empty="zero"))
print(check(z, labels)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        if batch.target is not None:
            number, all_ignored = batch.target.size, bool(np.isnan(batch.target).all())
            all_ignored = all_ignored and batch.link == "sigmoid"
        else:
            number, all_ignored = (0, False) if batch.labels is None else (batch.labels.size, not len(_bad(batch)[0]))
        if not all_ignored:
            return None
        text = f"all {number} labels are {batch.ignore_index}, which is ignored: the mean is over nothing"
        return self.found(text, {"labels": number, "ignore_index": batch.ignore_index})


class NotIntegers(Check):
    code = "XE814"
    name = "labels-are-not-integers"
    severity = "error"
    summary = "The target has one number a row, and its dtype is a floating one or bool."
    harm = (
        "PyTorch, optax and crossent refuse such labels. Where they are cast instead, 0.29 * 100 becomes class 28 and "
        "not 29."
    )
    mend = "Make them integers once, by rounding and not by cutting off, where the data are read."
    ignore_when = "The framework casts them, as Keras does, and all are whole numbers."
    demonstration = """\
import numpy as np
from crossent.doctor import check

labels = np.array([0.07, 0.29, 0.57]) * 100
print(labels.astype(int), np.rint(labels).astype(int))
print(check(np.zeros((3, 100)), labels)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        if batch.labels is None:
            raise LeftOut("it needs one label a row")
        if batch.labels.dtype.kind != "f" and batch.target_dtype != "bool":
            return None
        whole = bool((np.floor(batch.labels) == batch.labels).all())
        text = f"the labels are {batch.target_dtype}" + ("" if whole else " and not all whole numbers")
        return self.found(f"{text}; class indices are integers", {"labels": batch.labels.size, "are_whole": int(whole)})


class Imbalance(Check):
    code = "XE815"
    name = "class-imbalance"
    severity = "advice"
    summary = "One class has 90 % of 100 labels or more, or one answer 90 % of the entries."
    harm = (
        "Always giving the frequent answer is right in 90 % or more, so accuracy says little: compare with that "
        "share, and look at each class."
    )
    mend = "Read accuracy beside this share; use log loss and recall of each class, and a prior rather than weights."
    ignore_when = "The shares are those of the world, and the score takes care of them."
    demonstration = """\
import numpy as np
from crossent.doctor import check

labels = (np.arange(1000) < 40).astype(int)
always_zero = np.tile([1.0, 0.0], (1000, 1)) + np.random.default_rng(0).normal(size=(1000, 2)) * 0.1
print(check(always_zero, labels)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        if batch.link == "sigmoid":
            return self._entries(batch)
        counts = batch.counts
        total = int(counts.sum())
        if total < 100:
            raise LeftOut("it needs 100 labels")
        frequent = int(counts.argmax())
        share = counts[frequent] / total
        if not 0.9 <= share < 1:
            return None
        numbers = {"class": frequent, "share": share, "labels": total}
        text = f"class {frequent} is {share:.1%} of the labels, so always saying {frequent} is right as often"
        if batch.counted.sum() >= 100:
            is_right = batch.z.argmax(axis=1) == batch.y
            recall = np.mean([is_right[batch.y == k].mean() for k in np.unique(batch.y)])
            numbers |= {"accuracy": is_right.mean(), "balanced_accuracy": recall}
            text += f"; these outputs are right in {is_right.mean():.1%}, and in {recall:.1%} as a mean over classes"
        return self.found(text, numbers)

    def _entries(self, batch: Batch) -> Symptom | None:
        batch.some(1)
        t = batch.t[~np.isnan(batch.t)]
        if t.size < 100:
            raise LeftOut("it needs 100 entries")
        positive = float((t >= 0.5).mean())
        share, answer = max((positive, "yes"), (1 - positive, "no"))
        if not 0.9 <= share < 1:
            return None
        z = batch.z[~np.isnan(batch.t)]
        accuracy = float(((z > 0) == (t >= 0.5)).mean())
        text = (
            f"{share:.1%} of the entries are {answer}, so always saying {answer} is right as often; these outputs are "
        )
        numbers = {"positive": positive, "entries": t.size, "accuracy": accuracy}
        return self.found(f"{text}right in {accuracy:.1%}", numbers)


class OneClass(Check):
    code = "XE816"
    name = "one-class-batch"
    severity = "advice"
    summary = "All labels of the batch are one class, so class weights change nothing in the default mean."
    harm = (
        "The default mean divides by the sum of the weights: with 1 row or 1 class a weight w gives w · loss / w = "
        "loss, and the weights have no effect at all."
    )
    mend = "If you use class weights: larger or shuffled batches, or normalizer='count'."
    ignore_when = "No class weights are used."
    demonstration = """\
import numpy as np
import crossent as ce
from crossent.doctor import check

z, labels = np.array([[2.0, 1.0, 0.0]]), [1]
for weight in ([1.0, 1.0, 1.0], [1.0, 9.0, 1.0]):
    mean, by_count = (ce.cross_entropy(z, labels, weight=weight, normalizer=n) for n in (None, "count"))
    print(f"weights {weight}: mean {mean:.3f}, normalizer='count' {by_count:.3f}")
print(check(z, labels)[0].message)
"""

    def look(self, batch: Batch) -> Symptom | None:
        counts = batch.counts
        seen = np.flatnonzero(counts)
        if len(seen) != 1:
            return None
        number = int(counts.sum())
        text = f"all labels are class {seen[0]} ({plural(number, 'row')} in all)"
        return self.found(f"{text}: in a mean over weights, class weights cancel", {"labels": number, "class": seen[0]})


CHECKS: tuple[type[Check], ...] = (OutOfRange, FromOne, AllIgnored, NotIntegers, Imbalance, OneClass)
