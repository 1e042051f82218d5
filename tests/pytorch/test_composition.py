"""What PyTorch does with a function: records it, transforms it, differentiates it again, casts and exports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import crossent as ce
import crossent.torch as cet
from crossent.kernels import registry

from .problems import CLASSES, PROBLEMS, ROWS, SOFTMAX, WIDTH, Problem, logits_of, target_of

# PyTorch's own: its forward derivatives go through a deprecated part of it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*jit.script.*")

CHOSEN = [p for p in PROBLEMS if p.name in {"cross-entropy", "focal 0.5, weights", "entropy, smoothed", "brier, soft"}]
CHOSEN += [p for p in PROBLEMS if p.name in {"soft cap", "ignored", "sigmoid focal 2", "distillation"}]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    """One function is compiled for many problems here, more often than Dynamo lets a program do."""
    torch._dynamo.reset()


def loss_of(problem: Problem, reduction: str = "mean") -> Callable[[Tensor], Tensor]:
    function = cet.binary_cross_entropy_with_logits if problem.link == "sigmoid" else cet.cross_entropy
    target = target_of(problem)
    return lambda z: function(z, target, reduction=reduction, **problem.options)


def eager_gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_()
    loss(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def direction() -> Tensor:
    return torch.randn(ROWS, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("problem", CHOSEN, ids=str)
class TestTransforms:
    """Numbers are compared: a registered operator's forward derivative would be 0 without a word."""

    def test_grad(self, problem: Problem) -> None:
        loss = loss_of(problem)
        torch.testing.assert_close(grad(loss)(logits_of()), eager_gradient(loss, logits_of()), rtol=1e-10, atol=1e-14)

    def test_jvp(self, problem: Problem) -> None:
        loss = loss_of(problem)
        _, tangent = jvp(loss, (logits_of(),), (direction(),))
        want = (eager_gradient(loss, logits_of()) * direction()).sum()
        assert tangent.item() != 0
        torch.testing.assert_close(tangent, want, rtol=1e-9, atol=1e-14)

    def test_forward_mode_without_functorch(self, problem: Problem) -> None:
        loss = loss_of(problem)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(logits_of(), direction())
            tangent = torch.autograd.forward_ad.unpack_dual(loss(dual)).tangent
        want = (eager_gradient(loss, logits_of()) * direction()).sum()
        torch.testing.assert_close(tangent, want, rtol=1e-9, atol=1e-14)

    def test_hessian(self, problem: Problem) -> None:
        loss = loss_of(problem)
        got = hessian(loss)(logits_of())
        leaf = logits_of().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        (want,) = torch.autograd.grad(gradient, leaf, direction())
        product = torch.einsum("ijkl,kl->ij", got, direction())
        torch.testing.assert_close(product, want, rtol=1e-8, atol=1e-12)

    def test_both_jacobians_of_the_rows_agree(self, problem: Problem) -> None:
        loss = loss_of(problem, "none")
        torch.testing.assert_close(jacfwd(loss)(logits_of()), jacrev(loss)(logits_of()), rtol=1e-9, atol=1e-13)

    def test_vmap(self, problem: Problem) -> None:
        loss = loss_of(problem)
        batch = torch.stack([logits_of(), 2 * logits_of(), -logits_of()])
        torch.testing.assert_close(vmap(loss)(batch), torch.stack([loss(z) for z in batch]), rtol=1e-10, atol=1e-13)
        want = torch.stack([eager_gradient(loss, z) for z in batch])
        torch.testing.assert_close(vmap(grad(loss))(batch), want, rtol=1e-9, atol=1e-13)

    def test_gradcheck(self, problem: Problem) -> None:
        loss, leaf = loss_of(problem), logits_of().requires_grad_()
        assert torch.autograd.gradcheck(loss, leaf, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(loss, leaf, check_fwd_over_rev=True)

    def test_compiled_without_a_break(self, problem: Problem) -> None:
        loss = loss_of(problem)
        compiled = torch.compile(lambda z: 2 * loss(z), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(logits_of()), 2 * loss(logits_of()), rtol=1e-12, atol=1e-14)
        want = 2 * eager_gradient(loss, logits_of())
        torch.testing.assert_close(eager_gradient(compiled, logits_of()), want, rtol=1e-10, atol=1e-14)


def test_per_sample_gradients() -> None:
    """The usual recipe: vmap over grad of a model called functionally."""
    model = torch.nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    x, y = torch.randn(ROWS, WIDTH, dtype=torch.float64), torch.randint(0, CLASSES, (ROWS,))

    def loss(parameters: Any, x: Tensor, y: Tensor, function: Any) -> Tensor:
        return function(functional_call(model, parameters, (x[None],)), y[None])

    got, want = (
        vmap(grad(loss), in_dims=(None, 0, 0, None))(parameters, x, y, function)
        for function in (cet.cross_entropy, F.cross_entropy)
    )
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-13)


