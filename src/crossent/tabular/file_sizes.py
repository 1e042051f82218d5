"""How much memory the table in a file takes, from what the file says of itself, before anything is unpacked.

A few bytes can say "a billion rows", and polars ends the process when it asks for more memory than there is. So what a
file would take is read from its own headers first: the footer of Parquet (Thrift's compact protocol), the messages of
Arrow (FlatBuffers), the directory of an NPZ file or a workbook.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .errors import InputError

Bytes = bytes | mmap.mmap

_NUMBER_BYTES, _TEXT_BYTES = 8, 16  # what a cell takes; text takes its characters, too
_TEXT_TYPES = (6, 7)  # Parquet's BYTE_ARRAY and FIXED_LEN_BYTE_ARRAY
_PAGE_HEADER_BYTES = 1 << 16  # a header is shorter, though it holds the least and the greatest value of its page
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3  # Arrow's kinds of messages that have a body
_CONTINUES = -1


def check_fits(path: Path, suffix: str) -> None:
    """Refuse a file whose table, twice (a command makes a matrix of it), does not fit into the memory that is free.

    Raises
    ------
    InputError
        If it does not fit, if it is an Arrow file whose parts do not lie in it, or a Parquet file whose pages say that
        they hold more than the columns: polars would ask for memory for them, and end the process.
    """
    if suffix == ".parquet" and not _has_possible_pages(path):
        raise InputError(f"{str(path)!r} is damaged: a page says that it holds more values than its column has")
    size = table_bytes(path, suffix)
    if size is not None:
        way = "; fit and predict read it in windows with --stream" if suffix == ".parquet" else ""
        refuse_too_large(str(path), size, way)


def refuse_too_large(name: str, size: int, way: str = "") -> None:
    """Refuse a table of so many bytes that, twice, does not fit into the memory that is free; say a way out."""
    if not fits(size):
        raise InputError(
            f"{name!r} takes about {gigabytes(size)} in memory and as much again to work with, and "
            f"{gigabytes(free_memory())} is free{way}"
        )


def fits(size: int) -> bool:
    """Return whether a table of so many bytes, and its matrix, fit into the memory that is free."""
    return 2 * size <= free_memory()


def table_bytes(path: Path, suffix: str) -> int | None:
    """Return about how many bytes the table of a file that is no text takes; None of a damaged file."""
    if suffix in (".arrow", ".ipc", ".feather"):
        return arrow_bytes(path)
    try:
        if suffix == ".parquet":
            return sum(chunk.table_bytes for chunk in _chunks(path))
        with zipfile.ZipFile(path) as archive:  # .npz, .xlsx
            return sum(entry.file_size for entry in archive.infolist())
    except Exception:  # whoever reads the file says what is wrong
        return None


def text_bytes(characters: int, cells: int) -> int:
    """Return about how many bytes columns of text take: their characters, and 16 bytes of each cell."""
    return characters + _TEXT_BYTES * cells


def delimited_bytes(content: Path | bytes) -> int:
    """Return about how many bytes delimited text takes as columns of text.

    Cells are counted in the first MiB, and taken to be as frequent in the rest; what may separate them and occurs most
    often does so.
    """
    if isinstance(content, bytes):
        size, start = len(content), content[: 1 << 20]
    else:
        size = content.stat().st_size
        with content.open("rb") as file:
            start = file.read(1 << 20)
    cells = max(map(start.count, (b",", b";", b"\t", b"|"))) + start.count(b"\n") + 1
    return text_bytes(size, round(cells * size / max(1, len(start))))


def free_memory() -> int:
    """Return how many bytes this process can still take."""
    limits = [1 << 62]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        container = Path("/sys/fs/cgroup")
        most = (container / "memory.max").read_text().strip()
        limits += [int(most) - int((container / "memory.current").read_text())] if most.isdecimal() else []
    except (OSError, ValueError):  # another system, or a container without limits
        pass
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits += [] if limit == resource.RLIM_INFINITY else [limit - pages * resource.getpagesize()]
    except (ImportError, OSError, ValueError):
        pass
    return max(0, min(limits))


def gigabytes(size: int) -> str:
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"


class _Chunk(NamedTuple):
    """The part of a Parquet column that a group of rows has: values, bytes in memory, where its pages are."""

    values: int
    table_bytes: int
    start: int
    stop: int


def _chunks(path: Path) -> list[_Chunk]:
    """Return what the footer of a Parquet file says of its parts."""
    with path.open("rb") as file:
        end = file.seek(-8, os.SEEK_END)
        length = struct.unpack("<i", file.read(4))[0]
        file.seek(end - length)
        footer = _Thrift(file.read(length)).struct()
    return [_chunk(column[3], group[3]) for group in footer[4] for column in group[1]]


def _chunk(said: dict[int, Any], rows: int) -> _Chunk:
    is_text, values, unpacked = said[1] in _TEXT_TYPES, said[5], said[6]
    # A column of lists has more values than rows.
    size = max(values, rows) * (_TEXT_BYTES if is_text else _NUMBER_BYTES) + (unpacked if is_text else 0)
    start = min(offset for offset in (said[9], said.get(11)) if offset)
    return _Chunk(values, size, start, start + said[7])


def _has_possible_pages(path: Path) -> bool:
    """Return whether every page holds from 0 to as many values as its column; True if that cannot be told."""
    with suppress(Exception), path.open("rb") as file:  # whoever reads the file says what is wrong
        for chunk in _chunks(path):
            counts = _page_counts(file, chunk.start, chunk.stop)
            if not all(0 <= count <= chunk.values for count in counts):
                return False
    return True


def _page_counts(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """Yield how many values each page of data between two places holds; a dictionary may hold more than its column."""
    while start < end:
        file.seek(start)
        header = _Thrift(file.read(min(_PAGE_HEADER_BYTES, end - start)))
        page = header.struct()
        yield from (page[kind][1] for kind in (5, 8) if kind in page)
        start += header.at + max(0, page[3])


class _Thrift:
    """A reader of Thrift's compact protocol: structs are dicts from field numbers to values."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:  # a truth value in a list takes a byte
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._take(8)
            case 8:
                return self._take(self._varint())
            case 9 | 10:
                head = self._byte()
                length = self._varint() if head >> 4 == 15 else head >> 4
                return [self._value(head & 15) for _ in range(length)]
            case 12:
                return self.struct()
        raise ValueError(f"Parquet has no values of kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _take(self, length: int) -> bytes:
        self.at += length
        return self._data[self.at - length : self.at]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) >= 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def arrow_bytes(path: Path) -> int:
    """Return how many bytes the table of an Arrow file or stream takes, all of whose parts lie in the file.

    polars takes the length of an unpacked buffer from the file, and ends the process if it is absurd.

    Raises
    ------
    InputError
        If they do not.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                places = _of_file(data) if data[:6] == b"ARROW1" else _of_stream(data)
                return sum(_message_bytes(data, *place) for place in places)
        except (struct.error, ValueError, OverflowError) as error:  # an empty file is a ValueError, too
            raise InputError(
                f"cannot read {str(path)!r} as {path.suffix[1:].lower()}: it is damaged or cut short"
            ) from error


def _of_file(data: Bytes) -> Iterator[tuple[int, int]]:
    """Yield where the messages of an Arrow file and their bodies begin."""
    length = _number(data, "<i", len(data) - 10)
    footer = _at(data, len(data) - 10 - length)
    for vector in (2, 3):  # dictionaries and record batches
        start, count = footer.vector(vector)
        for place in range(start, start + 24 * count, 24):
            offset = _number(data, "<q", place)
            yield offset, offset + _number(data, "<i", place + 8)


def _of_stream(data: Bytes) -> Iterator[tuple[int, int]]:
    """Yield where the messages of an Arrow stream and their bodies begin."""
    here = 0
    while here < len(data):
        first = _metadata(data, here)
        length = _number(data, "<i", first - 4)
        if length == 0:
            return
        yield here, first + length
        here = first + length + _at(data, first).number(3, "<q")
        if length < 0 or here < first:
            raise ValueError("a message of negative length")


def _metadata(data: Bytes, message: int) -> int:
    """Return where a message's metadata begin: after their length, which four bytes of ones may come before."""
    return message + (8 if _number(data, "<i", message) == _CONTINUES else 4)


