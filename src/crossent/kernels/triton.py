"""Cross-entropy of rows of logits on a GPU: one launch for the losses, one for their gradient. Triton.

``forward`` reads the logits once (twice where the target is a distribution or smoothed) and keeps three numbers a row:
the maximum m, where it is, and the tail ``s₋ = Σ_{k≠argmax} e^{z_k - m}`` apart from it. ``backward`` reads the logits
again and writes the gradient; probabilities are in no memory in between. With a row's target u (class weights times
the smoothed target) and ``U = Σ u_k``:

    loss = U log1p(s₋) + Σ u_k (m - z_k),        ∂loss/∂z_k = U p_k - u_k,

and for one label ``∂/∂z_y = -w_y (1 - p_y)`` with ``1 - p_y`` summed without y: what is small is never a difference.

A program takes `BLOCK_ROWS` rows and goes through their classes `BLOCK_CLASSES` at a time, so one kernel serves many
short rows, one long row, and classes in any axis. Losses, sums and exponentials are float32, whatever the logits are.
"""

# mypy: ignore-errors

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from triton.compiler import CompiledKernel

MOST_KEPT = 1024
"""Compiled kernels that `launch` keeps at hand, with the arguments that they were compiled for."""
_kept: dict[Any, CompiledKernel] = {}

MOST_CLASSES = 4096
REDUCED_ROWS = 1 << 17
"""The most rows whose losses one program adds up: in the time that PyTorch's own operations take to be called."""
REDUCED_BLOCK = 4096
STRIDED_ROWS = 64
"""Rows of a tile whose classes lie apart in memory: neighbouring rows are then what is read together."""


next_power_of_2 = triton.next_power_of_2


