"""``python -m crossent.doctor train.py ARGS``: run a program with its losses watched, and no line of it changed.

The losses of `torch.nn.functional`, `torch.nn` and `crossent.torch`, and ``fit`` of Keras. Findings go to stderr as
they come, and what was looked at at the end. The program has its own arguments, output and status.
"""

from __future__ import annotations

import importlib.machinery
import os
import runpy
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from .training.diary import Diary

__all__ = ["main"]

_USAGE = "usage: python -m crossent.doctor (PROGRAM.py | -m MODULE) [ARGUMENT ...]"


class _After(MetaPathFinder):
    """Does something right after a module was imported for the first time."""

    def __init__(self, actions: dict[str, Callable[[], None]]) -> None:
        self._actions = actions
        for name in [name for name in actions if name in sys.modules]:
            actions.pop(name)()

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        action = self._actions.pop(name, None)
        if action is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                action()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Session:
    """The watches of one program."""

    def __init__(self) -> None:
        self.diary = Diary()
        self._watching: Any = None

    def watch_torch(self) -> None:
        if "torch.nn.functional" in sys.modules and self._watching is None:
            from .training.watching import Watching

            self._watching = Watching(self.diary, None, None, first=3, every=500)

    def watch_ours(self) -> None:
        self.watch_torch()
        self._watching.put_in_place()

    def watch_keras(self) -> None:
        from .keras import watch_fit

        watch_fit(self.diary)


def main(arguments: list[str]) -> None:
    """Run a program as ``python`` would."""
    is_module = arguments[:1] == ["-m"]
    program, *rest = [*arguments[is_module:], ""]
    if program in ("", "-h", "--help"):
        print(_USAGE, file=sys.stdout if program else sys.stderr)
        sys.exit(0 if program else 2)
    if not is_module and not os.path.exists(program):
        print(f"crossent.doctor: there is no program {program}", file=sys.stderr)
        sys.exit(2)
    session = _Session()
    actions = {"torch": session.watch_torch, "crossent.torch": session.watch_ours, "keras": session.watch_keras}
    sys.meta_path.insert(0, _After(actions))
    sys.argv[:] = [program, *rest[:-1]]
    try:
        if is_module:
            sys.path[0] = os.getcwd()
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = os.path.dirname(os.path.realpath(program))
            runpy.run_path(program, run_name="__main__")
    finally:
        session.diary.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
