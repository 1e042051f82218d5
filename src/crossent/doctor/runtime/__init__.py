"""The doctor's run-time half: what the numbers of a batch say about how a model, its loss and its labels are paired.

`check` reads arrays once (`batch.py`), shows them to one small class per mistake (`outputs.py`,
`labels.py`, `fit.py`), and returns a `Diagnosis` (`records.py`). Nothing of the linter is imported here.
"""

from .check import CHECKS, check
from .records import Diagnosis, Symptom

__all__ = ["CHECKS", "Diagnosis", "Symptom", "check"]
