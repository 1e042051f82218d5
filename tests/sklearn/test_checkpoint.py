"""Fits that stop half-way and go on: to the same bits, from nothing but their own checkpoint."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from damage import damages, wrong_with_sentence
from exact_oracle import ROUNDING, relative_excess
from plans import tune
from safetensors.numpy import save
from sklearn.exceptions import ConvergenceWarning

import crossent as ce
from crossent.regression.checkpoint import FORMAT_VERSION, HEADER_ENTRY, Checkpoint, read_checkpoint
from crossent.sealed import seal, unseal
from crossent.sklearn import ParquetRows, SoftmaxRegression, softmax_regression_path


class Killed(Exception):
    """What stops a fit from outside."""


def problem(rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, 10)).astype(np.float32)
    logits = 2 * X @ rng.standard_normal((10, 4)) + rng.gumbel(size=(rows, 4))
    return X, logits.argmax(axis=1)


def kill_at(iteration: int) -> Any:
    def callback(entry: dict[str, Any]) -> None:
        if entry["iteration"] == iteration:
            raise Killed

    return callback


def half_a_fit(path: Path, iteration: int = 3, **options: Any) -> None:
    X, y = problem()
    with pytest.raises(Killed):
        SoftmaxRegression(
            checkpoint=path, checkpoint_interval=0, callback=kill_at(iteration), **{"C": 100.0, "tol": 1e-9, **options}
        ).fit(X, y)


@pytest.mark.parametrize("iteration", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"link": "sigmoid", "class_weight": {0: 1.0, 1: 2.0}}, {"dtype": "float64"}])
def test_a_fit_that_goes_on_ends_with_the_same_bits(tmp_path: Path, iteration: int, options: dict[str, Any]) -> None:
    X, y = problem()
    options = {"C": 100.0, "tol": 1e-9, **options}
    if "link" in options:
        y = np.eye(4, dtype=int)[y]
    path = tmp_path / "fit.ckpt"
    kept = {"checkpoint": path, "checkpoint_interval": 0.0}
    with pytest.raises(Killed):
        SoftmaxRegression(callback=kill_at(iteration), **kept, **options).fit(X, y)
    seen: list[int] = []
    resumed = SoftmaxRegression(callback=lambda e: seen.append(e["iteration"]), **kept, **options).fit(X, y)
    whole = SoftmaxRegression(**options).fit(X, y)
    np.testing.assert_array_equal(resumed.coef_, whole.coef_)
    np.testing.assert_array_equal(resumed.intercept_, whole.intercept_)
    assert resumed.duality_gap_ == whole.duality_gap_ <= 1e-9
    assert [e["objective"] for e in resumed.history_] == [e["objective"] for e in whole.history_]
    assert seen[0] >= iteration  # what was done before was not done again
    assert [e["evaluations"] for e in resumed.history_] == [e["evaluations"] for e in whole.history_]
    assert resumed.history_[-1]["seconds"] > resumed.history_[0]["seconds"]


def test_other_losses_go_on_too(tmp_path: Path) -> None:
    X, y = problem()
    options: dict[str, Any] = {"loss": ce.Poly1(1.0), "C": 10.0, "tol": 1e-6}
    half_a_fit(tmp_path / "c", 4, **options)
    resumed = SoftmaxRegression(checkpoint=tmp_path / "c", **options).fit(X, y)
    whole = SoftmaxRegression(**options).fit(X, y)
    assert resumed.objective_ == pytest.approx(whole.objective_, rel=1e-6)


def test_a_finished_checkpoint_is_used_by_the_same_fit_and_replaced_by_another(tmp_path: Path) -> None:
    X, y = problem()
    path = tmp_path / "c"
    kept = {"checkpoint": path, "checkpoint_interval": 0.0}
    first = SoftmaxRegression(tol=1e-6, **kept).fit(X, y)
    again = SoftmaxRegression(tol=1e-6, **kept).fit(X, y)
    np.testing.assert_array_equal(first.coef_, again.coef_)
    assert len(again.history_) == len(first.history_)
    tighter = SoftmaxRegression(tol=1e-10, **kept).fit(X, y)
    assert tighter.duality_gap_ <= 1e-10
    other = SoftmaxRegression(C=2.0, tol=1e-6, **kept).fit(X, y)
    np.testing.assert_array_equal(other.coef_, SoftmaxRegression(C=2.0, tol=1e-6).fit(X, y).coef_)


def test_a_fit_that_stopped_at_max_iter_goes_on_with_more(tmp_path: Path) -> None:
    X, y = problem()
    kept = {"checkpoint": tmp_path / "c", "checkpoint_interval": 0.0, "C": 100.0, "tol": 1e-9}
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        SoftmaxRegression(max_iter=3, **kept).fit(X, y)
    resumed = SoftmaxRegression(**kept).fit(X, y)
    np.testing.assert_array_equal(resumed.coef_, SoftmaxRegression(C=100.0, tol=1e-9).fit(X, y).coef_)


def test_nothing_is_written_before_the_interval_has_passed(tmp_path: Path) -> None:
    X, y = problem()
    SoftmaxRegression(checkpoint=tmp_path / "c", checkpoint_interval=1e9).fit(X, y)
    assert list(tmp_path.iterdir()) == []


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "C": ({"C": 2.0}, r"with C 100\.0 where this fit has 2\.0"),
    "link": ({"link": "sigmoid"}, "with outputs 4"),
    "loss": ({"loss": ce.Poly1(1.0)}, r"with loss \[\[0"),
    "smoothing": ({"label_smoothing": 0.1}, r"with label_smoothing 0\.0 where this fit has 0\.1"),
    "intercept": ({"fit_intercept": False}, "with fit_intercept True where this fit has False"),
    "weights": ({"class_weight": "balanced"}, "with another class_weight"),
}


@pytest.mark.parametrize("doubled", ["class_weight", "sample_weight"])
def test_weights_twice_as_large_are_of_another_fit(tmp_path: Path, doubled: str) -> None:
    """They stand for another C, though their shares are the same."""
    X, y = problem()
    options: dict[str, Any] = {"max_iter": 2, "checkpoint": tmp_path / "c", "checkpoint_interval": 0.0}
    once, twice = ({0: 1.0, 1: 2.0, 2: 1.0, 3: 1.0}, {0: 2.0, 1: 4.0, 2: 2.0, 3: 2.0})
    with pytest.warns(ConvergenceWarning):
        SoftmaxRegression(100.0, class_weight=once, **options).fit(X, y, np.ones(len(X)))
    class_weight, weight = (twice, 1.0) if doubled == "class_weight" else (once, 2.0)
    with pytest.raises(ValueError, match="total_weight"):
        SoftmaxRegression(100.0, class_weight=class_weight, **options).fit(X, y, np.full(len(X), weight))


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path, name: str) -> None:
    options, sentence = OTHERS[name]
    half_a_fit(tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    X, y = problem()
    if "link" in options:
        y = (y > 0).astype(int)
    with pytest.raises(ValueError, match=rf"^a checkpoint must be of this fit; got .*c' {sentence}.*; remove the file"):
        SoftmaxRegression(checkpoint=tmp_path / "c", **{"C": 100.0, **options}).fit(X, y)
    assert (tmp_path / "c").read_bytes() == before


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    X, y = problem()
    half_a_fit(tmp_path / "c")
    fit = SoftmaxRegression(100.0, checkpoint=tmp_path / "c").fit
    with pytest.raises(ValueError, match="other labels"):
        fit(X, (y + 1) % 4)
    with pytest.raises(ValueError, match="another sample_weight"):
        fit(X, y, np.arange(1.0, len(y) + 1))
    with pytest.raises(ValueError, match="with rows 2000 where this fit has 1999"):
        fit(X[1:], y[1:])
    with pytest.raises(ValueError, match="whose loss on other data was"):
        fit(1.01 * X, y)


def reseal(path: Path, content: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> None:
    """Change entries of a checkpoint's content and arrays (None takes one away), and give it the digest of the new."""
    old_content, old_tensors = unseal(path, HEADER_ENTRY, FORMAT_VERSION, anew="begin again")
    new_content = {name: value for name, value in (old_content | (content or {})).items() if value is not GONE}
    new_tensors = {name: value for name, value in (old_tensors | (tensors or {})).items() if value is not GONE}
    del new_content["format_version"]
    path.write_bytes(seal(HEADER_ENTRY, FORMAT_VERSION, new_content, new_tensors))


