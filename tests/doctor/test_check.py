"""`crossent.doctor.check`: what it must find, what it must leave in peace, what it reads, and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import crossent as ce
from crossent.doctor import Diagnosis, check
from crossent.doctor.explained import SEVERITIES
from crossent.doctor.runtime import CHECKS

Arrays = tuple[Any, ...]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def good(n: int = 300, k: int = 5, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from their softmax: a model that is right about what it does not know."""
    logits = random(seed).normal(size=(n, k)) * scale
    return logits, (logits + random(seed + 1).gumbel(size=(n, k))).argmax(axis=1)


def changed(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def padded(width: int) -> Arrays:
    logits, labels = good(200, 64, scale=1.0)
    return np.concatenate([logits, np.zeros((200, width))], axis=1), labels


def binary(n: int = 400, k: int = 6) -> tuple[np.ndarray, np.ndarray]:
    logits = random().normal(size=(n, k)) * 3
    return logits, random(1).random((n, k)) < ce.sigmoid(logits)


Z, Y = good()
LARGE = random().normal(size=(300, 5)) * 60
MUST_FIND: dict[str, tuple[str, str, Callable[[], Diagnosis]]] = {
    "nan": ("XE801", "error", lambda: check(changed(Z, (7, 2), math.nan), Y)),
    "plus infinity": ("XE801", "error", lambda: check(changed(Z, (7, 2), math.inf), Y)),
    "a row masked everywhere": ("XE801", "error", lambda: check(changed(Z, 7, -math.inf), Y)),
    "the true class masked": ("XE801", "error", lambda: check(changed(Z, (7, Y[7]), -math.inf), Y)),
    "a certain no that is yes": ("XE801", "error", lambda: check([0.0, -math.inf, 1.0], [0, 1, 1], link="sigmoid")),
    "softmax": ("XE802", "error", lambda: check(ce.softmax(Z), Y)),
    "softmax of one row": ("XE802", "error", lambda: check(ce.softmax(Z[:1]), Y[:1])),
    "softmax before focal": ("XE802", "error", lambda: check(ce.softmax(Z), Y, loss=ce.Focal(2.0))),
    "softmax before sigmoid": ("XE802", "error", lambda: check(ce.softmax(Z), np.eye(5)[Y], link="sigmoid")),
    "softmax and soft targets": ("XE802", "error", lambda: check(ce.softmax(Z), ce.softmax(Z + 1))),
    "log_softmax": ("XE803", "advice", lambda: check(ce.log_softmax(Z), Y)),
    "log_softmax before sigmoid": ("XE803", "error", lambda: check(ce.log_softmax(Z), np.eye(5)[Y], link="sigmoid")),
    "sigmoid": ("XE804", "error", lambda: check(ce.sigmoid(binary()[0]), binary()[1])),
    "sigmoid before softmax": ("XE804", "error", lambda: check(ce.sigmoid(2 * Z), Y)),
    "a little sigmoid": ("XE804", "advice", lambda: check(ce.sigmoid(binary()[0][:80, 0] / 4), binary()[1][:80, 0])),
    "constant": ("XE805", "warning", lambda: check(np.tile(Z[:1], (300, 1)), Y)),
    "zeros": ("XE805", "advice", lambda: check(np.zeros((300, 5)), Y)),
    "certain and wrong": ("XE806", "warning", lambda: check(LARGE, Y)),
    "certain and right": ("XE806", "advice", lambda: check(LARGE, LARGE.argmax(axis=1))),
    "yes or no, certain and wrong": ("XE806", "warning", lambda: check(LARGE, random().random(LARGE.shape) < 0.5)),
    "an offset": ("XE807", "advice", lambda: check(Z + 2000, Y)),
    "padding": ("XE808", "warning", lambda: check(*padded(16))),
    "a little padding": ("XE808", "advice", lambda: check(padded(2)[0] + ([2.0] * 64 + [0.0] * 2), padded(2)[1])),
    "a label of -1": ("XE811", "error", lambda: check(Z, changed(Y, 3, -1))),
    "a label too large": ("XE811", "error", lambda: check(Z, changed(Y, 3, 255))),
    "a large label of uint64": ("XE811", "error", lambda: check(Z, changed(Y.astype(np.uint64), 3, 2**64 - 1))),
    "a target above 1": ("XE811", "error", lambda: check(Z, np.where(Z > 0, 2.0, 0.0), link="sigmoid")),
    "a negative distribution": ("XE811", "error", lambda: check(Z, changed(np.eye(5)[Y], (3, 0), -1), link="softmax")),
    "labels from 1": ("XE812", "error", lambda: check(Z, Y + 1)),
    "all ignored": ("XE813", "error", lambda: check(Z, np.full(300, -100))),
    "all entries ignored": ("XE813", "error", lambda: check(Z, np.full((300, 5), -100))),
    "float labels": ("XE814", "error", lambda: check(Z, Y.astype(np.float32))),
    "float labels, not whole": ("XE814", "error", lambda: check(Z, Y + 0.5)),
    "bool labels": ("XE814", "error", lambda: check(Z[:, :2], Y > 2)),
    "imbalance": ("XE815", "advice", lambda: check(Z, np.where(np.arange(300) < 290, 1, Y))),
    "few positives": ("XE815", "advice", lambda: check(Z, random().random(Z.shape) < 0.03)),
    "one row": ("XE816", "advice", lambda: check(Z[:1], Y[:1])),
    "one class": ("XE816", "advice", lambda: check(Z, np.full(300, 2))),
    "worse than uniform": ("XE821", "advice", lambda: check(3 * Z, random().integers(0, 5, 300))),
    "worse than a coin": ("XE821", "advice", lambda: check(4 * Z, random().random(Z.shape) < 0.5)),
    "shares": ("XE822", "advice", lambda: check(np.log([0.7, 0.3]) + Z[:, :2] / 50, (np.arange(300) % 10 > 6) * 1)),
    "shares of yes": ("XE822", "advice", lambda: check(np.log(3 / 7) + Z[:, 0] / 50, (np.arange(300) % 10 > 6) * 1)),
    "too certain": ("XE823", "advice", lambda: check(4 * Z, Y)),
    "not certain enough": ("XE823", "advice", lambda: check(Z / 4, Y)),
    "entries too certain": ("XE823", "advice", lambda: check(5 * binary()[0], binary()[1])),
    "a shift of one-hot rows": (
        "XE824",
        "warning",
        lambda: check(5 * np.eye(5)[Y] + Z / 5, np.eye(5, dtype=int)[(Y + 1) % 5]),
    ),
    "a shift of the labels": ("XE824", "warning", lambda: check(5 * np.eye(5)[Y] + Z / 5, (Y + 1) % 5)),
    "two classes swapped": ("XE824", "warning", lambda: check(5 * np.eye(5)[Y] + Z / 5, np.array([0, 2, 1, 3, 4])[Y])),
    "yes and no swapped": ("XE824", "warning", lambda: check(5 * np.eye(2)[Y % 2] + Z[:, :2] / 5, 1 - Y % 2)),
}


@pytest.mark.parametrize("name", MUST_FIND)
def test_what_must_be_found(name: str) -> None:
    code, severity, call = MUST_FIND[name]
    assert (code, severity) in {(symptom.code, symptom.severity) for symptom in call()}


def test_every_check_has_a_batch_that_it_finds() -> None:
    assert {code for code, _, _ in MUST_FIND.values()} == {one.code for one in CHECKS}


def alarms(found: Diagnosis) -> list[str]:
    """What is not mere advice."""
    return [str(symptom) for symptom in found if symptom.severity != "advice"]


def untrained(n: int, k: int, seed: int) -> np.ndarray:
    """Outputs of a network with random weights, of several depths and scales."""
    rng = random(seed)
    hidden = rng.normal(size=(n, 16))
    for _ in range(seed % 4):
        hidden = np.maximum(hidden @ (rng.normal(size=(hidden.shape[1], 64)) * np.sqrt(2 / hidden.shape[1])), 0)
    limit = (0.3, 1.0, 2.5)[seed % 3] / np.sqrt(hidden.shape[1])
    return np.asarray(hidden @ rng.uniform(-limit, limit, (hidden.shape[1], k)) + rng.uniform(-limit, limit, k))


@pytest.mark.parametrize("n", [1, 2, 4, 8, 60, 1000])
@pytest.mark.parametrize("k", [2, 3, 10, 200])
def test_untrained_networks_are_left_in_peace(n: int, k: int) -> None:
    for seed in range(8):
        logits, rng = untrained(n, k, seed), random(seed)
        labels = rng.integers(0, k, n)
        yes = rng.random((n, k)) < 0.1
        for target in (labels, np.where((rng.random(n) < 0.5) & (np.arange(n) > 0), -100, labels), np.eye(k)[labels]):
            assert alarms(check(logits, target)) == []
        assert alarms(check(logits, yes, link="sigmoid")) == []
        assert alarms(check(logits[:, 0], yes[:, 0])) == []
        assert alarms(check(logits, ce.softmax(logits[::-1]), link="softmax")) == []
        assert alarms(check(logits, logits[::-1] * 2, loss=ce.Distillation(3.0))) == []


@pytest.mark.parametrize("n", [1, 2, 4, 8, 60, 1000])
@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0, 40.0])
def test_good_models_are_left_in_peace(n: int, scale: float) -> None:
    for k in (2, 10, 100):
        logits, labels = good(n, k, scale=scale)
        assert alarms(check(logits, labels)) == []
        assert alarms(check(logits.astype(np.float16), labels)) == []
        assert alarms(check(logits, 0.9 * np.eye(k)[labels] + 0.1 / k)) == []
        assert alarms(check(logits + 3, labels, loss=ce.Focal(2.0) + ce.ZPenalty(1e-4))) == []


