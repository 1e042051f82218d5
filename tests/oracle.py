"""An oracle for every loss of the family: the formulas, written out once in high precision.

It imports nothing of crossent. Each formula is written the way a textbook writes it and evaluated by mpmath with
``60 + (max - min) / ln 10`` digits, so that whatever cancels still leaves 60 right digits. No derivative is worked out
by hand: a logit is a truncated Taylor series ``z + t v + ...``, the formula is evaluated on series, and the
coefficients of the result are the derivatives along v. That is a different road from the library's, which multiplies
derivatives of a loss by gradient rows of statistics.

Two things are closed forms: :func:`tail_row`, for hard targets among many classes (``test_oracle.py`` compares it with
the series), and the *magnitudes*, what a bar "in ulps of the summed magnitudes" refers to: the formula with every
subtraction turned into an addition. For hard-target cross-entropy, focal and generalised cross-entropy nothing is
subtracted and the magnitude is the absolute value of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from mpmath import mp, mpf
from series import Series, exp, log, log1p, power, tanh, total

GUARD_DIGITS = 60
MASKED = -3000  # stands for -inf below the largest logit: e^-3000 is 0 in every dtype, and p·log p still tends to 0
LARGEST = 10_000  # of a sigmoid's logit: as many digits as it has nats

Term = tuple[str, float, float]  # name, scale, parameter
CROSS_ENTROPY: tuple[Term, ...] = (("cross_entropy", 1.0, 0.0),)
UNBOUNDED = {"cross_entropy", "focal", "poly1"}  # infinite when the true class is masked


@dataclass(frozen=True)
class Options:
    """What a row's loss depends on besides logits and target; weights, prior and margin have one entry per class."""

    terms: tuple[Term, ...] = CROSS_ENTROPY
    weight: Sequence[float] | None = None
    label_smoothing: float = 0.0
    softcap: float | None = None
    temperature: float | None = None
    prior: Sequence[float] | None = None
    prior_strength: float = 1.0
    margin: Sequence[float] | None = None


@dataclass
class Row:
    """A loss, its gradient and its Hessian's diagonal, each with the magnitude its error is judged against."""

    value: Any
    gradient: list[Any] = field(default_factory=list)
    hessian: list[Any] = field(default_factory=list)
    value_scale: Any = None
    gradient_scale: list[Any] = field(default_factory=list)
    hessian_scale: list[Any] = field(default_factory=list)


# --- The formulas -----------------------------------------------------------------------------------------------------


def target_distribution(target: Any, num_classes: int) -> list[Any]:
    """A class as its one-hot distribution; a distribution as it is, exactly."""
    if isinstance(target, int | np.integer):
        return [mpf(int(k == target)) for k in range(num_classes)]
    return [mpf(float(t)) for t in target]


def apply_maps(z: Sequence[Any], target: Any, options: Options) -> list[Any]:
    """Soft cap, temperature, prior, margin, in that order."""
    mapped = list(z)
    if options.softcap is not None:
        cap = mpf(options.softcap)
        mapped = [cap * tanh(x / cap) for x in mapped]
    if options.temperature is not None:
        mapped = [x / mpf(options.temperature) for x in mapped]
    if options.prior is not None:
        strength = mpf(options.prior_strength)
        mapped = [x + strength * mp.log(mpf(float(c))) for x, c in zip(mapped, options.prior, strict=True)]
    if options.margin is not None:
        mapped = [x - mpf(float(options.margin[k])) if k == target else x for k, x in enumerate(mapped)]
    return mapped


def surprisals(z: Sequence[Any]) -> list[Any]:
    """``-log p_k = log1p(Σ_{j≠k} e^{z_j - z_k})`` for every class."""
    top = max(x.a if isinstance(x, Series) else x for x in z)
    weights = [exp(x - top) for x in z]
    everything = total(weights)
    return [log1p((everything - w) / w) for w in weights]


