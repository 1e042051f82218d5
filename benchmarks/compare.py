"""Two checkouts of crossent in turns: `python benchmarks/compare.py OTHER/src [--only WORD] [--json FILE]`.

Each checkout has a process of its own. It prepares a workload once and runs it when asked to. A workload's ratio is
this checkout's median seconds divided by the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from regression_problems import PROBLEMS

HERE = Path(__file__).resolve().parents[1] / "src"
ROUNDS, TURN_SECONDS, LARGE_ROUNDS = 7, 0.3, 3


def dense(rows: int, classes: int, dtype: str, loss: str) -> Callable[[], object]:
    import crossent as ce

    generator = np.random.default_rng(0)
    logits = generator.standard_normal((rows, classes), dtype=dtype)
    labels = generator.integers(0, classes, rows)
    weight = generator.random(classes) + 0.5
    options: dict[str, Any] = {
        "cross-entropy": {},
        "focal": {"loss": ce.Focal(2.0), "normalizer": "count"},
        "smoothed + weighted": {"label_smoothing": 0.1, "weight": weight},
        "penalties": {"loss": ce.CrossEntropy() + ce.ZPenalty(1e-4) + ce.EntropyPenalty(-0.1)},
        "Brier": {"loss": ce.Brier()},
        "distribution": {},
        "teacher": {"loss": ce.Distillation(2.0)},
        "sigmoid": {"link": "sigmoid"},
    }[loss]
    target: np.ndarray = labels
    if loss in ("distribution", "sigmoid"):
        target = ce.softmax(generator.standard_normal((rows, classes), dtype=dtype))
    elif loss == "teacher":
        target = generator.standard_normal((rows, classes), dtype=dtype)
    return lambda: ce.value_and_grad(logits, target, **options)


def torch_dense(rows: int, classes: int, dtype: str, loss: str) -> Callable[[], object]:
    import torch

    import crossent as ce
    import crossent.torch as cet

    torch.manual_seed(0)
    logits = torch.randn(rows, classes).to(getattr(torch, dtype)).requires_grad_()
    labels = torch.randint(0, classes, (rows,))
    options = {"cross-entropy": {}, "focal": {"loss": ce.Focal(2.0)}}[loss]

    def step() -> None:
        logits.grad = None
        cet.cross_entropy(logits, labels, **options).backward()

    return step


def torch_head(rows: int, features: int, classes: int, dtype: str) -> Callable[[], object]:
    import torch

    import crossent.torch as cet

    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    hidden = torch.randn(rows, features).to(kind).requires_grad_()
    weight = (torch.randn(classes, features) * 0.05).to(kind).requires_grad_()
    labels = torch.randint(0, classes, (rows,))

    def step() -> None:
        hidden.grad = weight.grad = None
        cet.linear_cross_entropy(hidden, weight, labels).backward()

    return step


def head(rows: int, features: int, classes: int, dtype: str) -> Callable[[], object]:
    import crossent as ce

    generator = np.random.default_rng(0)
    X = generator.standard_normal((rows, features), dtype=dtype)
    W = 0.05 * generator.standard_normal((classes, features), dtype=dtype)
    labels = generator.integers(0, classes, rows)
    return lambda: ce.linear_value_and_grad(X, W, labels)


def fit(name: str) -> Callable[[], object]:
    import warnings

    from crossent.sklearn import SoftmaxRegression

    warnings.simplefilter("ignore")
    problem = PROBLEMS[name]
    X, y = problem.load()
    return lambda: SoftmaxRegression(C=problem.C).fit(X, y)


def decisions(what: str, rows: int, classes: int) -> Callable[[], object]:
    import crossent as ce
    from crossent.metrics import calibration_error, log_loss
    from crossent.sklearn import TemperatureScaling, VectorScaling

    generator = np.random.default_rng(0)
    logits = 3 * generator.standard_normal((rows, classes))
    y = np.argmax(logits + generator.gumbel(size=logits.shape), axis=1)
    probabilities = ce.softmax(logits)
    return {
        "temperature": lambda: TemperatureScaling().fit(logits, y),
        "vector": lambda: VectorScaling().fit(logits, y),
        "log loss": lambda: log_loss(y, probabilities),
        "calibration error": lambda: calibration_error(y, probabilities),
    }[what]


FITS = (
    "wine",
    "breast cancer",
    "digits",
    "MNIST-5k, C=0.1",
    "MNIST-5k, C=10",
    "MNIST-5k, C=1000",
    "letter",
    "satimage",
)
SHAPES = ((100_000, 10), (20_000, 1000), (1000, 32_000), (256, 128_256))
WORKLOADS: dict[str, tuple[Callable[..., Callable[[], object]], tuple[Any, ...]]] = {
    **{
        f"dense {rows} x {classes} {dtype} {loss}": (dense, (rows, classes, dtype, loss))
        for rows, classes in SHAPES
        for dtype in ("float32", "float64")
        for loss in ("cross-entropy", "focal", "smoothed + weighted")
    },
    **{
        f"dense {rows} x {classes} float32 {loss}": (dense, (rows, classes, "float32", loss))
        for rows, classes in SHAPES[:3]
        for loss in ("penalties", "Brier", "distribution", "teacher", "sigmoid")
    },
    **{
        f"torch {rows} x {classes} {dtype} {loss}": (torch_dense, (rows, classes, dtype, loss))
        for rows, classes in ((32, 10), (256, 1000), (100_000, 10), (20_000, 1000), (1000, 32_000))
        for dtype in ("float32", "bfloat16")
        for loss in ("cross-entropy", "focal")
    },
    "torch head 4096 x 512 x 32000 float32": (torch_head, (4096, 512, 32_000, "float32")),
    "torch head 64 x 128 x 1000 float32": (torch_head, (64, 128, 1000, "float32")),
    "head 4096 x 512 x 32000 float32": (head, (4096, 512, 32_000, "float32")),
    "head 2000 x 256 x 1000 float64": (head, (2000, 256, 1000, "float64")),
    **{f"fit {name}": (fit, (name,)) for name in PROBLEMS},
    **{
        f"{what} 1000000 x 10": (decisions, (what, 1_000_000, 10))
        for what in ("temperature", "vector", "log loss", "calibration error")
    },
}


def work() -> None:
    """Serve one checkout: read the name of a workload and what to do with it, answer with seconds a call."""
    prepared: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name, seconds = json.loads(line)
        if name not in prepared:
            prepared.clear()
            make, arguments = WORKLOADS[name]
            prepared[name] = make(*arguments)
            prepared[name]()
        call, times, end = prepared[name], [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(json.dumps(statistics.median(times)), flush=True)


class Checkout:
    """A process that runs the workloads with the package in one folder."""

    def __init__(self, source: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, __file__, "--work"]
        self.process = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)

    def seconds(self, name: str, turn: float) -> float:
        """The median seconds of a workload's calls within a turn."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([name, turn]), file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", type=Path, help="the other checkout's src")
    parser.add_argument("--only", default="", help="only workloads whose names contain this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work()
    here, other = Checkout(HERE), Checkout(arguments.other)
    records = []
    for name in WORKLOADS:
        if arguments.only not in name:
            continue
        first = [checkout.seconds(name, 0.0) for checkout in (here, other)]
        rounds = LARGE_ROUNDS if max(first) > 1 else ROUNDS
        times = [[checkout.seconds(name, TURN_SECONDS) for checkout in (here, other)] for _ in range(rounds)]
        seconds = [statistics.median(column) for column in zip(*times, strict=True)]
        ratio = seconds[0] / seconds[1]
        records.append({"workload": name, "here": seconds[0], "other": seconds[1], "ratio": ratio})
        print(f"{name:50} {1e3 * seconds[0]:10.3f} {1e3 * seconds[1]:10.3f} ms {ratio:6.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
