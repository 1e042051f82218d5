"""The tables that the laws run over: losses, settings (targets and options), dtypes. A new loss is one row here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from oracle import Term

import crossent as ce


@dataclass(frozen=True)
class LossCase:
    """A loss as the library spells it, and as the oracle does."""

    loss: ce.Loss
    terms: tuple[Term, ...]
    hard_only: bool = False

    def __str__(self) -> str:
        return repr(self.loss).replace(" ", "")

    @property
    def z_penalty(self) -> float:
        """λ: the only term that sees a constant added to a row."""
        return sum(scale for name, scale, _ in self.terms if name == "z_penalty")

    @property
    def looks_at_target(self) -> bool:
        """Whether every term is multiplied by the class weight."""
        return not any(name in ("z_penalty", "entropy") for name, _, _ in self.terms)


CE, Z, H = ("cross_entropy", 1.0, 0.0), ("z_penalty", 1.0, 0.0), ("entropy", 1.0, 0.0)
LOSSES = [
    LossCase(ce.CrossEntropy(), (CE,)),
    LossCase(2.5 * ce.CrossEntropy(), (("cross_entropy", 2.5, 0.0),)),
    LossCase(ce.Focal(2.0), (("focal", 1.0, 2.0),)),
    LossCase(ce.Focal(0.5), (("focal", 1.0, 0.5),)),
    LossCase(ce.Focal(1.0), (("focal", 1.0, 1.0),)),
    LossCase(ce.Focal(0.0), (("focal", 1.0, 0.0),)),
    LossCase(ce.Poly1(2.0), (("poly1", 1.0, 2.0),)),
    LossCase(ce.Poly1(-0.5), (("poly1", 1.0, -0.5),)),
    LossCase(ce.GeneralizedCrossEntropy(0.7), (("gce", 1.0, 0.7),), hard_only=True),
    LossCase(ce.GeneralizedCrossEntropy(1.0), (("gce", 1.0, 1.0),), hard_only=True),
    LossCase(ce.Brier(), (("brier", 1.0, 0.0),)),
    LossCase(ce.CrossEntropy() + ce.ZPenalty(0.1), (CE, ("z_penalty", 0.1, 0.0))),
    LossCase(ce.CrossEntropy() + ce.EntropyPenalty(0.3), (CE, ("entropy", 0.3, 0.0))),
    LossCase(ce.Brier() + ce.EntropyPenalty(-0.2), (("brier", 1.0, 0.0), ("entropy", -0.2, 0.0))),
    LossCase(
        ce.Focal(1.5) + 0.5 * ce.Poly1(1.0) + ce.ZPenalty(0.02),
        (("focal", 1.0, 1.5), ("poly1", 0.5, 1.0), ("z_penalty", 0.02, 0.0)),
    ),
]
WITH_Z_PENALTY = LOSSES[-1]
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
# A gradient comes back in the logits' dtype; the values of half-precision logits in float32.
ROUNDING = {np.float64: 1e-13, np.float32: 1e-6, np.float16: 1e-3, ml_dtypes.bfloat16: 8e-3}
VALUE_ROUNDING = {np.float64: 1e-13, np.float32: 1e-6, np.float16: 1e-6, ml_dtypes.bfloat16: 1e-6}


@dataclass(frozen=True, eq=False)
class Setting:
    """What a problem's target is and which options are on; `options` maps (N, K, generator) to keywords."""

    name: str
    links: tuple[str, ...] = ("softmax", "sigmoid")
    target: str = "hard"
    options: dict[str, Any] = field(default_factory=dict)
    masked: bool = False

    def __str__(self) -> str:
        return self.name


def _positive(shape: Any) -> Any:
    return lambda rng: rng.uniform(0.25, 2.0, shape)