def mapped_loss(z: Sequence[Any], target: Any, options: Options) -> Any:
    """The loss of a row of logits, after the maps, as a sum over its terms."""
    num_classes = len(z)
    epsilon = mpf(options.label_smoothing)
    t = [(1 - epsilon) * t + epsilon / num_classes for t in target_distribution(target, num_classes)]
    w = [mpf(1)] * num_classes if options.weight is None else [mpf(float(w)) for w in options.weight]
    s = surprisals(z)
    p = [exp(-x) for x in s]
    nll = total(w[k] * t[k] * s[k] for k in range(num_classes) if t[k] != 0)
    mass = total(w[k] * t[k] for k in range(num_classes))
    miss = total((1 - t[k]) * p[k] for k in range(num_classes) if t[k] != 1)

    def term(name: str, parameter: float) -> Any:
        if name == "cross_entropy":
            return nll
        if name == "focal":
            return power(miss, parameter) * nll
        if name == "poly1":
            return nll + mpf(parameter) * mass * miss
        if name == "gce":
            q = mpf(parameter)
            y = next(k for k in range(num_classes) if t[k] == 1)
            return w[y] * (1 - power(p[y], q)) / q
        if name == "z_penalty":
            return power(s[0] + z[0], 2)
        if name == "entropy":
            return total(p[k] * s[k] for k in range(num_classes))
        if name == "brier":
            return mass * total(power(p[k] - t[k], 2) for k in range(num_classes))
        raise KeyError(name)

    return total(mpf(scale) * term(name, parameter) for name, scale, parameter in options.terms)


def nothing(num_classes: int) -> Row:
    """What a row contributes whose target has no weight: nothing, penalties included."""
    zeros = [mpf(0)] * num_classes
    return Row(mpf(0), zeros, zeros, mpf(0), zeros, zeros)


def is_unbounded(options: Options) -> bool:
    """Whether the loss is infinite where a class with target mass is masked."""
    return any(name in UNBOUNDED and scale for name, scale, _ in options.terms)


def _needed_digits(z: Sequence[float], options: Options) -> int:
    with mp.workdps(30):
        # the target decides only where the margin goes: take the margin's size into the spread
        mapped = apply_maps([mpf(x) for x in z], None, replace(options, margin=None))
        spread = max(mapped) - min(mapped) + max(abs(mpf(float(a))) for a in options.margin or [0])
    return GUARD_DIGITS + int(spread / math.log(10)) + 1


def _unmasked(z: Sequence[Any]) -> list[Any]:
    numbers = [x if isinstance(x, mpf) else float(x) for x in z]
    top = max(numbers)
    return [x if x != -math.inf else top + MASKED for x in numbers]


def softmax_row(logits: Sequence[float], target: Any, options: Options = Options()) -> Row:
    """Value, gradient and Hessian diagonal of one row, from series along every axis; right for K up to about 100."""
    z = _unmasked(logits)
    num_classes = len(z)

    def along(direction: Sequence[float]) -> Series:
        moved = [Series(x, v) if v else mpf(x) for x, v in zip(z, direction, strict=True)]
        return Series.of(mapped_loss(apply_maps(moved, target, options), target, options))

    with mp.workdps(_needed_digits(z, options)):
        axes = [along([float(j == k) for j in range(num_classes)]) for k in range(num_classes)]
        row = Row(axes[0].a, [x.b for x in axes], [2 * x.c for x in axes])
        t = target_distribution(target, num_classes)
        w = options.weight if options.weight is not None else [1.0] * num_classes
        if not any(w[k] * (t[k] + mpf(options.label_smoothing)) for k in range(num_classes)):
            return nothing(num_classes)
        carried = [(t[k] != 0 or options.label_smoothing) and w[k] != 0 for k in range(num_classes)]
        if is_unbounded(options) and any(x == -math.inf and c for x, c in zip(logits, carried, strict=True)):
            row.value = mpf("inf")
        add_magnitudes(row, apply_maps([mpf(x) for x in z], target, options), target, options)
    return row


