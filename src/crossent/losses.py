"""Every loss, once: a scalar function of the row statistics, one line of mathematics each, and what others must know
of it.

The line is written with ``+``, ``*`` and :func:`~crossent.core.jet.power_product` only, so it runs on plain arrays
(values), on jets (derivatives) and on the arrays of a framework that differentiates by itself.

Class weights multiply the terms that look at the target (through ``nll`` and ``mass``); the penalties on the
prediction alone, `ZPenalty` and `EntropyPenalty`, are not weighted by class.

A new loss is one class here. Its traits are keywords of the class statement, so that a missing one is an error at
import. `FAMILY` is the table of all losses; a loss's place in it is the number by which compiled kernels know the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, ClassVar, Literal

from crossent.core.jet import power_product
from crossent.errors import check_number, refuse

Row = tuple[float, float, float]
"""A term of a loss as kernels read it: its place in `FAMILY`, its factor and its parameter."""


Statistics = Any
"""Numbers of each row, as arrays or jets: nll, miss, lse, entropy, brier, mass, divergence, lost_likelihood(q)."""


class Loss:
    """A member of the family. Losses add and scale: ``Focal(2.0) + 1e-4 * ZPenalty(1.0)``."""

    @property
    def terms(self) -> tuple[tuple[float, Elementary], ...]:
        """The loss as a sum of (scale, elementary loss)."""
        raise NotImplementedError

    def of(self, s: Statistics) -> Any:
        """Return the loss of each row from its statistics."""
        raise NotImplementedError

    @property
    def parameter(self) -> float:
        """The number that tells this loss from others of its class; 0 if there is none, and for a sum."""
        return 0.0

    def table(self) -> tuple[Row, ...]:
        """Return the terms as rows of numbers, which compiled kernels read."""
        return tuple(part.row(scale) for scale, part in self.terms)

    @property
    def reads(self) -> frozenset[str]:
        """Which statistics `of` reads."""
        return frozenset[str]().union(*(part.statistics for _, part in self.terms))

    @property
    def needs_unit_mass(self) -> bool:
        """Whether a soft target must sum to 1: the loss reads 1 - p_y as Σ (1 - t_k) p_k."""
        return any(part.takes == "unit mass" for _, part in self.terms)

    @property
    def needs_hard_target(self) -> bool:
        """Whether the target must be labels, and not smoothed."""
        return any(part.takes == "labels" for _, part in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether the target is a teacher; its temperature is then the loss's `parameter`."""
        return any(part.takes == "teacher" for _, part in self.terms)

    @property
    def is_convex(self) -> bool:
        """Whether the loss is known to be convex in the logits."""
        return all(scale >= 0 and part.is_convex for scale, part in self.terms)

    @property
    def is_shift_invariant(self) -> bool:
        """Whether softmax logits that are shifted together have the same loss: of the statistics only lse moves."""
        return "lse" not in self.reads

    @property
    def cross_entropy_factor(self) -> float | None:
        """The number c, where the loss is c times cross-entropy and nothing else."""
        if all(isinstance(part, CrossEntropy) for _, part in self.terms):
            return sum(scale for scale, _ in self.terms)
        return None

    @property
    def is_cross_entropy(self) -> bool:
        """Whether the loss is plain cross-entropy."""
        return self.cross_entropy_factor == 1.0

    def __add__(self, other: Loss) -> Loss:
        if not isinstance(other, Loss) or other.needs_teacher:
            return NotImplemented
        return Combination((*self.terms, *other.terms))

    def __mul__(self, factor: float) -> Loss:
        if isinstance(factor, bool) or not hasattr(factor, "__float__"):
            return NotImplemented
        number = check_number("a loss's factor", factor)
        return Combination(tuple((number * scale, loss) for scale, loss in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Loss:
        return self * (1 / check_number("a loss's divisor", divisor))

    def __neg__(self) -> Loss:
        return self * -1.0

    def __sub__(self, other: Loss) -> Loss:
        return self + -other if isinstance(other, Loss) else NotImplemented

    def __radd__(self, other: Any) -> Loss:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # what sum() starts from


def is_member(value: Any) -> bool:
    """Return whether the value is a loss of the family, or a sum of such losses."""
    is_sum = type(value) is Combination
    return all(type(part) in FAMILY for _, part in value.parts) if is_sum else type(value) in FAMILY


def from_table(rows: Iterable[Row]) -> Loss:
    """Return the loss that rows of numbers stand for: the inverse of `Loss.table`."""
    parts = tuple((float(scale), FAMILY[int(place)].with_parameter(parameter)) for place, scale, parameter in rows)
    is_single = len(parts) == 1 and parts[0][0] == 1.0
    return parts[0][1] if is_single else Combination(parts)


@dataclass(frozen=True)
class Combination(Loss):
    """A sum of scaled losses; made by ``+`` and ``*``."""

    parts: tuple[tuple[float, Elementary], ...]

    @property
    def terms(self) -> tuple[tuple[float, Elementary], ...]:
        return self.parts

    def of(self, s: Statistics) -> Any:
        # A term of scale 0 is absent, even where its loss is infinite; the entropy never is.
        present = [loss.of(s) * scale for scale, loss in self.parts if scale != 0] or [s.entropy * 0.0]
        return reduce(add, present)

    def __repr__(self) -> str:
        return " + ".join(f"{loss!r}" if scale == 1 else f"{scale!r} * {loss!r}" for scale, loss in self.parts)


Interval = tuple[float, float]
ALWAYS: Interval = (-math.inf, math.inf)
NEVER: Interval = (math.inf, -math.inf)
_members: list[type[Elementary]] = []


class Elementary(Loss):
    """A loss that is no sum: one class with one line, at most one parameter, and these traits.

    Parameters
    ----------
    reads : tuple of str
        Which statistics `of` reads, mass left out; "likelihood" stands for ``lost_likelihood(q) = 1 - p_y^q``.
    takes : {"any", "unit mass", "labels", "teacher"}
        The targets: labels and distributions of any mass; those whose mass is 1; labels that are not smoothed; or the
        teacher of a distillation.
    convex : (float, float)
        The least and the greatest parameter with which the loss is known to be convex in the logits.
    is_factor : bool
        Whether the parameter multiplies the loss; kernels then read it as a part of the term's factor.
    bounds : dict, optional
        Where the parameter must lie, as keywords of `check_number`.
    """

    statistics: ClassVar[frozenset[str]]
    takes: ClassVar[Literal["any", "unit mass", "labels", "teacher"]]
    convex: ClassVar[Interval]
    is_factor: ClassVar[bool]
    bounds: ClassVar[dict[str, float]]

    def __init_subclass__(
        cls,
        *,
        reads: tuple[str, ...],
        takes: Literal["any", "unit mass", "labels", "teacher"],
        convex: Interval,
        is_factor: bool = False,
        bounds: dict[str, float] | None = None,
    ):
        if "of" not in vars(cls):
            raise TypeError(refuse("a loss must define `of`, its line", cls.__name__))
        cls.statistics, cls.takes, cls.convex = frozenset(reads), takes, convex
        cls.is_factor, cls.bounds = is_factor, bounds or {}
        # What every call asks for is an attribute here, in the place of the property.
        for name, target in (("unit_mass", "unit mass"), ("hard_target", "labels"), ("teacher", "teacher")):
            setattr(cls, f"needs_{name}", takes == target)
        _members.append(cls)

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, check_number(name, value, **self.bounds))

    @classmethod
    def with_parameter(cls, parameter: float) -> Elementary:
        """Return the loss of this class with the parameter of a table's row."""
        if not cls.__match_args__:  # type: ignore[attr-defined]  # a dataclass has them
            return cls()
        return cls(1.0 if cls.is_factor else float(parameter))  # type: ignore[call-arg]

    def row(self, scale: float) -> Row:
        """Return ``scale`` times the loss as a row of numbers."""
        if type(self) not in FAMILY:
            raise TypeError(refuse("kernels know the losses of crossent.losses.FAMILY only", repr(self)))
        place = float(FAMILY.index(type(self)))
        return (place, scale * self.parameter, 0.0) if self.is_factor else (place, float(scale), self.parameter)

    @property
    def terms(self) -> tuple[tuple[float, Elementary], ...]:
        return ((1.0, self),)

    @property
    def parameter(self) -> float:
        return float(next(iter(vars(self).values()), 0.0))

    @property
    def is_convex(self) -> bool:
        least, greatest = self.convex
        return least <= self.parameter <= greatest


@dataclass(frozen=True)
class CrossEntropy(Elementary, reads=("nll",), takes="any", convex=ALWAYS):
    """Cross-entropy, the negative log-likelihood of a categorical: ``Σ_k w_k t_k (LSE(z) - z_k)`` nats.

    Examples
    --------
    >>> CrossEntropy() + 0.5 * Focal(2.0)
    CrossEntropy() + 0.5 * Focal(gamma=2.0)
    """

    def of(self, s: Statistics) -> Any:
        return s.nll


@dataclass(frozen=True)
class Focal(Elementary, reads=("miss", "nll"), takes="unit mass", convex=NEVER, bounds={"minimum": 0}):
    """Focal loss ``(1 - p_y)^γ · nll`` (Lin et al. 2017, arXiv:1708.02002), γ ≥ 0; γ = 0 is cross-entropy.

    The gradient is finite at saturation for every γ. With soft or smoothed targets ``1 - p_y`` reads
    ``Σ (1 - t_k) p_k`` and the target must sum to 1.

    Parameters
    ----------
    gamma : float ≥ 0
        γ; fractional values too.

    Raises
    ------
    ValueError
        If gamma is not a finite number ≥ 0.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.cross_entropy([[3.0, 0.0, 0.0]], [0], loss=ce.Focal(2.0))), 6)
    0.000778
    """

    gamma: float = 2.0

    def of(self, s: Statistics) -> Any:
        return power_product(s.miss, self.gamma, s.nll)


@dataclass(frozen=True)
class Poly1(Elementary, reads=("nll", "miss"), takes="unit mass", convex=(0.0, 1.0)):
    """Poly-1 ``nll + c (1 - p_y)`` (Leng et al. 2022, arXiv:2204.12511): cross-entropy with its leading term changed.

    Parameters
    ----------
    c : float
        Weight of 1 - p_y; convex for c ≤ 1.

    Raises
    ------
    ValueError
        If c is not a finite number.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.cross_entropy([[3.0, 0.0, 0.0]], [0], loss=ce.Poly1(1.0))), 6)
    0.18548
    """

    c: float = 1.0

    def of(self, s: Statistics) -> Any:
        return s.nll + s.miss * (self.c * s.mass)


@dataclass(frozen=True)
class GeneralizedCrossEntropy(
    Elementary, reads=("likelihood",), takes="labels", convex=NEVER, bounds={"above": 0, "maximum": 1}
):
    """Generalised cross-entropy ``(1 - p_y^q) / q`` (Zhang & Sabuncu 2018, arXiv:1805.07836), 0 < q ≤ 1.

    Bounded by 1/q, so that one wrong label cannot dominate; q → 0 is cross-entropy, q = 1 is 1 - p_y. Hard,
    unsmoothed targets only.

    Parameters
    ----------
    q : float in (0, 1]

    Raises
    ------
    ValueError
        If q is not in (0, 1].

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.cross_entropy([[3.0, 0.0, 0.0]], [0], loss=ce.GeneralizedCrossEntropy(0.7))), 6)
    0.091838
    """

    q: float = 0.7

    def of(self, s: Statistics) -> Any:
        return s.lost_likelihood(self.q) * (s.mass / self.q)


@dataclass(frozen=True)
class ZPenalty(Elementary, reads=("lse",), takes="any", convex=NEVER, is_factor=True):
    """``coefficient · LSE(z)²``, added to another loss to keep the logits' normaliser near 0 (PaLM, arXiv:2204.02311).

    Parameters
    ----------
    coefficient : float
        λ.

    Raises
    ------
    ValueError
        If the coefficient is not a finite number.

    Examples
    --------
    >>> import crossent as ce
    >>> ce.CrossEntropy() + ce.ZPenalty(1e-4)
    CrossEntropy() + ZPenalty(coefficient=0.0001)
    """

    coefficient: float

    def of(self, s: Statistics) -> Any:
        return s.lse * s.lse * self.coefficient


@dataclass(frozen=True)
class EntropyPenalty(Elementary, reads=("entropy",), takes="any", convex=NEVER, is_factor=True):
    """``coefficient · H(p)``, H the entropy of the prediction in nats; a negative coefficient rewards entropy
    (the confidence penalty of Pereyra et al. 2017, arXiv:1701.06548).

    Parameters
    ----------
    coefficient : float

    Raises
    ------
    ValueError
        If the coefficient is not a finite number.

    Examples
    --------
    >>> import crossent as ce
    >>> ce.CrossEntropy() + ce.EntropyPenalty(-0.1)
    CrossEntropy() + EntropyPenalty(coefficient=-0.1)
    """

    coefficient: float

    def of(self, s: Statistics) -> Any:
        return s.entropy * self.coefficient


@dataclass(frozen=True)
class Brier(Elementary, reads=("brier",), takes="any", convex=NEVER):
    """The Brier score on softmax, ``Σ (p_k - t_k)²`` (Brier 1950): squared error on probabilities.

    A proper score, but its gradient vanishes where the prediction is confidently wrong: the counter-example.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.cross_entropy([[3.0, 0.0, 0.0]], [0], loss=ce.Brier())), 6)
    0.012301
    """

    def of(self, s: Statistics) -> Any:
        return s.brier * s.mass


@dataclass(frozen=True)
class Distillation(Elementary, reads=("divergence",), takes="teacher", convex=ALWAYS, bounds={"above": 0}):
    """Distillation ``T² · KL(softmax(teacher/T) ‖ softmax(z/T))`` (Hinton et al. 2015, arXiv:1503.02531).

    The target is the teacher: its logits, of the student's shape, or a :class:`~crossent.TopK`. The gradient is
    ``T (p - t)``. It stands alone: it does not add to other losses, whose target is another.

    Parameters
    ----------
    temperature : float > 0
        T.

    Raises
    ------
    ValueError
        If the temperature is not a positive finite number.

    Examples
    --------
    >>> import crossent as ce
    >>> float(ce.cross_entropy([[0.0, 1.0]], [[0.0, 1.0]], loss=ce.Distillation(2.0)))
    0.0
    """

    temperature: float = 1.0

    def of(self, s: Statistics) -> Any:
        return s.divergence

    def __add__(self, other: Loss) -> Loss:
        raise TypeError(refuse("a distillation loss does not add to another", repr(other), "add the two values"))

    __radd__ = __add__

    def __mul__(self, factor: float) -> Loss:
        raise TypeError(refuse("a distillation loss does not scale", repr(factor), "scale its value"))

    __rmul__ = __mul__


DEFAULT_LOSS = CrossEntropy()
FAMILY: tuple[type[Elementary], ...] = tuple(_members)
"""Every elementary loss; new ones come last, as their places are in stored tables."""
