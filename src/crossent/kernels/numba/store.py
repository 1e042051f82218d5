"""Machine code kept on disk: found by what it was made from, and checked before anything in it is used.

A file's name has a digest of all sources and one of whatever else its machine code depends on, so there is no index,
and an edit, another processor or another version finds no file. Its first bytes are a digest of its name and of the
rest: a damaged, cut or exchanged file is never used, and costs one compilation.

A digest is no signature: whoever can write to the folder can write a digest too. So a folder or a file is used only if
it belongs to this user or to root and neither its group nor others can write to it. The store makes a folder of its own
with mode 0700, whatever the umask is. Folders above it are not looked at: whoever puts another folder in its place owns
that one, and it is refused. Windows has no such modes; there the folder is trusted. So is the package's own folder,
whoever owns it: code in it would run anyway, as the ``.py`` files beside it do.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path

__all__ = ["Store"]

logger = logging.getLogger("crossent")

_DIGEST_BYTES = 32
_SUFFIX = ".kernel"
_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 86400.0
# A pipe must not block, nor a link lead elsewhere; Windows knows neither flag.
_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Store:
    """Bytes by name in one folder, all made from the Python files below another.

    Parameters
    ----------
    folder : Path
        Where files are kept; it is made when the first is saved.
    sources : Path
        The folder of the Python files.
    made_for : str
        What else everything in this store depends on.
    is_package : bool
        Whether the folder is one of this package's, as trusted as the sources.

    Raises
    ------
    RuntimeError
        If there are no Python files to go by.
    """

    def __init__(self, folder: Path, sources: Path, made_for: str = "", is_package: bool = False) -> None:
        self.folder = folder
        self.made_for = made_for
        self._is_package = is_package
        self._sources = sources
        self._digest = _digest_of(sources)
        self._writable: bool | None = None  # found at the first save
        self._said: set[str] = set()

    def name(self, label: str, made_from: str) -> str:
        """Return the name of the file for `label`, which depends on `made_from` besides the sources."""
        identity = hashlib.blake2b(f"{label}\0{made_from}\0{self.made_for}\0{self._digest}".encode(), digest_size=16)
        return f"{label}.{self._digest[:16]}.{identity.hexdigest()}{_SUFFIX}"

    def has_any(self) -> bool:
        """Whether anything was saved here that was made from these sources."""
        return any(self.folder.glob(f"*.{self._digest[:16]}.*{_SUFFIX}"))

    def load(self, name: str) -> bytes | None:
        """Return what was saved under a name; None if there is nothing that can be trusted."""
        try:
            if not self._is_safe(os.lstat(self.folder), self.folder):
                self._writable = False
                return None
            path = self.folder / name
            with open(path, "rb", opener=lambda path, flags: os.open(path, flags | _OPEN_FLAGS)) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or not self._is_safe(status, path):
                    return None
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._say_once("a kept kernel could not be read", str(error))
            return None
        payload = content[_DIGEST_BYTES:]
        if content[:_DIGEST_BYTES] != _seal(name, payload):
            self._say_once("a kept kernel is damaged and is compiled again", name)
            return None
        return payload

    def save(self, name: str, payload: bytes) -> None:
        """Keep bytes under a name, whole or not at all; where that cannot be done, say so once."""
        if self._writable is False:
            return
        try:
            if _digest_of(self._sources) != self._digest:
                raise RuntimeError("the sources were edited after they were imported")
            if self._writable is None:
                self._writable = False
                self._prepare()
                self._writable = True
            handle, temporary = tempfile.mkstemp(_TEMPORARY, name + ".", self.folder)
            try:
                with open(handle, "wb") as file:
                    file.write(_seal(name, payload) + payload)
                os.replace(temporary, self.folder / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except Exception as error:  # whatever it is, the kernel itself works
            self._say_once("a compiled kernel could not be kept on disk", str(error))

    def _prepare(self) -> None:
        """Make the folder, and remove what older sources and processes that ended early left there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._is_safe(os.lstat(self.folder), self.folder):
            raise PermissionError(f"{str(self.folder)!r} is not safe")
        _check_bytecode(self._sources)
        for path in self.folder.glob(f"*{_SUFFIX}*"):
            with contextlib.suppress(OSError):
                if path.name.endswith(_SUFFIX):
                    old = f".{self._digest[:16]}." not in path.name
                else:
                    old = path.stat().st_mtime < time.time() - _ABANDONED_SECONDS
                if old:
                    path.unlink()

    def _is_safe(self, status: os.stat_result, path: Path) -> bool:
        if self._is_package or os.name == "nt" or (status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022):
            return True
        self._say_once(
            "kept kernels are not used",
            f"{str(path)!r} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}, so somebody "
            "else can put code there: remove it, or let only this user write to it",
            logging.WARNING,
        )
        return False

    def _say_once(self, what: str, why: str, level: int = logging.INFO) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.log(level, "%s: %s", what, why)


def _seal(name: str, payload: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + b"\0" + payload, digest_size=_DIGEST_BYTES).digest()


def _digest_of(sources: Path) -> str:
    """Return a digest of the contents of all Python files below a folder, wherever it lies."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    paths = sorted(sources.rglob("*.py"))
    if not paths:
        raise RuntimeError(f"there are no Python files in {str(sources)!r}")
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(sources).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _check_bytecode(sources: Path) -> None:
    """Refuse sources whose bytecode Python would take from an older file of the same size and time.

    What is compiled from such bytecode would be found by the sources that it was not made from, for good.
    """
    for path in sources.rglob("*.py"):
        loader = SourceFileLoader(path.stem, str(path))
        if loader.get_code(path.stem) != loader.source_to_code(path.read_bytes(), str(path)):
            raise RuntimeError(f"Python's own file of bytecode does not match {str(path)!r}: remove it")