def test_a_large_vocabulary_is_left_in_peace() -> None:
    logits = random().normal(size=(40, 50257))
    assert alarms(check(logits, random().integers(0, 50257, 40))) == []
    assert alarms(check(changed(logits, np.s_[:, 50000:], -math.inf), random().integers(0, 50000, 40))) == []


def test_a_trained_classifier_is_left_in_peace() -> None:
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    X, y = load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 40 rounds are few
        model = MLPClassifier((64,), max_iter=40, random_state=0, tol=0).fit(X[:1000] / 16, y[:1000])
    hidden = np.maximum(X / 16 @ model.coefs_[0] + model.intercepts_[0], 0)
    logits = hidden @ model.coefs_[1] + model.intercepts_[1]
    for rows in (slice(0, 1000), slice(1000, None), slice(1000, 1008)):
        assert alarms(check(logits[rows], y[rows])) == []
    names = random().permutation(10)
    assert "XE824" in {symptom.code for symptom in check(logits[1000:], names[y[1000:]])}


def test_masked_classes_are_left_in_peace() -> None:
    for shift in (0.0, -50.0):
        logits = np.where(random().random(Z.shape) < 0.3, -math.inf, Z + shift)
        logits[np.arange(300), Y] = Z[np.arange(300), Y] + shift
        for n in (1, 3, 300):
            assert alarms(check(logits[:n], Y[:n])) == []


