"""The short way of `cross_entropy` with default keywords: the bits of the general way, and its errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import crossent as ce
from crossent.numpy.shortcut import mean_cross_entropy

RNG = np.random.default_rng(0)
CALLS: dict[str, tuple[Any, Any]] = {
    "narrow": (RNG.normal(size=(32, 10)), RNG.integers(0, 10, 32)),
    "wide": (RNG.normal(size=(5, 300)).astype(np.float32), RNG.integers(0, 300, 5)),
    "ignored": (RNG.normal(size=(3, 4)), np.array([0, -100, 2])),
    "one class": (np.zeros((2, 1)), np.zeros(2, np.int64)),
    "nan": (np.array([[np.nan, 0.0], [1.0, 0.0]]), np.zeros(2, np.int64)),
    "masked truth": (np.array([[-np.inf, 0.0]]), np.zeros(1, np.int64)),
    "beyond float32": (np.full((2, 2), 3e38, np.float32) * np.array([1, -1], np.float32), np.ones(2, np.int64)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_short_way_gives_the_bits_of_the_general_one(name: str, twin: str) -> None:
    logits, target = CALLS[name]
    short, general = mean_cross_entropy(logits, target), ce.cross_entropy(logits, target, axis=1)
    assert ce.cross_entropy(logits, target).tobytes() == short.tobytes() == general.tobytes()
    assert type(short) is type(general)


DECLINED: dict[str, tuple[Any, Any]] = {
    "nothing counts": (np.zeros((2, 3)), np.full(2, -100)),
    "empty": (np.zeros((0, 3)), np.zeros(0, np.int64)),
    "a list": ([[0.0, 1.0]], np.zeros(1, np.int64)),
    "int32 labels": (np.zeros((2, 3)), np.zeros(2, np.int32)),
    "out of range": (np.zeros((2, 3)), np.array([0, 3])),
    "Fortran order": (np.asfortranarray(RNG.normal(size=(3, 4))), np.zeros(3, np.int64)),
    "three axes": (np.zeros((1, 2, 3)), np.zeros((1, 2), np.int64)),
    "half precision": (np.zeros((2, 3), np.float16), np.zeros(2, np.int64)),
    "big-endian": (np.zeros((2, 3), ">f8"), np.zeros(2, np.int64)),
    "large": (np.zeros((70_000, 1)), np.zeros(70_000, np.int64)),
    "one label for two rows": (np.zeros((2, 3)), np.zeros(1, np.int64)),
    "masked array": (np.ma.masked_array(np.zeros((2, 3))), np.zeros(2, np.int64)),
}


@pytest.mark.parametrize("name", DECLINED)
def test_the_rest_goes_the_general_way(name: str) -> None:
    logits, target = DECLINED[name]
    assert mean_cross_entropy(logits, target) is None


def test_keywords_are_not_overlooked() -> None:
    logits, target = CALLS["narrow"]
    plain = ce.cross_entropy(logits, target)
    for option in ({"temperature": 2.0}, {"label_smoothing": 0.1}, {"reduction": "sum"}, {"softcap": 3.0}):
        assert ce.cross_entropy(logits, target, **option) != plain
    with pytest.raises(TypeError, match="ignore_index must be an integer"):
        ce.cross_entropy(logits, target, ignore_index=-100.0)
    with pytest.raises(ValueError, match="got 3 in row 1"):
        ce.cross_entropy(*DECLINED["out of range"])