def blocks(num_classes: int, is_strided: bool) -> tuple[int, int, int]:
    """Return (BLOCK_ROWS, BLOCK_CLASSES, warps) for rows of so many classes."""
    classes = min(triton.next_power_of_2(num_classes), MOST_CLASSES)
    if is_strided:
        return STRIDED_ROWS, min(classes, 32), 4
    rows = max(1, min(64, 1024 // classes))
    return rows, classes, 4 if classes <= 1024 else 8


def launch(kernel: Any, programs: int, args: tuple[Any, ...], flags: dict[str, Any], warps: int) -> None:
    """Run `programs` of a kernel on the current device and stream.

    Triton compiles a kernel for what it can read off its arguments: types, which numbers are 1 or multiples of 16,
    which addresses are aligned. Finding that out takes it longer than the launch; for arguments of the same shapes and
    alignment the compiled kernel is called at once.
    """
    key: list[Any] = [id(kernel), warps, *flags.values()]
    for arg in args:
        if isinstance(arg, int):
            key.append(arg)
        elif not isinstance(arg, float):
            key += (arg.dtype, arg.device.index, arg.data_ptr() % 16)
    known = tuple(key)
    compiled = _kept.get(known)
    if compiled is not None:
        compiled[programs, 1, 1](*args, *flags.values())
        return
    compiled = kernel[(programs,)](*args, **flags, num_warps=warps)
    if isinstance(compiled, CompiledKernel):  # the interpreter returns nothing
        if len(_kept) == MOST_KEPT:
            _kept.clear()
        _kept[known] = compiled


@triton.jit
def _load_target(
    target_at, weight_ptr, row, labels, classes, class_stride, inside, smoothing, num_classes,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTHED: tl.constexpr,
):  # fmt: skip
    """Return u, a tile of the rows' targets, class weights and smoothing included."""
    if SOFT:
        wanted = tl.load(target_at[:, None] + classes[None, :] * class_stride, mask=inside, other=0.0).to(tl.float32)
    else:
        wanted = tl.where(labels[:, None] == classes[None, :], 1.0, 0.0)
    if SMOOTHED:
        wanted = (1.0 - smoothing) * wanted + tl.where(inside, smoothing / num_classes, 0.0)
    if WEIGHTED:
        wanted *= tl.load(weight_ptr + classes, mask=classes < num_classes, other=0.0).to(tl.float32)[None, :]
    return wanted


@triton.jit
def _forward(
    z_ptr, z_stride_n, z_stride_k, z_stride_s,
    target_ptr, t_stride_n, t_stride_k, t_stride_s,
    weight_ptr, row_weight_ptr, found_ptr,
    num_rows, num_inner, num_classes, ignore_index, smoothing,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, ROW_WEIGHTED: tl.constexpr, SMOOTHED: tl.constexpr,
    COUNT: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
):  # fmt: skip
    """Write into `found`, (6, rows): the rows' weighted losses, their parts of the mean's denominator, and for backward
    m, s₋, U and where the maximum is (an int32's bits)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    is_row = row < num_rows
    outer, inner = row // num_inner, row % num_inner
    z_at = z_ptr + outer * z_stride_n + inner * z_stride_s
    target_at = target_ptr + outer * t_stride_n + inner * t_stride_s
    lane = tl.arange(0, BLOCK_CLASSES)

    # Each lane has a maximum and a tail of its own; they meet once, at the end of the row.
    peaks = tl.full((BLOCK_ROWS, BLOCK_CLASSES), float("-inf"), tl.float32)
    tails = tl.zeros((BLOCK_ROWS, BLOCK_CLASSES), tl.float32)
    tops = tl.zeros((BLOCK_ROWS, BLOCK_CLASSES), tl.int32)
    for start in range(0, num_classes, BLOCK_CLASSES):
        classes = (start + lane).to(tl.int64)
        inside = is_row[:, None] & (classes < num_classes)[None, :]
        z = tl.load(z_at[:, None] + classes[None, :] * z_stride_k, mask=inside, other=float("-inf")).to(tl.float32)
        is_higher = z > peaks
        # Of two maxima the lower joins the tail of the higher; NaN is not higher, and stays in the tail.
        ratio = tl.where(z == float("-inf"), 0.0, tl.exp(tl.where(is_higher, peaks - z, z - peaks)))
        tails = tl.where(is_higher, (tails + 1.0) * ratio, tails + ratio)
        tops = tl.where(is_higher, start, tops)
        peaks = tl.where(is_higher, z, peaks)
    peak, top_lane = tl.max(peaks, 1, return_indices=True)
    is_top = lane[None, :] == top_lane[:, None]
    tail = tl.sum(tl.where(is_top, tails, (tails + 1.0) * tl.exp(peaks - peak[:, None])), 1)
    top = tl.sum(tl.where(is_top, tops, 0), 1) + top_lane
    # A row of only masked classes has no distribution; an infinite logit leaves none either.
    tail = tl.where((peak == float("-inf")) | (peak == float("inf")), float("nan"), tail)
    log_sum = log1p(tail)

    if SOFT:
        labels = tl.zeros((BLOCK_ROWS,), tl.int64)
        ignored, bad = row < 0, row < 0
    else:
        labels = tl.load(target_at, mask=is_row, other=0).to(tl.int64)
        ignored = labels == ignore_index
        bad = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
        labels = tl.where(ignored | bad, 0, labels)

    if SOFT or SMOOTHED:
        masses = tl.zeros((BLOCK_ROWS, BLOCK_CLASSES), tl.float32)
        below = tl.zeros((BLOCK_ROWS, BLOCK_CLASSES), tl.float32)
        for start in range(0, num_classes, BLOCK_CLASSES):
            classes = (start + lane).to(tl.int64)
            inside = is_row[:, None] & (classes < num_classes)[None, :]
            z = tl.load(z_at[:, None] + classes[None, :] * z_stride_k, mask=inside, other=0.0).to(tl.float32)
            wanted = _load_target(
                target_at, weight_ptr, row, labels, classes, t_stride_k, inside, smoothing, num_classes,
                SOFT, WEIGHTED, SMOOTHED,
            )  # fmt: skip
            masses += wanted
            below += tl.where(wanted == 0.0, 0.0, wanted * (peak[:, None] - z))
        mass = tl.sum(masses, 1)
        loss = mass * log_sum + tl.sum(below, 1)
    else:
        if WEIGHTED:
            mass = tl.load(weight_ptr + labels, mask=is_row, other=0.0).to(tl.float32)
        else:
            mass = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
        own = tl.load(z_at + labels * z_stride_k, mask=is_row, other=0.0).to(tl.float32)
        loss = mass * ((peak - own) + log_sum)

    counted = mass
    if COUNT or SOFT:
        counted = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
    elif SMOOTHED:  # the mean of smoothed labels divides by the weights of the labels
        if WEIGHTED:
            counted = tl.load(weight_ptr + labels, mask=is_row, other=0.0).to(tl.float32)
        else:
            counted = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
    silent = ignored | (mass == 0.0)
    if ROW_WEIGHTED:
        row_weight = tl.load(row_weight_ptr + row, mask=is_row, other=0.0).to(tl.float32)
        silent = silent | (row_weight == 0.0)
        loss *= row_weight
        if not COUNT:
            counted *= row_weight
    loss = tl.where(silent, 0.0, tl.where(bad, float("nan"), loss))
    at, size = found_ptr + row, tl.zeros((), tl.int64) + num_rows
    tl.store(at, loss, mask=is_row)
    tl.store(at + size, tl.where(ignored, 0.0, counted), mask=is_row)
    tl.store(at + 2 * size, peak, mask=is_row)
    tl.store(at + 3 * size, tail, mask=is_row)
    tl.store(at + 4 * size, tl.where(silent, 0.0, tl.where(bad, float("nan"), mass)), mask=is_row)
    tl.store(at + 5 * size, top.to(tl.float32, bitcast=True), mask=is_row)


@triton.jit
def log1p(x):
    """``log(1 + x)`` for x ≥ 0 by Kahan's correction: the rounding of 1 + x is divided out."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.where(u == float("inf"), u, tl.log(u) * (x / (u - 1.0))))


@triton.jit
def _backward(
    z_ptr, z_stride_n, z_stride_k, z_stride_s,
    grad_ptr, g_stride_n, g_stride_k, g_stride_s,
    target_ptr, t_stride_n, t_stride_k, t_stride_s,
    weight_ptr, row_weight_ptr, found_ptr, upstream_ptr, upstream_stride, sums_ptr, denominator,
    num_rows, num_inner, num_classes, ignore_index, smoothing,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, ROW_WEIGHTED: tl.constexpr, SMOOTHED: tl.constexpr,
    DIVIDED: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
):  # fmt: skip
    """Write the gradient of ``Σ upstream · loss / denominator``; `grad` may be the logits' own memory.

    If `DIVIDED`, the denominator is the second of the sums, and an empty mean has no gradient.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    is_row = row < num_rows
    outer, inner = row // num_inner, row % num_inner
    z_at = z_ptr + outer * z_stride_n + inner * z_stride_s
    grad_at = grad_ptr + outer * g_stride_n + inner * g_stride_s
    target_at = target_ptr + outer * t_stride_n + inner * t_stride_s
    lane = tl.arange(0, BLOCK_CLASSES)

    at, size = found_ptr + row, tl.zeros((), tl.int64) + num_rows
    peak = tl.load(at + 2 * size, mask=is_row, other=0.0)
    tail = tl.load(at + 3 * size, mask=is_row, other=0.0)
    mass = tl.load(at + 4 * size, mask=is_row, other=0.0)
    top = tl.load(at + 5 * size, mask=is_row, other=0.0).to(tl.int32, bitcast=True)
    factor = tl.load(upstream_ptr + row * upstream_stride, mask=is_row, other=0.0).to(tl.float32) / denominator
    if DIVIDED:
        divisor = tl.load(sums_ptr + 1).to(tl.float32)
        factor = tl.where(divisor == 0.0, 0.0, factor / divisor)
    if ROW_WEIGHTED:
        factor *= tl.load(row_weight_ptr + row, mask=is_row, other=0.0).to(tl.float32)
    silent = mass == 0.0
    inverse = 1.0 / (1.0 + tail)
    if SOFT:
        labels = tl.zeros((BLOCK_ROWS,), tl.int64)
    else:
        labels = tl.load(target_at, mask=is_row, other=0).to(tl.int64)
        labels = tl.where((labels < 0) | (labels >= num_classes), 0, labels)
        if not SMOOTHED:
            own = tl.load(z_at + labels * z_stride_k, mask=is_row, other=0.0).to(tl.float32)
            # 1 - p_y: all but the largest, or all but y, which is not the largest then
            missing = tl.where(labels == top, tail, 1.0 + (tail - tl.exp(own - peak))) * inverse
    for start in range(0, num_classes, BLOCK_CLASSES):
        classes = (start + lane).to(tl.int64)
        inside = is_row[:, None] & (classes < num_classes)[None, :]
        z = tl.load(z_at[:, None] + classes[None, :] * z_stride_k, mask=inside, other=float("-inf")).to(tl.float32)
        p = tl.exp(z - peak[:, None]) * inverse[:, None]
        if SOFT or SMOOTHED:
            wanted = _load_target(
                target_at, weight_ptr, row, labels, classes, t_stride_k, inside, smoothing, num_classes,
                SOFT, WEIGHTED, SMOOTHED,
            )  # fmt: skip
            slope = mass[:, None] * p - wanted
        else:
            slope = mass[:, None] * tl.where(labels[:, None] == classes[None, :], -missing[:, None], p)
        slope = tl.where(silent[:, None], 0.0, slope * factor[:, None])
        grad_tile = grad_at[:, None] + classes[None, :] * g_stride_k
        tl.store(grad_tile, slope.to(grad_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _reduce(
    found_ptr, value_ptr, sums_ptr, num_rows, denominator,
    DIVIDED: tl.constexpr, EMPTY_IS_ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the sum of the losses over its denominator: if `DIVIDED` the rows' parts, and both sums into `sums`."""
    lane = tl.arange(0, BLOCK)
    losses = tl.zeros((BLOCK,), tl.float64)
    counts = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, num_rows, BLOCK):
        row = start + lane
        is_row = row < num_rows
        losses += tl.load(found_ptr + row, mask=is_row, other=0.0).to(tl.float64)
        if DIVIDED:
            counts += tl.load(found_ptr + num_rows + row, mask=is_row, other=0.0).to(tl.float64)
    loss = tl.sum(losses, 0)
    if DIVIDED:
        count = tl.sum(counts, 0)
        tl.store(sums_ptr, loss)
        tl.store(sums_ptr + 1, count)
        value = loss / count
        if EMPTY_IS_ZERO:
            value = tl.where(count == 0.0, 0.0, value)
    else:
        value = loss / denominator
    tl.store(value_ptr, value.to(tl.float32))


forward, backward, reduce = _forward, _backward, _reduce