def test_labels_out_of_range_are_nan_where_nothing_can_raise() -> None:
    y = torch.tensor([0, CLASSES, 2, -5, 1, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="row 1"):
        cet.cross_entropy(logits_of(), y)
    losses = vmap(lambda z, t: cet.cross_entropy(z[None], t[None], reduction="none")[0])(logits_of(), y)
    assert losses.isnan().tolist() == [False, True, False, True, *[False] * 5]
    compiled = torch.compile(lambda z: cet.cross_entropy(z, y, reduction="none"), fullgraph=True, backend="aot_eager")
    assert compiled(logits_of()).isnan().tolist() == losses.isnan().tolist()
    gradient = eager_gradient(compiled, logits_of())
    assert gradient.isnan().any(1).tolist() == losses.isnan().tolist()


# --- Registered operators ---------------------------------------------------------------------------------------------


def head_arguments(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = ((ROWS, WIDTH), (CLASSES, WIDTH), (CLASSES,))
    x, w, b = (torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes)
    return x, w, b, target_of(SOFTMAX[0])


def test_opcheck() -> None:
    z = logits_of().requires_grad_()
    y, weight = target_of(SOFTMAX[0]), torch.rand(CLASSES, dtype=torch.float64)
    terms = [1.0, 1.0, 2.0]
    torch.library.opcheck(torch.ops.crossent.row_loss, (z, y, None, weight, [0.1, *terms]))
    rows = torch.rand(ROWS, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.crossent.row_loss_gradient, (rows, z, y, None, weight, [0.1, *terms]))
    soft = logits_of().softmax(-1)
    torch.library.opcheck(torch.ops.crossent.row_loss, (z, None, soft, None, [0.0, *terms]))
    torch.library.opcheck(torch.ops.crossent.row_loss_gradient, (rows, z, None, soft, None, [0.0, *terms]))
    x, w, b, _ = head_arguments()
    nan = float("nan")
    numbers = [0.1, 1.0, nan, nan, *terms]
    losses = (x, w, b, y, weight, None, None, None, numbers)
    nothing = [False, False, False]
    torch.library.opcheck(torch.ops.crossent.linear_loss, (*losses, nothing))
    factor = torch.rand(ROWS, dtype=torch.float64)
    torch.library.opcheck(
        torch.ops.crossent.linear_loss,
        (x, w, b, y, weight, None, None, factor, numbers, [True, True, True]),
    )
    prior, margin, mapped = soft[0], torch.tensor(0.3, dtype=torch.float64), [0.0, 0.5, 3.0, 2.0, *terms]
    for tensors in ((x, w, None, y, None, prior, margin), (x, w, b, soft, None, prior, None)):
        torch.library.opcheck(torch.ops.crossent.linear_loss, (*tensors, None, mapped, nothing))
        wanted = [False, True, False]
        frozen = (x.detach(), w, *(None if t is None else t.detach() for t in tensors[2:]))
        torch.library.opcheck(torch.ops.crossent.linear_loss, (*frozen, factor, mapped, wanted))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("problem", [p for p in SOFTMAX if "generalised" not in p.name][::3], ids=str)
def test_a_compiled_linear_head(problem: Problem, reduction: str) -> None:
    x, w, b, _ = head_arguments()
    target = target_of(problem)

    def loss(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return cet.linear_cross_entropy(x, w, target, linear_bias=b, reduction=reduction, **problem.options)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, want = compiled(x, w, b), loss(x, w, b)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14, equal_nan=True)
    upstream = torch.linspace(0.5, 1.5, want.numel(), dtype=torch.float64).reshape(want.shape)
    for mine, other in zip(*(torch.autograd.grad(o, (x, w, b), upstream) for o in (got, want)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-13)


def test_masked_classes_stay_masked_under_a_recorded_soft_cap() -> None:
    z, y = logits_of(), target_of(SOFTMAX[0])
    padded = torch.cat([z, torch.full((ROWS, 2), -torch.inf, dtype=z.dtype)], 1)

    def loss(z: Tensor) -> Tensor:
        return cet.cross_entropy(z, y, softcap=2.0)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(padded), loss(z), rtol=1e-12, atol=0)
    gradient = eager_gradient(compiled, padded)
    torch.testing.assert_close(gradient[:, :CLASSES], eager_gradient(loss, z), rtol=1e-10, atol=1e-14)
    assert (gradient[:, CLASSES:] == 0).all()


def test_inductor_compiles_it() -> None:
    """The default backend, once: it needs a C++ compiler."""
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"no C++ compiler: {error}")
    y = target_of(SOFTMAX[0])
    compiled = torch.compile(lambda z: cet.cross_entropy(z.tanh(), y, loss=ce.Focal(2.0)), fullgraph=True)
    want = eager_gradient(lambda z: cet.cross_entropy(z.tanh(), y, loss=ce.Focal(2.0)), logits_of())
    torch.testing.assert_close(eager_gradient(compiled, logits_of()), want, rtol=1e-10, atol=1e-14)


def test_export() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(WIDTH, CLASSES, dtype=torch.float64)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return cet.cross_entropy(self.layer(x), y, label_smoothing=0.1)

    model, (x, *_, y) = Model(), head_arguments()
    program = torch.export.export(model, (x.detach(), y))
    torch.testing.assert_close(program.module()(x.detach(), y), model(x.detach(), y), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_export_of_the_linear_head_with_any_number_of_rows(reduction: str) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = cet.LinearCrossEntropyLoss(WIDTH, CLASSES, reduction=reduction, dtype=torch.float64)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(x, y)

    model, (x, *_, y) = Model(), head_arguments()
    rows = {0: torch.export.Dim("rows", min=2, max=1000)}
    program = torch.export.export(model, (x.detach(), y), dynamic_shapes=(rows, rows)).module()
    for n in (2, ROWS):
        torch.testing.assert_close(program(x[:n].detach(), y[:n]), model(x[:n], y[:n]), rtol=1e-12, atol=1e-14)


# --- Gradients asked for, and not -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_two_backwards_give_the_same_gradient(reduction: str) -> None:
    leaf = logits_of().requires_grad_()
    loss = cet.cross_entropy(leaf, target_of(SOFTMAX[0]), reduction=reduction).sum() * 3.0
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0].clone()
    second = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    x, w, b, y = head_arguments()
    loss = cet.linear_cross_entropy(x, w, y, linear_bias=b, reduction=reduction).sum() * 3.0
    before = [t.clone() for t in torch.autograd.grad(loss, (x, w, b), retain_graph=True)]
    for one, other in zip(before, torch.autograd.grad(loss, (x, w, b)), strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_a_gradient_that_is_written_into_is_not_handed_out_again() -> None:
    leaf = logits_of().requires_grad_()
    loss = cet.cross_entropy(leaf, target_of(SOFTMAX[0]))
    loss.backward(retain_graph=True)
    want = leaf.grad.clone()
    leaf.grad.zero_()
    loss.backward()
    torch.testing.assert_close(leaf.grad, want, rtol=0, atol=0)


def test_logits_changed_in_place_are_noticed() -> None:
    leaf = logits_of().requires_grad_()
    z = leaf * 1
    loss = cet.cross_entropy(z, target_of(SOFTMAX[0]), reduction="none")
    z.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True), (False, True, True)]
)
def test_frozen_arguments_get_no_gradient_and_the_others_theirs(wanted: tuple[bool, bool, bool]) -> None:
    arguments = [t.detach().requires_grad_(want) for t, want in zip(head_arguments()[:3], wanted, strict=True)]
    everything = head_arguments()
    y = everything[3]
    cet.linear_cross_entropy(*arguments[:2], y, linear_bias=arguments[2]).backward()
    cet.linear_cross_entropy(*everything[:2], y, linear_bias=everything[2]).backward()
    for got, full, want in zip(arguments, everything, wanted, strict=False):
        if want:
            torch.testing.assert_close(got.grad, full.grad, rtol=0, atol=0)
        else:
            assert got.grad is None


