"""Rows of logits in XLA's programs for a CPU, computed by the compiled kernels on XLA's own buffers.

XLA's foreign function interface calls a handler with the addresses of operands and results. The handler here is Python
(`ctypes`), which views them as NumPy arrays. What a program carries says by itself what is asked, so a program from
JAX's compilation cache means the same in every process. Where the kernels cannot serve, the same primitive is JAX's own
operations: on other devices, in exported programs, without Numba, and with a jaxlib whose interface is another.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from crossent.core.target import Target
from crossent.kernels import reference, registry
from crossent.losses import from_table

__all__ = ["LEAST_ELEMENTS", "losses_and_slopes", "why_not"]

logger = logging.getLogger("crossent")

LEAST_ELEMENTS = 1 << 17
"""Fewer logits than this stay with XLA. The handler gains 1.3 to 1.6 × from here on, and loses below 50,000."""

_TARGET = "crossent_rows"
_API_VERSION = (0, 3)
"""The interface whose structures stand here: jaxlib's ``include/xla/ffi/api/c_api.h``."""

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t


class _Values(ctypes.Structure):
    """XLA_FFI_Args and XLA_FFI_Rets."""

    _fields_ = [
        ("struct_size", _SIZE),
        ("extension_start", _POINTER),
        ("size", ctypes.c_int64),
        ("types", _POINTER),
        ("values", ctypes.POINTER(_POINTER)),
    ]


class _Attributes(ctypes.Structure):
    """XLA_FFI_Attrs."""

    _fields_ = [*_Values._fields_[:4], ("names", _POINTER), ("values", ctypes.POINTER(_POINTER))]


class _Frame(ctypes.Structure):
    """XLA_FFI_CallFrame."""

    _fields_ = [
        ("struct_size", _SIZE),
        ("extension_start", _POINTER),
        ("api", _POINTER),
        ("context", _POINTER),
        ("stage", ctypes.c_int),
        ("operands", _Values),
        ("results", _Values),
        ("attributes", _Attributes),
        ("future", _POINTER),
    ]


