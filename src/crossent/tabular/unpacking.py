"""The text of a file as UTF-8, unpacked and decoded, and never more of it than fits into memory."""

from __future__ import annotations

import codecs
import gzip
import io
from pathlib import Path
from typing import IO

from .delimited import Content
from .errors import InputError
from .file_sizes import delimited_bytes, free_memory, gigabytes, refuse_too_large

_GZIP = b"\x1f\x8b"
_COMPRESSED = (_GZIP, b"\x28\xb5\x2f\xfd", b"x\x9c", b"x\xda")  # zstd, zlib
_TEXT_LIKE_ZLIB = (b"x\x01", b"x^")
_PIECE = 1 << 20


def text_content(path: Path, encoding: str | None, notes: list[str]) -> Content:
    """Return the text of a file as UTF-8: the file itself, if it is that, or its bytes, unpacked and decoded.

    What gzip has packed is known by its first bytes, whatever the name says.

    Raises
    ------
    InputError
        If the text does not fit into memory, is packed otherwise, or not in the encoding.
    """
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(_GZIP):
            with gzip.open(file) as unpacked:
                return unpack(str(path), unpacked, encoding, notes)
        if start.startswith(_COMPRESSED):  # polars unpacks it, however much that becomes
            raise InputError(f"{str(path)!r} is compressed, and not by gzip: unpack it first")
        if _encoding(start, encoding) != "utf-8":
            return unpack(str(path), file, encoding, notes)
    refuse_too_large(str(path), delimited_bytes(path))
    return _as_text(path.read_bytes()) if start.startswith(_TEXT_LIKE_ZLIB) else path


def unpack(name: str, file: IO[bytes] | io.BufferedIOBase, encoding: str | None, notes: list[str]) -> bytes:
    """Return the text that a file holds as UTF-8.

    Raises
    ------
    InputError
        If it does not fit into memory, or is not in the encoding.
    """
    piece = file.read(_PIECE)
    codec = _encoding(piece, encoding)
    if encoding is None and codec != "utf-8":
        notes.append(f"{name!r} is {codec.upper()} text, as its first bytes say")
    decoder = codecs.getincrementaldecoder(codec)()
    text = io.BytesIO()
    free = free_memory()
    try:
        while piece:
            text.write(piece if codec == "utf-8" else decoder.decode(piece).encode())
            if 3 * text.tell() > free:  # the text, and its table twice
                raise InputError(f"{name!r} unpacks to more than {gigabytes(free // 3)}, and {gigabytes(free)} is free")
            piece = file.read(_PIECE)
        text.write(decoder.decode(b"", final=True).encode())
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name!r} is not {codec} text (it holds byte 0x{error.object[error.start]:02x}): pass another --encoding"
        ) from error
    content = text.getvalue()
    refuse_too_large(name, delimited_bytes(content))
    return _as_text(content)


def _as_text(content: bytes) -> bytes:
    """Return text with a byte order mark, if polars would take it for a compressed file: "x^2" begins as zlib does."""
    return codecs.BOM_UTF8 + content if content.startswith((*_TEXT_LIKE_ZLIB, *_COMPRESSED)) else content


def _encoding(start: bytes, asked: str | None) -> str:
    """Return Python's name of the encoding that is asked for, or that the first bytes of a file say."""
    if asked is None:
        return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        b"a".decode(asked, "replace")  # refuses what is no encoding of text, such as "rot13"
        return codecs.lookup(asked).name
    except (LookupError, ValueError) as error:
        raise InputError(f"there is no text encoding {asked!r}: try cp1252, latin-1 or utf-16") from error
