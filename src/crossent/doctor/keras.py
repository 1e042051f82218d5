"""A callback for Keras 3: how the model's last layer and its loss are paired, and what its outputs show."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any, TextIO

try:
    import keras
except ImportError as error:
    _asked = "crossent.doctor.KerasCallback needs Keras 3 (pip install keras) and the backend that KERAS_BACKEND names"
    raise ModuleNotFoundError(f"{_asked}; got {error}") from error
import numpy as np

from .names import KERAS_LOSSES, Loss
from .training.checking import checked, pairing_of, symptom_of
from .training.diary import Diary, Seen

__all__ = ["KerasCallback", "watch_fit"]

_MOST_ROWS = 512
_THROUGH = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Dropout, keras.layers.Permute)


class KerasCallback(keras.callbacks.Callback):
    """Watch ``model.fit``; what is found is printed once, and no number of the training changes.

    Before the first epoch the last layer and the loss that ``compile`` was given are compared. If some rows are given,
    the model predicts them at the end of the first epochs and of every n-th, and the checks of
    :func:`crossent.doctor.check` look at the outputs. A loss of NaN is told at the end of its epoch.

    Parameters
    ----------
    x, y : array, optional
        Rows as ``fit`` takes them; at most 512 are used.
    first, every : int
        How many epochs are looked at first, and which of the later ones.
    file : text file, optional
        Where to print; ``sys.stderr`` if left out.

    Attributes
    ----------
    diary : Diary

    Raises
    ------
    ModuleNotFoundError
        If Keras is not installed.
    """

    def __init__(self, x: Any = None, y: Any = None, *, first: int = 3, every: int = 10, file: TextIO | None = None):
        super().__init__()
        self.diary, self.is_own = Diary(file), True
        self._rows = None if x is None or y is None else (x[:_MOST_ROWS], y[:_MOST_ROWS])
        self._first, self._every = first, every
        self._seen = Seen("the loss", "", unit="epoch")
        self._loss: tuple[Loss, str] | None = None
        self._is_paired = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Compare the last layer with the loss."""
        self._loss = _loss_of(self.model)
        name = "a loss that is not known" if self._loss is None else self._loss[0].name
        self._seen = Seen(name, f"model {self.model.name}", unit="epoch")
        self.diary.seen.append(self._seen)
        if self._loss is None:
            self.diary.add_problem("the loss is none of Keras' cross-entropies by its name")
            return
        found = pairing_of(_output_of(self.model), *self._loss)
        self._is_paired = found is not None
        if found is not None:
            self.diary.note(self._seen, found)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Look at the loss of the epoch, and if it is its turn at the outputs."""
        seen, value = self._seen, (logs or {}).get("loss")
        seen.calls += 1
        if value is not None and not math.isfinite(value):
            self.diary.note(seen, symptom_of("XE801", f"the loss of epoch {epoch + 1} is NaN or infinite"))
        if self._rows is None or self._loss is None or not (seen.calls <= self._first or seen.calls % self._every == 0):
            return
        seen.looks += 1
        try:
            self._look(*self._rows, *self._loss)
        except Exception as error:
            self.diary.add_problem(f"the outputs ({type(error).__name__}: {str(error).partition(chr(10))[0]})")

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Say what was looked at."""
        if self._rows is None:
            self.diary.add_problem("outputs, for the callback was given no rows")
        if self.is_own:
            self.diary.finish()

    def _look(self, x: Any, y: Any, loss: Loss, reads: str) -> None:
        z = np.asarray(keras.ops.convert_to_numpy(self.model.predict_on_batch(x)), dtype=np.float64)
        t = np.asarray(keras.ops.convert_to_numpy(y))
        if loss.integer_labels:
            t = t.reshape(z.shape[:-1]).astype(np.int64)
        if reads == "probabilities":
            with np.errstate(divide="ignore"):
                z = np.log(z) - (np.log1p(-z) if loss.link == "sigmoid" else 0.0)
            z = z.clip(-100.0, 100.0)
        is_known = self._is_paired or reads == "probabilities"
        is_early = self._seen.calls <= self._first
        for symptom in checked(z, t, loss.link, is_form_known=is_known, is_early=is_early):
            self.diary.note(self._seen, symptom)


def _loss_of(model: Any) -> tuple[Loss, str] | None:
    """Return the loss that a model was compiled with, and whether it reads logits or probabilities."""
    given = getattr(model, "loss", None)
    name = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
    loss = next((one for key, one in KERAS_LOSSES.items() if name in (key, one.name)), None)
    if loss is None:
        return None
    options = given.get_config() if isinstance(given, keras.losses.Loss) else {}
    return loss, "logits" if options.get("from_logits") else "probabilities"


def _output_of(model: Any) -> str | None:
    """Return what the last layer puts out: ``softmax``, ``sigmoid``, ``linear``, or None if that is not known."""
    outputs = getattr(model, "outputs", None)
    tensor = outputs[0] if outputs and len(outputs) == 1 else None
    while tensor is not None:
        layer = getattr(getattr(tensor, "_keras_history", None), "operation", None)
        name = getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__.lower())
        if name in ("softmax", "sigmoid"):
            return str(name)
        if name == "linear" and not isinstance(layer, keras.layers.Activation):
            return "linear"
        if not isinstance(layer, (*_THROUGH, keras.layers.Activation)) or name not in (
            "linear",
            type(layer).__name__.lower(),
        ):
            return None
        tensor = layer.input
    return None


def watch_fit(diary: Diary) -> None:
    """Let every ``fit`` of a Keras model have the callback, with its first rows where they are arrays."""
    fit = keras.Model.fit
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def watched(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        x, y = bound.arguments.get("x"), bound.arguments.get("y")
        rows = (x, y) if hasattr(x, "shape") and hasattr(y, "shape") else (None, None)
        callback = KerasCallback(*rows)
        callback.diary, callback.is_own = diary, False
        given = bound.arguments.get("callbacks")
        if isinstance(given, keras.callbacks.CallbackList):
            given.append(callback)
        else:
            before = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
            bound.arguments["callbacks"] = [*before, callback]
        return fit(*bound.args, **bound.kwargs)

    keras.Model.fit = watched
