"""Options that are tensors keep their derivatives, of every kind, or say in one sentence that they have none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch.autograd import forward_ad

import crossent as ce
import crossent.torch as cet

from .problems import CLASSES, PRIOR, WEIGHT, WIDTH, logits_of, target_of
from .problems import SOFTMAX as PROBLEMS

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*jit.script.*")

Y = target_of(PROBLEMS[0])
Z = logits_of()
Z[0, (int(Y[0]) + 1) % CLASSES] = -torch.inf  # a masked class has no part in any of these gradients
X, W = (torch.randn(n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (9, CLASSES))
FOCAL = ce.Focal(1.5)

Function = Callable[[Tensor], Tensor]
OPTIONS: dict[str, tuple[Function, float | Tensor]] = {
    "temperature": (lambda v: cet.cross_entropy(Z, Y, temperature=v), 1.7),
    "soft cap": (lambda v: cet.cross_entropy(Z, Y, softcap=v, loss=FOCAL), 1.7),
    "normalizer": (lambda v: cet.cross_entropy(Z, Y, normalizer=v), 4.0),
    "prior_strength": (lambda v: cet.cross_entropy(Z, Y, prior=PRIOR, prior_strength=v), 0.7),
    "prior": (lambda v: cet.cross_entropy(Z, Y, prior=v), PRIOR),
    "margin": (lambda v: cet.cross_entropy(Z, Y, margin=v), 0.7),
    "alpha": (lambda v: cet.focal_loss(X, X.sigmoid(), alpha=v, link="sigmoid"), 0.3),
    "binary temperature": (lambda v: cet.binary_cross_entropy_with_logits(X, X.sigmoid(), temperature=v), 1.7),
    "weight": (lambda v: cet.cross_entropy(Z, Y, weight=v), WEIGHT),
    "weight of a focal loss": (lambda v: cet.cross_entropy(Z, Y, weight=v, loss=FOCAL, normalizer="count"), WEIGHT),
    "pos_weight": (lambda v: cet.binary_cross_entropy_with_logits(Z[1:], Z[1:].sigmoid(), pos_weight=v), WEIGHT),
    "sample_weight": (lambda v: cet.cross_entropy(Z, Y, sample_weight=v), torch.arange(1.0, 10.0).double()),
    "head's temperature": (lambda v: cet.linear_cross_entropy(X, W, Y, temperature=v), 1.7),
    "head's soft cap": (lambda v: cet.linear_cross_entropy(X, W, Y, softcap=v), 1.7),
    "head's normalizer": (lambda v: cet.linear_cross_entropy(X, W, Y, normalizer=v), 4.0),
    "head's weight": (lambda v: cet.linear_cross_entropy(X, W, Y, weight=v), WEIGHT),
}


def of(name: str) -> tuple[Function, Tensor, Tensor, Tensor]:
    """The loss as a function of one option, a point, a direction, and the slope there by a difference quotient."""
    function, at = OPTIONS[name]
    at = torch.as_tensor(at, dtype=torch.float64)
    along = torch.randn(at.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    step = 1e-5 * along
    slope = (function(at + step) - function(at - step)) / 2e-5
    assert abs(slope) > 1e-4
    return function, at, along, slope


@pytest.mark.parametrize("name", OPTIONS)
def test_backward_and_both_modes_of_transforms(name: str) -> None:
    function, at, along, want = of(name)
    leaf = at.clone().requires_grad_()
    function(leaf).backward()
    forward = torch.func.jvp(function, (at,), (along,))[1]
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(function(forward_ad.make_dual(at, along))).tangent
    for got in ((leaf.grad * along).sum(), (torch.func.grad(function)(at) * along).sum(), forward, dual):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", OPTIONS)
def test_vmap(name: str) -> None:
    function, at, along, _ = of(name)
    several = torch.stack([at, at + 0.01 * along])
    torch.testing.assert_close(torch.func.vmap(function)(several), torch.stack([function(v) for v in several]))


@pytest.mark.parametrize("name", ["temperature", "soft cap", "normalizer", "alpha", "weight", "head's temperature"])
def test_recorded_programs(name: str) -> None:
    torch._dynamo.reset()
    function, at, along, want = of(name)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    leaf = at.clone().requires_grad_()
    compiled(leaf).backward()
    torch.testing.assert_close((leaf.grad * along).sum(), want, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(compiled(at), function(at), rtol=1e-12, atol=1e-14)


def test_a_count_of_tokens_in_a_recorded_program() -> None:
    """What `transformers` passes as num_items_in_batch: an integer tensor."""
    for function, arguments in ((cet.cross_entropy, (Z, Y)), (cet.linear_cross_entropy, (X, W, Y))):
        compiled = torch.compile(
            lambda n, f=function, a=arguments: f(*a, normalizer=n), fullgraph=True, backend="eager"
        )
        for count in (7, 9):
            torch.testing.assert_close(compiled(torch.tensor(count)), function(*arguments, normalizer=count))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": torch.tensor(0.0)}, "temperature must be greater than 0"),
        ({"softcap": torch.tensor([1.0, 2.0])}, "softcap must be a finite number; got"),
        ({"normalizer": torch.tensor(0)}, "normalizer .* must be greater than 0"),
        ({"label_smoothing": torch.tensor(0.1, requires_grad=True)}, "label_smoothing must be a number"),
    ],
)
def test_what_is_no_such_number_is_refused(options: dict[str, Tensor], words: str) -> None:
    for extra in ({}, {"sample_weight": torch.ones(9).requires_grad_()}):
        with pytest.raises((TypeError, ValueError), match=words):
            cet.cross_entropy(Z, Y, **options, **extra)


def test_a_smoothing_without_gradient_is_a_number() -> None:
    assert cet.cross_entropy(Z[1:], Y[1:], label_smoothing=torch.tensor(0.125)) == cet.cross_entropy(
        Z[1:], Y[1:], label_smoothing=0.125
    )
