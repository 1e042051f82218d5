"""`crossent.torch` beside PyTorch on an accelerator: seconds and peak memory, and agreement with the CPU's kernels.

Prints one JSON document, which is kept as results/accelerator.json; accelerator_tables.py makes the tables of it. It
needs a device that PyTorch calls "cuda", and is not part of `make bench`.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import crossent as ce
import crossent.torch as cet

DENSE = ((32, 10), (100_000, 10), (20_000, 1000), (8192, 32_000), (4096, 128_256))
HEADS = ((4096, 512, 32_000), (8192, 2048, 32_000), (8192, 2048, 128_256))
LAUNCH_BOUND = 20_000_000
"""Up to so many logits the launches take longer than what they launch: the same is measured in a CUDA graph too."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _step(loss: Callable[[], torch.Tensor], leaves: list[torch.Tensor]) -> None:
    for leaf in leaves:
        leaf.grad = None
    loss().backward()


def _peak(call: Callable[[], object], leaves: list[torch.Tensor]) -> int:
    for leaf in leaves:
        leaf.grad = None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            call()
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            repeats = 20
            torch.cuda.synchronize()
            start.record()
            for _ in range(repeats):
                call()
            stop.record()
            torch.cuda.synchronize()
            seconds[name].append(start.elapsed_time(stop) / 1e3 / repeats)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _captured(call: Callable[[], object]) -> Callable[[], object]:
    """Return the replay of a call's launches, without the Python that makes them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


class _Nothing(torch.autograd.Function):
    """What a loss costs that is written in Python and computes nothing."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        return ctx.saved_tensors[0], None


def function_in_python(rounds: int) -> dict[str, float]:
    """Return the seconds of forward and backward of a function that computes nothing, beside PyTorch's loss."""
    logits = torch.randn(32, 10, device="cuda", requires_grad=True)
    target, value = torch.randint(0, 10, (32,), device="cuda"), torch.zeros((), device="cuda")
    calls = {
        "nothing": partial(_step, lambda: _Nothing.apply(logits, value), [logits]),
        "torch": partial(_step, partial(F.cross_entropy, logits, target), [logits]),
    }
    return _medians(calls, rounds)


def _record(pairs: dict[str, Callable[[], torch.Tensor]], leaves: list[torch.Tensor], rounds: int) -> dict[str, Any]:
    calls = {name: partial(_step, loss, leaves) for name, loss in pairs.items()}
    memory = {name: _peak(call, leaves) for name, call in calls.items()}
    seconds = _medians(calls, rounds)
    for leaf in leaves:
        leaf.grad = None
    return {"seconds": seconds, "peak_bytes": memory}


def dense(rounds: int) -> list[dict[str, Any]]:
    records = []
    for num_rows, num_classes in DENSE:
        for name, dtype in DTYPES.items():
            torch.manual_seed(0)
            logits = torch.randn(num_rows, num_classes, device="cuda").to(dtype).requires_grad_()
            target = torch.randint(0, num_classes, (num_rows,), device="cuda")
            weight = torch.rand(num_classes, device="cuda") + 0.5
            soft = torch.softmax(torch.randn(num_rows, num_classes, device="cuda"), -1).to(dtype)
            cases: dict[str, tuple[Any, dict[str, Any]]] = {
                "labels": (target, {}),
                "smoothed + weighted": (target, {"label_smoothing": 0.1, "weight": weight}),
                "soft": (soft, {}),
            }
            for case, (wanted, options) in cases.items():
                theirs = dict(options)
                if "weight" in theirs:
                    theirs["weight"] = weight.to(dtype)
                pairs: dict[str, Callable[[], torch.Tensor]] = {
                    "crossent": partial(cet.cross_entropy, logits, wanted, **options),
                    "torch": partial(F.cross_entropy, logits, wanted, **theirs),
                }
                record: dict[str, Any] = {"rows": num_rows, "classes": num_classes, "dtype": name, "case": case}
                record |= _record(pairs, [logits], rounds)
                # PyTorch's smoothing with class weights waits for the device, and cannot be captured.
                if logits.numel() <= LAUNCH_BOUND and case != "smoothed + weighted":
                    calls = {name: _captured(partial(_step, loss, [logits])) for name, loss in pairs.items()}
                    record["captured"] = _medians(calls, rounds)
                records.append(record)
                print(_line(record), file=sys.stderr, flush=True)
    return records


