"""What one call of a PyTorch loss shows: its pairing by autograd's graph, and its batch by the checks of `check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..names import Loss
from ..runtime import Symptom
from .checking import checked, pairing_of, symptom_of
from .graph import origin

__all__ = ["symptoms"]

_MOST_ENTRIES = 1 << 18


def symptoms(loss: Loss, given: Mapping[str, Any], *, is_early: bool) -> Iterator[Symptom]:
    """Give what is wrong with a call. The link of a loss that is not known is an empty text."""
    z, t = given.get(loss.prediction), given.get(loss.target)
    if not isinstance(z, Tensor) or not isinstance(t, Tensor):
        return
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        if t.requires_grad and not z.requires_grad and loss.link != "kl":
            first, second = loss.parameters[:2]
            yield symptom_of("XE301", f"labels and output are swapped: {loss.name} takes ({first}, {second})")
            return
        pairing = _pairing(loss, z, t)
        if pairing is not None:
            yield pairing
        z, t = _some(z.detach(), t.detach())
        if loss.link == "kl":
            yield from _divergence(z, t, given, pairing is not None)
            return
        if loss.reads == "log_probabilities":
            pairing = pairing or _unnormalized(loss, z)
            if pairing is not None:
                yield pairing
                return
        if loss.reads == "probabilities":
            z = z.double().logit().clamp(-100.0, 100.0)
        yield from checked(
            z,
            t,
            loss.link or None,
            is_form_known=pairing is not None or loss.reads != "logits",
            is_early=is_early,
            has_weight=given.get("weight") is not None and given.get("reduction", "mean") == "mean",
            ignore_index=given.get("ignore_index", -100),
        )


def _pairing(loss: Loss, z: Tensor, t: Tensor) -> Symptom | None:
    """Return the wrong pairing that autograd's graph shows."""
    kind = origin(z)
    if kind == "entry" and loss.link != "sigmoid":
        kind = "softmax"
    found = pairing_of(kind, loss, loss.reads)
    if found is not None and found.code == "XE105":  # two classes, and a distillation such as LwF's, are right
        is_distilled = t.requires_grad or bool(((t != 0) & (t != 1)).any())
        if is_distilled or z.ndim < 2 or z.shape[1] <= 2:
            return None
    return found


def _unnormalized(loss: Loss, z: Tensor) -> Symptom | None:
    """Return what is wrong with rows that are to be log-probabilities over axis 1."""
    axis = min(1, z.ndim - 1)
    sums = z.float().logsumexp(axis)
    if not bool(((sums.abs() > 0.05) & sums.isfinite()).float().mean() > 0.5):
        return None
    totals = z.float().sum(axis)
    if bool((z >= 0).all() and ((totals - 1).abs() < 0.01).all()):
        return symptom_of("XE106", f"softmax goes into {loss.name}, which takes log-probabilities (log_softmax)")
    text = (
        f"exp of the input of {loss.name} sums to {sums.median().exp().item():.4g} over the classes in the middle row"
    )
    return symptom_of("XE108", f"{text}, not to 1: it takes log-probabilities")


def _divergence(z: Tensor, t: Tensor, given: Mapping[str, Any], is_known: bool) -> Iterator[Symptom]:
    """Give what is wrong with the arguments of kl_div."""
    if not is_known and bool((z > 1e-3).any()):
        yield symptom_of("XE401", "the input of kl_div has numbers above 0, which no log-probabilities have")
    if not given.get("log_target") and bool((t <= 0).all() and (t < 0).any()):
        yield symptom_of(
            "XE402", "no number of kl_div's target is above 0, as in log-probabilities: pass log_target=True"
        )
    if given.get("reduction", "mean") == "mean" and z.ndim > 1:
        yield symptom_of("XE403", f'reduction="mean" divides by all {z.numel()} entries, and not by the rows')


def _some(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return every n-th row of both, so that few enough numbers are left. Classes are on axis 1."""
    for axis in sorted({*range(z.ndim)} - {min(1, z.ndim - 1)}, key=lambda axis: -z.shape[axis]):
        step = min(z.shape[axis], -(-z.numel() // _MOST_ENTRIES))
        of_target = axis if t.ndim == z.ndim else axis - (axis > 1)
        if step > 1 and t.ndim in (z.ndim, z.ndim - 1) and t.shape[of_target] == z.shape[axis]:
            z, t = (one[(*[slice(None)] * at, slice(None, None, step))] for one, at in ((z, axis), (t, of_target)))
    return z, t