GONE = object()
SHAPE = (4, 11)
LINE = [0.0, 1.0, 1.0, 0.5, 1.0, 0.0, 0.1]
"""Iteration, objective, gradient_norm, duality_gap, evaluations, hessian_products and seconds."""


def changed(line: list[float], place: int, value: float) -> np.ndarray:
    return np.array([[*line[:place], value, *line[place + 1 :]]])


IMPOSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no fit": ({"fit": GONE}, {}),
    "a list for a fit": ({"fit": [1]}, {}),
    "a fit without sizes": ({"fit": {"C": 100.0}}, {}),
    "sizes in words": ({"fit": {"outputs": "4", "features": 10}}, {}),
    "truth for a size": ({"fit": {"outputs": True, "features": 10}}, {}),
    "finished in words": ({"finished": "false"}, {}),
    "unknown precision": ({"precision": "float16"}, {}),
    "precision in a list": ({"precision": ["float64"]}, {}),
    "loss in words": ({"data_loss": "0.5"}, {}),
    "no loss": ({"data_loss": None}, {}),
    "negative count": ({"evaluations": -1}, {}),
    "count in words": ({"hessian_products": "3"}, {}),
    "count of parts": ({"evaluations": 1.5}, {}),
    "count beyond numbers": ({"evaluations": 1 << 70}, {}),
    "no theta": ({}, {"theta": GONE}),
    "no history": ({}, {"history": GONE}),
    "no pace": ({}, {"pace": GONE}),
    "an unknown array": ({}, {"dual": np.zeros(1)}),
    "theta of another shape": ({}, {"theta": np.zeros((4, 10))}),
    "theta of one row": ({}, {"theta": np.zeros(11)}),
    "theta in float32": ({}, {"theta": np.zeros(SHAPE, np.float32)}),
    "NaN in theta": ({}, {"theta": np.full(SHAPE, np.nan)}),
    "infinity in best": ({}, {"best": np.full(SHAPE, np.inf)}),
    "bound of another shape": ({}, {"bound": np.zeros((3, 11))}),
    "empty history": ({}, {"history": np.zeros((0, 7))}),
    "narrow history": ({}, {"history": np.zeros((1, 6))}),
    "flat history": ({}, {"history": np.zeros(7)}),
    "history that begins late": ({}, {"history": changed(LINE, 0, 1.0)}),
    "NaN objective": ({}, {"history": changed(LINE, 1, np.nan)}),
    "negative norm": ({}, {"history": changed(LINE, 2, -1.0)}),
    "negative gap": ({}, {"history": changed(LINE, 3, -1.0)}),
    "NaN count": ({}, {"history": changed(LINE, 4, np.nan)}),
    "infinite count": ({}, {"history": changed(LINE, 5, np.inf)}),
    "infinite time": ({}, {"history": changed(LINE, 6, np.inf)}),
    "short pace": ({}, {"pace": np.ones(3)}),
    "steps in parts": ({}, {"pace": np.array([1.0, 1.0, 0.5, 8.0])}),
    "NaN norm": ({}, {"pace": np.array([np.nan, 1.0, 1.0, 8.0])}),
    "no rows drawn": ({}, {"pace": np.array([1.0, 1.0, 1.0, 0.0])}),
    "infinitely many rows drawn": ({}, {"pace": np.array([1.0, 1.0, 1.0, np.inf])}),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_right_digest_of_what_no_fit_writes_is_refused(tmp_path: Path, name: str) -> None:
    half_a_fit(tmp_path / "c")
    reseal(tmp_path / "c", *IMPOSSIBLE[name])
    sentence = r"^a checkpoint must be a file that a fit wrote; got .*no fit writes its "
    with pytest.raises(ValueError, match=sentence) as e:
        SoftmaxRegression(100.0, tol=1e-9, checkpoint=tmp_path / "c").fit(*problem())
    assert not wrong_with_sentence(str(e.value))