def heads(rounds: int) -> list[dict[str, Any]]:
    records = []
    for num_rows, width, num_classes in HEADS:
        for name, dtype in DTYPES.items():
            torch.manual_seed(0)
            source = torch.randn(num_rows, width, device="cuda").to(dtype).requires_grad_()
            weight = (torch.randn(num_classes, width, device="cuda") * width**-0.5).to(dtype).requires_grad_()
            target = torch.randint(0, num_classes, (num_rows,), device="cuda")
            pairs: dict[str, Callable[[], torch.Tensor]] = {
                "crossent": partial(cet.linear_cross_entropy, source, weight, target),
                "torch": lambda s=source, w=weight, t=target: F.cross_entropy(F.linear(s, w), t),
            }
            if hasattr(F, "linear_cross_entropy"):
                options = torch.nn.LinearCrossEntropyOptions()
                pairs["torch, chunked"] = partial(F.linear_cross_entropy, source, weight, target, options=options)
            record = {"shape": [num_rows, width, num_classes], "dtype": name}
            records.append({**record, **_record(pairs, [source, weight], rounds)})
            print(_line(records[-1]), file=sys.stderr, flush=True)
    return records


def agreement() -> list[dict[str, Any]]:
    """Return the largest relative difference of value and gradient from the CPU's, case by case."""
    torch.manual_seed(0)
    logits, target = torch.randn(64, 11) * 3, torch.randint(0, 11, (64,))
    target[5] = -100
    weight, sample_weight = torch.rand(11) + 0.5, torch.rand(64)
    soft = torch.softmax(torch.randn(64, 11), -1)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "labels": (target, {}),
        "weights, smoothing": (target, {"weight": weight, "label_smoothing": 0.1, "sample_weight": sample_weight}),
        "focal + z": (target, {"loss": ce.Focal(2.0) + ce.ZPenalty(1e-4)}),
        "maps": (target, {"temperature": 2.0, "softcap": 5.0, "prior": weight / weight.sum()}),
        "soft": (soft, {"loss": ce.CrossEntropy() + ce.EntropyPenalty(0.1)}),
        "count": (target, {"normalizer": "count", "weight": weight}),
        "all ignored": (torch.full((64,), -100), {"on_empty": "zero"}),
    }
    records = []
    for name, (wanted, options) in cases.items():
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            found = []
            for device in ("cpu", "cuda"):
                z = logits.detach().to(device, dtype).requires_grad_()
                moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
                t = wanted.to(device, dtype) if wanted.is_floating_point() else wanted.to(device)
                value = cet.cross_entropy(z, t, **moved)
                value.backward()
                found.append((value.detach().cpu().double(), z.grad.cpu().double()))
            (a, g), (b, h) = found
            scale = float(g.abs().max()) or 1.0
            records.append(
                {
                    "case": name,
                    "dtype": str(dtype),
                    "value": abs(float(a - b)) / (abs(float(a)) or 1.0),
                    "gradient": float((g - h).abs().max()) / scale,
                }
            )
            print(records[-1], file=sys.stderr, flush=True)
    return records


def _line(record: dict[str, Any]) -> str:
    shape = record.get("shape") or [record["rows"], record["classes"]]
    seconds, memory = record["seconds"], record["peak_bytes"]
    parts = [f"{n} {1e3 * s:.3f} ms {memory[n] / 2**20:.0f} MiB" for n, s in seconds.items()]
    ratio = f"time {seconds['crossent'] / seconds['torch']:.2f} memory {memory['crossent'] / memory['torch']:.2f}"
    if "captured" in record:
        ratio += f", captured {record['captured']['crossent'] / record['captured']['torch']:.2f}"
    return f"{shape} {record['dtype']} {record.get('case', 'head')}: {', '.join(parts)}; {ratio}"


def main() -> None:
    torch.set_num_threads(4)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rounds": rounds,
        "agreement": agreement(),
        "function": function_in_python(rounds),
        "dense": dense(rounds),
        "heads": heads(max(3, rounds // 2)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