def test_numbers_without_measure_are_looked_at() -> None:
    strange = [math.nan, math.inf, -math.inf, 0.0, 1.0, -1e300, 1e300, 1e-300, 5.0]
    for seed in range(200):
        rng = random(seed)
        logits, labels = rng.choice(strange, (40, 3)), rng.choice([*strange, 2.0, -100.0], 40)
        for target in (labels, rng.integers(0, 3, 40), np.round(rng.random((40, 3)))):
            found = check(logits, target)
            assert "not approval" in str(found)
            json.dumps(found.as_dict(), allow_nan=False)


def test_chance_passes_no_bar() -> None:
    """Outputs that know nothing of the labels, and the best of all permutations of them."""
    for seed in range(60):
        n, k = (60, 200, 1000)[seed % 3], (2, 3, 8)[seed % 3]
        logits = random(seed).normal(size=(n, k)) * (0.1, 1.0, 5.0, 30.0)[seed % 4]
        codes = {symptom.code for symptom in check(logits, random(seed + 1000).integers(0, k, n))}
        assert codes.isdisjoint({"XE824", "XE802", "XE803", "XE804"})
    right = sum("XE823" in {symptom.code for symptom in check(*good(400, 4, seed))} for seed in range(40))
    assert right == 0


def test_a_floor_is_the_least_loss() -> None:
    for k in (2, 10, 1000):
        (found,) = [one for one in check(ce.softmax(random().normal(size=(20, k))), [0] * 20) if one.code == "XE802"]
        assert found.numbers["floor"] == pytest.approx(math.log(math.e + k - 1) - 1, rel=1e-14)
        assert found.numbers["floor"] == pytest.approx(float(ce.cross_entropy(np.eye(1, k), [0])), rel=1e-12)
    (found,) = [one for one in check(ce.softmax(Z), Y, loss=ce.Focal(2.0)) if one.code == "XE802"]
    assert found.numbers["floor"] == pytest.approx(float(ce.focal_loss(np.eye(1, 5), [0])), rel=1e-12)
    assert "floor" not in check(ce.softmax(Z), Y, loss=ce.ZPenalty(0.1))[0].numbers


