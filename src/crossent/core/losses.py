"""Every loss, once: a scalar function of the row statistics, one line of mathematics each.

The line is written with ``+``, ``*`` and :func:`~crossent.core.jet.power_product` only, so it runs on plain arrays
(values), on jets (derivatives) and on the arrays of a framework that differentiates by itself.

Class weights multiply the terms that look at the target (through ``nll`` and ``mass``); the penalties on the
prediction alone, `ZPenalty` and `EntropyPenalty`, are not weighted by class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from crossent.core.jet import power_product
from crossent.errors import refuse


class Statistics(Protocol):
    """What a loss may look at: arrays or jets, one number per row."""

    @property
    def nll(self) -> Any: ...

    @property
    def miss(self) -> Any: ...

    @property
    def lse(self) -> Any: ...

    @property
    def entropy(self) -> Any: ...

    @property
    def brier(self) -> Any: ...

    @property
    def mass(self) -> Any: ...

    def lost_likelihood(self, q: float) -> Any:
        """``1 - p_y^q``."""


class Loss:
    """A member of the family. Losses add and scale: ``Focal(2.0) + 1e-4 * ZPenalty(1.0)``."""

    code: ClassVar[int] = -1
    """The number by which compiled kernels know the loss."""
    needs_unit_mass: ClassVar[bool] = False
    """Whether a soft target must sum to 1 (the loss reads 1 - p_y as Σ (1 - t_k) p_k)."""
    needs_hard_target: ClassVar[bool] = False

    def of(self, s: Statistics) -> Any:
        """Return the loss of each row from its statistics."""
        raise NotImplementedError

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The loss as a sum of (scale, elementary loss)."""
        return ((1.0, self),)

    @property
    def parameter(self) -> float:
        """The number that tells this loss from others of its kind."""
        return 0.0

    @property
    def strength(self) -> float:
        """The factor inside the loss (a penalty's coefficient), which kernels take as part of the term's scale."""
        return 1.0

    def table(self) -> tuple[tuple[float, float, float], ...]:
        """Return the terms as rows (code, scale, parameter): what compiled kernels read."""
        return tuple((float(loss.code), scale * loss.strength, loss.parameter) for scale, loss in self.terms)

    def __add__(self, other: Loss) -> Loss:
        if not isinstance(other, Loss) or isinstance(other, Distillation):
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


def check_number(
    name: str, value: Any, *, minimum: float = -math.inf, maximum: float = math.inf, above: float = -math.inf
) -> float:
    """Return a finite number in [minimum, maximum] and greater than `above` as a float.

    Raises
    ------
    ValueError
        If it is not.
    """
    is_number = isinstance(value, int | float) or (hasattr(value, "__float__") and getattr(value, "shape", None) == ())
    number = math.nan
    if is_number and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        raise ValueError(refuse(f"{name} must be a finite number", repr(value)))
    if number < minimum:
        raise ValueError(refuse(f"{name} must be at least {minimum:g}", repr(value)))
    if number > maximum:
        raise ValueError(refuse(f"{name} must be at most {maximum:g}", repr(value)))
    if number <= above:
        raise ValueError(refuse(f"{name} must be greater than {above:g}", repr(value)))
    return number


@dataclass(frozen=True)
class Combination(Loss):
    """A sum of scaled losses; made by ``+`` and ``*``."""

    parts: tuple[tuple[float, Loss], ...]

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        return self.parts

    @property
    def needs_unit_mass(self) -> bool:  # type: ignore[override]
        return any(loss.needs_unit_mass for _, loss in self.parts)

    @property
    def needs_hard_target(self) -> bool:  # type: ignore[override]
        return any(loss.needs_hard_target for _, loss in self.parts)

    def of(self, s: Statistics) -> Any:
        # A term of scale 0 is absent, even where its loss is infinite; the entropy never is.
        present = [loss.of(s) * scale for scale, loss in self.parts if scale != 0] or [s.entropy * 0.0]
        total = present[0]
        for term in present[1:]:
            total = total + term
        return total

    def __repr__(self) -> str:
        return " + ".join(f"{loss!r}" if scale == 1 else f"{scale!r} * {loss!r}" for scale, loss in self.parts)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy, the negative log-likelihood of a categorical: ``Σ_k w_k t_k (LSE(z) - z_k)`` nats.

    Examples
    --------
    >>> CrossEntropy() + 0.5 * Focal(2.0)
    CrossEntropy() + 0.5 * Focal(gamma=2.0)
    """

    code = 0

    def of(self, s: Statistics) -> Any:
        return s.nll


@dataclass(frozen=True)
class Focal(Loss):
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
    code = 1
    needs_unit_mass = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", check_number("gamma", self.gamma, minimum=0))

    @property
    def parameter(self) -> float:
        return float(self.gamma)

    def of(self, s: Statistics) -> Any:
        return power_product(s.miss, self.gamma, s.nll)


@dataclass(frozen=True)
class Poly1(Loss):
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
    code = 2
    needs_unit_mass = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "c", check_number("c", self.c))

    @property
    def parameter(self) -> float:
        return float(self.c)

    def of(self, s: Statistics) -> Any:
        return s.nll + s.miss * (self.c * s.mass)


@dataclass(frozen=True)
class GeneralizedCrossEntropy(Loss):
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
    code = 3
    needs_hard_target = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", check_number("q", self.q, above=0, maximum=1))

    @property
    def parameter(self) -> float:
        return float(self.q)

    def of(self, s: Statistics) -> Any:
        return s.lost_likelihood(self.q) * (s.mass / self.q)


@dataclass(frozen=True)
class _Penalty(Loss):
    coefficient: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficient", check_number("coefficient", self.coefficient))

    @property
    def strength(self) -> float:
        return float(self.coefficient)


@dataclass(frozen=True)
class ZPenalty(_Penalty):
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

    code = 4

    def of(self, s: Statistics) -> Any:
        return s.lse * s.lse * self.coefficient


@dataclass(frozen=True)
class EntropyPenalty(_Penalty):
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

    code = 5

    def of(self, s: Statistics) -> Any:
        return s.entropy * self.coefficient


@dataclass(frozen=True)
class Brier(Loss):
    """The Brier score on softmax, ``Σ (p_k - t_k)²`` (Brier 1950): squared error on probabilities.

    A proper score, but its gradient vanishes where the prediction is confidently wrong: the counter-example.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.cross_entropy([[3.0, 0.0, 0.0]], [0], loss=ce.Brier())), 6)
    0.012301
    """

    code = 6

    def of(self, s: Statistics) -> Any:
        return s.brier * s.mass


@dataclass(frozen=True)
class Distillation(Loss):
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
    code = 7

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", check_number("temperature", self.temperature, above=0))

    @property
    def parameter(self) -> float:
        return self.temperature

    def of(self, s: Any) -> Any:
        """The statistic that only rows beside a teacher have (`crossent.core.teachers`)."""
        return s.divergence

    def __add__(self, other: Loss) -> Loss:
        raise TypeError(refuse("a distillation loss does not add to another", repr(other), "add the two values"))

    __radd__ = __add__

    def __mul__(self, factor: float) -> Loss:
        raise TypeError(refuse("a distillation loss does not scale", repr(factor), "scale its value"))

    __rmul__ = __mul__
