"""The losses as one would write them in a notebook, in float64 torch, differentiated by its autodiff."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from .tables import LossCase, Problem

torch.set_num_threads(1)  # the tensors are tiny, and test processes share the machine


def softmax_rows(z: Any, target: Any, case: LossCase, weight: Any) -> Any:
    """The loss of each row (N,) for distributions `target` (N, K), after smoothing; `weight` broadcasts to (N, K)."""
    logp = torch.log_softmax(z, -1)
    p = logp.exp()
    logp = torch.where(torch.isinf(z), 0.0, logp)  # masked classes carry no target mass in these problems
    nll = -(weight * target * logp).sum(-1)
    miss = ((1 - target) * p).sum(-1)
    mass = (weight * target).sum(-1)
    total = torch.zeros(len(z), dtype=torch.float64)
    for name, scale, a in case.terms:
        if name == "cross_entropy":
            term = nll
        elif name == "focal":
            term = miss**a * nll
        elif name == "poly1":
            term = nll + a * mass * miss
        elif name == "gce":
            term = mass * (1 - (target * p).sum(-1) ** a) / a
        elif name == "z_penalty":
            term = torch.logsumexp(z, -1) ** 2
        elif name == "entropy":
            term = -(p * logp).sum(-1)
        elif name == "brier":
            term = mass * ((p - target) ** 2).sum(-1)
        else:
            raise KeyError(name)
        total = total + scale * term
    return total


def row_losses(z: Any, problem: Problem, case: LossCase) -> Any:
    """Losses before any reduction, sample weights included: (N,) under softmax, (N, K) under the sigmoid."""
    o = problem.options
    counted = torch.tensor(problem.counted)
    labels = np.where(problem.target == -100, 0, problem.target)
    if o.get("softcap") is not None:
        z = torch.where(torch.isinf(z), z, o["softcap"] * torch.tanh(z / o["softcap"]))
    z = z / o.get("temperature", 1.0)
    epsilon = o.get("label_smoothing", 0.0)
    if problem.link == "softmax":
        k = problem.logits.shape[1]
        if "prior" in o:
            z = z + o.get("prior_strength", 1.0) * torch.log(torch.tensor(o["prior"]))
        soft = problem.target.dtype.kind == "f"
        target = torch.tensor(labels if soft else np.eye(k)[labels], dtype=torch.float64)
        if "margin" in o:
            z = z - torch.tensor(o["margin"], dtype=torch.float64) * target
        target = (1 - epsilon) * target + epsilon / k
        weight = torch.tensor(o.get("weight", np.ones(k)))
        losses = softmax_rows(z, target, case, weight)
    else:
        if "prior" in o:
            rate = torch.tensor(o["prior"])
            z = z + o.get("prior_strength", 1.0) * (torch.log(rate) - torch.log(1 - rate))
        t = torch.tensor(np.asarray(labels, dtype=np.float64).ravel())
        t = (1 - epsilon) * t + epsilon / 2
        pos_weight = torch.tensor(np.broadcast_to(o.get("pos_weight", 1.0), z.shape).copy()).ravel()
        pair = torch.stack([torch.zeros_like(z.ravel()), z.ravel()], -1)
        weight = torch.stack([torch.ones_like(pos_weight), pos_weight], -1)
        if "alpha" in o:
            weight = weight * torch.tensor([1 - o["alpha"], o["alpha"]], dtype=torch.float64)
        losses = softmax_rows(pair, torch.stack([1 - t, t], -1), case, weight).reshape(z.shape)
        if "weight" in o:
            losses = losses * torch.tensor(o["weight"])
    if "sample_weight" in o:
        s = torch.tensor(o["sample_weight"])
        losses = losses * (s if problem.link == "softmax" else s[:, None])
    return torch.where(counted, losses, 0.0)


def _leaf(problem: Problem) -> Any:
    return torch.tensor(problem.logits.astype(np.float64), requires_grad=True)


@cache
def values(problem: Problem, case: LossCase) -> np.ndarray:
    return row_losses(_leaf(problem), problem, case).detach().numpy()


@cache
def gradient(problem: Problem, case: LossCase) -> np.ndarray:
    z = _leaf(problem)
    (g,) = torch.autograd.grad(row_losses(z, problem, case).sum(), z)
    return torch.where(torch.isinf(z), 0.0, g).numpy()


@cache
def hessian(problem: Problem, case: LossCase) -> np.ndarray:
    """(N, K, K), the Hessian of each row; rows do not see one another, so K backward passes make all of them."""
    z = _leaf(problem)
    (g,) = torch.autograd.grad(row_losses(z, problem, case).sum(), z, create_graph=True)
    g = torch.where(torch.isinf(z), 0.0, g)
    columns = []
    for k in range(z.shape[1]):
        column = torch.zeros_like(z)
        if g.requires_grad:  # else the loss is linear in what is not masked
            (column,) = torch.autograd.grad(g[:, k].sum(), z, retain_graph=True)
        columns.append(torch.where(torch.isinf(z), 0.0, column))
    return torch.stack(columns, dim=1).detach().numpy()


def hessian_diagonal(problem: Problem, case: LossCase) -> np.ndarray:
    return np.einsum("nkk->nk", hessian(problem, case))


def hessian_vector_product(problem: Problem, case: LossCase, vector: np.ndarray) -> np.ndarray:
    return np.einsum("nij,nj->ni", hessian(problem, case), vector.astype(np.float64))
