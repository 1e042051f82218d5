"""`crossent.torch` beside PyTorch: dense losses eager and compiled, the linear head in time and in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from linear import resident
from timing import interleaved_medians

import crossent.torch as cet

DENSE = ((100_000, 10), (20_000, 1000), (1000, 32_000))
PRODUCTS, WIDE_PRODUCTS = "three products", "three products in float32"
HEADS = ((4096, 512, 32_000), (2048, 768, 128_256))  # rows, width, classes
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _step(loss: Callable[..., torch.Tensor], leaves: list[torch.Tensor], target: torch.Tensor) -> None:
    for leaf in leaves:
        leaf.grad = None
    loss(*leaves, target).backward()


def dense(rounds: int) -> list[dict[str, Any]]:
    """Return one record a shape and dtype: seconds of forward and backward by contender."""
    records = []
    compiled = torch.compile(F.cross_entropy)
    for num_rows, num_classes in DENSE:
        for name, dtype in DTYPES.items():
            torch.manual_seed(0)
            logits = torch.randn(num_rows, num_classes).to(dtype).requires_grad_()
            target = torch.randint(0, num_classes, (num_rows,))
            calls: dict[str, Callable[[], object]] = {
                "crossent": partial(_step, cet.cross_entropy, [logits], target),
                "torch": partial(_step, F.cross_entropy, [logits], target),
                "torch.compile": partial(_step, compiled, [logits], target),
            }
            record = {"rows": num_rows, "classes": num_classes, "dtype": name}
            records.append({**record, "seconds": interleaved_medians(calls, rounds)})
            print(records[-1], flush=True)
    return records


def _soft(num_rows: int, num_classes: int) -> torch.Tensor:
    return torch.randn(num_rows, num_classes).softmax(1)


OTHERS: dict[str, tuple[str, tuple[int, ...], Callable[[], torch.Tensor]]] = {
    "binary, 20000 × 100": ("binary", (20_000, 100), lambda: torch.randint(0, 2, (20_000, 100)).float()),
    "binary, 2000000": ("binary", (2_000_000,), lambda: torch.randint(0, 2, (2_000_000,)).float()),
    "images, 8 × 21 × 256 × 256": ("softmax", (8, 21, 256, 256), lambda: torch.randint(0, 21, (8, 256, 256))),
    "images, 2 × 150 × 128 × 128": ("softmax", (2, 150, 128, 128), lambda: torch.randint(0, 150, (2, 128, 128))),
    "distributions, 100000 × 10": ("softmax", (100_000, 10), partial(_soft, 100_000, 10)),
    "distributions, 20000 × 1000": ("softmax", (20_000, 1000), partial(_soft, 20_000, 1000)),
}
"""Link, shape of the logits and target; floating targets are in the logits' dtype, as PyTorch wants them."""