class _Buffer(ctypes.Structure):
    """XLA_FFI_Buffer."""

    _fields_ = [
        ("struct_size", _SIZE),
        ("extension_start", _POINTER),
        ("dtype", ctypes.c_int),
        ("data", _POINTER),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Array(ctypes.Structure):
    """XLA_FFI_Array."""

    _fields_ = [("dtype", ctypes.c_int), ("size", _SIZE), ("data", _POINTER)]


class _Version(ctypes.Structure):
    """XLA_FFI_Api_Version."""

    _fields_ = [
        ("struct_size", _SIZE),
        ("extension_start", _POINTER),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    ]


class _Metadata(ctypes.Structure):
    """XLA_FFI_Metadata."""

    _fields_ = [("struct_size", _SIZE), ("version", _Version), ("traits", ctypes.c_uint32), ("state", ctypes.c_int64)]


class _Extension(ctypes.Structure):
    """XLA_FFI_Metadata_Extension."""

    _fields_ = [
        ("struct_size", _SIZE),
        ("type", ctypes.c_int),
        ("next", _POINTER),
        ("metadata", ctypes.POINTER(_Metadata)),
    ]


class _Api(ctypes.Structure):
    """The beginning of XLA_FFI_Api."""

    _fields_ = [
        ("struct_size", _SIZE),
        ("extension_start", _POINTER),
        ("version", _Version),
        ("internal", _POINTER),
        ("error_create", ctypes.CFUNCTYPE(_POINTER, _POINTER)),
    ]


class _Error(ctypes.Structure):
    """XLA_FFI_Error_Create_Args."""

    _fields_ = [
        ("struct_size", _SIZE),
        ("extension_start", _POINTER),
        ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    ]


_DTYPES = {4: "<i4", 5: "<i8", 11: "<f4", 12: "<f8"}
_INTERNAL_ERROR = 13
_METADATA = 1


class _View:
    """Memory as NumPy reads it."""

    def __init__(self, address: int | None, dtype: int, shape: tuple[int, ...]) -> None:
        self.__array_interface__ = {"data": (address or 0, False), "typestr": _DTYPES[dtype], "shape": shape}


def _arrays(values: _Values) -> list[np.ndarray]:
    found = []
    for i in range(values.size):
        buffer = ctypes.cast(values.values[i], ctypes.POINTER(_Buffer))[0]
        found.append(np.asarray(_View(buffer.data, buffer.dtype, tuple(buffer.dims[: buffer.rank]))))
    return found


def _compute(frame: _Frame) -> None:
    """Compute what a call of XLA asks for into its results."""
    logits, weight, target, *class_weight = _arrays(frame.operands)
    losses, *slopes = _arrays(frame.results)
    listed = ctypes.cast(frame.attributes.values[0], ctypes.POINTER(_Array))[0]
    place, smoothing, *table = np.asarray(_View(listed.data, listed.dtype, (listed.size,))).tolist()
    given: dict[str, Any] = {_TARGETS[int(place)]: target, "label_smoothing": smoothing}
    if class_weight:
        given["class_weight"] = class_weight[0].astype(np.float64)
    asked = Target(logits.shape[1], **given)
    loss = from_table(np.reshape(table, (-1, 3)))
    if not slopes:
        losses[:] = registry.find(logits.dtype).row_losses(logits, asked, loss)
        return
    wide = weight.astype(np.float64)
    losses[:] = registry.find(logits.dtype).row_losses(logits, asked, loss, 1.0, wide, slopes[0])


_TARGETS = ("labels", "soft", "teacher")


@ctypes.CFUNCTYPE(_POINTER, ctypes.POINTER(_Frame))
def _handler(pointer: Any) -> int | None:
    frame = pointer[0]
    extension = ctypes.cast(frame.extension_start, ctypes.POINTER(_Extension))
    if extension and extension[0].type == _METADATA:
        found = extension[0].metadata[0]
        found.version.major, found.version.minor = _API_VERSION
        found.traits = 0
        return None
    try:
        _compute(frame)
    except BaseException as error:
        words = f"crossent.jax: {type(error).__name__}: {error}".encode()
        asked = _Error(ctypes.sizeof(_Error), None, words, _INTERNAL_ERROR)
        created: int = ctypes.cast(frame.api, ctypes.POINTER(_Api))[0].error_create(ctypes.addressof(asked))
        return created
    return None


@cache
def why_not() -> str:
    """Return why the compiled kernels do not serve JAX here; "" where they do.

    Examples
    --------
    >>> from crossent.jax import ffi
    >>> isinstance(ffi.why_not(), str)
    True
    """
    if registry.find("float32") is reference:
        return "the compiled kernels are not used (see crossent.kernels.registry.why_refused)"
    try:
        capsule = jax.ffi.pycapsule(ctypes.cast(_handler, _POINTER).value)
        jax.ffi.register_ffi_target(_TARGET, capsule, platform="cpu")
    except Exception as error:
        logger.info("crossent.jax computes with XLA alone: %s", error)
        return f"this jaxlib takes no handler of XLA's interface {_API_VERSION}: {error}"
    return ""


# The primitive: losses (N,), and the weighted gradient (N, K) where `slopes` is asked for, of logits (N, K), weights of
# the gradient (N,), labels (N,) or distributions or a teacher (N, K), and perhaps class weights (K,).

_rows = Primitive("crossent_rows")
_rows.multiple_results = True


def losses_and_slopes(pure: Any, form: Any, slopes: bool, operands: list[jax.Array], names: tuple[str, ...]) -> Any:
    """Return the losses of rows, (N,), and the weighted gradients, (N, K), where `slopes` is true.

    Parameters
    ----------
    pure : callable
        What is the same in JAX's operations: ``pure(form, slopes, names, *operands)``.
    form : Form
        Loss, number of classes and label smoothing.
    operands : list of arrays
        Logits (N, K), weights of the gradient (N,), and the target's arrays, whose `names` are "labels", "soft" or
        "teacher", and "weight".
    """
    return _rows.bind(*_of_one_mesh(operands), pure=pure, form=form, slopes=slopes, names=names)


def _of_one_mesh(operands: list[Any]) -> list[Any]:
    """Let all operands vary over the axes of a mesh that one of them varies over, as `jax.shard_map` asks."""
    axes = [frozenset(getattr(getattr(jax.typeof(x), "mat", None), "varying", ())) for x in operands]
    every = frozenset().union(*axes)
    if all(own == every for own in axes):
        return operands
    return [jax.lax.pcast(x, tuple(every - own), to="varying") for x, own in zip(operands, axes, strict=True)]


@_rows.def_abstract_eval
def _(logits: Any, weight: Any, *_: Any, slopes: bool, **__: Any) -> list[Any]:
    return [weight, logits] if slopes else [weight]


def _in_jax(*operands: Any, pure: Any, form: Any, slopes: bool, names: tuple[str, ...]) -> Any:
    return pure(form, slopes, names, *operands)


def _differentiated(operands: Any, tangents: Any, **asked: Any) -> Any:
    """The derivatives are those of JAX's operations."""
    places = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]

    def of_moving(*moving: Any) -> Any:
        changed = list(operands)
        for i, operand in zip(places, moving, strict=True):
            changed[i] = operand
        return _in_jax(*changed, **asked)

    _, moved = jax.jvp(of_moving, [operands[i] for i in places], [tangents[i] for i in places])
    return _rows.bind(*operands, **asked), list(moved)