def forgeries(optimum: np.ndarray) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What the reader cannot tell from a fit's own: each with a right digest."""
    rng = np.random.default_rng(0)
    away = optimum + 0.1 * rng.standard_normal(optimum.shape)
    return {
        "a bound": ({"dual": 1e9}, {}),
        "a bound's place": ({}, {"bound": away}),
        "a far bound": ({}, {"bound": 1e3 * away}),
        "a best point": ({}, {"best": away}),
        "an end": ({"finished": True}, {}),
        "nothing spent": ({"evaluations": 0, "hessian_products": 0}, {}),
        "another precision": ({"precision": "float64"}, {}),
        "an optimal history": ({}, {"history": changed([*LINE[:3], 2e-16, *LINE[4:]], 1, 1e-9)}),
        "a slower pace": ({}, {"pace": np.array([0.0, 0.0, 40.0, 1e300])}),
        "a quicker pace": ({}, {"pace": np.array([np.inf, np.inf, 2.0**52, 8.0])}),
    }


@pytest.mark.parametrize("name", forgeries(np.zeros(SHAPE)))
def test_what_a_forged_checkpoint_leads_to_is_still_proved(tmp_path: Path, name: str) -> None:
    X, y = problem()
    half_a_fit(tmp_path / "c")
    _, tensors = unseal(tmp_path / "c", HEADER_ENTRY, FORMAT_VERSION, anew="begin again")
    reseal(tmp_path / "c", *forgeries(tensors["theta"])[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        resumed = SoftmaxRegression(100.0, tol=1e-4, max_iter=1, checkpoint=tmp_path / "c").fit(X, y)
    truth = relative_excess(resumed, X, np.eye(4)[y], 100.0)
    assert truth > 0
    assert resumed.duality_gap_ >= truth - ROUNDING


def test_parameters_that_are_not_the_fits_are_refused_by_their_loss(tmp_path: Path) -> None:
    for theta in (np.zeros(SHAPE), np.full(SHAPE, 1e300), np.eye(*SHAPE)):
        half_a_fit(tmp_path / "c")
        reseal(tmp_path / "c", {}, {"theta": theta})
        with pytest.raises(ValueError, match=r"^a checkpoint must be of this fit; got .* whose loss on other data was"):
            SoftmaxRegression(100.0, tol=1e-9, checkpoint=tmp_path / "c").fit(*problem())
        (tmp_path / "c").unlink()


def damaged_kinds(content: bytes) -> dict[str, tuple[bytes, str]]:
    def with_header(text: str) -> bytes:
        return save({"theta": np.zeros(3)}, {HEADER_ENTRY: text})

    return {
        "cut short": (content[:-9], "damaged, cut short"),
        "empty": (b"", "damaged, cut short"),
        "text": (b"hello", "damaged, cut short"),
        "another kind": (save({"theta": np.zeros(3)}), "a safetensors file of another kind"),
        "no digest": (with_header('{"format_version": 2}'), "damaged"),
        "older": (with_header('{"format_version": 1, "fit": {}}'), "an older crossent wrote it"),
        "newer": (with_header('{"format_version": 99}'), "a newer crossent wrote it"),
    }


@pytest.mark.parametrize("name", damaged_kinds(b"x" * 99))
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    half_a_fit(tmp_path / "c")
    content, sentence = damaged_kinds((tmp_path / "c").read_bytes())[name]
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^a checkpoint must be a file that a fit wrote; got .*{sentence}"):
        SoftmaxRegression(100.0, checkpoint=tmp_path / "c").fit(*problem())


def test_a_fit_without_a_penalty_keeps_a_checkpoint(tmp_path: Path) -> None:
    X, y = problem()
    kept = {"checkpoint": tmp_path / "c", "checkpoint_interval": 0.0}
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        SoftmaxRegression(math.inf, max_iter=2, **kept).fit(X, y)
    resumed = SoftmaxRegression(math.inf, **kept).fit(X, y)
    np.testing.assert_array_equal(resumed.coef_, SoftmaxRegression(math.inf).fit(X, y).coef_)


@pytest.mark.attack
def test_no_damage_changes_a_fit(tmp_path: Path) -> None:
    """Drawn damage to a checkpoint is refused in one sentence, or changed nothing that counts."""
    X, y = problem()
    path, copy = tmp_path / "c", tmp_path / "copy"
    half_a_fit(path)
    whole = SoftmaxRegression(100.0, tol=1e-9).fit(X, y)
    refusals, tried = [], 0
    for seed, content in damages(path.read_bytes()):
        tried += 1
        copy.write_bytes(content)
        try:
            read_checkpoint(copy)
        except ValueError as error:
            refusals.append(str(error))
            continue
        resumed = SoftmaxRegression(100.0, tol=1e-9, checkpoint=copy).fit(X, y)
        np.testing.assert_array_equal(resumed.coef_, whole.coef_)
        assert (resumed.objective_, resumed.duality_gap_) == (whole.objective_, whole.duality_gap_), seed
    assert len(refusals) > 0.9 * tried
    for sentence in refusals:
        assert sentence.startswith("a checkpoint must be a file that a fit wrote; got ")
        assert not wrong_with_sentence(sentence), sentence


@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
def test_a_write_that_fails_is_told_and_leaves_the_older_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "c"
    half_a_fit(path)
    older = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, fail)
    with pytest.warns(RuntimeWarning, match="no checkpoint could be written to .*: No space left on device"):
        SoftmaxRegression(checkpoint=path, checkpoint_interval=0, C=100.0, tol=1e-9).fit(*problem())
    assert path.read_bytes() == older
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_is_of_one_fit_at_a_time(tmp_path: Path) -> None:
    """Whether or not there is a file yet, in another thread of the process or in another process."""
    path = tmp_path / "c"
    X, y = problem()
    sentence = "a checkpoint must be of one fit; got .*c', which another fit is keeping; pass another path"
    told: list[str] = []

    def second(entry: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=sentence) as refused:
            SoftmaxRegression(checkpoint=path).fit(X, y)
        told.append(str(refused.value))
        SoftmaxRegression(checkpoint=tmp_path / "other").fit(X, y)

    model = SoftmaxRegression(C=100.0, tol=1e-9, checkpoint=path, checkpoint_interval=0, callback=second).fit(X, y)
    assert len(told) == len(model.history_)
    whole = SoftmaxRegression(C=100.0, tol=1e-9, checkpoint=path).fit(X, y)
    np.testing.assert_array_equal(model.coef_, whole.coef_)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_does_not_end_a_fit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="no checkpoint could be written to .*: File exists"):
        model = SoftmaxRegression(checkpoint=tmp_path / "file" / "c", checkpoint_interval=0).fit(*problem())
    assert model.duality_gap_ <= 1e-4


