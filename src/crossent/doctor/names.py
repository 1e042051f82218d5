"""The names of other libraries that the linter knows: what functions compute, layers put out and losses take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

__all__ = ["ACTIVATIONS", "FUNCTIONS", "KERAS_LOSSES", "LAYERS", "LOSSES", "METHODS", "Loss", "canonical"]

_PREFIXES = (
    ("tensorflow.python.keras.", "keras."),
    ("tensorflow.keras.", "keras."),
    ("tf_keras.", "keras."),
    ("tensorflow.losses.", "keras.losses."),
    ("tensorflow.compat.v1.", "tensorflow."),
    ("tensorflow.compat.v2.", "tensorflow."),
    ("jax.numpy.", "numpy."),
    ("cupy.", "numpy."),
    ("autograd.numpy.", "numpy."),
    ("optax.losses.", "optax."),
    ("torch.nn.modules.loss.", "torch.nn."),
    ("torch.nn.modules.activation.", "torch.nn."),
    ("keras.api.", "keras."),
    ("keras.src.", "keras."),
)


@cache
def canonical(name: str) -> str:
    """Return the one spelling that the tables use.

    Examples
    --------
    >>> canonical("tensorflow.keras.layers.Dense")
    'keras.layers.Dense'
    """
    for prefix, other in _PREFIXES:
        if name.startswith(prefix):
            return other + name[len(prefix) :]
    return name


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss of another library.

    Parameters
    ----------
    name
        As a message calls it.
    link
        ``softmax``, ``sigmoid`` or ``kl``.
    reads
        What its first array is: ``logits``, ``log_probabilities`` or ``probabilities``.
    parameters
        Of the call that gets the arrays, in order.
    options
        Of the constructor, in order; empty for a function.
    prediction, target
        Which of the parameters are the model's output and the labels.
    has_from_logits
        Whether ``from_logits`` decides what it reads (Keras).
    integer_labels
        True if labels are class numbers, False if they are a distribution or 0 and 1, None if both are taken.
    """

    name: str
    link: str
    reads: str
    parameters: tuple[str, ...]
    options: tuple[str, ...] = ()
    prediction: str = "input"
    target: str = "target"
    library: str = "torch"
    has_from_logits: bool = False
    integer_labels: bool | None = None


def _spread(ops: dict[str, str]) -> dict[str, str]:
    return {name: op for op, names in ops.items() for name in names.split()}