def sigmoid_row(logit: float, target: float, options: Options = Options()) -> Row:
    """One entry of a binary loss: the softmax row ``(0, z)``, target ``(1 - t, t)``, class weights ``(w0, w1)``.

    The maps act on the logit itself; `prior` is the rate π of class 1 alone, and adds ``κ (log π - log(1 - π))``.
    Gradient and Hessian have one entry, that of z.
    """
    unmapped = replace(options, softcap=None, temperature=None, prior=None, margin=None)
    z = logit if isinstance(logit, mpf) else float(logit)
    if math.isinf(z):
        z = math.copysign(MASKED, z)
    elif abs(z) > LARGEST:
        raise ValueError(f"a logit of {float(z)} needs more digits than this oracle takes")
    with mp.workdps(GUARD_DIGITS + int(abs(z) / math.log(10) / (options.temperature or 1)) + 1):
        mapped = apply_maps(
            [Series(z, 1)], None, replace(unmapped, softcap=options.softcap, temperature=options.temperature)
        )[0]
        if options.prior is not None:
            (rate,) = [mpf(float(c)) for c in options.prior]
            mapped = mapped + mpf(options.prior_strength) * (mp.log(rate) - mp.log(1 - rate))
        pair: Any = int(target) if target in (0, 1) else (1 - mpf(float(target)), mpf(float(target)))
        result = Series.of(mapped_loss([mpf(0), mapped], pair, unmapped))
        both = Row(result.a)
        add_magnitudes(both, [mpf(0), mapped.a], pair, unmapped)
        row = Row(result.a, [result.b], [2 * result.c])
        row.value_scale = both.value_scale
        row.gradient_scale, row.hessian_scale = [both.gradient_scale[1]], [both.hessian_scale[1]]
        wrong = (logit == math.inf and target != 1) or (logit == -math.inf and target != 0)
        if (wrong or (math.isinf(logit) and options.label_smoothing)) and is_unbounded(options):
            row.value = mpf("inf")
    return row


def hessian_vector_product(
    logits: Sequence[float], target: Any, vector: Sequence[float], options: Options = Options()
) -> list[Any]:
    """``H v`` by polarisation: ``e_k·H v = (Q(e_k + v) - Q(e_k) - Q(v)) / 2``, Q the second derivative along a line."""
    z = _unmasked(logits)

    def curvature(direction: Sequence[Any]) -> Any:
        moved = [Series(x, v) for x, v in zip(z, direction, strict=True)]
        return 2 * Series.of(mapped_loss(apply_maps(moved, target, options), target, options)).c

    with mp.workdps(_needed_digits(z, options)):
        v = [mpf(float(x)) for x in vector]
        along_v = curvature(v)
        product = []
        for k in range(len(z)):
            e = [mpf(int(j == k)) for j in range(len(z))]
            product.append((curvature([a + b for a, b in zip(e, v, strict=True)]) - curvature(e) - along_v) / 2)
    return product


# --- Distillation and information -------------------------------------------------------------------------------------


def distillation_row(
    logits: Sequence[float],
    teacher: Sequence[float] | tuple[Sequence[int], Sequence[float]],
    temperature: float,
) -> Row:
    """``T² KL(teacher ‖ softmax(z/T))``, as ``Σ t log(t/p) - t + p``.

    The teacher is logits, or (indices, probabilities): its remaining mass is one bucket. With logits the value is
    judged by itself, with probabilities by ``Σ t |log(t/p)|``.
    """
    z = _unmasked(logits)
    num_classes = len(z)
    top_k = isinstance(teacher, tuple)
    reach = [max(z) - min(z)] if top_k else [max(z) - min(z), max(teacher) - min(_unmasked(teacher))]
    with mp.workdps(GUARD_DIGITS + int(2 * max(reach) / temperature / math.log(10)) + 1):
        T = mpf(temperature)
        if top_k:
            kept = [int(i) for i in teacher[0]]
            t = [mpf(float(x)) for x in teacher[1]]
            rest = 1 - total(t)
        else:
            kept, rest = list(range(num_classes)), mpf(0)
            t = [exp(-s) for s in surprisals([mpf(x) / T for x in _unmasked(teacher)])]

        def buckets(values: Sequence[Any]) -> list[tuple[Any, Any]]:
            p = [exp(-s) for s in surprisals([x / T for x in values])]
            pairs = [(t[i], p[k]) for i, k in enumerate(kept)]
            if len(kept) < num_classes:
                pairs.append((rest, total(p[k] for k in range(num_classes) if k not in kept)))
            return pairs

        def loss(values: Sequence[Any]) -> Any:
            return T**2 * total(a * (log(a) - log(b)) - a + b if a > 0 else b for a, b in buckets(values))

        axes = [
            Series.of(loss([Series(x, 1) if j == k else mpf(x) for j, x in enumerate(z)])) for k in range(num_classes)
        ]
        row = Row(axes[0].a, [x.b for x in axes], [2 * x.c for x in axes])
        pairs = buckets([mpf(x) for x in z])
        if not top_k:
            closed = distilled_row(logits, teacher, temperature)  # type: ignore[arg-type]
            if closed.value == 0:
                return closed
            row.value_scale, row.gradient_scale = abs(row.value), closed.gradient_scale
            return row
        row.value_scale = T**2 * total(a * abs(log(a) - log(b)) for a, b in pairs if a > 0)
        p = [exp(-s) for s in surprisals([mpf(x) / T for x in z])]
        share = {k: t[i] for i, k in enumerate(kept)}
        outside = total(p[k] for k in range(num_classes) if k not in share)
        row.gradient_scale = [
            T * (p[k] + (share[k] if k in share else rest * p[k] / outside)) for k in range(num_classes)
        ]
    return row