def test_an_interrupted_fit_goes_on(tmp_path: Path) -> None:
    X, y = problem()

    def interrupt(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 4:
            raise KeyboardInterrupt

    kept = {"C": 100.0, "tol": 1e-9, "checkpoint": tmp_path / "c", "checkpoint_interval": 0.0}
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        SoftmaxRegression(callback=interrupt, **kept).fit(X, y)
    resumed = SoftmaxRegression(**kept).fit(X, y)
    np.testing.assert_array_equal(resumed.coef_, SoftmaxRegression(C=100.0, tol=1e-9).fit(X, y).coef_)


def test_parameters_are_checked(tmp_path: Path) -> None:
    X, y = problem()
    with pytest.raises(ValueError, match="checkpoint must be None or a path; got int 3"):
        SoftmaxRegression(checkpoint=3).fit(X, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="checkpoint_interval must be 0 or more seconds; got -1"):
        SoftmaxRegression(checkpoint_interval=-1).fit(X, y)
    with pytest.raises(ValueError, match="a sweep keeps no checkpoint"):
        softmax_regression_path(X, y, Cs=[1.0], checkpoint=tmp_path / "c")


SCRIPT = """
import os, signal, sys
import numpy as np
from dataclasses import replace
from crossent.regression import plan
from crossent.sklearn import ParquetRows, SoftmaxRegression
from crossent.regression.data.parquet import ParquetTable
plan.TUNED = replace(plan.TUNED, cache_bytes=1 << 10)
data, path = sys.argv[1:]
rows = ParquetRows(data, exclude=["label"], window_bytes=250 * 40)
labels = rows.column("label")
whole, seen = ParquetTable.frame, []
def frame(self, start, stop, columns):
    if os.path.exists(path):
        seen.append(start)
        if start == 1000 and len(seen) > 10:  # a window in the middle of a later pass
            os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, start, stop, columns)
ParquetTable.frame = frame
SoftmaxRegression(100.0, tol=1e-9, checkpoint=path, checkpoint_interval=0).fit(rows, labels)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_fit_killed_in_the_middle_of_a_pass_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = problem()
    data = tmp_path / "t.parquet"
    table = pl.DataFrame(X, schema=[f"x{j}" for j in range(10)]).with_columns(label=pl.Series(y))
    table.write_parquet(data, row_group_size=333)

    path = tmp_path / "c"
    command = [sys.executable, "-c", SCRIPT, str(data), str(path)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert read_checkpoint(path).finished is False
    tune(monkeypatch, cache_bytes=1 << 10)
    rows = ParquetRows(data, exclude=["label"], window_bytes=250 * 40)
    resumed = SoftmaxRegression(100.0, tol=1e-9, checkpoint=path).fit(rows, y)
    whole = SoftmaxRegression(100.0, tol=1e-9).fit(rows, y)
    assert resumed.duality_gap_ == whole.duality_gap_ <= 1e-9
    np.testing.assert_array_equal(resumed.coef_, whole.coef_)
    assert read_checkpoint(path).finished is True


def test_no_warning_comes_of_a_checkpoint_that_works(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Checkpoint(tmp_path / "new" / "c", 0.0, {}).close(finished=True)
    assert list(tmp_path.iterdir()) == []
