"""Files that appear whole or not at all, sets of them, and one writer at a time.

*One file.* `write_together` writes a file beside its destination, flushes it to the disk, puts it in the place of the
older one with `os.replace`, and flushes the folder. Whoever opens the destination, at any moment and after any kill or
loss of power, finds the older content or the newer one, whole.

*A set of files.* No file system replaces several files at one moment. All files of a set are on the disk before the
first is replaced. A full disk, a folder without permission or an error while a file is written therefore changes
nothing. Then the files are replaced in the order in which they are given. A kill between two replacements leaves the
first ones new and the others old, each whole. Therefore the files of a run carry one run id, and whoever reads two of
them compares it (`report.files`). Ctrl-C between two replacements waits until the set is whole.

*Names.* A file that is being written is called ``.NAME.TOKEN.crossent-part``. TOKEN is drawn at random, and the file is
created with O_EXCL, so that no file that lies there is opened. A symbolic link in the place of a destination is not
followed: the link itself is replaced, and what it leads to stays. A new file has the mode that the umask leaves; one
that replaces a file has that file's.

*Leftovers.* A process keeps the parts that it writes locked (`flock`). A part whose lock is free was left by a process
that was killed; the next write into that folder removes it, and nothing else.

*One writer.* `locked` lets one process at a time work on a path. It locks the empty file ``.NAME.crossent-lock`` beside
the path, and removes it at the end. After a kill the file stays and does no harm; the next owner removes it. These
locks are advisory: they hold between processes that ask for them.

Not promised: where there is no `flock` (Windows, some network file systems), two writers are not kept apart and
leftovers stay. On Windows a folder is not flushed, and a file that another program holds open is not replaced.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Busy", "Content", "locked", "same_place", "write_together"]

Content = bytes | Callable[[Path], None]
"""The bytes of a file, or what writes them to the path that it is given."""

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.crossent-part", re.DOTALL)
_PERMISSIONS = 0o777
_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# A folder that cannot be flushed says so by one of these.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


class Busy(OSError):
    """Another process works on a path."""


def write_together(files: Mapping[Path, Content]) -> None:
    """Write files so that each place holds its old content or its new one, whole; see the module for a set of them.

    Missing folders are made. Files are replaced in the order of the mapping.

    Raises
    ------
    OSError
        If a file cannot be written; `filename` is its destination. Unless the replacing itself failed, nothing has
        changed.
    """
    folders = {path.parent for path in files}
    made: list[Path] = []
    parts: dict[Path, _Part] = {}
    current = Path()
    try:
        for current in files:
            _make_folder(current.parent, made)
        for folder in folders:
            _remove_leftovers(folder)
        for current, content in files.items():
            parts[current] = _Part(current)
            parts[current].fill(content)
        try:
            for current in parts:
                parts[current].put_in_place()
        except KeyboardInterrupt:
            for current in parts:
                parts[current].put_in_place()
            raise
        for folder in folders:
            _flush_folder(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(current)) from error
    finally:
        for part in parts.values():
            part.drop()
        _remove_empty(made)


class _Part:
    """A file that is being written beside its destination, locked as long as its owner lives."""

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        try:
            older = os.lstat(destination)
        except FileNotFoundError:
            self._mode = None
        else:
            self._mode = older.st_mode & _PERMISSIONS if stat.S_ISREG(older.st_mode) else None
        while True:
            self._path = destination.with_name(f".{destination.name}.{secrets.token_hex(8)}.crossent-part")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
            self._file = os.open(self._path, flags, 0o666 if self._mode is None else self._mode | stat.S_IWUSR)
            # Whoever removes leftovers may have been quicker than the lock.
            if _lock(self._file) is not False and _is_at(self._file, self._path):
                return
            os.close(self._file)

    def fill(self, content: Content) -> None:
        if isinstance(content, bytes):
            with open(self._file, "wb", closefd=False) as file:
                file.write(content)
        else:
            content(self._path)
        if self._mode is not None:
            os.chmod(self._file if os.chmod in os.supports_fd else self._path, self._mode)
        os.fsync(self._file)
        if fcntl is None:  # Windows renames no file that is open
            self._close()

    def put_in_place(self) -> None:
        if os.path.lexists(self._path):
            os.replace(self._path, self._destination)

    def drop(self) -> None:
        """Remove the file, unless it is in its place."""
        with suppress(OSError):
            os.unlink(self._path)
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a path: until the end every other process or thread that asks for it here gets `Busy`.

    The folder of the path is made if it is missing, and removed at the end if it is empty and nobody else works in it.

    Raises
    ------
    Busy
        If another one does.
    OSError
        If no file can be created in the folder.
    """
    if fcntl is None:
        yield
        return
    made: list[Path] = []
    lock = path.with_name(f".{path.name}.crossent-lock")
    try:
        file = _take(path, lock, made)
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(lock)
            os.close(file)
    finally:
        _remove_empty(made)


def _take(path: Path, lock: Path, made: list[Path]) -> int:
    """Return the open file of a lock that nobody else has."""
    while True:
        _make_folder(lock.parent, made)
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT | _NOT_FOLLOWED, 0o666)
        except FileNotFoundError:  # the folder went with another owner
            continue
        if _lock(file) is False:
            os.close(file)
            raise Busy(errno.EAGAIN, "another process works on it", str(path))
        if _is_at(file, lock):
            return file
        os.close(file)  # the lock went with its owner: there is none now, or another one


def _lock(file: int) -> bool | None:
    """Lock an open file; return whether it worked, None if there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: int, path: Path) -> bool:
    """Return whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_leftovers(folder: Path) -> None:
    """Remove the parts whose owners are dead. What cannot be looked at stays."""
    names: list[str] = []
    with suppress(PermissionError):
        names = os.listdir(folder)
    for name in names:
        if not _PART.fullmatch(name):
            continue
        path = folder / name
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | _NOT_FOLLOWED)
            try:
                if stat.S_ISREG(os.fstat(file).st_mode) and _lock(file):
                    os.unlink(path)
            finally:
                os.close(file)


def _make_folder(folder: Path, made: list[Path]) -> None:
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent, made)
    folder.mkdir(exist_ok=True)
    made.append(folder)
    _flush_folder(folder.parent)


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as the files that they lead to."""
    if fcntl is None:
        return
    try:
        file = os.open(folder, os.O_RDONLY)
    except PermissionError:  # the folder may be written to, but not be read
        return
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(file)


def same_place(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Return whether two paths lead to one file, or would if both were written.

    Links of both kinds, ``..`` and names that differ in case where the file system does not tell them apart are seen
    through. Of two names that are both free nobody knows whether it would, so upper and lower case count as one.

    Examples
    --------
    >>> same_place("nowhere/../a.csv", "a.csv"), same_place("a.csv", "b.csv")
    (True, False)
    """
    one, other = Path(os.path.realpath(first)), Path(os.path.realpath(second))
    if one == other:
        return True
    there = [os.path.lexists(path) for path in (one, other)]
    if all(there):
        return os.path.samefile(one, other)
    return not any(there) and _fold(one.name) == _fold(other.name) and same_place(one.parent, other.parent)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
