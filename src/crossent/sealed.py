"""Files of numbers and words that cannot change unseen: safetensors with one JSON object in the header and a digest.

The digest covers the JSON object and the name, dtype, shape and bytes of every tensor. It finds damage, such as a bit
that flipped on a disk. It is no signature: whoever can write the file can write another digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

__all__ = ["SealError", "require", "seal", "unseal"]

Tensors = Mapping[str, NDArray[Any]]


class SealError(ValueError):
    """Why a file cannot be read, as the end of a sentence: "it is damaged or cut short"."""


def require(holds: bool, otherwise: str) -> None:
    """Refuse what a file says unless it `holds`; `otherwise` is the end of a sentence."""
    if not holds:
        raise SealError(otherwise)


def seal(entry: str, version: int, content: Mapping[str, Any], tensors: Tensors) -> bytes:
    """Return the bytes of a file that `unseal` reads.

    Parameters
    ----------
    entry : str
        The name of the JSON object in the header, which tells one kind of file from another.
    version : int
        Grows when an older crossent could misread the file.
    content : mapping
        JSON values. "format_version" and "digest" are added to it.
    tensors : mapping from names to arrays
    """
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    written = {"format_version": version, **content}
    written["digest"] = _digest(written, tensors)
    # There is one entry, because safetensors writes several in an order that changes from call to call.
    return save(dict(tensors), {entry: json.dumps(written, ensure_ascii=False, allow_nan=False)})


def unseal(
    path: str | os.PathLike[str], entry: str, version: int, *, anew: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the JSON object and the tensors of a file that `seal` made.

    `anew` says how to replace a file of an older version.

    Raises
    ------
    SealError
        If there is no such file, it is no regular one, it is damaged or of another kind, or `version` is not its own.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SealError("it is no regular file")
        with safe_open(Path(path), framework="numpy") as file:
            text = (file.metadata() or {}).get(entry)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping: keys() only)
        if text is None:
            raise SealError("it is a safetensors file of another kind")
        content = json.loads(text)
        _check_version(content["format_version"], version, anew)
        if content.pop("digest") != _digest(content, tensors):
            raise SealError("it is damaged: its contents do not match its digest")
    except SealError:
        raise
    except FileNotFoundError as error:
        raise SealError("there is no such file") from error
    except PermissionError as error:
        raise SealError("there is no permission to read it") from error
    except Exception as error:  # damage can look like anything: too deep a JSON, a tensor larger than memory
        raise SealError("it is damaged, cut short or not safetensors") from error
    return content, tensors


def _check_version(found: object, known: int, anew: str) -> None:
    if type(found) is not int:
        raise SealError(f"it is damaged: its format version is {found!r}")
    if found > known:
        raise SealError(f"a newer crossent wrote it (format {found}, and this one reads {known}): upgrade crossent")
    if found < known:
        raise SealError(f"an older crossent wrote it (format {found}, and this one reads {known}): {anew}")


def _digest(content: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the digest of a JSON object and of tensors, whatever the order of their names."""
    digest = hashlib.blake2b(digest_size=16)
    shapes = [(name, tensors[name].dtype.str, tensors[name].shape) for name in sorted(tensors)]
    digest.update(json.dumps([content, shapes], sort_keys=True, ensure_ascii=True).encode())
    for name, _, _ in shapes:
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
