"""Puts functions in the place of others in every module that holds them, and takes them away again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Patches"]


class Patches:
    """What was replaced, and by what. A name that was imported from its module is found where it is."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []

    def replace(self, instead: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        """Put other functions in the place of some, at the top of every module and in every class there of this
        package."""
        by_id = {id(old): new for old, new in instead.items()}
        for name, module in list(sys.modules.items()):
            space = getattr(module, "__dict__", None)
            if isinstance(space, dict):
                self._replace_in(module, space, by_id)
                for one in list(space.values()) if name.startswith("crossent.torch") else ():
                    if isinstance(one, type):
                        self._replace_in(one, vars(one), by_id)

    def _replace_in(self, owner: Any, space: Mapping[str, Any], by_id: Mapping[int, Callable[..., Any]]) -> None:
        for name, value in list(space.items()):
            is_static = type(value) is staticmethod
            new = by_id.get(id(value.__func__ if is_static else value))
            if new is not None:
                self._done.append((owner, name, value, new))
                setattr(owner, name, staticmethod(new) if is_static else new)

    def undo(self) -> None:
        """Put everything back, except what somebody else has replaced since."""
        for owner, name, old, new in reversed(self._done):
            now = vars(owner).get(name)
            if getattr(now, "__func__", now) is new:
                setattr(owner, name, old)
        self._done.clear()
