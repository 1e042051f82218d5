"""A model file as an object that predicts on data frames of any library."""

from __future__ import annotations

import os
import warnings
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..errors import describe
from .errors import InputError
from .model import Model, read_model
from .preprocessing import UnseenCategories

__all__ = ["TableModel", "load_model"]


class TableModel:
    """A trained model of a table, made by :func:`load_model`.

    Attributes
    ----------
    classes_ : array (K,) of str
        The classes, as text.
    model : Model
        What the file holds.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.classes_ = np.array(model.classes)

    def predict_proba(self, frame: Any) -> NDArray[np.float64]:
        """Return the probability of each class.

        Parameters
        ----------
        frame : data frame (N rows)
            Of polars, pandas, PyArrow or another library that narwhals knows, with the columns that the model was
            trained on, in any order and perhaps among others.

        Returns
        -------
        array (N, K)
            Column k belongs to ``classes_[k]``.

        Raises
        ------
        InputError
            If it is no data frame, a column is missing, or a cell is not of its column's kind. It is a ValueError.

        Warns
        -----
        UserWarning
            If a category was not there in training, or a cell of numbers or dates holds neither.
        """
        native = nw.from_native(frame, eager_only=True, pass_through=True)
        if not isinstance(native, nw.DataFrame):
            raise InputError(f"a model predicts on a data frame, such as one of pandas, not {describe(frame)}")
        table: pl.DataFrame = native.to_polars()
        unseen = UnseenCategories()
        probabilities = self.model.predict_probabilities(table, "the data frame", unseen=unseen)
        unseen.trained_on = 0  # a program may well ask for rows that it trained on
        for sentence in unseen.sentences(table.height):
            warnings.warn(sentence, stacklevel=2)
        return probabilities

    def predict(self, frame: Any) -> NDArray[np.str_]:
        """Return the most probable class of each row, (N,), as text; `predict_proba` says what is refused."""
        predicted: NDArray[np.str_] = self.classes_[np.argmax(self.predict_proba(frame), axis=1)]
        return predicted

    def __repr__(self) -> str:
        model, account = self.model, self.model.training
        return (
            f"<TableModel of {model.target!r}: {len(model.classes)} classes from "
            f"{len(model.preprocessing.column_names)} columns, trained on {account.get('training_rows')} rows of "
            f"{account.get('source')!r}>"
        )


def load_model(path: str | os.PathLike[str]) -> TableModel:
    """Return the model of a file that `crossent fit` wrote.

    Reading one runs no code, and a damaged file is refused.

    Parameters
    ----------
    path : path
        Such as "out/model.safetensors".

    Raises
    ------
    InputError
        If there is no such file, or it is damaged or no model of crossent. It is a ValueError.

    Examples
    --------
    >>> import os, tempfile
    >>> import crossent as ce
    >>> from crossent.tabular import fit_table, read_table
    >>> wine = read_table("wine")
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "model.safetensors")
    >>> with open(path, "wb") as file:
    ...     _ = file.write(fit_table(wine, "wine", "target").model.to_bytes())
    >>> model = ce.load_model(path)
    >>> model
    <TableModel of 'target': 3 classes from 13 columns, trained on 133 rows of 'wine'>
    >>> model.predict(wine[:2]).tolist(), model.predict_proba(wine[:2]).shape
    (['class_0', 'class_0'], (2, 3))
    >>> folder.cleanup()
    """
    return TableModel(read_model(os.fspath(path)))