FUNCTIONS = _spread(
    {
        "softmax": "torch.softmax torch.nn.functional.softmax torch.special.softmax jax.nn.softmax flax.linen.softmax "
        "scipy.special.softmax tensorflow.nn.softmax tensorflow.math.softmax keras.activations.softmax "
        "keras.ops.softmax keras.backend.softmax crossent.softmax flax.nnx.softmax",
        "log_softmax": "torch.log_softmax torch.nn.functional.log_softmax torch.special.log_softmax jax.nn.log_softmax "
        "flax.linen.log_softmax scipy.special.log_softmax tensorflow.nn.log_softmax tensorflow.math.log_softmax "
        "keras.activations.log_softmax keras.ops.log_softmax crossent.log_softmax flax.nnx.log_softmax",
        "sigmoid": "torch.sigmoid torch.nn.functional.sigmoid torch.special.expit jax.nn.sigmoid flax.linen.sigmoid "
        "scipy.special.expit tensorflow.sigmoid tensorflow.nn.sigmoid tensorflow.math.sigmoid "
        "keras.activations.sigmoid keras.ops.sigmoid keras.backend.sigmoid crossent.sigmoid "
        "jax.scipy.special.expit flax.nnx.sigmoid",
        "log_sigmoid": "torch.nn.functional.logsigmoid jax.nn.log_sigmoid tensorflow.math.log_sigmoid "
        "tensorflow.nn.log_sigmoid scipy.special.log_expit keras.ops.log_sigmoid crossent.log_sigmoid "
        "flax.linen.log_sigmoid",
        "log": "torch.log numpy.log tensorflow.math.log tensorflow.log math.log keras.ops.log keras.backend.log",
        "log1p": "torch.log1p numpy.log1p tensorflow.math.log1p math.log1p keras.ops.log1p",
        "exp": "torch.exp numpy.exp tensorflow.exp tensorflow.math.exp math.exp keras.ops.exp keras.backend.exp",
        "sum": "torch.sum numpy.sum tensorflow.reduce_sum tensorflow.math.reduce_sum keras.ops.sum sum",
        "mean": "torch.mean numpy.mean tensorflow.reduce_mean tensorflow.math.reduce_mean keras.ops.mean",
        "max": "torch.max torch.amax numpy.max numpy.amax numpy.nanmax tensorflow.reduce_max "
        "tensorflow.math.reduce_max keras.ops.max keras.ops.amax max",
        "argmax": "torch.argmax numpy.argmax tensorflow.argmax tensorflow.math.argmax keras.ops.argmax",
        "clamp": "torch.clamp torch.clip numpy.clip tensorflow.clip_by_value keras.ops.clip keras.backend.clip "
        "torch.clamp_min torch.clamp_max numpy.maximum tensorflow.maximum torch.maximum",
        "bounded": "torch.tanh numpy.tanh numpy.sin numpy.cos torch.sin torch.cos torch.nn.functional.normalize "
        "torch.nn.functional.cosine_similarity tensorflow.tanh tensorflow.math.tanh tensorflow.math.l2_normalize "
        "jax.nn.tanh tensorflow.nn.l2_normalize numpy.minimum torch.minimum torch.nn.functional.hardtanh "
        "sklearn.metrics.pairwise.cosine_similarity torch.clamp_max numpy.nan_to_num",
        "abs": "torch.abs numpy.abs numpy.absolute tensorflow.abs tensorflow.math.abs abs numpy.square torch.square",
        "one_hot": "torch.nn.functional.one_hot",
        "float_one_hot": "jax.nn.one_hot tensorflow.one_hot keras.utils.to_categorical keras.ops.one_hot "
        "keras.utils.np_utils.to_categorical np_utils.to_categorical flax.linen.one_hot",
        "product": "torch.matmul torch.mm torch.bmm numpy.matmul numpy.dot tensorflow.matmul",
        "pow": "torch.pow numpy.power tensorflow.pow tensorflow.math.pow keras.ops.power pow",
        "tensor": "torch.tensor torch.FloatTensor torch.Tensor torch.from_numpy",
        "where": "numpy.where torch.where tensorflow.where",
        "full": "numpy.full torch.full numpy.full_like torch.full_like",
        "same": "torch.squeeze torch.unsqueeze torch.flatten torch.reshape torch.permute torch.transpose torch.clone "
        "numpy.squeeze numpy.reshape numpy.asarray numpy.array numpy.expand_dims tensorflow.squeeze tensorflow.reshape "
        "tensorflow.cast tensorflow.convert_to_tensor tensorflow.expand_dims tensorflow.identity numpy.ravel "
        "keras.ops.squeeze keras.ops.reshape keras.ops.cast numpy.transpose torch.movedim torch.swapaxes torch.narrow "
        "jax.jit jax.vmap torch.compile torch.jit.script torch.nn.DataParallel jax.lax.with_sharding_constraint "
        "torch.nn.parallel.DistributedDataParallel torch.nn.parallel.DataParallel tensorflow.function copy.deepcopy "
        "torch.as_tensor torch.gather torch.take_along_dim torch.nan_to_num torch.index_select einops.rearrange",
        "stopped": "jax.lax.stop_gradient tensorflow.stop_gradient keras.ops.stop_gradient",
        "stack": "torch.cat torch.concat torch.stack numpy.concatenate numpy.stack numpy.vstack numpy.hstack "
        "tensorflow.concat tensorflow.stack torch.vstack torch.hstack",
    }
)
"""What each known function computes."""

METHODS = {
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
    "log": "log",
    "log_": "log",
    "log1p": "log1p",
    "exp": "exp",
    "exp_": "exp",
    "sum": "sum",
    "mean": "mean",
    "max": "max",
    "amax": "max",
    "argmax": "argmax",
    "clamp": "clamp",
    "clip": "clamp",
    "clamp_": "clamp",
    "clamp_min": "clamp",
    "tanh": "bounded",
    "abs": "abs",
    "square": "abs",
    "pow": "pow",
    **dict.fromkeys(("matmul", "mm", "bmm", "dot"), "product"),
    "detach": "stopped",
    **dict.fromkeys(
        [
            "view",
            "reshape",
            "squeeze",
            "unsqueeze",
            "flatten",
            "permute",
            "transpose",
            "contiguous",
            "to",
            "cuda",
            "cpu",
            "clone",
            "numpy",
            "type",
            "t",
            "ravel",
            "requires_grad_",
            "eval",
            "train",
            "movedim",
            "swapaxes",
            "copy",
            "astype",
            "block_until_ready",
            "gather",
            "index_select",
        ],
        "same",
    ),
    **dict.fromkeys(["float", "double", "half", "bfloat16", "type_as"], "float"),
    **dict.fromkeys(["long", "int"], "integer"),
}
"""What each known method of an array computes."""