def distilled_row(logits: Sequence[float], teacher: Sequence[float], temperature: float) -> Row:
    """``T² KL`` for a teacher's logits and any number of classes, in closed form: value, gradient, diagonal.

    A component of the gradient is judged by ``T (p + t) min(1, |w| + Σ t |w| + KL)``, w the log-ratio less its mean:
    near equality p - t is t times a difference of log-ratios, which is what it is a sum of.
    """
    T = mpf(temperature)
    with mp.workdps(30):
        scaled = [[mpf(float(x)) / T for x in values] for values in (logits, teacher)]
        spread = max(max(x) - min(y for y in x if mp.isfinite(y)) for x in scaled)
        digits = 2 * GUARD_DIGITS + int(2 * spread / math.log(10))
    with mp.workdps(digits + 20):
        scaled_z, scaled_v = ([mpf(float(x)) / T for x in values] for values in (logits, teacher))
        scaled_z, scaled_v = ([x if mp.isfinite(x) else max(z) + MASKED for x in z] for z in (scaled_z, scaled_v))
        log_p, log_t = ([-s for s in _closed_surprisals(x)] for x in (scaled_z, scaled_v))
        p, t = ([mp.exp(x) for x in logs] for logs in (log_p, log_t))
        ratio = [b - a for a, b in zip(log_t, log_p, strict=True)]
        nats = total(a * -d for a, d in zip(t, ratio, strict=True))
        if nats < mpf(10) ** -digits:  # equal but for a constant: what is left is the rounding here
            nats, ratio = mpf(0), [mpf(0)] * len(ratio)
            p = t
        mean = total(a * d for a, d in zip(t, ratio, strict=True))
        apart = [abs(d - mean) for d in ratio]
        common = total(a * x for a, x in zip(t, apart, strict=True)) + nats
        row = Row(T**2 * nats, [T * (b - a) for a, b in zip(t, p, strict=True)], [b * (1 - b) for b in p])
        row.value_scale, row.hessian_scale = row.value, row.hessian
        row.gradient_scale = [T * (a + b) * min(mpf(1), x + common) for a, b, x in zip(t, p, apart, strict=True)]
        if any(x == -math.inf and y > -math.inf for x, y in zip(logits, teacher, strict=True)):
            row.value = mpf("inf")  # no divergence is there to take log-ratios from
            row.gradient_scale = [T * (a + b) for a, b in zip(t, p, strict=True)]
    return row


def _closed_surprisals(z: Sequence[Any]) -> list[Any]:
    top = max(z)
    log_sum = top + mp.log(total(mp.exp(x - top) for x in z))
    return [log_sum - x for x in z]


def divergence(p: Sequence[float], q: Sequence[float]) -> Any:
    """``KL(p ‖ q) = Σ p log(p/q) - p + q`` of the given numbers, in nats, ``0 log 0 = 0``."""
    with mp.workdps(2 * GUARD_DIGITS):
        pairs = [(mpf(float(a)), mpf(float(b))) for a, b in zip(p, q, strict=True)]
        if any(a > 0 and b == 0 for a, b in pairs):
            return mpf("inf")
        return total((a * log(a / b) if a > 0 else 0) - a + b for a, b in pairs)


def js_divergence(p: Sequence[float], q: Sequence[float]) -> Any:
    """``½ KL(p ‖ m) + ½ KL(q ‖ m)`` with m = (p + q)/2, in nats."""
    with mp.workdps(2 * GUARD_DIGITS):
        pairs = [(mpf(float(a)), mpf(float(b))) for a, b in zip(p, q, strict=True)]
        return total(x * log(2 * x / (a + b)) for a, b in pairs for x in (a, b) if x > 0) / 2


def entropy(p: Sequence[float]) -> Any:
    """``H(p)`` in nats."""
    with mp.workdps(GUARD_DIGITS):
        return -total(mpf(float(a)) * log(mpf(float(a))) for a in p if a > 0)


# --- Closed forms: many classes, and magnitudes -----------------------------------------------------------------------