ad.primitive_jvps[_rows] = _differentiated

_compiled = jax.jit(_rows.bind, static_argnames=("pure", "form", "slopes", "names"))


@_rows.def_impl
def _(*operands: Any, **asked: Any) -> Any:
    with jax.disable_jit(False):
        return _compiled(*operands, **asked)


def _lower_for_cpu(ctx: Any, *operands: Any, **asked: Any) -> Any:
    form, names = asked["form"], asked["names"]
    context = ctx.module_context
    if context.lowering_parameters.for_export or not _is_whole(context.axis_context) or why_not():
        return _lower(ctx, *operands, **asked)
    listed = np.array([_TARGETS.index(names[0]), form.label_smoothing, *np.ravel(form.loss.table())])
    over = {0: 1} if form.in_place and asked["slopes"] else None
    return jax.ffi.ffi_lowering(_TARGET, operand_output_aliases=over)(ctx, *operands, asked=listed)


def _is_whole(axes: Any) -> bool:
    """Whether a program's arrays are whole where it runs: on one device, or each device's own in `jax.shard_map`.

    XLA would gather arrays that it spreads over devices before a call that it cannot look into.
    """
    if isinstance(axes, mlir.SPMDAxisContext):
        return frozenset(axes.manual_axes) == frozenset(axes.mesh.axis_names)
    return isinstance(axes, mlir.ShardingContext) and axes.num_devices == 1


_lower = mlir.lower_fun(_in_jax, multiple_results=True)
mlir.register_lowering(_rows, _lower)
mlir.register_lowering(_rows, _lower_for_cpu, platform="cpu")


def _batched(operands: Any, axes: Any, **asked: Any) -> Any:
    """A batch of rows is more rows; one with class weights of its own is computed by JAX's operations."""
    names = asked["names"]
    if len(operands) > 3 and axes[3] is not None:
        found = jax.vmap(lambda *x: tuple(_in_jax(*x, **asked)), in_axes=axes)(*operands)
        return list(found), [0] * len(found)
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)

    def flat(x: Any, axis: Any) -> Any:
        x = jax.numpy.broadcast_to(x, (size, *x.shape)) if axis is None else jax.numpy.moveaxis(x, axis, 0)
        return x.reshape(-1, *x.shape[2:])

    arrays = [flat(x, axis) for x, axis in zip(operands[:3], axes[:3], strict=True)]
    found = losses_and_slopes(asked["pure"], asked["form"], asked["slopes"], [*arrays, *operands[3:]], names)
    return [x.reshape(size, -1, *x.shape[1:]) for x in found], [0] * len(found)


batching.primitive_batchers[_rows] = _batched