_CONVS = [f"torch.nn.Conv{d}d" for d in (1, 2, 3)] + [f"torch.nn.ConvTranspose{d}d" for d in (1, 2, 3)]
LAYERS = _spread(
    {
        "softmax": "torch.nn.Softmax torch.nn.Softmax2d keras.layers.Softmax",
        "log_softmax": "torch.nn.LogSoftmax",
        "sigmoid": "torch.nn.Sigmoid",
        "log_sigmoid": "torch.nn.LogSigmoid",
        "bounded": "torch.nn.CosineSimilarity torch.nn.Tanh torch.nn.Hardtanh",
        "linear": "torch.nn.Linear torch.nn.LazyLinear flax.linen.Dense flax.nnx.Linear equinox.nn.Linear "
        "haiku.Linear " + " ".join(_CONVS),
        "dense": "keras.layers.Dense",
        "activation": "keras.layers.Activation",
        "identity": "torch.nn.Identity torch.nn.Flatten torch.nn.Unflatten keras.layers.Reshape keras.layers.Flatten",
        "sequential": "torch.nn.Sequential keras.Sequential keras.models.Sequential",
        "keras_model": "keras.Model keras.models.Model",
        "keras_input": "keras.Input keras.layers.Input keras.layers.InputLayer",
        "pretrained": "timm.create_model",
    }
)
"""What each known layer puts out."""

ACTIVATIONS = {"softmax": "softmax", "sigmoid": "sigmoid", "log_softmax": "log_softmax", "linear": "linear"}

_WEIGHTED = ("input", "target", "weight", "size_average")
_OLD = ("size_average", "reduce", "reduction")
_CE = Loss("cross_entropy", "softmax", "logits", (*_WEIGHTED, "ignore_index", "reduce", "reduction", "label_smoothing"))
_NLL = Loss(
    "nll_loss",
    "softmax",
    "log_probabilities",
    (*_WEIGHTED, "ignore_index", "reduce", "reduction"),
    integer_labels=True,
)
_BCE = Loss(
    "binary_cross_entropy", "sigmoid", "probabilities", (*_WEIGHTED, "reduce", "reduction"), integer_labels=False
)
_BCE_LOGITS = replace(
    _BCE,
    name="binary_cross_entropy_with_logits",
    reads="logits",
    parameters=(*_WEIGHTED, "reduce", "reduction", "pos_weight"),
)
_KL = Loss("kl_div", "kl", "log_probabilities", ("input", "target", *_OLD, "log_target"), integer_labels=False)
_IT = ("input", "target")


def _class(loss: Loss, name: str, *options: str) -> Loss:
    return replace(loss, name=name, parameters=_IT, options=options)


_OURS = Loss("cross_entropy", "softmax", "logits", ("logits", "target"), prediction="logits", library="crossent")
_OPTAX = Loss(
    "softmax_cross_entropy",
    "softmax",
    "logits",
    ("logits", "labels", "axis"),
    prediction="logits",
    target="labels",
    library="optax",
    integer_labels=False,
)
_TF = replace(
    _OPTAX, name="softmax_cross_entropy_with_logits", library="tensorflow", parameters=("labels", "logits", "axis")
)
_SKLEARN = Loss(
    "log_loss",
    "any",
    "probabilities",
    ("y_true", "y_pred"),
    prediction="y_pred",
    target="y_true",
    library="sklearn",
)

KERAS_LOSSES = {
    "sparse_categorical_crossentropy": Loss(
        "SparseCategoricalCrossentropy",
        "softmax",
        "probabilities",
        ("y_true", "y_pred"),
        ("from_logits", "ignore_class", "reduction", "axis", "name"),
        "y_pred",
        "y_true",
        "keras",
        True,
        True,
    ),
    "categorical_crossentropy": Loss(
        "CategoricalCrossentropy",
        "softmax",
        "probabilities",
        ("y_true", "y_pred"),
        ("from_logits", "label_smoothing", "axis", "reduction", "name"),
        "y_pred",
        "y_true",
        "keras",
        True,
        False,
    ),
    "binary_crossentropy": Loss(
        "BinaryCrossentropy",
        "sigmoid",
        "probabilities",
        ("y_true", "y_pred"),
        ("from_logits", "label_smoothing", "axis", "reduction", "name"),
        "y_pred",
        "y_true",
        "keras",
        True,
        False,
    ),
}
"""Keras' losses by the name that `compile` takes."""