def test_a_temperature_is_the_one_that_calibration_finds() -> None:
    sklearn = pytest.importorskip("crossent.sklearn")
    (found,) = [symptom for symptom in check(3 * Z, Y) if symptom.code == "XE823"]
    fitted = sklearn.TemperatureScaling().fit(3 * Z, Y)
    gain = ce.cross_entropy(3 * Z, Y) - ce.cross_entropy(3 * Z, Y, temperature=fitted.temperature_)
    assert found.numbers["temperature"] == pytest.approx(fitted.temperature_, rel=1e-4)
    assert found.numbers["gain"] == pytest.approx(float(gain), rel=1e-6)


def test_numbers_of_rows_are_those_of_the_caller() -> None:
    logits = random().normal(size=(20000, 7))
    labels = random().integers(0, 7, 20000)
    found = check(changed(logits, (17771, 3), math.nan), labels)
    assert (found[0].code, found[0].numbers["row"], found[0].numbers["column"]) == ("XE801", 17771, 3)
    assert found.num_rows <= 4096 + 1
    assert check(logits, changed(labels, 19999, 7))[0].numbers["row"] == 19999
    cube = logits.reshape(100, 200, 7)
    assert (
        "row (88, 171), column 3" in check(changed(cube, (88, 171, 3), math.nan), labels.reshape(100, 200))[0].message
    )
    planes = np.moveaxis(changed(cube, (88, 171, 3), math.nan), -1, 1)
    assert "row (88, 171), column 3" in check(planes, labels.reshape(100, 200))[0].message


LIBRARIES = [
    "list",
    "numpy",
    "float32",
    "torch",
    "torch bfloat16",
    "torch with a graph",
    "jax",
    "jax bfloat16",
    "foreign",
]


