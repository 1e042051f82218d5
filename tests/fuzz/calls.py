"""Calls of the public functions, drawn by hypothesis: mostly sensible, here and there not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

import crossent as ce
from crossent import information, metrics

FLOATING = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
ODD_DTYPES = [np.int64, np.uint8, np.bool_, np.complex128, np.longdouble, ">f4", object]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, -20.0, 88.75, -104.0, 710.0, 1e-30, 5e-324, 1e-45, 3e38, -1e30, 1e300]
STRANGE = [np.inf, -np.inf, np.nan]


@dataclass(frozen=True)
class Call:
    """A public function, by module and name, with its arguments."""

    module: Any = field(repr=False)  # its repr is a path of the machine
    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __call__(self) -> Any:
        return getattr(self.module, self.name)(*self.args, **self.options)


def numbers(strange: bool = True) -> st.SearchStrategy[float]:
    pools = [st.floats(-8, 8, width=32), st.floats(-8, 8, width=32), st.sampled_from(NUMBERS)]
    return st.one_of(*pools, st.sampled_from(STRANGE)) if strange else st.one_of(*pools)


@st.composite
def laid_out(draw: Any, array: np.ndarray) -> Any:
    """The same values as a list, read-only, strided, reversed, in Fortran's order or broadcast."""
    layout = draw(st.sampled_from(["plain", "plain", "plain", "read-only", "strided", "reversed", "fortran", "list"]))
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
    elif layout == "strided" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        array = wide[..., ::2]
    elif layout == "reversed" and array.ndim:
        array = np.ascontiguousarray(array[::-1])[::-1]
    elif layout == "fortran":
        array = np.asfortranarray(array)
    elif layout == "list" and array.dtype in (np.float64, np.int64):
        return array.tolist()
    return array


@st.composite
def arrays(draw: Any, shape: tuple[int, ...], *, strange: bool = True, dtype: Any = None) -> np.ndarray:
    """Floating numbers of every size; few distinct ones in a large array."""
    size = int(np.prod(shape))
    pool = draw(st.lists(numbers(strange), min_size=1, max_size=8))
    values = np.array(pool)[np.random.default_rng(draw(st.integers(0, 2**16))).integers(0, len(pool), size)]
    if draw(st.booleans()):
        values = values + np.random.default_rng(draw(st.integers(0, 2**16))).normal(size=size)
    if dtype is None:
        dtype = draw(st.one_of(st.sampled_from(FLOATING), st.sampled_from(FLOATING[:2])))
    with np.errstate(all="ignore"):
        return values.reshape(shape).astype(dtype)


@st.composite
def shapes(draw: Any) -> tuple[int, ...]:
    leading = draw(st.sampled_from([(), (1,), (2,), (3,), (5,), (0,), (2, 2), (66,)]))
    return (*leading, draw(st.sampled_from([1, 2, 3, 4, 7, 16, 65, 0] if leading != (66,) else [2, 3])))


