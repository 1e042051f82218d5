"""Dense value + gradient through the public function, beside PyTorch, scikit-learn and a copy of the array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn._loss import HalfMultinomialLoss
from timing import interleaved_medians

import crossent as ce
from crossent.numpy import buffers

SHAPES = ((100_000, 10), (20_000, 1000), (1000, 32_000), (256, 128_256))
DTYPES = ("float32", "float64")
LOSSES = ("cross-entropy", "focal", "smoothed + weighted")


def _torch_focal(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    nll = F.cross_entropy(z, y, reduction="none")
    return ((1 - torch.exp(-nll)) ** 2 * nll).mean()


def contenders(loss: str, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return the calls to time for one loss; scikit-learn has cross-entropy only and runs it for all three."""
    num_classes = logits.shape[1]
    tensor = torch.from_numpy(logits).requires_grad_()
    targets = torch.from_numpy(labels)
    weight_tensor = torch.from_numpy(weight.astype(logits.dtype))
    ours: dict[str, dict[str, Any]] = {
        "cross-entropy": {},
        "focal": {"loss": ce.Focal(2.0), "normalizer": "count"},
        "smoothed + weighted": {"label_smoothing": 0.1, "weight": weight},
    }
    theirs: dict[str, Callable[[], torch.Tensor]] = {
        "cross-entropy": lambda: F.cross_entropy(tensor, targets),
        "focal": lambda: _torch_focal(tensor, targets),
        "smoothed + weighted": lambda: F.cross_entropy(tensor, targets, weight=weight_tensor, label_smoothing=0.1),
    }
    half_multinomial = HalfMultinomialLoss(n_classes=num_classes)
    floating_labels = labels.astype(logits.dtype)

    def torch_step() -> None:
        tensor.grad = None
        theirs[loss]().backward()

    def on_fresh_memory() -> Any:
        buffers.forget()
        return ce.value_and_grad(logits, labels, **ours[loss])

    return {
        "crossent": lambda: ce.value_and_grad(logits, labels, **ours[loss]),
        "crossent on fresh memory": on_fresh_memory,
        "torch": torch_step,
        "scikit-learn": lambda: half_multinomial.loss_gradient(floating_labels, logits, n_threads=2),
        "copy": logits.copy,
    }


def run(rounds: int) -> list[dict[str, Any]]:
    """Return one record a shape, dtype and loss, seconds by contender."""
    records = []
    for num_rows, num_classes in SHAPES:
        for dtype in DTYPES:
            generator = np.random.default_rng(0)
            logits = generator.standard_normal((num_rows, num_classes), dtype=dtype)
            labels = generator.integers(0, num_classes, num_rows)
            weight = generator.random(num_classes) + 0.5
            for loss in LOSSES:
                seconds = interleaved_medians(contenders(loss, logits, labels, weight), rounds)
                records.append(
                    {"rows": num_rows, "classes": num_classes, "dtype": dtype, "loss": loss, "seconds": seconds}
                )
                print(
                    num_rows, num_classes, dtype, loss, {k: round(v * 1e3, 2) for k, v in seconds.items()}, flush=True
                )
    return records


def run_small(rounds: int) -> list[dict[str, Any]]:
    """Return seconds for a 32 × 10 batch: what the call itself costs."""
    records = []
    for dtype in DTYPES:
        generator = np.random.default_rng(0)
        logits = generator.standard_normal((32, 10), dtype=dtype)
        labels = generator.integers(0, 10, 32)
        tensor = torch.from_numpy(logits).requires_grad_()
        targets = torch.from_numpy(labels)
        detached = tensor.detach()

        def torch_step(tensor: torch.Tensor = tensor, targets: torch.Tensor = targets) -> None:
            tensor.grad = None
            F.cross_entropy(tensor, targets).backward()

        seconds = interleaved_medians(
            {
                "value and gradient: crossent": lambda z=logits, y=labels: ce.value_and_grad(z, y),
                "value and gradient: torch": torch_step,
                "value: crossent": lambda z=logits, y=labels: ce.cross_entropy(z, y),
                "value: torch": lambda z=detached, y=targets: F.cross_entropy(z, y),
            },
            rounds,
            calls=200,
        )
        print("32 x 10", dtype, {k: round(v * 1e6, 1) for k, v in seconds.items()}, flush=True)
        records.append({"rows": 32, "classes": 10, "dtype": dtype, "seconds": seconds})
    return records