class Operations(TorchDispatchMode):
    """Counts matrix products, and the numbers of the largest tensor that an operation made (a view makes none)."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "bmm", "matmul"):
            self.products.append(func.overloadpacket.__name__)
        held = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in held:
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Operations:
    """A counter under which the eager path is still taken, which a recording mode would leave."""
    mode = Operations()
    monkeypatch.setattr("crossent.torch.tensors.is_traced", lambda: False)
    return mode


@pytest.mark.parametrize(
    ("reduction", "with_gradient", "products"),
    [("mean", True, 3), ("sum", True, 3), ("none", True, 4), ("mean", False, 1)],
)
def test_the_linear_head_needs_three_products(
    counted: Operations, reduction: str, with_gradient: bool, products: int
) -> None:
    x, w, _, y = head_arguments(torch.float32)
    with torch.set_grad_enabled(with_gradient), counted:
        loss = cet.linear_cross_entropy(x, w, y, reduction=reduction)
        if with_gradient:
            loss.sum().backward()
    assert len(counted.products) == products


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("statistics", [False, True])
def test_the_linear_head_never_holds_its_logits(
    counted: Operations, monkeypatch: pytest.MonkeyPatch, reduction: str, statistics: bool
) -> None:
    rows, classes, width = 64, 50, 8
    monkeypatch.setattr("crossent.core.linear.BLOCK_BYTES", 4 * classes * 8)  # blocks of eight rows
    x, w = (torch.randn(n, width, requires_grad=True) for n in (rows, classes))
    y = torch.randint(0, classes, (rows,))
    with counted:
        result = cet.linear_cross_entropy(x, w, y, reduction=reduction, return_statistics=statistics)
        value = result.loss.sum() + result.entropy.sum() if statistics else result.sum()
        value.backward()
    assert counted.largest <= max(8 * classes, rows * width)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_no_loss_or_option_makes_the_head_hold_its_logits(
    counted: Operations, monkeypatch: pytest.MonkeyPatch, problem: Problem, reduction: str
) -> None:
    monkeypatch.setattr("crossent.core.linear.BLOCK_BYTES", 2 * CLASSES * 8)
    x, w, b, _ = head_arguments()
    target = target_of(problem)
    with counted:
        loss = cet.linear_cross_entropy(
            x, w, target, linear_bias=b, link=problem.link, reduction=reduction, **problem.options
        )
        loss.sum().backward()
    assert counted.largest <= max(x.numel(), w.numel()) < ROWS * CLASSES


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}], ids=["short way", "general way"])
def test_no_gradient_is_computed_where_none_is_wanted(
    options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossent.torch.autograd import OfLogits

    asked = []
    forward = OfLogits.forward
    monkeypatch.setattr(
        OfLogits, "forward", lambda self, given, wanted: asked.append(wanted[0]) or forward(self, given, wanted)
    )
    leaf = logits_of().requires_grad_()
    twin, addresses = registry.find("float64"), []
    mean_at = twin.mean_at
    monkeypatch.setattr(twin, "mean_at", lambda *given: addresses.append(given[3]) or mean_at(*given))
    labels = torch.arange(len(leaf)) % leaf.shape[1]
    with torch.no_grad():
        assert not cet.cross_entropy(leaf, labels, **options).requires_grad
    assert not cet.cross_entropy(leaf.detach(), labels, **options).requires_grad
    assert cet.cross_entropy(leaf, labels, **options).requires_grad
    short, general = [address != 0 for address in addresses], asked
    assert (general if options else short) == [False, False, True]


def test_statistics_need_no_product_more(counted: Operations) -> None:
    x, w, _, y = head_arguments(torch.float32)
    with counted:
        cet.linear_cross_entropy(x, w, y, return_statistics=True).loss.backward()
    assert len(counted.products) == 3


def test_logits_are_read_where_they_are() -> None:
    """No copy on the way to the kernels, in any precision."""
    from crossent.torch.tensors import as_numpy

    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        tensor = logits_of(dtype)
        assert as_numpy(tensor).__array_interface__["data"][0] == tensor.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    x, w, b, y = head_arguments(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        logits = F.linear(x, w, b)
        assert logits.dtype is dtype
        dense = cet.cross_entropy(logits, y)
        linear = cet.linear_cross_entropy(x, w, y, linear_bias=b)
        linear.backward()
    assert dense.dtype is linear.dtype is torch.float32
    torch.testing.assert_close(dense, linear, rtol=1e-2, atol=1e-2)
    assert x.grad.dtype is w.grad.dtype is torch.float32
    rounding = torch.finfo(dtype).eps
    exact = [t.detach().double().requires_grad_() for t in (x, w, b)]
    F.cross_entropy(F.linear(*exact), y).backward()
    for mine, other in zip((x, w, b), exact, strict=True):
        assert (mine.grad - other.grad).norm() < 2 * rounding * other.grad.norm()


def test_statistics_beside_the_loss() -> None:
    x, w, b, y = head_arguments()
    y = y.clone()
    y[0] = -100
    found = cet.linear_cross_entropy(x, w, y, linear_bias=b, return_statistics=True)
    logits = F.linear(x, w, b)
    log_p = F.log_softmax(logits, -1)
    own = torch.where(y < 0, 0.0, log_p.gather(1, y.clamp(min=0)[:, None])[:, 0])
    want = {
        "loss": F.cross_entropy(logits, y),
        "lse": logits.logsumexp(-1),
        "entropy": -(log_p.exp() * log_p).sum(-1),
        "log_prob": own,
    }
    for name, value in want.items():
        torch.testing.assert_close(getattr(found, name), value, rtol=1e-12, atol=1e-14)
        mine, other = (
            torch.autograd.grad(
                (v * torch.arange(1, v.numel() + 1).reshape(v.shape)).sum(), (x, w, b), retain_graph=True
            )
            for v in (getattr(found, name), value)
        )
        for one, two in zip(mine, other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    assert torch.equal(found.argmax, logits.argmax(-1))
    assert torch.equal(found.correct, logits.argmax(-1) == y)
    assert found.accuracy.item() == pytest.approx(found.correct[1:].double().mean().item())


def test_statistics_have_gradients_of_every_row_and_all_together() -> None:
    x, w, b, y = head_arguments()
    found = cet.linear_cross_entropy(x, w, y, linear_bias=b, return_statistics=True, softcap=3.0)
    logits = 3.0 * torch.tanh(F.linear(x, w, b) / 3.0)
    log_p = F.log_softmax(logits, -1)
    mine = found.loss + found.entropy.sum() - 2 * found.lse.mean() + (found.log_prob * torch.arange(ROWS)).sum()
    entropy = -(log_p.exp() * log_p).sum()
    other = F.cross_entropy(logits, y) + entropy - 2 * logits.logsumexp(-1).mean()
    other = other + (log_p.gather(1, y[:, None])[:, 0] * torch.arange(ROWS)).sum()
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-13)
    for one, two in zip(*(torch.autograd.grad(v, (x, w, b)) for v in (mine, other)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
