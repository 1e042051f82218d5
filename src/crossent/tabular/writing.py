"""Files that appear whole or not at all: written beside their destination, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from .errors import InputError

__all__ = ["refuse_folders", "refuse_unwritable", "write_files"]


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written; one that is yet to be made, if it cannot be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"cannot write to {str(folder)!r}: {str(there)!r} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {str(folder)!r}: no permission to write in {str(there)!r}")


def refuse_folders(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            raise InputError(f"cannot write {str(path)!r}: it is a folder")


def write_files(files: Mapping[Path, bytes | Callable[[Path], None]]) -> None:
    """Write all files or none: beside their destinations first, then renamed; older files are kept until all are in.

    A file's content is bytes, or what writes them to the path that it is given.
    """
    created: list[Path] = []
    temporary: dict[Path, Path] = {}
    older: dict[Path, Path] = {}
    placed: list[Path] = []
    current = Path()
    try:
        for current, content in files.items():
            refuse_folders([current])
            _make_folder(current.parent, created)
            temporary[current] = current.with_name(f".{current.name}.{os.getpid()}.tmp")
            if isinstance(content, bytes):
                temporary[current].write_bytes(content)
            else:
                content(temporary[current])
        for current, beside in temporary.items():
            if os.path.lexists(current):
                older[current] = current.with_name(f".{current.name}.{os.getpid()}.old")
                current.replace(older[current])
            placed.append(current)
            beside.replace(current)
    except BaseException as error:
        stuck = _put_back(temporary, older, placed)
        for folder in reversed(created):
            if not any(folder.iterdir()):
                folder.rmdir()
        if isinstance(error, OSError):
            kept = "".join(f"; the older {path.name!r} is kept as {str(older[path])!r}" for path in stuck)
            raise InputError(f"cannot write {str(current)!r}: {error.strerror}{kept}") from error
        raise
    for path in older.values():
        with suppress(OSError):
            path.unlink()


def _put_back(temporary: dict[Path, Path], older: dict[Path, Path], placed: list[Path]) -> list[Path]:
    """Undo what was done, however far it came; return the destinations whose older file could not be put back.

    `older` and `placed` name what was about to be renamed; the folder tells whether it was.
    """
    stuck = []
    for path, beside in temporary.items():
        try:
            if path in older:
                if os.path.lexists(older[path]):
                    older[path].replace(path)
            elif path in placed and not os.path.lexists(beside):
                path.unlink(missing_ok=True)
        except OSError:
            stuck.append(path)
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return [path for path in stuck if path in older]


def _make_folder(folder: Path, created: list[Path]) -> None:
    if folder.exists():
        return
    _make_folder(folder.parent, created)
    folder.mkdir()
    created.append(folder)
