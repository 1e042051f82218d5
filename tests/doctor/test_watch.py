"""`crossent.doctor.watch`: what it finds while a model trains, and that the training does not notice."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy as imported_by_name  # noqa: E402

import crossent.torch as ct  # noqa: E402
from crossent.doctor import Diary, watch  # noqa: E402
from crossent.doctor.training.graph import origin  # noqa: E402

WATCHED = {
    name: getattr(F, name)
    for name in ("cross_entropy", "nll_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits")
}

OURS = ct.cross_entropy


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert {name: getattr(F, name) for name in WATCHED} == WATCHED
    assert imported_by_name is WATCHED["cross_entropy"]
    assert ct.CrossEntropyLoss.function is ct.cross_entropy is OURS
    assert not nn.modules.module._global_forward_hooks


def quiet(*arguments: Any, **options: Any) -> Diary:
    return watch(*arguments, file=io.StringIO(), **options)


def codes(diary: Diary) -> list[str]:
    return [entry.symptom.code for entry in diary.entries]


def data(rows: int = 60, classes: int = 3) -> tuple[Any, Any]:
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(rows, 4, generator=drawn), torch.arange(rows) % classes


def model(*after: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), *after)


X, Y = data()
Z = model()(X).detach()
HOT = F.one_hot(Y, 3).float()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda z: F.cross_entropy(z.softmax(1), Y), "XE101"),
        (lambda z: F.cross_entropy(input=z.softmax(1), target=Y), "XE101"),
        (lambda z: imported_by_name(z.softmax(1), Y), "XE101"),
        (lambda z: nn.CrossEntropyLoss()(z.softmax(1), Y), "XE101"),
        (lambda z: F.cross_entropy(z.log_softmax(1).exp(), Y), "XE101"),
        (lambda z: F.cross_entropy(F.dropout(z.softmax(1), 0.3).bfloat16(), Y), "XE101"),
        (lambda z: F.cross_entropy(z.view(2, 30, 3).softmax(-1).transpose(1, 2), Y.view(2, 30)), "XE101"),
        (lambda z: F.cross_entropy(10 * z.softmax(1), Y), None),
        (lambda z: F.cross_entropy(z.log_softmax(1), Y), "XE102"),
        (lambda z: F.binary_cross_entropy_with_logits(z.sigmoid(), HOT), "XE103"),
        (lambda z: nn.BCEWithLogitsLoss()(z.sigmoid(), HOT), "XE103"),
        (lambda z: F.cross_entropy(z.sigmoid(), Y), "XE104"),
        (lambda z: F.binary_cross_entropy(z.softmax(1), HOT), "XE105"),
        (lambda z: F.binary_cross_entropy(z.softmax(1), 0.9 * HOT + 0.05), None),
        (lambda z: F.binary_cross_entropy(z[:, :2].softmax(1)[:, 1], HOT[:, 1]), None),
        (lambda z: F.nll_loss(z.softmax(1), Y), "XE106"),
        (lambda z: nn.NLLLoss()(z.softmax(1), Y), "XE106"),
        (lambda z: F.nll_loss(z.detach().softmax(1), Y), "XE106"),
        (lambda z: F.binary_cross_entropy_with_logits(z.softmax(1), HOT), "XE107"),
        (lambda z: F.nll_loss(nn.Linear(3, 3)(z), Y), "XE108"),
        (lambda z: F.nll_loss(z * 2, Y), "XE108"),
        (lambda z: F.nll_loss(z.log_softmax(1), Y), None),
        (lambda z: F.cross_entropy(HOT, z.softmax(1)), "XE301"),
        (lambda z: F.kl_div(z.softmax(1), HOT, reduction="batchmean"), "XE401"),
        (lambda z: F.kl_div(z.log_softmax(1), Z.log_softmax(1), reduction="batchmean"), "XE402"),
        (lambda z: F.kl_div(z.log_softmax(1), Z.softmax(1), reduction="batchmean"), None),
        (lambda z: ct.cross_entropy(z.softmax(1), Y), "XE101"),
        (lambda z: ct.CrossEntropyLoss()(z.softmax(1), Y), "XE101"),
        (lambda z: ct.focal_loss(z.softmax(1), Y), "XE101"),
        (lambda z: ct.binary_cross_entropy_with_logits(z.sigmoid(), HOT), "XE103"),
        (lambda z: F.cross_entropy(z, Y), None),
        (lambda z: F.cross_entropy(z, torch.full_like(Y, 255), ignore_index=255), "XE801"),
        (lambda z: F.cross_entropy(z.detach().softmax(1), Y), "XE802"),
    ],
)
def test_one_call(call: Callable[[Any], Any], code: str | None) -> None:
    with quiet() as diary:
        call(Z.clone().requires_grad_())
    assert diary.problems == []
    assert code in codes(diary) if code else not diary


def test_a_call_that_fails_is_looked_at_and_fails_as_before() -> None:
    with quiet() as diary, pytest.raises(IndexError, match="Target 3 is out of bounds"):
        F.cross_entropy(Z, Y + 1)
    assert codes(diary) == ["XE812"]


def train(steps: int, watched: bool, **options: Any) -> tuple[list[Any], Any]:
    """Train with dropout, accumulated gradients and autocast; return everything that could differ."""
    net = model(nn.Dropout(0.2))
    inner = contextlib.nullcontext() if not watched else quiet(net, every=2, **options)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    torch.manual_seed(2)
    losses = []
    with inner:
        for step in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=step % 3 == 0):
                loss = F.cross_entropy(net(X), Y) + nn.BCEWithLogitsLoss()(net(X).float(), HOT)
            loss.backward()
            losses.append(loss.detach())
            if step % 2:
                optimizer.step()
                optimizer.zero_grad()
    return [*losses, *(one.detach() for one in net.parameters())], torch.get_rng_state()


def test_no_number_changes() -> None:
    (alone, state), (watched, state_watched) = train(12, False), train(12, True)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))
    assert torch.equal(state, state_watched)


def test_checkpointed_blocks_are_not_recomputed_by_a_look() -> None:
    from torch.utils.checkpoint import checkpoint

    net, runs = model(nn.Softmax(dim=1)), []
    net[0].register_forward_hook(lambda *_: runs.append(1))
    with quiet(net) as diary:
        loss = F.cross_entropy(F.dropout(checkpoint(net, X, use_reentrant=False), 0.1), Y)
        assert len(runs) == 1
        loss.backward()
    assert codes(diary) == ["XE101"]


def test_a_compiled_model_and_a_compiled_step() -> None:
    net = model(nn.Softmax(dim=1))
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(x: Any, y: Any) -> Any:
        return F.cross_entropy(net(x), y)

    alone = step(X, Y), F.cross_entropy(compiled(X), Y)
    with quiet(net) as diary, quiet(compiled):
        inside = step(X, Y), F.cross_entropy(compiled(X), Y)
    assert torch.equal(alone[0], inside[0])
    assert torch.equal(alone[1], inside[1])
    assert torch.equal(step(X, Y), alone[0])
    assert codes(diary) == ["XE802"]  # by the numbers, for the graph of a compiled model shows no softmax
    torch.compiler.reset()


def test_hooks_go_when_the_block_raises() -> None:
    net = model()
    with pytest.raises(IndexError), quiet(net, loss=nn.CrossEntropyLoss()):
        F.cross_entropy(net(X), Y + 1)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())


def test_blocks_inside_one_another() -> None:
    with quiet() as outer, quiet() as inner:
        F.cross_entropy(Z, Y)
    assert [seen.calls for seen in outer.seen] == [1]
    assert [seen.calls for seen in inner.seen] == [1]


def test_the_first_calls_and_every_nth_of_each_place_are_looked_at() -> None:
    with quiet(first=2, every=5) as diary:
        for step in range(12):
            F.cross_entropy(Z, Y)
            if step == 0:
                F.cross_entropy(Z, Y)
    assert [(seen.calls, seen.looks) for seen in diary.seen] == [(12, 4), (1, 1)]


def test_a_finding_is_printed_once_and_the_end_says_what_was_looked_at() -> None:
    file = io.StringIO()
    with watch(file=file) as diary:
        for _ in range(5):
            F.cross_entropy(Z.softmax(1), Y)
    first, last = file.getvalue().splitlines()
    assert "test_watch.py" in first
    assert "XE802 error: " in first
    assert "1 finding; looked at 3 of 5 calls of cross_entropy" in last
    assert "Silence is not approval" in last
    assert str(diary).splitlines() == [line.removeprefix("crossent.doctor: ") for line in (first, last)]
    assert diary
    file = io.StringIO()
    with watch(file=file) as diary:
        pass
    assert file.getvalue() == "crossent.doctor: nothing found: no loss that the doctor knows was called.\n"
    assert not diary


class Log(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.log()


def message_of_nan(diary: Diary) -> str:
    return next(entry.symptom.message for entry in diary.entries if entry.symptom.code == "XE801")


def test_the_source_of_a_nan() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), Log(), nn.Linear(8, 3))
    counts, state = net[1].num_batches_tracked, torch.get_rng_state()
    with quiet(net, first=1, every=1000) as diary:
        F.cross_entropy(nn.Linear(4, 3)(X), Y)
        torch.set_rng_state(state)
        for _ in range(3):
            F.cross_entropy(net(X), Y)
        after = torch.get_rng_state()
    assert message_of_nan(diary) == (
        "cross_entropy is NaN or infinite; the first number that is not finite is in the output of 3 (Log)"
    )
    assert counts == 3
    torch.set_rng_state(state)
    for _ in range(3):
        net(X)
    assert torch.equal(torch.get_rng_state(), after)


def test_the_source_of_a_nan_is_found_in_the_precision_of_the_model() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    with torch.no_grad():
        net[0].weight.fill_(1e5)
    with quiet(net) as diary:
        with torch.autocast("cpu", torch.float16):
            z = net(X)
        F.cross_entropy(z.float(), Y)
    assert "in the output of 0 (Linear)" in message_of_nan(diary)


def test_a_nan_of_the_parameters_of_the_input_of_the_labels_and_without_a_model() -> None:
    net, bad = model(), X.clone()
    bad[0, 0] = torch.nan
    with quiet(net) as diary:
        F.cross_entropy(net(bad), Y)
    assert message_of_nan(diary).endswith("what goes into the model is not finite")
    with quiet() as diary:
        F.cross_entropy(net(bad), Y)
    assert message_of_nan(diary).endswith("give `watch` the model to learn where it comes from")
    with quiet(net) as diary:
        F.cross_entropy(net(X), torch.full_like(Y, -100))
    assert message_of_nan(diary).endswith("the logits are not, so it comes from labels, masks or weights")
    with torch.no_grad():
        net[2].weight[0, 0] = torch.inf
    with quiet(net) as diary:
        F.cross_entropy(net(X), Y)
    assert message_of_nan(diary).endswith("the parameter 2.weight is not finite, so a step before this one broke it")


def test_one_loss_alone() -> None:
    criterion = nn.CrossEntropyLoss()
    for loss, call in ((criterion, criterion), (F.cross_entropy, lambda z, y: F.cross_entropy(z, y))):
        z = Z.clone().requires_grad_()
        with quiet(loss=loss) as diary:
            F.binary_cross_entropy(z.sigmoid(), HOT)
            call(z.softmax(1), Y)
            diary.loss(z.softmax(1), Y)
        assert [(seen.name, seen.calls) for seen in diary.seen] == [("cross_entropy", 1), ("cross_entropy", 1)]
        assert codes(diary) == ["XE101", "XE101"]


def by_hand(logits: Any, labels: Any) -> Any:
    return -logits.log_softmax(1).gather(1, labels[:, None]).mean()


class ByHand(nn.Module):
    def forward(self, logits: Any, labels: Any) -> Any:
        return by_hand(logits, labels)


@pytest.mark.parametrize("loss", [by_hand, ByHand(), lambda z, y: by_hand(z, y)])
def test_a_loss_that_is_not_known(loss: Any) -> None:
    with quiet(loss=loss) as diary:
        diary.loss(Z.softmax(1), Y)
        if loss is by_hand:
            by_hand(Z.softmax(1), Y)
    assert codes(diary)[:1] == ["XE802"]
    assert len(diary.seen) == 1 + (loss is by_hand)
    with quiet(loss=loss) as diary, pytest.raises((RuntimeError, IndexError)):
        diary.loss(Z, Y + 7)


def test_tensors_that_cannot_be_read_are_named_and_nothing_fails() -> None:
    with quiet() as diary:
        losses = torch.func.vmap(lambda z, y: F.cross_entropy(z, y))(Z, Y)
    assert torch.equal(losses, F.cross_entropy(Z, Y, reduction="none"))
    assert len(diary.problems) == 1
    assert "Not looked at: cross_entropy" in diary.summary


def test_a_tensor_class_is_shown_the_function_that_it_knows() -> None:
    shown = []

    class Own(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            shown.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    with quiet() as diary:
        F.cross_entropy(Z.as_subclass(Own), Y)
        with torch.device("cpu"):
            F.cross_entropy(Z, Y)
    assert WATCHED["cross_entropy"] in shown
    assert [seen.calls for seen in diary.seen] == [1, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"first": 0}, "first must be a whole number from 1 on; got 0"),
        ({"every": 2.5}, "every must be a whole number from 1 on; got 2.5"),
        ({"loss": 3}, "loss must be a loss module, a function, or None; got int"),
        ({"model": 3}, "model must be a torch.nn.Module or None; got int"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        watch(**options)


def test_a_diary_is_for_one_block() -> None:
    diary = quiet()
    with pytest.raises(RuntimeError, match="inside the `with` block"):
        diary.loss(Z, Y)
    with diary, pytest.raises(RuntimeError, match="is in use"), diary:
        pass


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda z: z.softmax(1), "softmax"),
        (lambda z: torch.cat([z.softmax(1), z.softmax(1)]), "softmax"),
        (lambda z: torch.cat([z.softmax(1), z]), None),
        (lambda z: z.softmax(1)[:, 0], "entry"),
        (lambda z: z.softmax(1).log(), "log_softmax"),
        (lambda z: F.logsigmoid(z).exp().clamp(0.1, 0.9), "sigmoid"),
        (lambda z: nn.Linear(3, 2)(z), "linear"),
        (lambda z: nn.Linear(3, 2)(z).clamp(0, 1), None),
        (lambda z: z.relu(), None),
        (lambda z: z, None),
        (lambda z: z.detach(), None),
        (lambda z: z.softmax(1).sum(1), None),
    ],
)
def test_origin(made: Callable[[Any], Any], kind: str | None) -> None:
    assert origin(made(Z.clone().requires_grad_())) == kind