@st.composite
def labels(draw: Any, shape: tuple[int, ...], num_classes: int) -> Any:
    """Class indices, a few of them ignored, out of range or of an odd dtype."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    y = rng.integers(0, max(1, num_classes), shape)
    spoil = draw(st.sampled_from([None, None, None, -100, -1, num_classes, 2**40]))
    if spoil is not None and y.size:
        y.reshape(-1)[rng.integers(y.size)] = spoil
    dtype = draw(st.sampled_from([np.int64] * 5 + [np.int32, np.int8, np.uint8, np.uint64, np.bool_, np.float32]))
    return draw(laid_out(y.astype(dtype)))


@st.composite
def distributions(draw: Any, shape: tuple[int, ...]) -> Any:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    t = rng.gamma(draw(st.sampled_from([0.05, 1.0])), size=shape)
    t = np.where(rng.random(shape) < 0.2, 0.0, t)
    with np.errstate(all="ignore"):
        t = np.nan_to_num(t / t.sum(axis=-1, keepdims=True), nan=0.0)
    t = t * draw(st.sampled_from([1.0, 1.0, 1.0, 0.5, 3.0, 1e-30, -1.0, np.nan]))
    return draw(laid_out(t.astype(draw(st.sampled_from(FLOATING)))))


def positive(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    return st.one_of(
        arrays(shape, strange=False, dtype=np.float64).map(np.abs),
        arrays(shape, strange=False, dtype=np.float64).map(lambda a: np.clip(np.abs(a), 0.1, 4.0)),
        arrays(shape),
        st.sampled_from([2.0, 0.0, -1.0, "heavy"]),
    )


def losses() -> st.SearchStrategy[Any]:
    parameter = st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 10.0])
    single = st.one_of(
        st.just(ce.CrossEntropy()),
        parameter.map(ce.Focal),
        parameter.map(ce.Poly1),
        st.sampled_from([0.1, 0.5, 0.7, 1.0]).map(ce.GeneralizedCrossEntropy),
        parameter.map(ce.ZPenalty),
        parameter.map(ce.EntropyPenalty),
        st.just(ce.Brier()),
    )
    added = st.tuples(single, single, st.sampled_from([1.0, 0.5, -0.25, 0.0])).map(lambda p: p[0] + p[2] * p[1])
    return st.one_of(st.none(), single, added, st.sampled_from(["focal", ce.Focal]))


@st.composite
def options(draw: Any, shape: tuple[int, ...], link: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Some of the keywords that every loss shares; one in ten values makes no sense."""
    num_classes, leading = shape[-1], shape[:-1]
    scalars = {
        "label_smoothing": [0.0, 0.1, 1.0, 1e-30, 1.5, "0.1"],
        "ignore_index": [-100, 0, 1, 255, None],
        "reduction": ["mean", "sum", "none", "none", "none", "avg"],
        "normalizer": [None, "count", 7.5, 0, "rows"],
        "on_empty": ["nan", "zero", "raise", "skip"],
        "temperature": [0.5, 2.0, 1e-3, 0.0, np.nan],
        "prior_strength": [1.0, 0.5, -2.0, np.inf],
        "softcap": [5.0, 30.0, 1e-3, -1.0],
        "margin": [0.3, 5.0, np.inf],
        "alpha": [0.25, 0.0, 1.0, 2.0],
        "axis": [-1, -1, 0, 1, 9],
    }
    chosen: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from([*scalars, "loss", "weight", "sample_weight", "prior", "pos_weight"]))):
        if name in without or (name in ("alpha", "pos_weight")) > (link == "sigmoid"):
            continue
        if name == "loss":
            chosen[name] = draw(losses())
        elif name == "weight":
            chosen[name] = draw(positive(shape if link == "sigmoid" and draw(st.booleans()) else (num_classes,)))
        elif name == "sample_weight":
            chosen[name] = draw(positive(leading))
        elif name in ("prior", "pos_weight"):
            chosen[name] = draw(positive((num_classes,)))
        else:
            chosen[name] = draw(st.sampled_from(scalars[name]))
    return chosen


@st.composite
def targets(draw: Any, shape: tuple[int, ...], link: str) -> Any:
    kind = draw(st.sampled_from(["hard"] * 4 + ["soft"] * 3 + ["garbage"]))
    if kind == "garbage":
        return draw(arrays(draw(shapes())))
    if link == "sigmoid":
        return draw(labels(shape, 2)) if kind == "hard" else draw(arrays(shape, dtype=np.float64).map(_into_unit))
    return draw(labels(shape[:-1], shape[-1])) if kind == "hard" else draw(distributions(shape))


def _into_unit(values: np.ndarray) -> np.ndarray:
    return np.abs(np.nan_to_num(values, nan=0.5, posinf=1.0, neginf=0.0)) % 1.0


@st.composite
def logits(draw: Any, shape: tuple[int, ...]) -> Any:
    if draw(st.integers(0, 19)) == 0:
        array = draw(arrays(shape, strange=False, dtype=np.float64))
        with np.errstate(all="ignore"):
            return np.clip(array, -100, 100).astype(draw(st.sampled_from(ODD_DTYPES)))
    return draw(laid_out(draw(arrays(shape))))


def links() -> st.SearchStrategy[str]:
    return st.sampled_from(["softmax"] * 4 + ["sigmoid"] * 2)


@st.composite
def dense(draw: Any, name: str) -> Call:
    shape, link = draw(shapes()), draw(links())
    without: tuple[str, ...] = ()
    given: dict[str, Any] = {"link": link}
    if name == "cross_entropy":
        given, link = {}, "softmax"
    elif name == "binary_cross_entropy_with_logits":
        given, link = {}, "sigmoid"
    elif name == "focal_loss":
        without = ("loss", "weight")
        given["gamma"] = draw(st.sampled_from([2.0, 0.0, 0.5, -1.0]))
    elif name == "statistics":
        without = ("loss", "normalizer", "on_empty", "reduction", "sample_weight", "margin")
        given = {}
        link = "softmax"
    args = [draw(logits(shape)), draw(targets(shape, link))]
    if name == "hessian_vector_product":
        args.append(draw(arrays(shape, strange=False)))
    return Call(ce, name, tuple(args), given | draw(options(shape, link, without)))


