"""What every rule has: a code, a severity, the text of its page, and methods that are told what the analysis meets."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..explained import SEVERITIES, Explained
from ..flow import Listener
from ..names import Loss
from ..reading import Source
from ..records import Argument, Arguments, Criterion, Edit, Finding, Function, LossCall, Operation
from ..values import Value

__all__ = ["SEVERITIES", "Context", "Found", "Pairing", "Rule"]

_CHOICES = frozenset({"where", "select", "piecewise", "cond", "isinf", "isfinite", "masked_fill"})
_EVENTS = ("loss", "operation", "binary", "criterion", "call", "function")


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule found: the expression, the sentence, and the edits that mend it."""

    node: ast.expr | ast.stmt
    message: str
    edits: tuple[Edit, ...] = ()
    cause: Value | None = None


class Rule(Explained):
    """A rule. A subclass sets the texts and overrides the methods of what it looks at.

    Parameters
    ----------
    bad, good
        The mistake and what to write, as code that the tests lint.
    fix
        "none", "safe" (the program computes the same) or "unsafe".
    """

    bad: ClassVar[str]
    good: ClassVar[str]
    fix: ClassVar[str] = "none"

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        """Look at a loss that gets its arrays."""
        return iter(())

    def operation(self, operation: Operation, context: Context) -> Iterator[Found]:
        """Look at a call of a known function."""
        return iter(())

    def binary(self, node: ast.BinOp, left: Value, right: Value, context: Context) -> Iterator[Found]:
        """Look at an arithmetic expression."""
        return iter(())

    def criterion(self, criterion: Criterion, context: Context) -> Iterator[Found]:
        """Look at a loss object at its creation."""
        return iter(())

    def call(self, node: ast.Call, name: str, arguments: Arguments, context: Context) -> Iterator[Found]:
        """Look at a call of any other library function."""
        return iter(())

    def function(self, function: Function, returned: Value, context: Context) -> Iterator[Found]:
        """Look at a function and what it returns."""
        return iter(())


class Context(Listener):
    """The rules at work on one file. It hands them what the analysis tells, and keeps what they find."""

    def __init__(self, source: Source, rules: Sequence[Rule]) -> None:
        self.source = source
        self.findings: dict[tuple[str, int, int], Finding] = {}
        self.objectives: set[str] = set()  # functions that a boosting library is given
        self._rules = {
            event: [rule for rule in rules if getattr(type(rule), event) is not getattr(Rule, event)]
            for event in _EVENTS
        }

    def loss(self, loss: LossCall) -> None:
        for rule in self._rules["loss"]:
            self._keep(rule, rule.loss(loss, self))

    def operation(self, operation: Operation) -> None:
        for rule in self._rules["operation"]:
            self._keep(rule, rule.operation(operation, self))

    def binary(self, node: ast.BinOp, left: Value, right: Value) -> None:
        for rule in self._rules["binary"]:
            self._keep(rule, rule.binary(node, left, right, self))

    def criterion(self, criterion: Criterion) -> None:
        for rule in self._rules["criterion"]:
            self._keep(rule, rule.criterion(criterion, self))

    def call(self, node: ast.Call, name: str, arguments: Arguments) -> None:
        for rule in self._rules["call"]:
            self._keep(rule, rule.call(node, name, arguments, self))

    def function(self, function: Function, returned: Value) -> None:
        for rule in self._rules["function"]:
            self._keep(rule, rule.function(function, returned, self))

    def _keep(self, rule: Rule, found: Iterator[Found]) -> None:
        for one in found:
            node, source = one.node, self.source
            end_line, end_offset = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
            key = (rule.code, node.lineno, node.col_offset)
            if key in self.findings:
                continue
            cell, line = (None, node.lineno) if source.cells is None else source.cells[node.lineno - 1]
            self.findings[key] = Finding(
                rule.code,
                rule.severity,
                one.message,
                source.path,
                line,
                source.characters(node.lineno, node.col_offset),
                line + end_line - node.lineno,
                source.characters(end_line, end_offset),
                cell,
                one.edits,
                None if one.cause is None else one.cause.place,
            )

    def is_guarded(self) -> bool:
        """Return whether the function at hand chooses between two formulas, as with ``where``."""
        if self.within is None:
            return False
        known: bool | None = getattr(self.within, "is_guarded", None)
        if known is None:
            calls = (node.func for node in ast.walk(self.within) if isinstance(node, ast.Call))
            known = any(getattr(func, "attr", getattr(func, "id", "")) in _CHOICES for func in calls)
            self.within.is_guarded = known  # type: ignore[union-attr]
        return known

    def text(self, node: ast.expr) -> str:
        """Return the source of an expression."""
        found = ast.get_source_segment(self.source.text, node)
        return ast.unparse(node) if found is None else found

    def replaced(self, node: ast.expr, text: str, *, is_safe: bool) -> Edit:
        """Return the edit that puts a text in the place of an expression."""
        return Edit((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0), text, is_safe)

    def where(self, value: Value, near: ast.expr | ast.stmt) -> str:
        """Return where a value was made, in brackets, or nothing if the reader sees it."""
        place = value.place
        if place is None or (place.path == self.source.path and near.lineno <= place.line <= (near.end_lineno or 0)):
            return ""
        if place.path != self.source.path:
            return f" ({place.path}:{place.line})"
        if self.source.cells is None:
            return f" (line {place.line})"
        cell, line = self.source.cells[place.line - 1]
        return f" (cell {cell}, line {line})"


