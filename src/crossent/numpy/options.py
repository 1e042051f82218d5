"""The keywords that every loss function shares, said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

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

_OF_ONE_KIND = (("pos_weight", "sigmoid"), ("alpha", "sigmoid"), ("margin", "softmax"))


@dataclass(frozen=True, slots=True)
class Options:
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
    target_in_range: bool = False
    """No keyword: whether the values of a floating target have been looked at already."""

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
        return replace(self, label_smoothing=label_smoothing)


KEYWORDS = {option.name: option.default for option in fields(Options) if option.name != "target_in_range"}


def takes_options(*, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Show the shared keywords in the signature of a function that passes ``**options`` on, and refuse others by name.

    Parameters
    ----------
    without : names of options the function does not take
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
        function.__signature__ = signature.replace(parameters=own + shared)  # type: ignore[attr-defined]
        return function

    return decorate


def collect(function_name: str, options: dict[str, Any], *, without: tuple[str, ...] = (), **given: Any) -> Options:
    """Return checked Options.

    Raises
    ------
    TypeError
        If a keyword is not one of the shared ones.
    """
    for name in options:
        if name not in KEYWORDS or name in without:
            known = ", ".join(k for k in KEYWORDS if k not in without)
            raise TypeError(
                refuse(f"{function_name}() takes no keyword {name!r}", describe(options[name]), f"it takes {known}")
            )
    if not options and given.keys() <= {"link"} and isinstance(given.get("link", ""), str):
        return _defaults(**given)
    return Options(**options, **given).checked()


@lru_cache
def _defaults(link: str = "softmax") -> Options:
    return Options(link).checked()