def _message_bytes(data: Bytes, start: int, body: int) -> int:
    """Return what the buffers of a message take in memory."""
    message = _at(data, _metadata(data, start))
    kind = message.number(1, "<B")
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    batch = message.table(2) if kind == _RECORD_BATCH else message.table(2).table(1)
    start, count = batch.vector(2)
    buffers = np.frombuffer(data, "<i8", 2 * count, start).reshape(count, 2).tolist()
    size = 0
    for offset, length in buffers:
        if offset < 0 or length < 0 or body + offset + length > len(data):
            raise ValueError("a buffer that does not lie in the file")
        if length and batch.place(3):  # compressed: the length before it, or -1 where it did not pay
            unpacked = _number(data, "<q", body + offset)
            if unpacked < -1:
                raise ValueError("a buffer of negative length")
            length = length if unpacked == -1 else unpacked
        size += length
    rows, columns = batch.number(0, "<q"), batch.vector(1)[1]
    if rows < 0:
        raise ValueError("a negative number of rows")
    return max(size, rows * columns)  # a column of nulls has no buffers


def _number(data: Bytes, format: str, at: int) -> int:
    if at < 0:
        raise ValueError("a place before the beginning")
    return int(struct.unpack_from(format, data, at)[0])


def _at(data: Bytes, at: int) -> _FlatTable:
    return _FlatTable(data, at + _number(data, "<I", at))


class _FlatTable:
    """A table of FlatBuffers: which of its fields are there, and where, stands in another place of the file."""

    def __init__(self, data: Bytes, at: int) -> None:
        self._data, self._start = data, at
        self._fields = at - _number(data, "<i", at)
        self._end = self._fields + _number(data, "<H", self._fields)

    def place(self, field: int) -> int:
        """Return where a field is; 0 if it is not there."""
        entry = self._fields + 4 + 2 * field
        offset = _number(self._data, "<H", entry) if entry < self._end else 0
        return self._start + offset if offset else 0

    def number(self, field: int, format: str) -> int:
        place = self.place(field)
        return _number(self._data, format, place) if place else 0

    def table(self, field: int) -> _FlatTable:
        place = self.place(field)
        if not place:
            raise ValueError("a part that is missing")
        return _at(self._data, place)

    def vector(self, field: int) -> tuple[int, int]:
        """Return where a list begins, and how many entries it has."""
        place = self.place(field)
        if not place:
            return 0, 0
        start = place + _number(self._data, "<I", place)
        return start + 4, _number(self._data, "<I", start)