class Pairing(Rule):
    """A rule on one kind of output that goes into losses which read something else, in code and at run time.

    Parameters
    ----------
    kinds
        What the output is, as in `values.Value`.
    reads, link
        Of the losses, as in `names.Loss`.
    takes
        The end of the message: what such a loss takes.
    libraries
        Whose losses; of all if it is empty. Keras' are left to the rules on ``from_logits``.
    """

    kinds: ClassVar[tuple[str, ...]]
    reads: ClassVar[tuple[str, ...]]
    link: ClassVar[str]
    takes: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ("torch", "crossent", "optax", "tensorflow")

    def fits(self, kind: str, loss: Loss, reads: str) -> bool:
        """Return whether an output of this kind is wrong for the loss."""
        is_one = not self.libraries or loss.library in self.libraries
        return kind in self.kinds and reads in self.reads and loss.link == self.link and is_one

    def is_meant(self, found: Argument, call: LossCall) -> bool:
        """Return whether the pair is right for another reason, which one rule or the other knows."""
        return False

    def message(self, kind: str, where: str, name: str) -> str:
        """Return the finding in one sentence."""
        return f"{_OUTPUTS.get(kind, kind)}{where} goes into {name}, which {self.takes}"

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = call.prediction
        if found is None or not self.fits(found.value.kind, call.loss, call.reads) or self.is_meant(found, call):
            return
        message = self.message(found.value.kind, context.where(found.value, call.node), call.loss.name)
        edits: tuple[Edit, ...] = ()
        if self.fix != "none" and _is_direct(found):
            edits = self._edits(found, context)
        yield Found(call.node, message, edits, found.value)

    def _edits(self, found: Argument, context: Context) -> tuple[Edit, ...]:
        """Return the edit that takes the activation out, or turns softmax into log_softmax."""
        if "log_probabilities" not in self.reads and found.value.operand is not None:
            text = context.text(found.value.operand)
            return (context.replaced(found.node, text, is_safe=self.fix == "safe"),)
        head, bracket, rest = context.text(found.node).partition("(")
        if found.value.kind != "softmax" or not head.endswith(".softmax"):
            return ()
        return (context.replaced(found.node, f"{head[:-7]}log_softmax{bracket}{rest}", is_safe=False),)


_OUTPUTS = {"linear": "the output of a linear layer", "entry": "softmax"}


def _is_direct(argument: Argument) -> bool:
    """Return whether the activation is written in the argument itself, so that it can be changed there."""
    value = argument.value
    return value.node is argument.node and value.operand is not None and not value.marks & {"eps", "complement"}


_LABELS = re.compile(
    r"^(y|ys|labels?|targets?|y_?(true|test|train|val|valid|batch)|gt|ground_?truth|truth|batch_labels|.*_labels?)$",
    re.IGNORECASE,
)
_PREDICTIONS = re.compile(
    r"^(logits?|.*_logits?|outputs?|out|preds?|predictions?|y_?hat|y_?(pred|prob|score|proba)s?|probs?|probas?|"
    r"probabilities|scores|.*_probs?|.*_preds?)$",
    re.IGNORECASE,
)


def names_labels(node: ast.expr) -> bool:
    """Return whether an expression is called as labels are called."""
    return _LABELS.match(_last(node)) is not None


def names_predictions(node: ast.expr) -> bool:
    """Return whether an expression is called as a model's output is called."""
    return _PREDICTIONS.match(_last(node)) is not None


def _last(node: ast.expr) -> str:
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