@st.composite
def distillation(draw: Any, name: str) -> Call:
    shape = draw(shapes())
    teacher: Any = draw(arrays(shape))
    if draw(st.booleans()) and shape[-1] > 2:
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        indices = np.argsort(rng.random(shape), axis=-1)[..., :2]
        shares = rng.dirichlet(np.ones(3), shape[:-1])[..., :2] * draw(st.sampled_from([1.0, 1.0, 1e-20]))
        teacher = ce.TopK(indices, shares)
    given = {"temperature": draw(st.sampled_from([1.0, 2.0, 0.5, 0.0]))}
    without = ("loss", "weight", "label_smoothing", "ignore_index", "margin", "temperature")
    return Call(ce, name, (draw(logits(shape)), teacher), given | draw(options(shape, "softmax", without)))


@st.composite
def linear(draw: Any, name: str) -> Call:
    shape, link, width = draw(shapes()), draw(links()), draw(st.sampled_from([1, 2, 5, 0]))
    without: tuple[str, ...] = ("axis",)
    given: dict[str, Any] = {"link": link}
    if name == "linear_statistics":
        without, given, link = (*without, "loss", "normalizer", "on_empty", "reduction", "sample_weight"), {}, "softmax"
    args = (draw(logits((*shape[:-1], width))), draw(logits((shape[-1], width))), draw(targets(shape, link)))
    if draw(st.booleans()):
        given["linear_bias"] = draw(logits(shape[-1:]))
    return Call(ce, name, args, given | draw(options(shape, link, without)))


@st.composite
def probabilities(draw: Any, name: str) -> Call:
    shape = draw(shapes())
    link = "sigmoid" if name == "binary_cross_entropy" else "softmax"
    p = draw(distributions(shape)) if link == "softmax" else draw(arrays(shape, dtype=np.float64).map(_into_unit))
    if name == "nll_loss":
        with np.errstate(all="ignore"):
            p = np.log(np.asarray(p))
    without = ("temperature", "prior", "prior_strength", "softcap", "margin", "alpha", "pos_weight")
    return Call(ce, name, (p, draw(targets(shape, link))), draw(options(shape, link, without)))


@st.composite
def elementwise(draw: Any, name: str) -> Call:
    shape = draw(shapes())
    given = {"axis": draw(st.sampled_from([-1, 0, 1, 5]))} if "soft" in name and name != "softplus" else {}
    return Call(ce, name, (draw(logits(shape)),), given)


@st.composite
def measures(draw: Any, name: str) -> Call:
    shape = draw(shapes())
    if name == "perplexity":
        losses_of_rows = st.one_of(logits(shape), numbers(), st.sampled_from([None, "a", "1.0", 3]))
        return Call(ce, name, (draw(losses_of_rows),), draw(st.sampled_from([{}, {"base": "bits"}, {"base": "bans"}])))
    count = 1 if name == "entropy" else 2
    args = tuple(draw(st.one_of(*[distributions(shape)] * 6, logits(shape), st.none())) for _ in range(count))
    given: dict[str, Any] = {}
    if draw(st.booleans()):
        given["base"] = draw(st.sampled_from(["nats", "bits", "bans"]))
    if draw(st.booleans()):
        given["axis"] = draw(st.sampled_from([-1, -1, 0, 1, 5, 0.5]))
    module = information if name == "cross_entropy" else ce
    return Call(module, name, args, given)


@st.composite
def scores(draw: Any, name: str) -> Call:
    num_rows, num_classes = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    shape = draw(st.sampled_from([(num_rows, num_classes), (num_rows,)]))
    given: dict[str, Any] = {}
    if draw(st.booleans()):
        given["labels"] = list(range(num_classes))
    if draw(st.booleans()) and name not in ("calibration_error", "reliability_curve"):
        given["sample_weight"] = draw(positive((num_rows,)))
    y = draw(labels((num_rows,), num_classes if len(shape) == 2 else 2))
    p = draw(distributions(shape)) if len(shape) == 2 else draw(arrays(shape, dtype=np.float64).map(_into_unit))
    return Call(metrics, name, (y, p), given)


Maker = Callable[[str], st.SearchStrategy[Call]]
_MAKERS: dict[Maker, list[str]] = {
    dense: [
        "cross_entropy",
        "binary_cross_entropy_with_logits",
        "focal_loss",
        "value_and_grad",
        "value_grad_hess",
        "hessian_vector_product",
        "statistics",
    ],
    distillation: ["distillation_loss"],
    linear: ["linear_cross_entropy", "linear_value_and_grad", "linear_statistics"],
    probabilities: ["cross_entropy_from_probabilities", "nll_loss", "binary_cross_entropy"],
    elementwise: ["softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid", "softplus"],
    measures: ["entropy", "kl_divergence", "js_divergence", "perplexity"],
    scores: ["log_loss", "brier_score", "accuracy", "calibration_error", "reliability_curve"],
}
CALLS: dict[str, st.SearchStrategy[Call]] = {name: maker(name) for maker, names in _MAKERS.items() for name in names}
CALLS["information.cross_entropy"] = measures("cross_entropy")
