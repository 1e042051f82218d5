"""The implementations that must obey the laws, and broken ones that must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import crossent as ce


class Twin:
    """The public functions, by name: ``twin("value_and_grad", logits, target, ...)``."""

    def __init__(self, name: str):
        self.name = name

    def __str__(self) -> str:
        return self.name

    def __call__(self, function: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(ce, function)(*args, **kwargs)


Damage = Callable[[np.ndarray], np.ndarray]


def _zeros(x: np.ndarray) -> np.ndarray:
    return 0 * x


def _flipped_sign(x: np.ndarray) -> np.ndarray:
    return -x


def _skipped_last_column(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    if x.ndim:
        x[..., -1] = 0
    return x


def _scaled(x: np.ndarray) -> np.ndarray:
    return x * x.dtype.type(1.01)


DAMAGES: list[Damage] = [_zeros, _flipped_sign, _skipped_last_column, _scaled]


class BrokenTwin(Twin):
    """A twin whose results of some calls are damaged: those for which ``where(number of the call, name)`` holds."""

    def __init__(self, twin: Twin, damage: Damage, where: Callable[[int, str], bool]):
        super().__init__(f"{twin} with {damage.__name__}")
        self._twin, self._damage, self._where, self._calls = twin, damage, where, 0

    def _damaged(self, result: Any) -> Any:
        if isinstance(result, tuple):
            parts = [self._damaged(part) for part in result]
            return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
        if isinstance(result, float | np.floating) or (isinstance(result, np.ndarray) and result.dtype.kind == "f"):
            return self._damage(np.asarray(result))
        return result

    def __call__(self, function: str, *args: Any, **kwargs: Any) -> Any:
        result = self._twin(function, *args, **kwargs)
        damaged = self._where(self._calls, function)
        self._calls += 1
        return self._damaged(result) if damaged else result
