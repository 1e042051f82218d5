"""What every check has: the texts of its page, and `look`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..explained import Explained
from .batch import Batch
from .records import Symptom

__all__ = ["Check"]


class Check(Explained):
    """One thing that is looked at in a batch. `mend` is the advice of its symptom."""

    def look(self, batch: Batch) -> Symptom | None:
        """Return what was found, or None.

        Raises
        ------
        LeftOut
            If the batch cannot show it, with the reason.
        """
        raise NotImplementedError

    def found(self, message: str, numbers: Mapping[str, Any], severity: str = "") -> Symptom:
        """Return the symptom of this check."""
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in numbers.items()}
        return Symptom(self.code, severity or self.severity, message, plain, self.mend)