SETTINGS = [
    Setting("hard"),
    Setting("soft", target="soft"),
    Setting("smoothed", options={"label_smoothing": 0.1}),
    Setting("weighted", ("softmax",), options={"weight": "K"}),
    Setting("weighted-soft", ("softmax",), target="soft", options={"weight": "K"}),
    Setting("weighted-smoothed", ("softmax",), options={"weight": "K", "label_smoothing": 0.2}),
    Setting("soft-smoothed", target="soft", options={"label_smoothing": 0.2}),
    Setting("pos-weight", ("sigmoid",), options={"pos_weight": "K"}),
    Setting("pos-weight-smoothed", ("sigmoid",), options={"pos_weight": 2.5, "label_smoothing": 0.1}),
    Setting("alpha", ("sigmoid",), options={"alpha": 0.3}),
    Setting("rates", ("sigmoid",), options={"prior": "rates", "prior_strength": 0.6}),
    Setting("elementwise-weight", ("sigmoid",), target="soft", options={"weight": "NK"}),
    Setting("sample-weight", options={"sample_weight": "N"}),
    Setting("weighted-both", ("softmax",), options={"weight": "K", "sample_weight": "N"}),
    Setting("ignored", target="ignored"),
    Setting("temperature", options={"temperature": 1.7}),
    Setting("prior", ("softmax",), options={"prior": "K", "prior_strength": 0.6}),
    Setting("margin", ("softmax",), options={"margin": 0.35}),
    Setting("margins", ("softmax",), options={"margin": "K"}),
    Setting("softcap", options={"softcap": 3.0}),
    Setting("every-map", ("softmax",), options={"softcap": 4.0, "temperature": 0.8, "prior": "K", "margin": 0.2}),
    Setting("masked", ("softmax",), masked=True),
]
HARD, SOFT = SETTINGS[0], SETTINGS[1]
BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, eq=False)
class Problem:
    """Read-only inputs of one call: whoever writes to an argument gets an error."""

    logits: np.ndarray
    target: np.ndarray
    options: dict[str, Any]
    link: str

    @property
    def call(self) -> dict[str, Any]:
        return {"link": self.link, **self.options}

    @property
    def counted(self) -> np.ndarray:
        """Which rows (softmax) or entries (sigmoid) count."""
        if self.target.dtype.kind == "f":
            return np.ones(self.target.shape[: 1 if self.link == "softmax" else 2], dtype=bool)
        return self.target != -100


def frozen(array: Any, dtype: Any = None) -> np.ndarray:
    array = np.array(array, dtype=dtype)
    array.flags.writeable = False
    return array


def applies(case: LossCase, setting: Setting, link: str) -> bool:
    if link not in setting.links:
        return False
    return not (case.hard_only and (setting.target == "soft" or "label_smoothing" in setting.options))


@cache
def problem(setting: Setting, link: str, dtype: Any = np.float64, *, seed: int = 0, shape: Any = (6, 5)) -> Problem:
    """Draw logits of moderate size (so that naive code in float64 is right), a target and options."""
    rng = np.random.default_rng([seed, *setting.name.encode()])
    n, k = shape
    logits = rng.normal(scale=2.0, size=shape).astype(dtype)
    if setting.masked:
        logits[rng.random(shape) < 0.3] = -np.inf
    if setting.target == "soft":
        target = rng.dirichlet(np.ones(k), n) if link == "softmax" else rng.random(shape)
    elif link == "softmax":
        target = rng.integers(0, k, n)
        if setting.masked:
            logits[np.arange(n), target] = 0.5
    else:
        target = rng.integers(0, 2, shape)
    if setting.target == "ignored":
        target[rng.permutation(target.shape[0])[:2]] = -100
        if link == "sigmoid":
            target[0, 0] = -100
    options = {}
    for name, value in setting.options.items():
        size = {"N": n, "K": k, "NK": shape}.get(value) if isinstance(value, str) else None
        options[name] = value if size is None else frozen(rng.uniform(0.25, 2.0, size))
    if setting.options.get("prior") == "rates":
        options["prior"] = frozen(rng.uniform(0.1, 0.9, k))
    elif "prior" in options:
        options["prior"] = frozen(options["prior"] / options["prior"].sum())
    return Problem(frozen(logits), frozen(target), options, link)
