"""The table of losses: what a class says of itself is what its line does, and a part that is missing is an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import crossent as ce
from crossent.losses import ALWAYS, FAMILY, Elementary, from_table

LOSSES = [kind.with_parameter(0.5) for kind in FAMILY]


class Reader:
    """Statistics that note which of them are read."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getattr__(self, name: str) -> float:
        self.names.add(name)
        return 0.5

    def lost_likelihood(self, q: float) -> float:
        self.names.add("likelihood")
        return 0.5


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_loss_reads_what_it_says(loss: Any) -> None:
    reader: Any = Reader()
    loss.of(reader)
    assert reader.names - {"mass"} == loss.reads


@pytest.mark.parametrize("loss", [*LOSSES, 2.0 * ce.Focal(0.25) - ce.ZPenalty(3.0)], ids=repr)
def test_a_table_stands_for_its_loss(loss: Any) -> None:
    again = from_table(loss.table())
    assert again.table() == loss.table()
    if all(part.parameter == 0.5 and not part.is_factor for _, part in loss.terms):
        assert again == loss


def test_traits_of_sums() -> None:
    plain, focal = ce.CrossEntropy(), ce.Focal(2.0)
    assert plain.is_cross_entropy
    assert (0.25 * plain + 0.75 * plain).is_cross_entropy
    assert (3 * plain).cross_entropy_factor == 3.0
    assert (plain + 0 * focal).cross_entropy_factor is None
    assert (plain + ce.Poly1(1.0)).is_convex
    assert not (plain + ce.Poly1(1.5)).is_convex
    assert not (-plain).is_convex
    assert not (plain + ce.ZPenalty(1.0)).is_shift_invariant
    assert (plain + focal).needs_unit_mass
    assert not (plain + focal).needs_hard_target


def test_a_loss_without_a_trait_or_a_line_is_an_error() -> None:
    with pytest.raises(TypeError, match="convex"):
        type("Half", (Elementary,), {"of": lambda self, s: s.nll}, reads=("nll",), takes="any")
    with pytest.raises(TypeError, match="must define `of`"):
        type("Lineless", (Elementary,), {}, reads=("nll",), takes="any", convex=ALWAYS)


def test_a_loss_outside_of_the_family_is_refused() -> None:
    @dataclass(frozen=True)
    class Double(Elementary, reads=("nll",), takes="any", convex=ALWAYS):
        def of(self, s: Any) -> Any:
            return s.nll * 2.0

    with pytest.raises(TypeError, match="loss must be a loss"):
        ce.cross_entropy([[0.0, 1.0]], [0], loss=Double())
    with pytest.raises(TypeError, match="FAMILY"):
        Double().table()
