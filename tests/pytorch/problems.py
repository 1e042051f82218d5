"""Losses and options by the dozen: what every way of computing must agree on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import crossent as ce
from crossent.torch import door, linear

ROWS, CLASSES, WIDTH = 9, 7, 5


@dataclass(frozen=True)
class Problem:
    """Keywords of a loss, its link, whether its target is soft or a top-k teacher, and what of it does not count."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    soft: bool = False
    link: str = "softmax"
    is_top_k: bool = False
    ignored: str = "nothing"  # or "some" or "all"

    def __str__(self) -> str:
        return self.name


def _tensor(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape) + 0.25)


WEIGHT = _tensor(1, CLASSES)
ROW_WEIGHT = _tensor(2, ROWS)
PRIOR = torch.softmax(_tensor(3, CLASSES), 0)
LOSSES = {
    "cross-entropy": None,
    "focal 2": ce.Focal(2.0),
    "focal 0.5": ce.Focal(0.5),
    "poly-1": ce.Poly1(1.5),
    "generalised": ce.GeneralizedCrossEntropy(0.7),
    "z-penalty": ce.CrossEntropy() + ce.ZPenalty(0.1),
    "entropy": ce.Focal(1.0) + ce.EntropyPenalty(-0.2),
    "brier": ce.Brier(),
}

SOFTMAX = [
    *(Problem(name, {"loss": loss}) for name, loss in LOSSES.items()),
    *(
        Problem(f"{name}, weights", {"loss": loss, "weight": WEIGHT, "sample_weight": ROW_WEIGHT})
        for name, loss in LOSSES.items()
    ),
    *(
        Problem(f"{name}, smoothed", {"loss": loss, "label_smoothing": 0.2, "weight": WEIGHT})
        for name, loss in LOSSES.items()
        if name != "generalised"
    ),
    *(
        Problem(f"{name}, soft", {"loss": loss, "weight": WEIGHT}, soft=True)
        for name, loss in LOSSES.items()
        if name != "generalised"
    ),
    Problem("ignored", {"ignore_index": 3}),
    Problem("count", {"ignore_index": 3, "weight": WEIGHT, "normalizer": "count"}),
    Problem("normalizer", {"normalizer": 17.0}),
    Problem("normalizer as a tensor", {"normalizer": torch.tensor(17.0)}),
    Problem("temperature", {"temperature": 2.5}),
    Problem("prior", {"prior": PRIOR, "prior_strength": 0.7}),
    Problem("margin", {"margin": 0.3}),
    Problem("margins", {"margin": WEIGHT}),
    Problem("soft cap", {"softcap": 2.0, "temperature": 0.5}),
    Problem("distillation", {"loss": ce.Distillation(2.0)}, soft=True),
    Problem("top-k teacher", {"loss": ce.Distillation(2.0), "sample_weight": ROW_WEIGHT}, is_top_k=True),
    Problem("nothing counts", {"on_empty": "nan"}, ignored="all"),
    Problem("nothing counts: zero", {"on_empty": "zero", "weight": WEIGHT}, ignored="all"),
]
SIGMOID = [
    *(Problem(f"sigmoid {name}", {"loss": loss}, link="sigmoid") for name, loss in LOSSES.items()),
    *(
        Problem(f"sigmoid {name}, soft", {"loss": loss}, soft=True, link="sigmoid")
        for name, loss in LOSSES.items()
        if name != "generalised"
    ),
    Problem("pos_weight", {"pos_weight": WEIGHT, "label_smoothing": 0.1}, link="sigmoid"),
    Problem("alpha", {"alpha": 0.3, "loss": ce.Focal(2.0)}, link="sigmoid"),
    Problem("entries' weights", {"weight": WEIGHT, "sample_weight": ROW_WEIGHT}, link="sigmoid"),
    Problem("sigmoid prior", {"prior": PRIOR, "temperature": 2.0}, link="sigmoid"),
    Problem("entries ignored", {"loss": ce.Focal(2.0), "pos_weight": WEIGHT}, link="sigmoid", ignored="some"),
    Problem("no entry counts", {"on_empty": "nan"}, link="sigmoid", ignored="all"),
    Problem("no entry counts: zero", {"on_empty": "zero"}, link="sigmoid", ignored="all"),
    Problem("sigmoid soft cap", {"softcap": 2.0}, link="sigmoid"),
]
PROBLEMS = SOFTMAX + SIGMOID


def target_of(problem: Problem) -> Any:
    target = _counted_target(problem)
    if problem.ignored == "some":
        target[::2, 1:3] = -100
    return target if problem.ignored != "all" else torch.full_like(target, -100)


def _counted_target(problem: Problem) -> Any:
    generator = torch.Generator().manual_seed(7)
    if problem.is_top_k:
        teacher = torch.softmax(2 * torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64), -1)
        probabilities, indices = teacher.topk(3)
        return ce.TopK(indices, probabilities)
    if problem.link == "sigmoid":
        entries = torch.rand(ROWS, CLASSES, generator=generator, dtype=torch.float64)
        return entries if problem.soft else (entries > 0.5).long()
    if problem.soft:
        return torch.softmax(2 * torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64), -1)
    labels = torch.randint(0, CLASSES, (ROWS,), generator=generator)
    labels[2] = 3
    return labels


def logits_of(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(11)
    return (3 * torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64)).to(dtype)


def numpy_target_of(problem: Problem) -> Any:
    target = target_of(problem)
    return ce.TopK(target.indices.numpy(), target.probabilities.numpy()) if problem.is_top_k else target.numpy()


def numpy_options(problem: Problem) -> dict[str, Any]:
    return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in problem.options.items()}


def by_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have PyTorch's own operations compute the losses of rows from now on."""
    for module in (door, linear):
        monkeypatch.setattr(module, "way_of", lambda *_: door.Way("operations", True))
