"""The losses for Keras 3: ``compile(loss=crossent.keras.SparseCategoricalCrossentropy(from_logits=True))``.

Names, arguments and defaults are those of `keras.losses`; :class:`Loss` takes any loss of the family. Backends are
TensorFlow, JAX and PyTorch.
"""

try:
    import keras as _keras
except ModuleNotFoundError as error:
    _asked = "crossent.keras needs Keras 3 (pip install 'crossent[keras]') and the backend that KERAS_BACKEND names"
    raise ModuleNotFoundError(f"{_asked}; got {error}") from error

from crossent.errors import refuse as _refuse

if _keras.backend.backend() not in ("tensorflow", "jax", "torch"):
    _asked, _works = "crossent.keras needs a backend that trains", "set KERAS_BACKEND to tensorflow, jax or torch"
    raise ImportError(_refuse(_asked, _keras.backend.backend(), _works))

from .loss import Loss
from .losses import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    SparseCategoricalCrossentropy,
    SparseCategoricalFocalCrossentropy,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "Loss",
    "SparseCategoricalCrossentropy",
    "SparseCategoricalFocalCrossentropy",
]
