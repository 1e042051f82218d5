"""A fitted softmax regression as an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from crossent.errors import refuse

OPSET = 17


def to_onnx(model: Any, *, dtype: str = "float32") -> Any:
    """Return a fitted `SoftmaxRegression` as an ONNX model.

    The graph takes ``X`` (N, D) and returns ``label`` (N,), one of the model's classes (for label sets (N, K) of 0 and
    1), and ``probabilities`` (N, K).

    Parameters
    ----------
    model : SoftmaxRegression
        Fitted; its classes are integers or strings.
    dtype : {"float32", "float64"}
        Of ``X``, the coefficients and the probabilities.

    Returns
    -------
    onnx.ModelProto
        ``.SerializeToString()`` is what runtimes read.

    Raises
    ------
    ImportError
        If onnx is not installed.
    ValueError
        If the dtype is another, or the classes are of a type that ONNX has no tensors of.

    Examples
    --------
    >>> import pytest
    >>> _ = pytest.importorskip("onnx")
    >>> from sklearn.datasets import load_wine
    >>> from crossent.sklearn import SoftmaxRegression, to_onnx
    >>> X, y = load_wine(return_X_y=True)
    >>> graph = to_onnx(SoftmaxRegression(C=1e-3).fit(X, y)).graph
    >>> [output.name for output in graph.output]
    ['label', 'probabilities']
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise ImportError("to_onnx needs onnx: pip install 'crossent[onnx]'") from error
    check_is_fitted(model)
    if dtype not in ("float32", "float64"):
        raise ValueError(refuse("dtype must be 'float32' or 'float64'", repr(dtype)))
    number = TensorProto.FLOAT if dtype == "float32" else TensorProto.DOUBLE
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "iub":
        classes, label_type = classes.astype(np.int64), TensorProto.INT64
    elif classes.dtype.kind in "UO" and all(isinstance(name, str) for name in classes):
        classes, label_type = classes.astype(object), TensorProto.STRING
    else:
        raise ValueError(refuse("ONNX labels are integers or strings", f"classes of dtype {classes.dtype}"))
    constants = {"weight": model.coef_.T.astype(dtype), "bias": model.intercept_.astype(dtype)}
    nodes = [helper.make_node("MatMul", ["X", "weight"], ["products"])]
    nodes.append(helper.make_node("Add", ["products", "bias"], ["logits"]))
    multilabel = bool(model._multilabel)
    if multilabel:
        constants["zero"] = np.zeros((), dtype)
        label_type = TensorProto.INT64
        nodes += [
            helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
            helper.make_node("Greater", ["logits", "zero"], ["present"]),
            helper.make_node("Cast", ["present"], ["label"], to=TensorProto.INT64),
        ]
    else:
        if model.link == "sigmoid" and len(classes) > 2:
            nodes += [
                helper.make_node("Neg", ["logits"], ["opposite"]),
                helper.make_node("Softplus", ["opposite"], ["surprises"]),
                helper.make_node("Neg", ["surprises"], ["log_sigmoid"]),
                helper.make_node("Softmax", ["log_sigmoid"], ["probabilities"], axis=1),
            ]
        elif model.link == "softmax":
            nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        else:
            nodes += [
                helper.make_node("Neg", ["logits"], ["opposite"]),
                helper.make_node("Concat", ["opposite", "logits"], ["both"], axis=1),
                helper.make_node("Sigmoid", ["both"], ["probabilities"]),
            ]
        scores = "both" if model.link == "sigmoid" and len(classes) == 2 else "logits"
        constants["classes"] = classes
        nodes += [
            helper.make_node("ArgMax", [scores], ["place"], axis=1, keepdims=0),
            helper.make_node("Gather", ["classes", "place"], ["label"], axis=0),
        ]
    graph = helper.make_graph(
        nodes,
        "softmax_regression",
        [helper.make_tensor_value_info("X", number, ["N", model.coef_.shape[1]])],
        [
            helper.make_tensor_value_info("label", label_type, ["N", len(classes)] if multilabel else ["N"]),
            helper.make_tensor_value_info("probabilities", number, ["N", len(classes)]),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, producer_name="crossent", opset_imports=[helper.make_opsetid("", OPSET)])
    proto.ir_version = 8
    checker.check_model(proto)
    return proto
