"""`make accuracy` with few rows: every bar holds, the page is what the results say, and a wrong digit is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossent as ce

from . import divergences, families, heads, linear, measure, reductions, report, run
from .compare import LOSSES, compare
from .judge import DTYPES
from .peers import BINARY_FOCAL, LABELS, available


def as_parameter(case: measure.Case) -> Any:
    """A case and its name; those whose sure rows need an oracle by series take 25 s each."""
    is_slow = case.by_series and case.families[0].name == "confident, right"
    name = f"{case.name}-{case.families[0].name}"
    return pytest.param(case, id=name, marks=pytest.mark.slow if is_slow else ())


@pytest.mark.parametrize("case", [as_parameter(case) for case in measure.CASES])
def test_every_bar_holds(case: measure.Case) -> None:
    found = measure.dense(24, 8, cases=[case])
    assert {dtype for _, _, dtype in found} == {"float32", "float64"}
    assert [text for errors in found.values() for text in errors.broken()] == []


def test_labels_are_judged_by_the_numbers_themselves() -> None:
    for errors in measure.dense(24, 8, cases=measure.CASES[:1]).values():
        assert errors.by_itself > 0
        assert errors.by_magnitudes == 0


PARTS = {
    "reductions": lambda: reductions.softmax(6) | reductions.sigmoid(5),
    "sigmoid link": lambda: heads.sigmoid(False),
    "probabilities": lambda: heads.probabilities(6),
    "statistics": lambda: heads.statistics(4) | heads.distances(9),
    "products": lambda: heads.products(3),
    "linear head": lambda: linear.measure(3),
    "many classes": lambda: measure.many_classes([3000]),
    "divergences": lambda: divergences.measures(64),
}


@pytest.mark.parametrize("part", PARTS)
def test_the_other_heads_keep_their_bars(part: str) -> None:
    found = PARTS[part]()
    assert [text for errors in found.values() for text in errors.broken()] == []
    assert run.misjudged(found) == []
    assert all(errors.rows > 0 for errors in found.values())


@pytest.mark.parametrize("spoil", [None, "bar", "judged by magnitudes"])
def test_the_exit_status(spoil: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    found = measure.dense(24, 8, cases=[measure.Case(ce.CrossEntropy(), (measure.CE,), families.HARD[:1])])
    errors = next(iter(found.values()))
    if spoil == "bar":
        errors.ulps["gradient"][0] = 4.5
    elif spoil:
        errors.by_magnitudes = 1
    monkeypatch.setattr(run, "parts", lambda budget: {"labels": lambda: found})
    assert run.main(["--quick"]) == (spoil is not None)
    assert ("BROKEN" in capsys.readouterr().out) == (spoil is not None)


def test_a_part_is_kept_as_it_ends_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads(report.RESULTS.read_text())
    results, page = tmp_path / "results.json", tmp_path / "accuracy.md"
    results.write_text(json.dumps(before))
    monkeypatch.setattr(run, "RESULTS", results)
    monkeypatch.setattr(report, "PAGE", page)
    case = measure.Case(ce.CrossEntropy(), (measure.CE,), families.HARD[:1])
    found = measure.dense(3, 3, cases=[case])

    def interrupted() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "parts", lambda budget: {"labels": lambda: found, "other labels": interrupted})
    with pytest.raises(KeyboardInterrupt):
        run.main(["--write"])
    after = json.loads(results.read_text())
    changed = [new for old, new in zip(before["records"], after["records"], strict=True) if new != old]
    assert changed == run.records_of(found)
    assert page.exists()
    with pytest.raises(SystemExit):
        run.main(["--only", "no such part"])


def plain(logits: np.ndarray, target: np.ndarray, **options: Any) -> Any:
    """Cross-entropy by the log-sum-exp trick."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1)
    rows = np.arange(len(target))
    gradient = np.exp(shifted) / total[:, None]
    gradient[rows, target] -= 1
    return np.log(total) - shifted[rows, target], gradient


def slightly_wrong(*args: Any, **options: Any) -> Any:
    value, gradient = ce.value_and_grad(*args, **options)
    return value, gradient * gradient.dtype.type(1 + 12 * np.finfo(gradient.dtype).eps)