def hard_term(name: str, parameter: float, n: Any, sign: Any = lambda x: x) -> tuple[Any, Any, Any]:
    """φ, φ', φ'' of a hard-target term as a function of n = -log p_y; `sign` = abs adds magnitudes instead."""
    p, miss = mp.exp(-n), -mp.expm1(-n)
    a = mpf(parameter)
    if name == "cross_entropy" or (name == "focal" and a == 0):
        return n, mpf(1), mpf(0)
    if name == "focal" and miss == 0:
        return mpf(0), mpf(0), mpf(0)  # a single class: what these multiply is 0
    if name == "focal":
        first = a * miss ** (a - 1) * p * n + miss**a
        second = sign(a * (a - 1) * miss ** (a - 2) * p**2 * n) + sign(-a * miss ** (a - 1) * p * n)
        return miss**a * n, first, second + 2 * a * miss ** (a - 1) * p
    if name == "poly1":
        return n + sign(a * miss), 1 + sign(a * p), sign(-a * p)
    if name == "gce":
        return -mp.expm1(-a * n) / a, mp.exp(-a * n), sign(-a * mp.exp(-a * n))
    raise KeyError(name)


def tail_row(logits: Sequence[float], target: int, options: Options = Options()) -> Row:
    """A hard, unsmoothed target and no maps, for any number of classes and logits however far apart.

    Every sum leaves out the class that it must, so nothing cancels: digits are needed only to subtract logits exactly.

    ``n = log1p(Σ_{k≠y} e^{z_k - z_y})``; gradient ``φ'(n) p_k`` off the true class and ``-φ'(n) Σ_{k≠y} p_k`` on it;
    Hessian ``φ''(n) g_k² + φ'(n) p_k (1 - p_k)``.
    """
    z = _unmasked(logits)
    with mp.workdps(GUARD_DIGITS + 20 + int(max(0, mp.log10(1 + max(abs(x) for x in z))))):
        ratio = array([mp.exp(mpf(x) - mpf(z[target])) for x in z])
        ratio[target] = mpf(0)
        odds = total(ratio)
        ratio[target] = mpf(1)
        p, complement = ratio / (1 + odds), _sums_of_others(ratio) / (1 + odds)
        residual = p.copy()
        residual[target] = complement[target] = odds / (1 + odds)
        w = mpf(1) if options.weight is None else mpf(float(options.weight[target]))

        def phi(sign: Any) -> list[Any]:
            parts = [
                [w * mpf(scale) * d for d in hard_term(name, parameter, mp.log1p(odds), sign)]
                for name, scale, parameter in options.terms
            ]
            return [total(sign(part[i]) for part in parts) for i in range(3)]

        value, first, second = phi(lambda x: x)
        gradient = first * residual
        gradient[target] = -gradient[target]
        row = Row(value, list(gradient), list(second * residual**2 + first * p * complement))
        value, first, second = phi(abs)
        row.value_scale, row.gradient_scale = value, list(first * residual)
        row.hessian_scale = list(second * residual**2 + first * p * complement)
        if logits[target] == -math.inf and is_unbounded(options):
            row.value = mpf("inf")
    return row


def smoothed_row(logits: Sequence[float], target: int, options: Options) -> Row:
    """Cross-entropy of a smoothed label, without maps, for any number of classes; value and gradient.

    ``Σ w_k t'_k (LSE - z_k)`` with ``t' = (1 - ε) onehot + ε/K``; gradient ``(Σ_j w_j t'_j) p_k - w_k t'_k``.
    """
    z = _unmasked(logits)
    spread = float(max(z) - min(z))
    with mp.workdps(GUARD_DIGITS + 20 + int(spread / math.log(10) + max(0, mp.log10(1 + max(abs(x) for x in z))))):
        exact = array([mpf(x) for x in z])
        top = max(exact)
        weights = array([mp.exp(x - top) for x in exact])
        everything = total(weights)
        w = array([mpf(1)] * len(z) if options.weight is None else [mpf(float(x)) for x in options.weight])
        epsilon = mpf(options.label_smoothing)
        carried = w * (epsilon / len(z))
        carried[target] += (1 - epsilon) * w[target]
        value = total(carried * (top + mp.log(everything) - exact))
        drawn = total(carried) * weights / everything
        return Row(value, list(drawn - carried), [], value, list(drawn + carried))


