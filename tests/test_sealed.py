"""What is sealed comes back the same or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from crossent.sealed import SealError, seal, unseal

CONTENT = {"words": ["ä", "b"], "number": 0.1, "nested": {"x": None, "a": [1, 2.5, True]}}
TENSORS = {"theta": np.arange(6.0).reshape(2, 3).T, "empty": np.zeros((0, 4)), "single": np.float32([1.5])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "sealed"
    file.write_bytes(seal("crossent.test", 3, CONTENT, TENSORS))
    return file


def test_what_is_sealed_comes_back(path: Path) -> None:
    content, tensors = unseal(path, "crossent.test", 3, anew="begin again")
    assert content == {"format_version": 3, **CONTENT}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], tensor, strict=True)


def test_the_same_contents_give_the_same_bytes() -> None:
    assert seal("x", 1, CONTENT, TENSORS) == seal("x", 1, CONTENT, TENSORS)


def test_no_flipped_bit_passes_unseen(path: Path) -> None:
    whole = path.read_bytes()
    changed = bytearray(whole)
    for position in range(8 * len(whole)):
        changed[position // 8] ^= 1 << position % 8
        path.write_bytes(changed)
        changed[position // 8] ^= 1 << position % 8
        try:
            content, tensors = unseal(path, "crossent.test", 3, anew="begin again")
        except SealError:
            continue
        # White space of the header may change; nothing that is read may.
        assert content == {"format_version": 3, **CONTENT}
        assert all(np.array_equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_no_part_of_a_file_passes_for_the_whole(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SealError, match="damaged"):
            unseal(path, "crossent.test", 3, anew="begin again")


def test_what_cannot_be_read_is_said(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SealError, match="of another kind"):
        unseal(path, "crossent.other", 3, anew="begin again")
    with pytest.raises(SealError, match="a newer crossent"):
        unseal(path, "crossent.test", 2, anew="begin again")
    with pytest.raises(SealError, match="an older crossent"):
        unseal(path, "crossent.test", 4, anew="begin again")
    with pytest.raises(SealError, match="no such file"):
        unseal(tmp_path / "none", "crossent.test", 3, anew="begin again")
    with pytest.raises(SealError, match="no regular file"):
        unseal(tmp_path, "crossent.test", 3, anew="begin again")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SealError, match="no regular file"):
        unseal(tmp_path / "pipe", "crossent.test", 3, anew="begin again")
    path.write_bytes(b"")
    with pytest.raises(SealError, match="damaged"):
        unseal(path, "crossent.test", 3, anew="begin again")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "1", "{}", '{"format_version": true, "digest": ""}', '{"format_version": 3}', "nul"]
)
def test_no_header_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "other", {"crossent.test": text})
    with pytest.raises(SealError, match="damaged"):
        unseal(tmp_path / "other", "crossent.test", 3, anew="begin again")
