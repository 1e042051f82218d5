"""The command line: parse, call, print. What it does lives in `crossent.tabular` and `crossent.report`.

A mistake in the input ends with one sentence on stderr and status 2. Files appear whole or not at all
(`crossent.files`), and no output takes the place of an input. What is printed passes `crossent.text.plain`, since names
and cells of the data, paths and messages may hold what steers a terminal. Heavy imports wait until a command runs.
"""

from .app import app, main

__all__ = ["app", "main"]