LOSSES: dict[str, Loss] = {
    "torch.nn.functional.cross_entropy": _CE,
    "torch.nn.functional.nll_loss": _NLL,
    "torch.nn.functional.binary_cross_entropy": _BCE,
    "torch.nn.functional.binary_cross_entropy_with_logits": _BCE_LOGITS,
    "torch.nn.functional.multilabel_soft_margin_loss": replace(_BCE_LOGITS, name="multilabel_soft_margin_loss"),
    "torch.nn.functional.kl_div": _KL,
    "torch.nn.CrossEntropyLoss": _class(
        _CE, "CrossEntropyLoss", "weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing"
    ),
    "torch.nn.NLLLoss": _class(_NLL, "NLLLoss", "weight", "size_average", "ignore_index", "reduce", "reduction"),
    "torch.nn.NLLLoss2d": _class(_NLL, "NLLLoss2d", "weight", "size_average", "ignore_index", "reduce", "reduction"),
    "torch.nn.BCELoss": _class(_BCE, "BCELoss", "weight", *_OLD),
    "torch.nn.BCEWithLogitsLoss": _class(_BCE_LOGITS, "BCEWithLogitsLoss", "weight", *_OLD, "pos_weight"),
    "torch.nn.MultiLabelSoftMarginLoss": _class(_BCE_LOGITS, "MultiLabelSoftMarginLoss", "weight", *_OLD),
    "torch.nn.KLDivLoss": _class(_KL, "KLDivLoss", *_OLD, "log_target"),
    "torchvision.ops.sigmoid_focal_loss": replace(
        _BCE_LOGITS,
        name="sigmoid_focal_loss",
        parameters=("inputs", "targets", "alpha", "gamma", "reduction"),
        prediction="inputs",
        target="targets",
    ),
    "optax.softmax_cross_entropy": _OPTAX,
    "optax.safe_softmax_cross_entropy": replace(_OPTAX, name="safe_softmax_cross_entropy"),
    "optax.softmax_cross_entropy_with_integer_labels": replace(
        _OPTAX, name="softmax_cross_entropy_with_integer_labels", integer_labels=True
    ),
    "optax.sigmoid_binary_cross_entropy": replace(_OPTAX, name="sigmoid_binary_cross_entropy", link="sigmoid"),
    "optax.sigmoid_focal_loss": replace(_OPTAX, name="sigmoid_focal_loss", link="sigmoid"),
    "optax.poly_loss_cross_entropy": replace(_OPTAX, name="poly_loss_cross_entropy"),
    "tensorflow.nn.softmax_cross_entropy_with_logits": _TF,
    "tensorflow.nn.softmax_cross_entropy_with_logits_v2": _TF,
    "tensorflow.nn.sparse_softmax_cross_entropy_with_logits": replace(
        _TF, name="sparse_softmax_cross_entropy_with_logits", integer_labels=True
    ),
    "tensorflow.nn.sigmoid_cross_entropy_with_logits": replace(
        _TF, name="sigmoid_cross_entropy_with_logits", link="sigmoid"
    ),
    "tensorflow.nn.weighted_cross_entropy_with_logits": replace(
        _TF, name="weighted_cross_entropy_with_logits", link="sigmoid", parameters=("labels", "logits", "pos_weight")
    ),
    "sklearn.metrics.log_loss": _SKLEARN,
    "sklearn.metrics.brier_score_loss": replace(_SKLEARN, name="brier_score_loss"),
    "crossent.metrics.log_loss": replace(_SKLEARN, parameters=("y_true", "y_prob"), prediction="y_prob"),
    "crossent.cross_entropy": _OURS,
    "crossent.focal_loss": replace(_OURS, name="focal_loss"),
    "crossent.binary_cross_entropy_with_logits": replace(
        _OURS, name="binary_cross_entropy_with_logits", link="sigmoid"
    ),
    "crossent.nll_loss": replace(_NLL, parameters=("log_probs", "target"), prediction="log_probs", library="crossent"),
    "crossent.torch.cross_entropy": replace(_CE, library="crossent"),
    "crossent.torch.focal_loss": replace(_CE, name="focal_loss", parameters=_IT, library="crossent"),
    "crossent.torch.binary_cross_entropy_with_logits": replace(_BCE_LOGITS, library="crossent"),
    "crossent.torch.CrossEntropyLoss": replace(
        _class(_CE, "CrossEntropyLoss", "weight", "size_average", "ignore_index", "reduce", "reduction"),
        library="crossent",
    ),
}
"""Every known loss by its qualified name."""

for _name, _loss in KERAS_LOSSES.items():
    _function = replace(_loss, name=_name, options=(), parameters=("y_true", "y_pred", "from_logits"))
    LOSSES |= dict.fromkeys((f"keras.losses.{_name}", f"keras.metrics.{_name}", f"keras.{_name}"), _function)
    LOSSES[f"keras.losses.{_loss.name}"] = _loss
    LOSSES[f"keras.backend.{_name}"] = replace(
        _function, parameters=("target", "output", "from_logits"), prediction="output", target="target"
    )