@pytest.mark.parametrize("function", [plain, slightly_wrong])
def test_the_bars_have_teeth(function: Any) -> None:
    case = measure.Case(ce.CrossEntropy(), (measure.CE,), families.HARD[:1])
    found = measure.dense(24, 8, (function, ce.value_grad_hess), [case])
    assert all(errors.broken() for errors in found.values())
    assert all(record["gradient"]["max"] > record["gradient"]["bar"] for record in run.records_of(found))


def by_subtraction(student: np.ndarray, teacher: np.ndarray, temperature: float) -> Any:
    """Distillation as cross-entropy less entropy."""
    t = ce.softmax(teacher.astype(np.float64) / temperature).astype(teacher.dtype)
    losses = ce.cross_entropy(student / temperature, t, reduction="none") - ce.entropy(t)
    return temperature**2 * losses, temperature * (ce.softmax(student / temperature) - t)


def slightly_more(student: np.ndarray, teacher: np.ndarray, temperature: float) -> Any:
    value, gradient, _ = divergences.distilled(student, teacher, temperature)
    return value * (1 + 12 * np.finfo(value.dtype).eps), gradient


@pytest.mark.parametrize("function", [by_subtraction, slightly_more])
def test_the_bars_of_distillation_have_teeth(function: Any) -> None:
    found = divergences.distillation(8, function, divergences.FAMILIES[:1])
    assert all(errors.broken() for errors in found.values())


def test_the_bars_of_divergences_have_teeth() -> None:
    """Textbook formulas, and sums of both signs, break them."""

    def kl(p: np.ndarray, q: np.ndarray) -> Any:
        return (p * np.log(p / q)).sum()

    found = divergences.measures(32, {"KL": kl, "JS": lambda p, q: (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2})
    assert all(errors.broken() for errors in found.values())


def test_divergences_are_never_negative() -> None:
    for repeat in range(200):
        rng = np.random.default_rng(repeat)
        p = rng.dirichlet(np.ones(50)).astype((np.float32, np.float64)[repeat % 2])
        q = np.where(rng.random(50) < 0.5, p, np.nextafter(p, p.dtype.type(repeat % 3 == 0)))
        assert min(ce.kl_divergence(p, q), ce.kl_divergence(q, p), ce.js_divergence(p, q)) >= 0
        assert ce.information.mutual_information(np.outer(p, q)) >= 0
        assert ce.distillation_loss(np.log(q), np.log(p), temperature=10.0 ** (repeat % 9 - 4)) >= 0


def test_families_are_the_same_every_time_and_differ_by_seed() -> None:
    for family in families.EVERY:
        for dtype in DTYPES:
            first, again, other = (list(family.problems(dtype, 20, seed)) for seed in (0, 0, 1))
            for a, b in zip(first, again, strict=True):
                np.testing.assert_array_equal(a.logits, b.logits)
            assert any(a.logits.tobytes() != c.logits.tobytes() for a, c in zip(first, other, strict=True))


def test_peers_lose_digits_where_crossent_does_not() -> None:
    peers = [peer for peer in available() if peer.name in ("crossent", "SciPy", "scikit-learn", "PyTorch")]
    assert {"crossent", "SciPy", "scikit-learn"} <= {peer.name for peer in peers}
    for record in compare(peers, 13, [LABELS]):
        if record["library"] == "crossent":
            assert record["right"] == record["rows"], record
        elif record["family"] == "confident, right":
            assert record["right"] < 0.7 * record["rows"], record
            assert record["relative"]["value"] == pytest.approx(1.0)


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_every_loss_of_the_peers_keeps_its_bars_here(loss: str) -> None:
    """And SciPy's plain formulas, where there are some, do not."""
    peers = [peer for peer in available() if peer.name in ("crossent", "SciPy")]
    records = compare(peers, 35, [loss])
    of = {name: [r for r in records if r["library"] == name] for name in ("crossent", "SciPy")}
    assert all(r["right"] == r["rows"] for r in of["crossent"])
    assert loss == BINARY_FOCAL or any(r["right"] < r["rows"] for r in of["SciPy"])


def test_the_page_is_what_the_results_say() -> None:
    results = json.loads(report.RESULTS.read_text())
    speed = json.loads(report.SPEED.read_text())
    assert results["budget"] == "full"
    assert report.PAGE.read_text() == report.page(results, speed)
    for record in results["records"]:
        for what in ("value", "gradient", "diagonal"):
            assert what not in record or record[what]["max"] <= record[what]["bar"]