def others(rounds: int) -> list[dict[str, Any]]:
    """Return one record a case of `OTHERS` and dtype: seconds of forward and backward."""
    losses = {
        "binary": (cet.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
        "softmax": (cet.cross_entropy, F.cross_entropy),
    }
    records = []
    for case, (link, shape, make_target) in OTHERS.items():
        for name, dtype in DTYPES.items():
            torch.manual_seed(0)
            logits, target = torch.randn(shape).to(dtype).requires_grad_(), make_target()
            target = target.to(dtype) if target.is_floating_point() else target
            ours, theirs = losses[link]
            calls: dict[str, Callable[[], object]] = {
                "crossent": partial(_step, ours, [logits], target),
                "torch": partial(_step, theirs, [logits], target),
            }
            records.append({"case": case, "dtype": name, "seconds": interleaved_medians(calls, rounds)})
            print(records[-1], flush=True)
    return records


def small(rounds: int) -> list[dict[str, Any]]:
    """Return seconds of a 32 × 10 batch: what the call itself costs."""
    records = []
    for name, dtype in DTYPES.items():
        logits = torch.randn(32, 10).to(dtype).requires_grad_()
        target = torch.randint(0, 10, (32,))
        calls: dict[str, Callable[[], object]] = {
            "crossent": partial(_step, cet.cross_entropy, [logits], target),
            "torch": partial(_step, F.cross_entropy, [logits], target),
        }
        records.append({"dtype": name, "seconds": interleaved_medians(calls, rounds, calls=200)})
        print(records[-1], flush=True)
    return records


def _arguments(shape: tuple[int, int, int], dtype: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    num_rows, width, num_classes = shape
    torch.manual_seed(0)
    source = torch.randn(num_rows, width).to(DTYPES[dtype])
    weight = (torch.randn(num_classes, width) * width**-0.5).to(DTYPES[dtype])
    return source, weight, torch.randint(0, num_classes, (num_rows,))


def _full(source: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.linear_cross_entropy(source, weight, target)


def _chunked(source: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.linear_cross_entropy(source, weight, target, options=torch.nn.LinearCrossEntropyOptions())


HEAD_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "crossent": cet.linear_cross_entropy,
    "torch, full logits": _full,
    "torch, chunked": _chunked,
}


def _three_products(source: torch.Tensor, weight: torch.Tensor) -> None:
    logits = source @ weight.T
    logits @ weight
    logits.T @ source


LONGEST = 4.0
"""Seconds of a call on one row in `SHARE` beyond which a contender is not waited for: where a processor has no
instructions for bfloat16, PyTorch multiplies in it at a hundredth of its speed in float32."""
SHARE = 16


def _is_patient(call: Callable[[], object]) -> bool:
    """Whether the second of two calls, the first of which warms up, ends in time."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start <= LONGEST


def _head_calls(
    shape: tuple[int, int, int], dtype: str, share: int = 1
) -> tuple[dict[str, Callable[[], object]], list[torch.Tensor]]:
    """Return the contenders' calls, on one row in `share`, and the tensors that hold gradients."""
    source, weight, target = _arguments(shape, dtype)
    source, target = source[::share].contiguous(), target[::share].contiguous()
    leaves = [source.requires_grad_(), weight.requires_grad_()]
    calls: dict[str, Callable[[], object]] = {
        name: partial(_step, loss, leaves, target) for name, loss in HEAD_LOSSES.items()
    }
    calls[PRODUCTS] = partial(_three_products, source.detach(), weight.detach())
    if dtype != "float32":
        calls[WIDE_PRODUCTS] = partial(_three_products, source.detach().float(), weight.detach().float())
    return calls, leaves


def heads(rounds: int) -> list[dict[str, Any]]:
    """Return one record a shape and dtype: seconds and peak extra bytes by contender; None of those not waited for."""
    records = []
    for shape in HEADS:
        for dtype in DTYPES:
            patient = [name for name, call in _head_calls(shape, dtype, SHARE)[0].items() if _is_patient(call)]
            calls, leaves = _head_calls(shape, dtype)
            timed = interleaved_medians({name: calls[name] for name in patient}, rounds)
            for leaf in leaves:
                leaf.grad = None
            memory = {
                name: _peak_of_a_fresh_process(shape, dtype, name) if name in patient else None for name in HEAD_LOSSES
            }
            seconds = {name: timed.get(name) for name in calls}
            records.append({"shape": shape, "dtype": dtype, "seconds": seconds, "peak_extra_bytes": memory})
            print(records[-1], flush=True)
    return records


def _peak_of_a_fresh_process(shape: tuple[int, int, int], dtype: str, contender: str) -> int:
    command = [sys.executable, __file__, json.dumps(shape), dtype, contender]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    return int(json.loads(output.stdout)["peak_extra_bytes"])


def _measure(shape: str, dtype: str, contender: str) -> None:
    """Print the peak resident memory of forward and backward, beyond inputs, gradients and their accumulators."""
    torch.set_num_threads(2)
    source, weight, target = _arguments(tuple(json.loads(shape)), dtype)
    loss = HEAD_LOSSES[contender]
    small = [source[:64].clone().requires_grad_(), weight[:4096].clone().requires_grad_()]
    _step(loss, small, target[:64] % 4096)  # compile the kernel, and let the products take their buffers
    leaves = [source.requires_grad_(), weight.requires_grad_()]
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = resident("VmRSS")
    _step(loss, leaves, target)
    returned = sum(leaf.grad.nbytes for leaf in leaves if leaf.grad is not None)
    accumulator = 4 * weight.numel() if dtype == "bfloat16" and contender == "crossent" else 0
    print(json.dumps({"peak_extra_bytes": resident("VmHWM") - before - returned - accumulator}))


def run(rounds: int) -> dict[str, Any]:
    """Return the records of all but the heads, which take minutes of their own."""
    return {"dense": dense(rounds), "small": small(rounds), "others": others(rounds)}


if __name__ == "__main__":
    _measure(*sys.argv[1:])