class Foreign:
    """An array of a library that only converts itself, as TensorFlow's do."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array


def made(array: np.ndarray, library: str) -> Any:
    """Return an array as another library's; integers stay integers."""
    name, _, kind = library.partition(" ")
    if name == "torch":
        torch = pytest.importorskip("torch")
        tensor = torch.tensor(array)
        if array.dtype.kind == "f":
            tensor = tensor.to(torch.bfloat16) if kind == "bfloat16" else tensor
            tensor = tensor.requires_grad_() * 1.0 if kind == "with a graph" else tensor
        return tensor
    if name == "jax":
        jnp = pytest.importorskip("jax.numpy")
        return jnp.asarray(array, jnp.bfloat16 if kind == "bfloat16" and array.dtype.kind == "f" else None)
    if name == "float32":
        return array.astype(np.float32) if array.dtype.kind == "f" else array
    return {"list": array.tolist, "numpy": lambda: array, "foreign": lambda: Foreign(array)}[name]()


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_say_the_same(library: str) -> None:
    logits = 5 * np.eye(5)[Y] + Z / 5
    for outputs, labels in ((ce.softmax(logits), Y), (logits, (Y + 1) % 5), (logits, Y), (logits, Y + 1)):
        expected = [symptom.code for symptom in check(outputs, labels) if symptom.severity != "advice"]
        found = check(made(outputs, library), made(labels, library))
        assert [symptom.code for symptom in found if symptom.severity != "advice"] == expected
        assert (found.shape, found.link) == ((300, 5), "softmax")
    assert check(made(logits, library), made(np.eye(5)[Y], library)).link == "softmax"


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_of_a_large_batch_rows_are_drawn_in_the_library(library: str) -> None:
    logits, labels = good(9000, 5)
    found = check(made(logits.reshape(90, 100, 5), library), made(labels.reshape(90, 100), library))
    assert found.num_rows == 4096
    assert alarms(found) == []


def test_nothing_is_written_to() -> None:
    logits, labels = Z.copy(), Y.copy()
    logits.flags.writeable = labels.flags.writeable = False
    check(logits, labels)
    np.testing.assert_array_equal(logits, Z)


@pytest.mark.parametrize(
    ("logits", "target", "link", "reason"),
    [
        (Z, Y, "softmax", "one number a row"),
        (Z, np.eye(5)[Y], "softmax", "sum to 1"),
        (Z, (Z > 0) * 1, "sigmoid", "do not sum to 1"),
        (Z[:, 0], (Z[:, 0] > 0) * 1, "sigmoid", "shape"),
        (Z[:, :1], (Z[:, 0] > 0) * 1, "sigmoid", "shape"),
        (Z[:, :1], (Z[:, :1] > 0) * 1, "sigmoid", "shape"),
        (Z[0], 3, "softmax", "one number a row"),
        (Z.reshape(60, 5, 5), Y.reshape(60, 5), "softmax", "one number a row"),
    ],
)
def test_the_link_is_found_and_said(logits: Any, target: Any, link: str, reason: str) -> None:
    found = check(logits, target)
    assert found.link == link
    assert reason in found.link_from


def test_other_labels_can_be_ignored() -> None:
    labels = np.where(np.arange(300) % 2, Y, 255)
    assert alarms(check(Z, labels)) != []
    assert alarms(check(Z, labels, ignore_index=255)) == []


def test_a_teacher_of_k_classes_leaves_the_outputs_to_be_looked_at() -> None:
    teacher = ce.TopK(np.zeros((300, 1), int), np.full((300, 1), 0.5))
    found = check(ce.softmax(Z), teacher, loss=ce.Distillation(2.0))
    assert [symptom.code for symptom in found] == ["XE802"]
    assert found.left_out["XE821"].startswith("the outputs are probabilities")


