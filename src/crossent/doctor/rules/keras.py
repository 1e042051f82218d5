"""Rules on Keras, where ``from_logits`` says what the model puts out."""

from __future__ import annotations

from collections.abc import Iterator

from ..records import LossCall
from .base import Context, Found, Rule

__all__ = ["RULES"]


class ProbabilitiesFromLogits(Rule):
    code = "XE501"
    name = "probabilities-with-from-logits"
    severity = "error"
    summary = "A Keras model that ends in softmax or sigmoid is trained with from_logits=True."
    harm = (
        "The activation is applied twice, and the loss has a floor: 1.461 for 10 classes, 0.693 for a negative. "
        "On the TensorFlow backend Keras notices a softmax or sigmoid layer and warns; on JAX and PyTorch it does"
        " not."
    )
    mend = "Leave the activation of the last layer out, or from_logits=True."
    ignore_when = "Never, as far as we know."
    bad = """\
import keras

model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10, activation="softmax")])
model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
"""
    good = """\
import keras

model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
"""
    demonstration = """\
import numpy as np
import crossent as ce

logits = np.zeros((1, 10))
logits[0, 3] = 100.0  # right, and certain
print(f"from_logits on logits {ce.cross_entropy(logits, [3]):.3f}")
print(f"from_logits on softmax {ce.cross_entropy(ce.softmax(logits), [3]):.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = call.prediction
        if call.loss.library != "keras" or call.reads != "logits" or found is None:
            return
        if found.value.kind == call.loss.link or (found.value.kind == "softmax" and call.loss.link == "sigmoid"):
            where = context.where(found.value, call.node)
            message = f"the model ends in {found.value.kind}{where}, and {call.loss.name} is told from_logits=True"
            yield Found(call.node, message, (), found.value)


class LogitsAsProbabilities(Rule):
    code = "XE502"
    name = "logits-without-from-logits"
    severity = "error"
    summary = "A Keras model that ends in a linear layer is trained with from_logits=False, the default."
    harm = (
        "The loss takes logits for probabilities: it divides each row by its sum and clips it to [1e-7, 1 - "
        "1e-7]. Negative logits are cut off, so a wrong row costs 16.118 whatever it holds, and its gradient is "
        "0."
    )
    mend = "Pass from_logits=True, or end the model in softmax or sigmoid."
    ignore_when = "The output is brought to [0, 1] in a way that the linter does not see."
    bad = """\
import keras

model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
"""
    good = """\
import keras

model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10, activation="softmax")])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
"""
    demonstration = """\
import numpy as np

logits = np.array([2.0, -1.0, 0.5])  # what Keras does with it as probabilities; the label is 1
p = np.clip(logits / logits.sum(), 1e-7, 1 - 1e-7)
print(f"taken as probabilities {-np.log(p[1]):.3f}, right {np.logaddexp.reduce(logits) - logits[1]:.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = call.prediction
        if call.loss.library != "keras" or call.reads != "probabilities" or found is None:
            return
        if found.value.kind == "linear":
            where = context.where(found.value, call.node)
            message = f"the model ends in a linear layer{where}, and {call.loss.name} is not told from_logits=True"
            yield Found(call.node, message, (), found.value)


RULES: tuple[type[Rule], ...] = (ProbabilitiesFromLogits, LogitsAsProbabilities)
