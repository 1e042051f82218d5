"""The keywords that every loss function shares, said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, NoReturn, TypedDict, TypeVar, cast

import numpy as np

from crossent.core.target import Link
from crossent.errors import check_number, describe, refuse
from crossent.losses import Loss, is_member

F = TypeVar("F", bound=Callable[..., Any])

# Each link and the kind of target it takes: one class among K, or a yes or no per entry.
LINKS: dict[str, Link] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "probability": "softmax",
    "log_probability": "softmax",
    "binary_probability": "sigmoid",
}

# Options that are read off the labels of a training set, and the function that does it.
_OF_TRAINING_SET = dict.fromkeys(("weight", "pos_weight", "alpha"), "class_weights") | {"prior": "class_prior"}

_OF_ONE_KIND = (("pos_weight", "sigmoid"), ("alpha", "sigmoid"), ("margin", "softmax"))


class Options(NamedTuple):
    """The options of a loss; the order is that of the public signatures."""

    link: str = "softmax"
    loss: Loss | None = None
    weight: Any = None
    pos_weight: Any = None
    alpha: Any = None
    sample_weight: Any = None
    label_smoothing: float = 0.0
    ignore_index: int = -100
    reduction: str = "mean"
    normalizer: Any = None
    on_empty: str = "nan"
    temperature: Any = None
    prior: Any = None
    prior_strength: float = 1.0
    margin: Any = None
    softcap: Any = None
    axis: int = -1

    @property
    def kind(self) -> Link:
        """ "softmax" for one class among K, "sigmoid" for a yes or no per entry."""
        return LINKS[self.link]

    def checked(self) -> Options:
        """Return the options, their label smoothing a float; refuse those that do not go together.

        Raises
        ------
        TypeError, ValueError
        """
        if not isinstance(self.link, str) or self.link not in LINKS:
            raise ValueError(refuse(f"link must be one of {', '.join(LINKS)}", repr(self.link)))
        if self.loss is not None and not is_member(self.loss):
            raise TypeError(refuse("loss must be a loss such as crossent.Focal(2.0)", repr(self.loss)))
        for name, function in _OF_TRAINING_SET.items():
            if isinstance(getattr(self, name), str):
                works = f"pass crossent.imbalance.{function} of all training labels"
                asked = f"{name} must be numbers, for a batch does not tell how rare a class is"
                raise ValueError(refuse(asked, repr(getattr(self, name)), works))
        for name, kind in _OF_ONE_KIND:
            if getattr(self, name) is not None and self.kind != kind:
                raise TypeError(refuse(f"{name} applies to the {kind} link", f'link="{self.link}"'))
        if not isinstance(self.ignore_index, int | np.integer) or isinstance(self.ignore_index, bool):
            raise TypeError(refuse("ignore_index must be an integer", repr(self.ignore_index)))
        if not -(2**63) <= self.ignore_index < 2**63:
            raise ValueError(refuse("ignore_index must be an int64", repr(self.ignore_index)))
        if not (type(self.prior_strength) is float and self.prior_strength == 1.0):
            check_number("prior_strength", self.prior_strength)
        if type(self.label_smoothing) is float and self.label_smoothing == 0.0:
            return self
        label_smoothing = check_number("label_smoothing", self.label_smoothing, minimum=0, maximum=1)
        if label_smoothing and self.loss is not None and self.loss.needs_hard_target:
            raise ValueError(refuse(f"{self.loss!r} takes unsmoothed labels", f"{label_smoothing=}"))
        return self._replace(label_smoothing=label_smoothing)


KEYWORDS: dict[str, Any] = Options._field_defaults


class Extras(TypedDict, total=False):
    """The options that PyTorch's cross-entropy does not take by their places, for type checkers."""

    loss: Loss | None
    alpha: Any
    sample_weight: Any
    normalizer: Any
    on_empty: str
    temperature: Any
    prior: Any
    prior_strength: float
    margin: Any
    softcap: Any


class BinaryExtras(Extras, total=False):
    """The options that PyTorch's binary cross-entropy does not take by their places."""

    label_smoothing: float
    ignore_index: int | None


class Keywords(BinaryExtras, total=False):
    """All options."""

    weight: Any
    pos_weight: Any
    reduction: str
    axis: int


def takes_options(*, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Show the shared keywords in the signature of a function that takes ``**options``, and refuse others by name.

    Parameters
    ----------
    without : names of options that the function does not take

    Raises
    ------
    TypeError
        When the function is called with a keyword that it does not take.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {p.name for p in own}
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in KEYWORDS.items()
            if name not in names and name not in without
        ]
        names.update(p.name for p in shared)

        @wraps(function)
        def checked(*arguments: Any, **given: Any) -> Any:
            for name in given:
                if name not in names:
                    known = (p.name for p in own + shared if p.default is not inspect.Parameter.empty)
                    refuse_keyword(function.__name__, name, given[name], known)
            return function(*arguments, **given)

        checked.__signature__ = signature.replace(parameters=own + shared)  # type: ignore[attr-defined]
        return cast(F, checked)

    return decorate


def refuse_keyword(caller: str, name: str, value: Any, known: Iterable[str]) -> NoReturn:
    """Raise for a keyword that a function or class does not take."""
    got, works = describe(value), f"it takes {', '.join(known)}"
    raise TypeError(refuse(f"{caller}() takes no keyword {name!r}", got, works))


def collect(options: Any, **given: Any) -> Options:
    """Return the checked options of a call.

    Raises
    ------
    TypeError, ValueError
    """
    if not options and given.keys() <= {"link"} and isinstance(given.get("link", ""), str):
        return _defaults(**given)
    return Options(**options, **given).checked()


@lru_cache
def _defaults(link: str = "softmax") -> Options:
    return Options(link).checked()