BAD_INPUT: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
    "no array": (TypeError, lambda: check("logits", Y)),
    "an object": (TypeError, lambda: check(object(), Y)),
    "None": (TypeError, lambda: check(None, Y)),
    "a dictionary": (TypeError, lambda: check({"logits": Z}, Y)),
    "texts": (TypeError, lambda: check(Z, ["a"] * 300)),
    "complex numbers": (TypeError, lambda: check(Z + 1j, Y)),
    "a ragged list": (TypeError, lambda: check([[1.0], [1.0, 2.0]], [0, 1])),
    "bools": (TypeError, lambda: check(Z > 0, Y)),
    "a masked array": (TypeError, lambda: check(np.ma.masked_array(Z), Y)),
    "a masked target": (TypeError, lambda: check(Z, np.ma.masked_array(Y))),
    "a file": (TypeError, lambda: check(sys.stdout, Y)),
    "a number": (ValueError, lambda: check(1.0, 1)),
    "no rows": (ValueError, lambda: check(np.zeros((0, 3)), np.zeros(0, int))),
    "no classes": (ValueError, lambda: check(np.zeros((3, 0)), np.zeros(3, int))),
    "too few labels": (ValueError, lambda: check(Z, Y[:-1])),
    "too many axes": (ValueError, lambda: check(Z, Y[None])),
    "swapped": (ValueError, lambda: check(Y, Z)),
    "another number of classes": (ValueError, lambda: check(Z, np.zeros((300, 4)))),
    "labels with the sigmoid link": (ValueError, lambda: check(Z, Y, link="sigmoid")),
    "one class": (ValueError, lambda: check(Z[:, :1], Y, link="softmax")),
    "an unknown link": (ValueError, lambda: check(Z, Y, link="probit")),
    "a loss by name": (TypeError, lambda: check(Z, Y, loss="focal")),  # type: ignore[arg-type]
    "a loss of another library": (TypeError, lambda: check(Z, Y, loss=np.mean)),  # type: ignore[arg-type]
    "distillation of sigmoids": (TypeError, lambda: check(Z, Z, loss=ce.Distillation(2.0), link="sigmoid")),
    "distillation of labels": (ValueError, lambda: check(Z, Y, loss=ce.Distillation(2.0))),
    "distillation of one class": (ValueError, lambda: check(Z[:, :1], Z[:, :1], loss=ce.Distillation(2.0))),
    "an ignored label that is no number": (TypeError, lambda: check(Z, Y, ignore_index="pad")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_sentence(name: str) -> None:
    error, call = BAD_INPUT[name]
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert "; got " in text
    assert len(text) < 300


def test_tensors_that_cannot_be_read_are_refused_in_one_sentence() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.zeros(4, 3, device="meta"),
        torch.zeros(4, 3, dtype=torch.complex64),
        torch.eye(4).to_sparse(),
    ):
        with pytest.raises(TypeError, match="read now"):
            check(tensor, [0, 1, 2, 0])


def test_a_tracer_is_refused_in_one_sentence() -> None:
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match="read now"):
        jax.jit(lambda z: len(check(z, Y)))(Z)


def test_a_diagnosis_is_a_sequence_that_shows_itself() -> None:
    found = check(ce.softmax(Z), Y)
    assert found
    assert found[0] == next(iter(found)) == found[:1][0]
    places = [SEVERITIES.index(symptom.severity) for symptom in found]
    assert places == sorted(places)
    text = str(found)
    assert text == repr(found)
    for part in ("XE802 error", "cannot fall below", "300 rows", "softmax link", "CrossEntropy()", "not approval"):
        assert part in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert set(found.ran).isdisjoint(found.left_out)
    assert set(found.ran) | set(found.left_out) == {one.code for one in CHECKS}
    again = json.loads(json.dumps(found.as_dict()))
    assert again["symptoms"][0]["numbers"]["classes"] == 5
    assert again["shape"] == [300, 5]
    page = found._repr_html_()
    assert "<table>" in page
    assert "not approval" in page


def test_nothing_found_is_false_and_says_that_it_is_no_approval() -> None:
    found = check(*good())
    assert not found
    assert len(found) == 0
    assert "Nothing found." in str(found)
    assert "not approval" in str(found)
    assert "<table>" not in found._repr_html_()


def test_numbers_are_plain() -> None:
    for _, _, call in MUST_FIND.values():
        for symptom in call():
            assert all(type(value) in (int, float) for value in symptom.numbers.values()), symptom
            assert symptom.advice.endswith(".")
            assert not symptom.message.endswith(".")


def test_it_imports_no_framework() -> None:
    code = (
        "import sys, crossent.doctor; crossent.doctor.check([[1.0, 2.0]], [1]); "
        "print(*({'torch', 'jax', 'tensorflow', 'libcst', 'typer', 'sklearn', 'scipy'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
