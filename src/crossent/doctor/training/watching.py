"""Stands between a training loop and its losses: passes every call on as it is, and looks at some."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

import crossent

from ..names import LOSSES, Loss
from ..runtime.records import Symptom
from .checking import symptom_of
from .diary import Diary, Seen
from .looking import symptoms
from .patches import Patches
from .source import Source

__all__ = ["Watching"]

_MODULES = ("torch.nn.functional", "crossent.torch")
_OWN = tuple(os.path.dirname(module.__file__ or "") + os.sep for module in (torch, crossent))


class Watching:
    """The hooks and wrappers of one `with` block. `close` takes all of them away."""

    def __init__(self, diary: Diary, model: Any, loss: Any, first: int, every: int) -> None:
        self._diary, self._first, self._every = diary, first, every
        self._seen: dict[tuple[str, CodeType, int], Seen] = {}
        self._is_inside = False  # a loss that calls another loss is one call
        self._is_on = True
        self._calls_inside = 0
        self._loss = loss
        self._patches = Patches()
        self._handles: list[Any] = []
        self._source = Source(model)
        try:
            self.put_in_place()
        except BaseException:
            self.close()
            raise

    def put_in_place(self) -> None:
        """Put wrappers in the place of the losses of all modules that are loaded by now."""
        self._patches.undo()
        known = self._known = _known()
        loss = self._loss
        if not isinstance(loss, nn.Module) and loss in known:
            known = {loss: known[loss]}
        self._patches.replace({function: self._wrapper(function, one) for function, one in known.items()})
        if loss is None or loss in known:
            return
        self._is_on = False  # until the loss is called
        if isinstance(loss, nn.Module):
            if not self._handles:
                self._handles.append(loss.register_forward_pre_hook(self._begin))
                self._handles.append(loss.register_forward_hook(self._end, always_call=True))
        else:
            self._patches.replace({loss: self.call})

    def close(self) -> None:
        """Take everything away."""
        self._patches.undo()
        for handle in self._handles:
            handle.remove()
        self._source.close()

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss that was given."""
        if self._loss is None:
            raise TypeError("diary.loss needs a loss: watch(model, loss=...)")
        if isinstance(self._loss, nn.Module):
            return self._loss(*args, **kwargs)
        if self._loss in self._known:
            return self._wrapper(self._loss, self._known[self._loss])(*args, **kwargs)
        self._begin(self._loss, args)
        result = None
        try:
            result = self._loss(*args, **kwargs)
        finally:
            self._end(self._loss, args, result)
        return result

    def _begin(self, loss: Any, args: Any) -> None:
        self._is_on, self._calls_inside = True, 0

    def _end(self, loss: Any, args: Any, result: Any) -> None:
        self._is_on = False
        if not self._calls_inside and not torch.compiler.is_compiling():
            name = getattr(loss, "__name__", type(loss).__name__)
            own = Loss(name, "", "logits", ("input", "target"))
            self._tell(own, args, {}, result)

    def _wrapper(self, function: Callable[..., Any], loss: Loss) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return function(*args, **kwargs)
            call, given = function, (*args, *kwargs.values())
            if has_torch_function(given):  # a tensor of another class is shown the function that it knows
                call = functools.partial(handle_torch_function, function, given)
            if self._is_inside or not self._is_on:
                return call(*args, **kwargs)
            self._is_inside, result = True, None
            self._calls_inside += 1
            try:
                result = call(*args, **kwargs)
            finally:
                self._tell(loss, args, kwargs, result)
                self._is_inside = False
            return result

        return watched

    def _tell(self, loss: Loss, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        """Count a call, and look at it if it is its turn or if it failed. Nothing that goes wrong here goes on."""
        if isinstance(result, Tensor) and result.is_meta:
            return  # shapes alone
        frame: Any = sys._getframe(2)  # the nearest of the program, neither PyTorch's nor ours
        while frame.f_code.co_filename.startswith(_OWN) and frame.f_back is not None:
            frame = frame.f_back
        key = (loss.name, frame.f_code, frame.f_lineno)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = Seen(loss.name, f"{_short(frame.f_code.co_filename)}:{frame.f_lineno}")
            self._diary.seen.append(seen)
        seen.calls += 1
        is_turn = seen.calls <= self._first or seen.calls % self._every == 0 or result is None
        try:
            is_tested = is_turn or (isinstance(result, Tensor) and result.is_cpu and result.numel() == 1)
            is_broken = is_tested and not seen.is_broken and not _is_finite(result)
            if not is_turn and not is_broken:
                return
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                return
            seen.looks += 1
            given = {**dict(zip(loss.parameters, args, strict=False)), **kwargs}
            if is_broken:
                seen.is_broken = True
                self._diary.note(seen, self._broken(loss, given))
            for symptom in symptoms(loss, given, is_early=seen.calls <= self._first):
                self._diary.note(seen, symptom)
        except Exception as error:
            text = str(error).partition("\n")[0]
            self._diary.add_problem(f"{loss.name} ({seen.place}): {type(error).__name__}: {text}")

    def _broken(self, loss: Loss, given: Mapping[str, Any]) -> Symptom:
        prediction = given.get(loss.prediction)
        if isinstance(prediction, Tensor) and not (prediction.isnan() | (prediction == torch.inf)).any():
            where = "the logits are not, so it comes from labels, masks or weights"
        else:
            where = self._source.find()
        return symptom_of("XE801", f"{loss.name} is NaN or infinite; {where}")


def _known() -> dict[Callable[..., Any], Loss]:
    """Return the losses of the modules that are loaded, as they are without a watch."""
    found = {}
    for name, loss in LOSSES.items():
        module, _, attribute = name.rpartition(".")
        if module in _MODULES and module in sys.modules and not loss.options:
            function = getattr(sys.modules[module], attribute)
            found[function] = loss
    return found


def _short(path: str) -> str:
    """Return a path from here if it lies below, as it is otherwise."""
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return path if relative.startswith("..") else relative


def _is_finite(result: Any) -> bool:
    if not isinstance(result, Tensor):
        return True
    return math.isfinite(result.item()) if result.numel() == 1 else bool(result.isfinite().all())
