"""What calls return: known functions, methods of arrays, layers, losses, Keras models and estimators."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .expressions import Evaluator
from .names import ACTIVATIONS, FUNCTIONS, LAYERS, LOSSES, METHODS, Loss, canonical
from .options import (
    activation_named,
    compiled_loss,
    has_outputs,
    is_difference,
    is_true,
    is_unbounded,
    parts_of,
    reads_of,
    reduction_of,
)
from .records import Argument, Arguments, Criterion, Function, Instance, Layer, LossCall, Method, Operation, Scope
from .values import UNKNOWN, Value, join_all

__all__ = ["Caller", "LossValue", "Network"]

_FIRST = ("input", "x", "a", "logits", "features", "tensor")
_CLASSIFIERS = frozenset(
    [
        "LogisticRegression",
        "LogisticRegressionCV",
        "SVC",
        "NuSVC",
        "LinearSVC",
        "GaussianNB",
        "MultinomialNB",
        "BernoulliNB",
        "Perceptron",
        "LinearDiscriminantAnalysis",
        "QuadraticDiscriminantAnalysis",
    ]
)
_WRAPPERS = frozenset(["make_pipeline", "GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "Pipeline"])
_SIZES = {1: "one_class", 2: "two_classes"}
_HEADS = frozenset({"fc", "classifier", "head", "heads", "last_linear"})
_ARRAYS = frozenset({"softmax", "log_softmax", "sigmoid", "log_sigmoid", "linear", "entry"})


@dataclass(frozen=True, slots=True)
class LossValue:
    """What a loss returned, as far as later lines need it."""

    link: str
    reduction: str | None
    is_weighted: bool


@dataclass(frozen=True, eq=False, slots=True)
class Network:
    """A model whose output is known without its source: a Keras model, or a pretrained one with a new head."""

    output: Value
    compiled: LossCall | None = None


class Caller(Evaluator):
    """Evaluates calls."""

    handed_over: list[tuple[str, Arguments]]  # calls of qualified names with what other files want to know

    @abstractmethod
    def run_function(self, function: Function, arguments: Arguments, itself: Value | None) -> Value:
        """Return what a function of the file returns for these arguments."""

    @abstractmethod
    def instantiate(self, value: Value, arguments: Arguments) -> Value:
        """Return an object of a class of the run."""

    @abstractmethod
    def forward(self, instance: Instance, value: Value, arguments: Arguments) -> Value:
        """Return what an object returns when it is called."""

    @abstractmethod
    def resolve(self, name: str) -> Value:
        """Return what another file of the run defines under a qualified name."""

    @abstractmethod
    def tell_criterion(self, criterion: Criterion) -> None:
        """Show the rules a loss object at its creation."""

    @abstractmethod
    def tell_call(self, node: ast.Call, name: str, arguments: Arguments) -> None:
        """Show the rules a call of a library function that has no table of its own."""

    def arguments(self, node: ast.Call, scope: Scope) -> Arguments:
        """Evaluate the arguments of a call."""
        positional: list[Argument] = []
        keywords, is_complete = {}, True
        for given in node.args:
            argument = self.argument(given, scope)
            if not isinstance(given, ast.Starred):
                positional.append(argument)
            elif argument.value.kind == "tuple":
                positional += [Argument(given, value) for value in argument.value.payload]
            else:
                is_complete = False
        for keyword in node.keywords:
            argument = self.argument(keyword.value, scope)
            if keyword.arg is not None:
                keywords[keyword.arg] = argument
            else:
                is_complete = False
        return Arguments(tuple(positional), keywords, is_complete)

    def call(self, node: ast.Call, scope: Scope) -> Value:
        """Return what a call returns."""
        function = self.evaluate(node.func, scope)
        arguments = self.arguments(node, scope)
        return self.apply(node, function, arguments, scope)

    def apply(self, node: ast.Call, function: Value, arguments: Arguments, scope: Scope) -> Value:
        """Return what a value returns when it is called."""
        payload = function.payload
        if function.kind == "name":
            return self._library(node, payload, arguments)
        if function.kind == "function":
            return self.run_function(payload, arguments, None)
        if function.kind == "class":
            return self.instantiate(function, arguments)
        if function.kind == "instance":
            return self.forward(payload, function, arguments)
        if function.kind == "method":
            if payload.function is not None:
                return self.run_function(payload.function, arguments, payload.of)
            return self._method(node, payload, arguments, scope)
        if function.kind == "layer":
            first = arguments.positional[0].value if arguments.positional else UNKNOWN
            operand = arguments.positional[0].node if arguments.positional else None
            return self.layer_output(node, payload, first, operand)
        if function.kind == "criterion":
            return self._loss(node, payload.loss, arguments, payload.options, payload.is_complete)
        if function.kind == "network":
            return payload.output if isinstance(payload, Network) else UNKNOWN
        return UNKNOWN

    def _library(self, node: ast.Call, name: str, arguments: Arguments) -> Value:
        name = canonical(name)
        if name in FUNCTIONS:
            return self.operation(node, FUNCTIONS[name], name, arguments)
        if name in LOSSES:
            loss = LOSSES[name]
            if not loss.options:
                return self._loss(node, loss, arguments, {}, True)
            options = arguments.bind(loss.options)
            criterion = Criterion(loss, options, arguments.is_complete, node)
            self.tell_criterion(criterion)
            return Value("criterion", node, self.place(node), payload=criterion)
        if name in LAYERS:
            return self._layer(node, LAYERS[name], arguments)
        self.tell_call(node, name, arguments)
        bare = arguments.bare()
        if bare is not None:
            self.handed_over.append((name, bare))
        found = self.resolve(name)
        if found.kind == "class":
            return self.instantiate(found, arguments)
        if found.kind == "function" and isinstance(found.payload, Value):
            return found.payload
        return self._other(node, name, arguments)

    def _other(self, node: ast.Call, name: str, arguments: Arguments) -> Value:
        last = name.rpartition(".")[2]
        if name == "collections.OrderedDict" and arguments.positional:
            return arguments.positional[0].value
        if name == "functools.partial" and len(arguments.positional) == 1:
            of = arguments.positional[0].value
            loss = LOSSES.get(of.payload) if of.kind == "name" else None
            if loss is not None and not loss.options:
                return Value("criterion", node, payload=Criterion(loss, arguments.keywords, True, node))
        if name.startswith(("torchvision.models.", "timm.")):
            return Value("network", node, payload=Network(UNKNOWN))
        if name.startswith(("sklearn.", "xgboost.", "lightgbm.", "catboost.")):
            if last in _WRAPPERS:
                inner = [one.value for one in arguments.positional if one.value.kind == "estimator"]
                return inner[-1] if inner else UNKNOWN
            if last in _CLASSIFIERS or last.endswith("Classifier"):
                return Value("estimator", node, payload=name)
            if last == "compute_class_weight":
                return Value("class_weights", node)
        return UNKNOWN

    def operation(self, node: ast.Call, op: str, name: str, arguments: Arguments) -> Value:
        """Return what a known function returns, and show the call to the rules."""
        first = arguments.positional[0] if arguments.positional else None
        for key in _FIRST if first is None else ():
            first = first or arguments.keywords.get(key)
        result = self._result(node, op, name, first, arguments)
        if op in ("softmax", "log_softmax", "sigmoid", "log", "log1p", "mean"):
            self.tell_operation(Operation(node, op, name, first, arguments, result))
        return result

    def _result(self, node: ast.Call, op: str, name: str, first: Argument | None, arguments: Arguments) -> Value:
        value = UNKNOWN if first is None else first.value
        operand = None if first is None else first.node
        if op in ACTIVATIONS or op == "log_sigmoid":
            return self.activation(node, op, value, operand)
        if op == "exp":
            return self._exponential(node, value, operand)
        if op == "log":
            return self._logarithm(node, value)
        if op == "sum":
            return replace(value, kind=f"sum_{value.kind}") if value.kind in ("exp", "exp_shifted") else UNKNOWN
        if op == "mean":
            is_loss = value.kind == "loss" and isinstance(value.payload, LossValue)
            return replace(value, payload=replace(value.payload, reduction="mean")) if is_loss else UNKNOWN
        if op == "same":
            if name.endswith(("gather", "take_along_dim")):
                return replace(value, kind="entry") if value.kind == "softmax" else UNKNOWN
            return replace(value, marks=value.marks - {"one_class"}) if "one_class" in value.marks else value
        if op == "clamp":
            if value.kind in ("softmax", "sigmoid", "entry"):
                return value.marked("eps")
            return Value("bounded")
        return self._small_result(node, op, value, arguments)

    def _small_result(self, node: ast.Call, op: str, value: Value, arguments: Arguments) -> Value:
        if op == "stopped":
            return value.marked("detached") if value.kind != "unknown" else value
        if op == "one_hot":
            return Value("one_hot", node, self.place(node))
        if op == "float_one_hot":
            return Value("one_hot", node, self.place(node), marks=frozenset({"float"}))
        if op == "float":
            return value.marked("float") if value.kind in ("one_hot", "labels", "smoothed", "unknown") else value
        if op == "integer":
            if value.kind in ("one_hot", "labels", "sentinel"):
                return replace(value, marks=value.marks - {"float"})
            return Value("labels", node, self.place(node))
        if op == "argmax":
            return Value("labels", node, self.place(node))
        if op == "tensor":
            parts = value.payload if value.kind == "tuple" else (value,)
            kept = ("positives_per_negative", "class_weights")
            return parts[0].marked("tensor") if len(parts) == 1 and parts[0].kind in kept else UNKNOWN
        if op in ("where", "full"):
            values = [argument.value for argument in (*arguments.positional[1:], *arguments.keywords.values())]
            numbers = [value.payload for value in values if value.kind == "constant"]
            if any(isinstance(number, int) and number in (-1, -100) for number in numbers):
                return Value("sentinel", node, self.place(node), payload=-100 if -100 in numbers else -1)
            return UNKNOWN
        if op == "stack":
            joined = join_all(value.payload) if value.kind == "tuple" and value.payload else UNKNOWN
            return UNKNOWN if "complement" in joined.marks or joined.kind not in _ARRAYS else joined
        if op == "pow" and len(arguments.positional) == 2:
            base, exponent = arguments.positional
            written = ast.copy_location(ast.BinOp(base.node, ast.Pow(), exponent.node), node)
            self.tell_binary(written, base.value, exponent.value)
            return self.arithmetic(written, base.value, exponent.value)
        if op == "product":
            return Value("bounded") if any(one.value.kind == "bounded" for one in arguments.positional) else UNKNOWN
        if op in ("max", "bounded", "abs"):
            return Value("absolute" if op == "abs" else op)
        return UNKNOWN

    def activation(self, node: ast.expr, op: str, value: Value, operand: ast.expr | None) -> Value:
        """Return what softmax, sigmoid and their logarithms put out."""
        marks = value.marks & {"one_class", "two_classes"} if value.kind == "linear" else frozenset()
        return Value(op, node, self.place(node), operand, marks=marks)

    def _exponential(self, node: ast.Call, value: Value, operand: ast.expr | None) -> Value:
        if value.kind == "log_softmax":
            return Value("softmax", node, self.place(node))
        if value.kind == "log_sigmoid":
            return Value("sigmoid", node, self.place(node))
        if value.kind == "negative" and isinstance(value.payload, Value) and value.payload.kind == "loss":
            return Value("focal", node, self.place(node), payload=value.payload.payload)
        if value.kind == "shifted":
            return Value("exp_shifted", node, self.place(node), operand)
        if value.kind in ("unknown", "linear", "negative", "difference", "gap") and operand is not None:
            is_plain = value.kind in ("unknown", "linear") and not is_difference(operand)
            if is_unbounded(operand):
                marks = frozenset({"negative"} if value.kind == "negative" else ())
                inner = value.payload.kind if isinstance(value.payload, Value) else value.kind
                kind = "exp" if is_plain else "exp_gap" if inner == "gap" else "exp_difference"
                return Value(kind, node, self.place(node), operand, marks=marks)
        return UNKNOWN

    def _logarithm(self, node: ast.Call, value: Value) -> Value:
        if value.kind == "softmax" and "complement" not in value.marks:
            return replace(value, kind="log_softmax", marks=frozenset())
        if value.kind == "sigmoid":
            return replace(value, kind="log_sigmoid", marks=frozenset())
        return UNKNOWN

    def _layer(self, node: ast.Call, output: str, arguments: Arguments) -> Value:
        if output == "dense" or output == "activation":
            activation = arguments.get("activation", 1 if output == "dense" else 0)
            output = activation_named(activation) if arguments.is_complete else "unknown"
            layer = Layer(output, node, arguments=arguments)
            self.layer_output(node, layer, UNKNOWN, None)  # the rules see it even if it is never called
            return Value("layer", node, self.place(node), payload=layer)
        if output == "keras_input":
            return UNKNOWN
        if output == "keras_model":
            outputs = arguments.get("outputs", 1)
            return Value("network", node, payload=Network(UNKNOWN if outputs is None else outputs.value))
        if output == "pretrained":
            return Value("network", node, payload=Network(UNKNOWN))
        if output != "sequential":
            return Value("layer", node, self.place(node), payload=Layer(output, node, arguments=arguments))
        parts: tuple[Value, ...] | None = tuple(argument.value for argument in arguments.positional)
        if len(arguments.positional) == 1 and arguments.positional[0].value.kind in ("tuple", "dict", "unknown"):
            parts = parts_of(arguments.positional[0].value)
        if not arguments.is_complete:
            parts = None
        return Value("layer", node, self.place(node), payload=Layer("sequential", node, parts))

    def layer_output(self, node: ast.expr, layer: Layer, value: Value, operand: ast.expr | None) -> Value:
        """Return what a layer puts out for an input."""
        if layer.output == "sequential":
            if layer.parts is None:
                return UNKNOWN
            for part in layer.parts:
                if part.kind == "layer":
                    value = self.layer_output(part.payload.node, part.payload, value, None)
                elif part.kind == "instance":
                    value = self.forward(part.payload, part, Arguments((Argument(node, value),), {}, True))
                elif part.kind == "network" and isinstance(part.payload, Network):
                    value = part.payload.output
                else:
                    value = UNKNOWN
            return value
        if layer.output == "identity":
            return value
        if layer.output == "unknown":
            return UNKNOWN
        marks = frozenset(mark for number, mark in _SIZES.items() if has_outputs(layer, number))
        if layer.output == "linear":
            return Value("linear", layer.node, self.place(layer.node), marks=marks)
        result = replace(self.activation(node, layer.output, value, operand), place=self.place(layer.node))
        result = result.marked(*marks)
        if isinstance(node, ast.Call):
            first = None if operand is None else Argument(operand, value)
            given = layer.arguments or Arguments((), {}, True)
            self.tell_operation(Operation(node, layer.output, "layer", first, given, result))
        return result

    def _loss(
        self, node: ast.Call, loss: Loss, arguments: Arguments, options: Mapping[str, Argument], is_complete: bool
    ) -> Value:
        given = arguments.bind(loss.parameters)
        options = {**options, **given}
        is_complete = is_complete and arguments.is_complete
        reduction = reduction_of(loss, options, is_complete)
        weight = options.get("weight")
        call = LossCall(
            node, loss, reads_of(loss, options, is_complete), given.get(loss.prediction), given.get(loss.target),
            options, is_complete, reduction=reduction,
        )  # fmt: skip
        self.tell_loss(call)
        is_weighted = weight is not None and weight.value.kind != "constant"
        return Value("loss", node, self.place(node), payload=LossValue(loss.link, reduction, is_weighted))

    def _method(self, node: ast.Call, method: Method, arguments: Arguments, scope: Scope) -> Value:
        of, name = method.of, method.name
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else node
        if name in ("add", "append") and len(arguments.positional) == 1:
            return self._appended(receiver, of, arguments.positional[0].value, scope)
        if name == "compile" and isinstance(receiver, ast.Name):
            return self._compiled(node, receiver, of, arguments, scope)
        if name == "fit" and of.kind == "network" and isinstance(of.payload, Network) and of.payload.compiled:
            target = arguments.get("y", 1)
            if target is not None:
                self.tell_loss(replace(of.payload.compiled, node=node, prediction=None, target=target))
            return UNKNOWN
        if name in ("apply", "__call__", "forward") and of.kind in ("instance", "layer"):
            return self.apply(node, of, Arguments(arguments.positional[name == "apply" :], {}, True), scope)
        if of.kind == "estimator" and name in ("fit", "set_params"):
            return of
        if of.kind == "estimator" and name == "predict":
            return Value("predicted", node, self.place(node))
        if name == "predict" and any(is_true(arguments.get(key)) for key in ("output_margin", "raw_score")):
            return Value("margin", node, self.place(node))
        if name == "decision_function":
            return Value("margin", node, self.place(node))
        if name == "predict_proba":
            return Value("class_probabilities", node, self.place(node))
        if name in ("to", "type", "astype"):
            return self._cast(of, arguments, receiver, node)
        if of.kind in ("instance", "layer", "network", "criterion", "function", "class"):
            return of if METHODS.get(name) == "same" or name in ("half", "float", "double", "bfloat16") else UNKNOWN
        if name in ("gather", "index_select") and of.kind == "softmax":
            return replace(of, kind="entry")
        op = METHODS.get(name)
        if op is None or of.kind in ("name", "dict"):
            return UNKNOWN
        given = Arguments((Argument(receiver, of), *arguments.positional), arguments.keywords, arguments.is_complete)
        return self.operation(node, op, f"method.{name}", given)

    def _cast(self, of: Value, arguments: Arguments, receiver: ast.expr, node: ast.Call) -> Value:
        if of.kind not in ("labels", "one_hot", "sentinel", "unknown"):
            return of
        text = " ".join(ast.unparse(argument.node) for argument in arguments.positional) + " ".join(
            ast.unparse(argument.node) for key, argument in arguments.keywords.items() if key == "dtype"
        )
        if "float" in text or "half" in text or "Float" in text:
            return of.marked("float")
        if "int" in text or "long" in text or "Long" in text:
            return replace(of, marks=of.marks - {"float"}) if of.kind != "unknown" else Value("labels", node)
        return of.marked("float") if of.kind == "one_hot" and "dtype" in text else of

    def _appended(self, receiver: ast.expr, of: Value, item: Value, scope: Scope) -> Value:
        """Follow ``layers.append(layer)`` and ``model.add(layer)``, of a name or of an attribute of one."""
        if of.kind == "tuple":
            longer = replace(of, payload=(*of.payload, item))
        elif of.kind == "layer" and of.payload.parts is not None:
            longer = replace(of, payload=replace(of.payload, parts=(*of.payload.parts, item)))
        else:
            return UNKNOWN
        if isinstance(receiver, ast.Name):
            scope.bind(receiver.id, longer)
        elif isinstance(receiver, ast.Attribute) and isinstance(receiver.value, ast.Name):
            scope.names[f"{receiver.value.id}.{receiver.attr}"] = longer
        return UNKNOWN

    def _compiled(self, node: ast.Call, receiver: ast.Name, of: Value, arguments: Arguments, scope: Scope) -> Value:
        given = arguments.get("loss", 1)
        output = UNKNOWN
        if of.kind in ("layer", "network", "instance"):
            output = self.apply(node, of, Arguments((), {}, True), scope)
        if given is None or output.kind == "unknown":
            return UNKNOWN
        loss, options = compiled_loss(given.value)
        if loss is None:
            return UNKNOWN
        compiled = LossCall(
            given.node, loss, reads_of(loss, options, True), Argument(receiver, output), None, options, True,
        )  # fmt: skip
        self.tell_loss(compiled)
        scope.bind(receiver.id, Value("network", payload=Network(output, compiled)))
        return UNKNOWN

    def with_head(self, value: Value, name: str, head: Value) -> Value | None:
        """Return a pretrained network after a new head was assigned to it, None if this is none."""
        if value.kind != "network" or name not in _HEADS or head.kind != "layer":
            return None
        return replace(value, payload=Network(self.layer_output(head.payload.node, head.payload, UNKNOWN, None)))
