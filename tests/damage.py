"""Damage to files, drawn from a seed: what happens to bytes on disks and networks, and how a refusal has to look."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from random import Random

from attack import draws

CASES = 2000
"""How many damaged files of each format are tried in a test run."""
LONGEST_SENTENCE = 600
"""In characters; a longer message holds a part of the file."""

_FEW = 8
_BLOCK = 64


def damaged(content: bytes, seed: int) -> bytes:
    """Return the content after one to three accidents, the same ones for the same seed.

    The result may equal the content, if one accident undoes another.

    Examples
    --------
    >>> damaged(b"abcdefgh", seed=1) == damaged(b"abcdefgh", seed=1)
    True
    """
    random = Random(seed)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = random.choice(ACCIDENTS)(content, random)
    return content


def damages(content: bytes, cases: int = CASES) -> Iterator[tuple[int, bytes]]:
    """Yield so many seeds, or more in a long attack, with the damaged content of each."""
    for rng in draws(cases):
        seed = int(rng.integers(2**62))
        yield seed, damaged(content, seed)


def wrong_with_sentence(text: str) -> str:
    """Return why a text is not one short sentence that a terminal can show, or nothing if it is.

    Examples
    --------
    >>> wrong_with_sentence("cannot read 'a.csv': it is damaged")
    ''
    >>> wrong_with_sentence(" ")
    'it is empty'
    """
    if not text.strip():
        return "it is empty"
    if len(text) > LONGEST_SENTENCE:
        return f"it has {len(text)} characters"
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            return f"it holds the character {character!r}"
    if "Traceback" in text or "RUST_BACKTRACE" in text:
        return "it is a traceback"
    return ""


def _span(content: bytes, random: Random, most: int = _BLOCK) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.randint(1, most))


def _flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, _FEW) if content else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _replace_bytes(content: bytes, random: Random) -> bytes:
    """Write values that lengths and offsets go wrong by: nothing, the largest, a sign."""
    changed = bytearray(content)
    for _ in range(random.randint(1, _FEW) if content else 0):
        changed[random.randrange(len(changed))] = random.choice((0, 0xFF, 0x7F, 0x80, random.randrange(256)))
    return bytes(changed)


def _flip_near_an_end(content: bytes, random: Random) -> bytes:
    """Flip one bit in the first or last bytes, where formats keep their headers and footers."""
    if not content:
        return content
    changed = bytearray(content)
    near = random.randrange(min(len(content), 2 * _BLOCK))
    changed[near if random.random() < 0.5 else -1 - near] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _lose_the_beginning(content: bytes, random: Random) -> bytes:
    return content[random.randrange(len(content) + 1) :]


def _delete(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + content[stop:]


def _insert(content: bytes, random: Random) -> bytes:
    start = random.randrange(len(content) + 1)
    return content[:start] + random.randbytes(random.randint(1, _BLOCK)) + content[start:]


def _zero(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random, 4 * _BLOCK)
    return content[:start] + bytes(stop - start) + content[stop:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:stop] + content[start:stop] * random.randint(1, _FEW) + content[stop:]


def _swap(content: bytes, random: Random) -> bytes:
    a, b, c, d = sorted(random.randrange(len(content) + 1) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _append(content: bytes, random: Random) -> bytes:
    return content + random.choice((content, random.randbytes(random.randint(1, _BLOCK)), bytes(_BLOCK)))


ACCIDENTS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip_bits,
    _flip_bits,
    _flip_near_an_end,
    _replace_bytes,
    _truncate,
    _lose_the_beginning,
    _delete,
    _insert,
    _zero,
    _repeat,
    _swap,
    _append,
)
