"""Rules on Keras, where ``from_logits`` says what the model puts out."""

from __future__ import annotations

from ..names import Loss
from .base import Pairing, Rule

__all__ = ["RULES"]


class ProbabilitiesFromLogits(Pairing):
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

    def fits(self, kind: str, loss: Loss, reads: str) -> bool:
        is_wrong = kind == loss.link or (kind == "softmax" and loss.link == "sigmoid")
        return loss.library == "keras" and reads == "logits" and is_wrong

    def message(self, kind: str, where: str, name: str) -> str:
        return f"the model ends in {kind}{where}, and {name} is told from_logits=True"


class LogitsAsProbabilities(Pairing):
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

    def fits(self, kind: str, loss: Loss, reads: str) -> bool:
        return loss.library == "keras" and reads == "probabilities" and kind == "linear"

    def message(self, kind: str, where: str, name: str) -> str:
        return f"the model ends in a linear layer{where}, and {name} is not told from_logits=True"


RULES: tuple[type[Rule], ...] = (ProbabilitiesFromLogits, LogitsAsProbabilities)
