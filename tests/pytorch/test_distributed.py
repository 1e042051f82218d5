"""Two processes (gloo): distributed tensors, and a model sharded by FSDP2, give what one process gives."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

import crossent as ce
import crossent.torch as cet

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="this PyTorch has no gloo"
)

ROWS, WIDTH, CLASSES = 10, 6, 5


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    w = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (ROWS,), generator=generator)
    y[:3] = -100  # the two halves do not count the same rows
    return x, w, torch.rand(CLASSES, generator=generator, dtype=torch.float64), y


OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum"},
    {"loss": ce.Focal(2.0), "normalizer": "count"},
    {"label_smoothing": 0.1, "normalizer": 4.0},
]


def check_dtensors(rank: int, mesh: Any) -> None:
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    x, w, weight, y = data()
    for placement in (Shard(0), Shard(1), Replicate()):
        for options in (*OPTIONS, {"weight": weight}, {"sample_weight": torch.arange(float(ROWS))}):
            logits = (x @ w.T).requires_grad_()
            want = cet.cross_entropy(logits, y, **options)
            want.backward()
            sharded = distribute_tensor((x @ w.T), mesh, [placement]).requires_grad_()
            got = cet.cross_entropy(sharded, y, **options)
            torch.testing.assert_close(got.full_tensor(), want, rtol=1e-12, atol=0)
            got.backward()
            torch.testing.assert_close(sharded.grad.full_tensor(), logits.grad, rtol=1e-10, atol=1e-14)
    rows = cet.cross_entropy(distribute_tensor(x @ w.T, mesh, [Shard(0)]), y, reduction="none")
    torch.testing.assert_close(rows.full_tensor(), F.cross_entropy(x @ w.T, y, reduction="none"))
    for options in OPTIONS:
        arguments = [x.clone().requires_grad_(), w.clone().requires_grad_()]
        want = cet.linear_cross_entropy(*arguments, y, **options)
        want.backward()
        source = distribute_tensor(x, mesh, [Shard(0)]).requires_grad_()
        matrix = distribute_tensor(w, mesh, [Shard(0)]).requires_grad_()
        got = cet.linear_cross_entropy(source, matrix, distribute_tensor(y, mesh, [Shard(0)]), **options)
        torch.testing.assert_close(got.full_tensor(), want, rtol=1e-12, atol=0)
        got.backward()
        for mine, other in zip((source, matrix), arguments, strict=True):
            torch.testing.assert_close(mine.grad.full_tensor(), other.grad, rtol=1e-10, atol=1e-14)


def model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.ModuleDict(
        {
            "body": torch.nn.Linear(WIDTH, WIDTH, dtype=torch.float64),
            "head": cet.LinearCrossEntropyLoss(WIDTH, CLASSES, bias=True, dtype=torch.float64),
        }
    )


def check_fsdp(rank: int, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    x, _, _, y = data()
    whole = model()
    whole["head"](torch.tanh(whole["body"](x)), y).backward()
    sharded = model()
    fully_shard(sharded["body"], mesh=mesh)
    fully_shard(sharded["head"], mesh=mesh)
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    counted = int((y != -100).sum())
    # FSDP averages gradients over the processes: each divides its sum by the global count over their number.
    loss = sharded["head"](torch.tanh(sharded["body"](x[mine])), y[mine], normalizer=counted / 2)
    loss.backward()
    for (name, got), want in zip(sharded.named_parameters(), whole.parameters(), strict=True):
        assert got.grad is not None, name
        torch.testing.assert_close(got.grad.full_tensor(), want.grad, rtol=1e-10, atol=1e-14)


def agree(ours: Any, arguments: dict[str, torch.Tensor], placements: dict[str, Any], mesh: Any) -> None:
    """A function of keywords gives distributed tensors (and plain ones, where no placement is named) the same."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def leaves(distributed: bool) -> dict[str, torch.Tensor]:
        found = {}
        for name, tensor in arguments.items():
            tensor = tensor.clone()
            if distributed and name in placements:
                tensor = distribute_tensor(tensor, mesh, [placements[name]])
            found[name] = tensor.requires_grad_() if tensor.is_floating_point() else tensor
        return found

    wanted, given = leaves(False), leaves(True)
    want, got = ours(**wanted), ours(**given)
    assert isinstance(got, DTensor)
    torch.testing.assert_close(got.full_tensor(), want, rtol=1e-12, atol=1e-14)
    for loss in (want, got):
        loss.sum().backward()
    for name, tensor in wanted.items():
        if tensor.requires_grad:
            gradient = given[name].grad
            gradient = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
            torch.testing.assert_close(gradient, tensor.grad, rtol=1e-10, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")


def check_shapes(rank: int, mesh: Any) -> None:
    """Rows that do not divide evenly, more axes than two, one row, options that are distributed or want gradients."""
    from torch.distributed.tensor import Replicate, Shard

    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1

    rows, nine, one = Shard(0), random(9, CLASSES), torch.randint(CLASSES, (9,), generator=generator)
    cubes, soft = random(9, 3, WIDTH), random(9, 3, CLASSES).softmax(-1)
    matrix, weight, row_weight = random(CLASSES, WIDTH), random(CLASSES), random(9)
    for reduction in ("mean", "none"):

        def dense(input: Any, target: Any, reduction: str = reduction, **options: Any) -> torch.Tensor:
            return cet.cross_entropy(input, target, reduction=reduction, **options)

        def binary(input: Any, target: Any, reduction: str = reduction, **options: Any) -> torch.Tensor:
            return cet.binary_cross_entropy_with_logits(input, target, reduction=reduction, **options)

        def linear(input: Any, target: Any, reduction: str = reduction, **options: Any) -> torch.Tensor:
            return cet.linear_cross_entropy(input, target=target, reduction=reduction, **options)

        both = {"input": rows, "target": rows}
        labelled = {"input": nine, "target": one}
        agree(dense, labelled, {"input": rows}, mesh)
        for name, tensor in (("weight", weight), ("margin", weight), ("prior", weight.softmax(0))):
            for place in ({}, {name: Replicate()}, {name: rows}):
                agree(dense, labelled | {name: tensor}, both | place, mesh)
        agree(dense, labelled | {"sample_weight": row_weight}, {"input": rows}, mesh)
        agree(dense, labelled | {"temperature": random()}, both, mesh)
        agree(dense, {"input": random(9, CLASSES, 2), "target": random(9, CLASSES, 2).softmax(1)}, both, mesh)
        agree(dense, {"input": random(CLASSES), "target": random(CLASSES).softmax(0)}, {"input": rows}, mesh)
        entries = {"input": nine, "target": random(9, CLASSES) / 2}
        for tensor in (random(9, CLASSES), random(9, 1), weight):
            agree(binary, entries | {"weight": tensor, "pos_weight": tensor}, both, mesh)
        agree(binary, entries | {"weight": nine}, both | {"weight": rows}, mesh)
        agree(binary, {"input": random(9), "target": random(9) / 2, "sample_weight": row_weight}, both, mesh)
        agree(linear, {"input": cubes, "target": soft, "linear_weight": matrix}, both, mesh)
        head = {"input": cubes, "target": torch.randint(CLASSES, (9, 3), generator=generator), "linear_weight": matrix}
        agree(linear, head, both | {"linear_weight": rows}, mesh)
        for placement in (rows, Shard(1)):  # 8.: smoothing over classes that are split
            agree(
                lambda **k: dense(label_smoothing=0.2, **k), labelled | {"weight": weight}, {"input": placement}, mesh
            )


def check_refusals(rank: int, mesh: Any) -> None:
    """A label that is out of range on one process raises on all: the others would wait for its sums for ever."""
    from torch.distributed.tensor import Shard, distribute_tensor

    x, w, _, y = data()
    y[ROWS - 1] = CLASSES
    words = ["another process", f"labels must lie in 0..{CLASSES - 1}"][rank]
    for reduction in ("mean", "none"):
        with pytest.raises(ValueError, match=words):
            cet.cross_entropy(distribute_tensor(x @ w.T, mesh, [Shard(0)]), y, reduction=reduction)
        with pytest.raises(ValueError, match=words):
            cet.linear_cross_entropy(distribute_tensor(x, mesh, [Shard(0)]), w, y, reduction=reduction)


# Several for a pair of processes: most of their time is their start.
CHECKS = {"dtensors": (check_dtensors, check_shapes, check_refusals), "fsdp": (check_fsdp,)}


def run(rank: int, port: int, check: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
        for check_one in CHECKS[check]:
            check_one(rank, mesh)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("check", CHECKS)
def test_two_processes(check: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run, args=(port, check), nprocs=2)
