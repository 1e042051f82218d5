"""The linear head's products on tensors, and one pass over the blocks of its logits: N·K logits are never held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from crossent.core import linear as driver

from .tensors import wide

__all__ = ["one_pass", "products_of"]

_HALF = (torch.float16, torch.bfloat16)
_ADDS_IN_FLOAT32 = "dtype_out" in torch.ops.aten.addmm.overloads()  # half-precision factors, float32 sum: PyTorch 2.8
DEVICE_BLOCK_BYTES = 512 << 20
HALF_BLOCK_ROWS = 1024


class _Products(driver.Products):
    """PyTorch's products in ordinary memory, written and added in place where its types allow.

    Half-precision products are computed in float32, a tile of their factors at a time, on processors that have no
    instructions for them: PyTorch's own took nine times as long, and would be rounded before they are added up.
    """

    def write(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        if _multiplies_quickly(a):
            return torch.mm(a, b, out=out)
        if b.shape[1] > b.shape[0]:  # logits: a tile of the classes
            wide = a.float()
            for part in _tiles(*b.T.shape):
                out[:, part] = wide @ b[:, part].float()
            return out
        total = torch.zeros(out.shape, dtype=torch.float32, device=out.device)
        for part in _tiles(*b.shape):
            total.addmm_(a[:, part].float(), b[part].float())
        return out.copy_(total)

    def add(self, a: Tensor, b: Tensor, total: Tensor, tile: int) -> None:
        if total.dtype == a.dtype:
            total.addmm_(a, b)
        elif _multiplies_quickly(a) and a.dtype is not torch.float16:
            super().add(a, b, total, tile)
        elif a.is_cuda and "dtype" in torch.ops.aten.mm.overloads():
            for part in _tiles(a.shape[0], max(b.shape)):
                total[part] += torch.mm(a[part], b, out_dtype=torch.float32)
        else:  # a product of float16 may be beyond its range
            wide = b.float()
            for part in _tiles(a.shape[0], max(b.shape)):
                total[part].addmm_(a[part].float(), wide)

    def widest(self, a: Tensor) -> torch.dtype:
        return wide(a.device)

    def column_sums(self, a: Tensor) -> Tensor:
        # Half-precision columns are added up in float32.
        return a.sum(0, dtype=torch.float32) if a.dtype in _HALF else a.sum(0)


def _tiles(length: int, width: int) -> Iterator[slice]:
    """Slices of `length` rows of `width` numbers in float32."""
    step = max(1, driver.TILE_BYTES // max(1, 4 * width))
    return (slice(first, min(first + step, length)) for first in range(0, length, step))


@cache
def _has_instructions(dtype: torch.dtype) -> bool:
    """Whether this machine's processor multiplies half-precision numbers itself."""
    names = ("avx512_bf16", "amx_tile") if dtype is torch.bfloat16 else ("amx_fp16",)
    return any(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in names)


def _multiplies_quickly(a: Tensor) -> bool:
    return a.dtype not in _HALF or not a.is_cpu or _has_instructions(a.dtype)


class _DeviceProducts(_Products):
    """PyTorch's products on another device: nothing waits for it, and its many cores want large blocks."""

    def block_bytes(self, bytes_of_a_row: int, bytes_later: int = 0) -> int:
        return DEVICE_BLOCK_BYTES

    def add(self, a: Tensor, b: Tensor, total: Tensor, tile: int) -> None:
        if total.is_cuda and total.dtype is torch.float32 and a.dtype in _HALF and _ADDS_IN_FLOAT32:
            torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
        else:
            super().add(a, b, total, len(total))

    def without(self, rows: Tensor, is_silent: Tensor) -> Tensor:
        return rows.masked_fill(is_silent[:, None], 0)


class _HalfProducts(_Products):
    """PyTorch's products of half-precision numbers in ordinary memory."""

    def block_bytes(self, bytes_of_a_row: int, bytes_later: int = 0) -> int:
        # Each block reads the weight and adds to a float32 sum of twice its size. With few rows a block this takes
        # most of the time.
        wanted = max(driver.BLOCK_BYTES, HALF_BLOCK_ROWS * bytes_of_a_row)
        return min(wanted, 2 * driver.BLOCK_BYTES + bytes_later)


_PRODUCTS, _HALF_PRODUCTS, _DEVICE_PRODUCTS = _Products(), _HalfProducts(), _DeviceProducts()


def products_of(input: Tensor) -> driver.Products:
    """Return how a linear head multiplies such tensors."""
    if input.device.type != "cpu":
        return _DEVICE_PRODUCTS
    return _HALF_PRODUCTS if input.dtype in _HALF else _PRODUCTS


def one_pass(
    tensors: Sequence[Any], evaluate: Callable[..., Tensor], wanted: Sequence[bool], silent: Tensor | None
) -> tuple[Tensor, Any]:
    """Return the losses of rows and, where wanted, the gradients in input, weight and bias (else None).

    Parameters
    ----------
    tensors : input (N, D), weight (K, D), bias (K,) or None
    evaluate : of a block of logits, its slice of rows and whether a gradient is wanted
        It returns the losses of the rows, and puts the gradient in the logits' place.
    wanted : whether the gradients of the three are
    silent : bool tensor (N,) of rows that have no part in the gradients, or None
    """
    input, weight, bias = tensors

    def evaluate_block(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        return evaluate(logits, rows, any(wanted)), logits

    kind = input.device.type
    plain = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
    if bias is not None and bias.dtype is torch.float16:
        bias = bias.float()  # and its gradient: a sum over the rows
    with torch.no_grad(), plain:
        losses, gradients = driver.evaluate(
            input.detach(),
            weight.detach(),
            None if bias is None else bias.detach(),
            evaluate_block,
            with_gradients=any(wanted),
            is_silent=silent,
            wanted=(wanted[0], wanted[1]),
            accumulate_in=torch.float32 if weight.dtype in _HALF else None,
            products=products_of(input),
        )
    return losses, gradients