def _sums_of_others(values: np.ndarray) -> np.ndarray:
    """``Σ_{j≠k} values_j`` for every k, from the sums before it and behind it."""
    before = np.concatenate([[mpf(0)], np.add.accumulate(values)[:-1]])
    behind = np.concatenate([np.add.accumulate(values[::-1])[::-1][1:], [mpf(0)]])
    return before + behind


def array(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, dtype=object)


def add_magnitudes(row: Row, z: Sequence[Any], target: Any, options: Options) -> None:
    """Fill in the magnitudes, with respect to the mapped logits z."""
    num_classes = len(z)
    hard = isinstance(target, int | np.integer) and not options.label_smoothing
    epsilon = mpf(options.label_smoothing)
    t = (1 - epsilon) * array(target_distribution(target, num_classes)) + epsilon / num_classes
    w = array([mpf(1)] * num_classes if options.weight is None else [mpf(float(x)) for x in options.weight])
    s = array(surprisals(z))
    p = array([mp.exp(-x) for x in s])
    complement = array([-mp.expm1(-x) for x in s])
    variance = p * complement
    residual = p + t
    if hard:
        residual = p.copy()
        residual[target] = complement[target]
    mass, hit, miss = total(w * t), total(t * p), total((1 - t) * p)
    lse, entropy_, nll = abs(max(z)) + min(s), total(p * s), total(w * t * s)
    # the gradient rows and Hessian diagonals of the sums above, magnitudes all
    nll_row, nll_second = mass * p + w * t, mass * variance
    miss_row = p * (hit + t)
    miss_second = miss_row * (complement + p)

    def term(name: str, parameter: float) -> tuple[Any, Any, Any]:
        a = abs(mpf(parameter))
        if name == "z_penalty":
            return lse**2, 2 * lse * p, 2 * p**2 + 2 * lse * variance
        if name == "entropy":
            surplus = s + entropy_
            return entropy_, p * surplus, p * (surplus + 1) + p**2 * (2 * surplus + 1)
        if name == "brier":
            row_ = 2 * p * (residual + total(p * residual))
            second = row_ * (complement + p) + 2 * p * (variance + p**2 + p * total(p**2))
            return mass * total(residual**2), mass * row_, mass * second
        if hard:
            f = [w[target] * abs(x) for x in hard_term(name, parameter, s[target], abs)]
            return f[0], f[1] * residual, f[2] * residual**2 + f[1] * variance
        if name == "cross_entropy" or (name == "focal" and a == 0):
            return nll, nll_row, nll_second
        if name == "poly1":
            return nll + a * mass * miss, nll_row + a * mass * miss_row, nll_second + a * mass * miss_second
        if name == "focal" and miss == 0:
            return mpf(0), 0 * p, 0 * p
        if name == "focal":
            m0, m1, m2 = miss**a, a * miss ** (a - 1), abs(a * (a - 1)) * miss ** (a - 2)
            curvature = m0 * nll_second + 2 * m1 * nll_row * miss_row + nll * (m2 * miss_row**2 + m1 * miss_second)
            return m0 * nll, m0 * nll_row + m1 * nll * miss_row, curvature
        raise KeyError(name)

    parts = [[abs(mpf(scale)) * m for m in term(name, parameter)] for name, scale, parameter in options.terms]
    row.value_scale = total(part[0] for part in parts)
    row.gradient_scale, row.hessian_scale = (list(total(part[i] for part in parts)) for i in (1, 2))


# --- Judging ----------------------------------------------------------------------------------------------------------


def ulp(scale: Any, dtype: Any) -> Any:
    """The distance between neighbouring numbers of `dtype` at `scale`; below the normal range, that at its edge."""
    info = np.finfo(dtype)
    magnitude = abs(mpf(scale))
    smallest = mpf(float(info.smallest_normal))
    exponent = int(mp.frexp(max(magnitude, smallest))[1]) - 1
    return mpf(2) ** (exponent - info.nmant)


def error_in_ulps(got: Any, exact: Any, scale: Any, dtype: Any, slack: Any = 0) -> float:
    """How far `got` is from `exact`, in ulps at `scale`, beyond an absolute error of `slack`."""
    got = float(got)
    if mp.isinf(exact) or not math.isfinite(got):
        rounds_to_infinity = abs(exact) > mpf(float(np.finfo(dtype).max)) and got == math.copysign(math.inf, exact)
        return 0.0 if got == exact or rounds_to_infinity else math.inf
    with mp.workdps(50):
        error = abs(mpf(got) - exact) - mpf(slack)
        return float(max(error, 0) / ulp(scale, dtype))
