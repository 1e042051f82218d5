"""`crossent.keras` beside Keras' own losses, beside the NumPy front end, and where Keras' own are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import crossent as ce
import crossent.keras as cek
from crossent.keras.rows import of_core

from .calculus import BACKEND, with_gradient
from .training import by_hand, by_keras, data

# Keras' own, where it reads a tensor of PyTorch by NumPy 2:
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(0)
Z = (3 * RNG.normal(size=(6, 4))).astype("float32")
Y = np.array([0, 3, 1, 2, 2, 0])
HOT = np.eye(4, dtype="float32")[Y]
SOFT = RNG.dirichlet(np.ones(4), 6).astype("float32")
P = np.exp(Z) / np.exp(Z).sum(1, keepdims=True)
Q = 1 / (1 + np.exp(-Z))
W = np.array([1, 0, 2, 0.5, 1, 1], "float32")

# Name, target, arguments of both.
SAME = [
    ("SparseCategoricalCrossentropy", Y, {}),
    ("SparseCategoricalCrossentropy", Y[:, None], {}),
    ("SparseCategoricalCrossentropy", Y.astype("float32"), {"ignore_class": 2}),
    ("CategoricalCrossentropy", SOFT, {"label_smoothing": 0.1}),
    ("CategoricalCrossentropy", HOT.astype(int), {}),
    ("CategoricalFocalCrossentropy", HOT, {}),
    ("CategoricalFocalCrossentropy", HOT, {"alpha": [0.1, 0.2, 0.3, 0.4], "gamma": 0.5}),
    ("BinaryCrossentropy", SOFT, {"label_smoothing": 0.1}),
    ("BinaryCrossentropy", HOT.astype(bool), {"axis": 0}),
    ("BinaryFocalCrossentropy", HOT, {"apply_class_balancing": True, "gamma": 1.5}),
    ("BinaryFocalCrossentropy", HOT, {}),
]
REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"]


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(("name", "target", "given"), SAME, ids=lambda v: v if isinstance(v, str) else "")
def test_the_values_of_keras(name: str, target: Any, given: dict[str, Any], from_logits: bool) -> None:
    x = Z if from_logits else (Q if name.startswith("Binary") else P)
    for reduction in REDUCTIONS:
        options = {**given, "from_logits": from_logits, "reduction": reduction}
        ours, theirs = getattr(cek, name)(**options), getattr(keras.losses, name)(**options)
        for weight in (None, W[:4] if given.get("axis") == 0 else W):
            got, want = (ops.convert_to_numpy(loss(target, x, sample_weight=weight)) for loss in (ours, theirs))
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted({name for name, *_ in SAME}))
def test_the_arguments_of_keras(name: str) -> None:
    import inspect

    ours, theirs = (inspect.signature(getattr(where, name)).parameters for where in (cek, keras.losses))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]
    config = getattr(cek, name)(from_logits=True).get_config()
    assert getattr(keras.losses, name)(**config).get_config().items() <= config.items()


LOSSES = [
    ce.CrossEntropy(),
    ce.Focal(0.5) + 1e-3 * ce.ZPenalty(1.0),
    0.5 * ce.Focal(2.0) + ce.Poly1(-0.5),
    ce.GeneralizedCrossEntropy(0.7),
    ce.Brier() + ce.EntropyPenalty(0.1),
]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_any_loss_is_the_loss_of_numpy(loss: ce.Loss, link: str, compiled: bool) -> None:
    smoothing = 0.0 if loss.needs_hard_target else 0.1
    target = Y if link == "softmax" else HOT.astype(int)
    given = cek.Loss(loss, link, True, smoothing, reduction="sum")
    value, slope = with_gradient(lambda z: given(target, z), compiled=compiled)(Z)
    options: dict[str, Any] = {"loss": loss, "link": link, "label_smoothing": smoothing, "reduction": "sum"}
    want, gradient = ce.value_and_grad(Z.astype("float64"), target, **options)
    scale = 1 if link == "softmax" else 4  # Keras takes the mean over the labels of a row
    np.testing.assert_allclose([value], [want / scale], rtol=3e-7)
    np.testing.assert_allclose(slope, gradient / scale, rtol=3e-6, atol=3e-7)


def test_a_distillation() -> None:
    given = cek.Loss(ce.Distillation(2.0), from_logits=True, reduction="sum")
    value, slope = with_gradient(lambda z: given(Z[::-1].copy(), z))(Z)
    want, gradient = ce.value_and_grad(Z, Z[::-1], loss=ce.Distillation(2.0), reduction="sum")
    np.testing.assert_allclose([value], [want], rtol=1e-6)
    np.testing.assert_allclose(slope, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_rows_that_break_careless_code(compiled: bool) -> None:
    rows = np.array([[20, 1, 2, 3], [1e4 + 5, 1e4, 1e4 - 3, 1e4], [30, 0, -1, -40], [-np.inf, 0, 1, 2]], "float32")
    labels = np.array([0, 0, 0, 1])
    loss = cek.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    value, slope = with_gradient(lambda z: loss(labels, z), compiled=compiled)(rows)
    want, gradient = ce.value_and_grad(rows.astype("float64"), labels, reduction="none")
    np.testing.assert_allclose(value, want, rtol=4 * 2**-24)
    np.testing.assert_allclose(slope, gradient, rtol=8 * 2**-24)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_core_on_kerass_operations_is_the_front_end(link: str) -> None:
    """What TensorFlow computes with: every backend can."""
    from crossent.core.target import Target
    from crossent.keras.rows import row_losses

    if link == "softmax":
        target = Target(4, labels=ops.convert_to_tensor(Y), class_weight=ops.convert_to_tensor(W[:4] + 1))
    else:
        target = Target(1, soft=ops.convert_to_tensor(SOFT.reshape(-1, 1)), label_smoothing=0.1, link="sigmoid")
    z = Z if link == "softmax" else Z.reshape(-1, 1)
    for loss in (ce.Focal(2.0), ce.CrossEntropy() + ce.ZPenalty(0.1)):
        got, want = (with_gradient(lambda z, f=f, q=loss: f(z, target, q))(z) for f in (of_core, row_losses))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(np.ravel(a), np.ravel(b), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_bar_in_float32(gamma: float, compiled: bool) -> None:
    """4 units in the last place for values, 8 for gradients, of a focal loss 1 + γ times that; rows half of which are
    confident, far apart or far from 0."""
    rng = np.random.default_rng(1)
    z = np.concatenate([s * rng.normal(size=(200, 7)) + o for s, o in ((1, 0), (10, 0), (60, 0), (5, 1e4))])
    z = z.astype("float32")
    y = np.where(np.arange(len(z)) % 2, z.argmax(1), rng.integers(0, 7, len(z)))
    loss = ce.Focal(gamma) if gamma else ce.CrossEntropy()
    given = cek.Loss(loss, from_logits=True, reduction="none")
    want = ce.value_and_grad(z.astype("float64"), y, loss=loss, reduction="none")
    for got, exact, bar in zip(with_gradient(lambda z: given(y, z), compiled=compiled)(z), want, (4, 8), strict=True):
        smallest = 100 * np.finfo("float32").smallest_normal
        error = np.abs(got - exact) - smallest
        assert (error <= bar * (1 + gamma) * np.spacing(np.abs(exact).astype("float32"))).all()


@pytest.mark.skipif(BACKEND == "torch", reason="Keras' custom gradients of PyTorch are differentiated once")
def test_the_second_derivative_of_the_core() -> None:
    from crossent.core.target import Target

    target, direction = Target(4, labels=ops.convert_to_tensor(Y)), RNG.normal(size=Z.shape).astype("float32")

    def along(z: Any) -> Any:
        if BACKEND == "jax":
            import jax

            slope = jax.grad(lambda z: of_core(z, target, ce.Focal(2.0)).sum())(z)
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(z)
                value = of_core(z, target, ce.Focal(2.0))
            slope = tape.gradient(value, z)
        return ops.sum(slope * direction)

    want = ce.hessian_vector_product(Z.astype("float64"), Y, direction, loss=ce.Focal(2.0), reduction="sum")
    np.testing.assert_allclose(with_gradient(along)(Z)[1], want, rtol=1e-5, atol=1e-6)


def test_probabilities_are_exact_at_0_and_1() -> None:
    certain = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [1 - 2**-24, 2**-24, 0]], "float32")
    labels = np.array([0, 0, 1, 1])
    ours = cek.SparseCategoricalCrossentropy(reduction="none")
    value, slope = with_gradient(lambda p: ours(labels, p))(certain)
    np.testing.assert_allclose(value, [0, np.inf, np.log(2), 24 * np.log(2)], rtol=2**-22)
    np.testing.assert_allclose(slope, [[-1, 0, 0], [-np.inf, 0, 0], [0, -2, 0], [0, -(2.0**24), 0]], rtol=2**-23)
    theirs = keras.losses.SparseCategoricalCrossentropy(reduction="none")
    np.testing.assert_allclose(ops.convert_to_numpy(theirs(labels, certain))[1], -np.log(1e-7), rtol=1e-2)  # clipped
    binary = cek.BinaryCrossentropy(reduction="none")
    found = ops.convert_to_numpy(binary([[1.0], [0.0], [0.0]], [[0.0], [1e-9], [0.0]]))
    np.testing.assert_allclose(found, [np.inf, 1e-9, 0], rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("loss", [ce.CrossEntropy(), ce.Focal(0.5), *LOSSES[2:]], ids=repr)
def test_the_gradients_in_probabilities(loss: ce.Loss, link: str, compiled: bool) -> None:
    smoothing = 0.0 if loss.needs_hard_target else 0.1
    given = cek.Loss(loss, link, False, smoothing, reduction="sum")
    target, p = (Y, P) if link == "softmax" else (HOT, Q)
    options = {"label_smoothing": smoothing, "reduction": "sum", "loss": loss}
    value, slope = with_gradient(lambda p: given(target, p), compiled=compiled)(p)
    function = ce.cross_entropy if link == "softmax" else ce.binary_cross_entropy_with_logits
    labels = target if link == "softmax" else target.astype(int)
    scale = 1 if link == "softmax" else 4
    np.testing.assert_allclose(value, function(Z.astype("float64"), labels, **options) / scale, rtol=1e-5)
    # By the chain rule: the loss of softmax(z) as a function of z.
    wanted = ce.value_and_grad(Z.astype("float64"), labels, link=link, **options)[1] / scale
    chained = slope * p * (1 - p) if link == "sigmoid" else p * (slope - (p * slope).sum(1, keepdims=True))
    np.testing.assert_allclose(chained, wanted, rtol=1e-4, atol=1e-5)


def test_rows_that_weigh_nothing_may_hold_anything() -> None:
    broken = Z.copy()
    broken[1] = np.nan
    labels = np.where(W == 0, -1, Y)
    for loss in (cek.SparseCategoricalCrossentropy(from_logits=True), cek.Loss(ce.Focal(2.0), from_logits=True)):
        value, slope = with_gradient(lambda z, loss=loss: loss(labels, z, sample_weight=W))(broken)
        want, gradient = with_gradient(lambda z, loss=loss: loss(Y, z, sample_weight=W))(Z)
        np.testing.assert_array_equal([value], [want])
        np.testing.assert_array_equal(slope, gradient)
    ignored = cek.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    value, slope = with_gradient(lambda z: ignored(labels, z))(broken)
    want, gradient = with_gradient(lambda z: ignored(Y[W > 0], z))(Z[W > 0])
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(slope[W > 0], gradient, rtol=1e-6)
    assert (slope[W == 0] == 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_masks_and_weights_are_those_of_keras(reduction: str) -> None:
    from keras.src.backend import set_keras_mask

    z, labels = RNG.normal(size=(2, 3, 4)).astype("float32"), RNG.integers(0, 4, size=(2, 3))
    mask, weight = np.array([[True, True, False], [True, False, False]]), W.reshape(2, 3)
    for given in (None, weight, weight[..., None]):
        for ignored in (None, 2):
            found = []
            for where in (cek, keras.losses):
                loss = where.SparseCategoricalCrossentropy(True, ignored, reduction=reduction)
                y_pred = ops.convert_to_tensor(z.copy())
                set_keras_mask(y_pred, ops.convert_to_tensor(mask))
                found.append(ops.convert_to_numpy(loss(labels, y_pred, sample_weight=given)))
            np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_label_out_of_range() -> None:
    """Raises, and where nothing can it is NaN in its row alone; 1.5 is no label."""
    labels = np.array([0, -1, 1, 4, 1.5, 0], "float32")
    loss = cek.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3 or equal ignore_class=None; got -1 in row 1"):
        loss(labels, Z)
    if BACKEND != "torch":
        value, slope = with_gradient(lambda z: loss(labels, z), compiled=True)(Z)
        bad = [False, True, False, True, True, False]
        np.testing.assert_array_equal(np.isnan(value), bad)
        np.testing.assert_array_equal(np.isnan(slope).all(1), bad)
        np.testing.assert_array_equal(np.isnan(slope).any(1), bad)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


WRONG = [
    (cek.SparseCategoricalCrossentropy(), (Y, Z), "the rows of y_pred must be probabilities that sum to 1; got [ 0.37"),
    (cek.BinaryCrossentropy(), (HOT, Z), "y_pred must lie in [0, 1]; got [-0.39"),
    (cek.BinaryCrossentropy(), (2 * HOT, Q), "targets must lie in [0, 1]; got [2.] in row 0"),
    (cek.BinaryCrossentropy(), (HOT[:, :3], Q), "y_true must have y_pred's shape (6, 4); got a tensor of shape (6, 3)"),
    (cek.CategoricalCrossentropy(), (Y, P), "CategoricalCrossentropy takes distributions (one-hot rows), of y_pred's"),
    (
        cek.SparseCategoricalCrossentropy(),
        (Y[:5], P),
        "labels must have shape (6,), one a row; got a tensor of shape (5",
    ),
    (cek.CategoricalFocalCrossentropy(), (2 * HOT, P), "0.25 * Focal(gamma=2.0) needs targets that sum to 1; got [2."),
    (cek.CategoricalFocalCrossentropy(alpha=[1, 2]), (HOT, P), "alpha must be a number or 4 of them; got [1.0, 2.0]"),
    (cek.SparseCategoricalCrossentropy(axis=2), (Y, P), "axis must lie in the 2 axes of y_pred; got 2"),
]


@pytest.mark.parametrize(("loss", "given", "words"), WRONG, ids=[words[:30] for *_, words in WRONG])
def test_a_wrong_call_is_refused_in_one_sentence(loss: Any, given: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        loss(*given)
    assert _first_line(caught.value).startswith(words)


@pytest.mark.parametrize(
    "make",
    [
        lambda: cek.Loss("focal"),
        lambda: cek.Loss(ce.Brier(), link="tanh"),
        lambda: cek.Loss(ce.Brier(), axis=True),
        lambda: cek.Loss(ce.ZPenalty(1e-4)),
        lambda: cek.Loss(ce.Distillation(2.0)),
        lambda: cek.Loss(ce.GeneralizedCrossEntropy(0.7), label_smoothing=0.1),
        lambda: cek.Loss(ce.Brier(), link="sigmoid", ignore_class=0),
        lambda: cek.SparseCategoricalCrossentropy(ignore_class=1.0),
        lambda: cek.CategoricalCrossentropy(label_smoothing=2),
        lambda: cek.BinaryFocalCrossentropy(alpha=2.0),
        lambda: cek.CategoricalFocalCrossentropy(gamma=-1.0),
    ],
)
def test_a_wrong_argument_is_refused(make: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="; got "):
        make()


def test_the_axis_of_the_classes() -> None:
    planes = RNG.normal(size=(2, 4, 3, 5)).astype("float32")
    labels = RNG.integers(0, 4, size=(2, 3, 5))
    want = ce.cross_entropy(np.moveaxis(planes, 1, -1), labels, reduction="none")
    for target in (labels, labels[:, None]):
        found = cek.SparseCategoricalCrossentropy(True, axis=1, reduction=None)(target, planes)
        np.testing.assert_allclose(ops.convert_to_numpy(found), want, rtol=1e-6)
    hot = np.moveaxis(np.eye(4, dtype="float32")[labels], -1, 1)
    found = cek.Loss(ce.CrossEntropy(), from_logits=True, axis=1, reduction=None)(hot, planes)
    np.testing.assert_allclose(ops.convert_to_numpy(found), want, rtol=1e-6)


@pytest.mark.parametrize("floatx", ["float32", "bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(floatx: str) -> None:
    keras.config.set_floatx(floatx)
    try:
        loss = cek.SparseCategoricalCrossentropy(from_logits=True)
        rounded = ops.cast(ops.convert_to_tensor(Z, dtype=floatx), "float32")
        exact = np.asarray(ops.convert_to_numpy(rounded))
        value, slope = with_gradient(lambda z: loss(Y, z), dtype=floatx)(exact)
        assert value.dtype == np.float32
        want, gradient = ce.value_and_grad(exact, Y)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        np.testing.assert_allclose(
            slope, gradient, rtol={"float32": 1e-6, "bfloat16": 2**-8, "float16": 2**-10}[floatx], atol=1e-7
        )
        # A label above 256 is the class that it says; Keras computes with the label in its own type.
        many, label = np.zeros((1, 1000), "float32"), np.array([301])
        many[0, 301] = 4
        assert float(loss(label, many)) == pytest.approx(float(ce.cross_entropy(many, label)), rel=1e-6)
        if floatx == "bfloat16":
            theirs = float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(label, many))
            assert theirs > float(loss(label, many)) + 3
        if floatx != "float32":
            with pytest.raises(TypeError, match="labels of 5000 classes must be integers or float32"):
                loss(ops.convert_to_tensor([3.0], dtype=floatx), np.zeros((1, 5000), "float32"))
    finally:
        keras.config.set_floatx("float32")


ALL = [
    cek.CategoricalCrossentropy(True, 0.1, reduction="sum"),
    cek.SparseCategoricalCrossentropy(ignore_class=2, axis=1),
    cek.BinaryCrossentropy(label_smoothing=0.2, name="own"),
    cek.CategoricalFocalCrossentropy([1.0, 2.0, 3.0, 4.0], 1.0, True),
    cek.SparseCategoricalFocalCrossentropy(0.5, 3.0, True, ignore_class=1),
    cek.BinaryFocalCrossentropy(True, 0.3, 1.0, dtype="float64"),
    cek.Loss(ce.Focal(2.0) + 0.5 * ce.ZPenalty(1e-4) - ce.Brier(), from_logits=True, ignore_class=0),
]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_a_loss_is_kept_by_name_and_parameters(loss: Any) -> None:
    import json

    written = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(written)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert (again.loss, again.class_weight, again.dtype) == (loss.loss, loss.class_weight, loss.dtype)


def test_a_model_is_saved_with_its_loss(tmp_path: Path) -> None:
    x, y = data()
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(optimizer="sgd", loss=cek.Loss(ce.Focal(2.0) + ce.ZPenalty(1e-4), from_logits=True))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.loss == model.loss.loss
    assert again.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("jit", [False, True])
def test_50_steps_are_those_of_numpy_and_of_kerass_own_loss(jit: bool) -> None:
    if jit and BACKEND == "torch":
        pytest.skip("PyTorch's compiler is not asked for here")
    found = by_keras(cek.SparseCategoricalCrossentropy(from_logits=True), jit_compile=jit)
    assert found[-1] < 0.5 * found[0]
    np.testing.assert_allclose(found, by_hand(ce.CrossEntropy()), rtol=1e-5)
    if not jit:
        np.testing.assert_allclose(found, by_keras(keras.losses.SparseCategoricalCrossentropy(True)), rtol=1e-5)
    focal = ce.Focal(2.0) + ce.ZPenalty(1e-3)
    np.testing.assert_allclose(by_keras(cek.Loss(focal, from_logits=True), jit_compile=jit), by_hand(focal), rtol=1e-5)


def test_50_steps_in_mixed_precision() -> None:
    """Matrix products in bfloat16 move the loss by a percent; its own rounding, three digits, would leave steps."""
    found = by_keras(cek.SparseCategoricalCrossentropy(from_logits=True), policy="mixed_bfloat16")
    np.testing.assert_allclose(found, by_hand(ce.CrossEntropy()), rtol=0.03)
    assert len(set(found)) == len(found)


def test_weights_classes_and_masks_of_a_fit() -> None:
    """A mask that layers hand on: padded steps hold labels that are none."""
    words = np.array([[1, 2, 3, 0], [2, 1, 0, 0]])
    labels = np.array([[0, 1, 2, -1], [2, 2, -1, -1]])
    model = keras.Sequential([keras.layers.Embedding(4, 3, mask_zero=True), keras.layers.Dense(3)])
    model.compile(optimizer="sgd", loss=cek.SparseCategoricalCrossentropy(from_logits=True))
    z = ops.convert_to_numpy(model(words)).reshape(-1, 3)
    first = model.evaluate(words, labels, verbose=0)
    np.testing.assert_allclose(first, ce.cross_entropy(z, labels.ravel(), ignore_index=-1), rtol=1e-5)
    x, y = data()
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    z = ops.convert_to_numpy(model(x))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=cek.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(x, y, class_weight={0: 1.0, 1: 3.0, 2: 0.5}, batch_size=96, verbose=0).history
    want = ce.cross_entropy(z, y, weight=[1.0, 3.0, 0.5], normalizer="count")
    np.testing.assert_allclose(history["loss"], [want], rtol=1e-5)


def test_a_loss_that_a_layer_adds() -> None:
    loss = cek.CategoricalCrossentropy(from_logits=True)

    class Head(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            logits, target = inputs
            self.add_loss(loss(target, logits))
            return logits

    logits, target = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([logits, target], Head()([logits, target]))
    model.compile(optimizer="sgd")
    np.testing.assert_allclose(model.evaluate([Z, HOT], verbose=0), ce.cross_entropy(Z, HOT), rtol=1e-5)
