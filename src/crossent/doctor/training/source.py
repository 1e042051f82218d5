"""Where the first NaN or infinity of a model comes from.

While the training is well only the arguments of the last forward pass are remembered. When a loss is no finite number a
copy of the model is run once more on them, with a hook on every module; the model itself and the random numbers stay as
they are.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["Source"]


class _Stop(Exception):
    """The module is found."""


class Source:
    """Remembers what a model was called with, and finds the module where finite numbers end."""

    def __init__(self, model: nn.Module | None) -> None:
        self._model = model
        self._call: tuple[Any, Any, torch.dtype | None] | None = None  # arguments, and the type of autocast
        parameter = None if model is None else next(model.parameters(), None)
        self._device = "cpu" if parameter is None else parameter.device.type
        self._handle = None if model is None else model.register_forward_pre_hook(self._started, with_kwargs=True)

    def close(self) -> None:
        """Take the hook away."""
        if self._handle is not None:
            self._handle.remove()
        self._call = None

    def _started(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling():
            is_cast = torch.is_autocast_enabled(self._device)
            self._call = (args, kwargs, torch.get_autocast_dtype(self._device) if is_cast else None)

    def find(self) -> str:
        """Return in words where the first number that is not finite is. Nothing that fails here goes on."""
        if self._model is None:
            return "give `watch` the model to learn where it comes from"
        for name, parameter in self._model.named_parameters():
            if _is_broken(parameter):
                return f"the parameter {name} is not finite, so a step before this one broke it"
        if self._call is None:
            return "the model was not called"
        if any(map(_is_broken, tree_leaves(self._call[:2]))):
            return "what goes into the model is not finite"
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return "all parameters are finite, and so is what goes into the model"
        try:
            return self._run_again(*self._call)
        except Exception as error:
            return f"the model could not be run again ({type(error).__name__})"

    def _run_again(self, args: Any, kwargs: Any, cast: torch.dtype | None) -> str:
        self.close()  # or the hook is copied
        assert self._model is not None
        again = copy.deepcopy(getattr(self._model, "_orig_mod", self._model))
        found: list[str] = []

        def ended(name: str, module: nn.Module, output: Any) -> None:
            if any(map(_is_broken, tree_leaves(output))):
                found.append(
                    f"the first number that is not finite is in the output of {name} ({type(module).__name__})"
                )
                raise _Stop

        for name, module in again.named_modules():
            module._forward_hooks.clear()
            module.register_forward_hook(lambda module, _, output, name=name: ended(name, module, output))
        with torch.random.fork_rng(), torch.no_grad(), torch.autocast(self._device, cast, cast is not None):
            try:
                again(*args, **kwargs)
            except _Stop:
                return found[0].replace("of  (", "of the model (")
        return "it did not come back when a copy of the model was run again"


def _is_broken(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all())
