"""The doctor at work while a model trains: losses are watched from outside, and no number of the training changes.

`diary.py` keeps what was found and prints it once; `watching.py` is told of every call of a loss; `patches.py` puts the
watched functions in place and takes them away again; `looking.py` reads one call of a PyTorch loss, `checking.py` runs
the checks of its batch, for Keras too; `graph.py` asks autograd what the loss was given, and `source.py` finds where
the first NaN comes from. PyTorch is imported when a block begins.
"""

from .diary import Diary, Entry
from .start import watch

__all__ = ["Diary", "Entry", "watch"]
