"""What differs between XGBoost, LightGBM and CatBoost: how one is started, stopped early, read and written.

Each library is imported only when a model of it is at hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import has_fit_parameter

from crossent.errors import refuse

from .metric import Metric
from .objective import Objective

__all__ = ["LIBRARIES", "Library", "Rows", "Training", "library_of", "per_class", "repeat"]


class Rows(NamedTuple):
    """Rows of a table, their class indices, and their weights or None."""

    X: Any
    codes: NDArray[np.intp]
    weight: NDArray[np.float64] | None

    def take(self, chosen: NDArray[np.intp]) -> Rows:
        """Return some of the rows."""
        weight = None if self.weight is None else self.weight[chosen]
        return Rows(_safe_indexing(self.X, chosen), self.codes[chosen], weight)


class Training(NamedTuple):
    """What a booster is trained with. `held` is None where it is not stopped early."""

    objective: Objective
    metric: Metric
    rows: Rows
    start: NDArray[np.float64]  # () or (K,)
    held: Rows | None
    patience: int  # rounds without progress on `held`

    def starts(self, rows: Rows) -> NDArray[np.float64]:
        """Return the raw prediction that each row starts at, (n,) or (n, K)."""
        return repeat(self.start, len(rows.codes))


def repeat(start: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Return a start for each row, as an array of its own."""
    return np.tile(start, (rows, *[1] * start.ndim)) if start.ndim else np.full(rows, float(start))


def per_class(raw: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Return raw predictions with a column for each class: those of two classes, (...), as -z/2 and z/2."""
    return raw if num_classes > 2 else np.stack([-raw / 2, raw / 2], axis=-1)


class Library:
    """A library that boosts trees, through its scikit-learn classifier."""

    package: ClassVar[str]
    classifier: ClassVar[str]
    suffix: ClassVar[str]  # of the library's own files
    error: ClassVar[str]  # the name of the exception by which it refuses
    taken: ClassVar[Mapping[str, str]]  # parameters that a BoostedClassifier sets, and its own name for each
    defaults: ClassVar[tuple[Any, ...]] = (None,)  # what they may be

    def make(self, **parameters: Any) -> Any:
        """Return an untrained classifier of the library."""
        raise NotImplementedError

    def untrained(self, estimator: Any) -> Any:
        """Return a classifier with the parameters of another one."""
        return clone(estimator)

    def fit(self, estimator: Any, training: Training) -> None:
        """Train the estimator, whose parameters may be changed."""
        raise NotImplementedError

    def raw(self, estimator: Any, X: Any, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return start plus trees, (N,) or (N, K)."""
        raise NotImplementedError

    def rounds(self, estimator: Any) -> int:
        """Return how many rounds a trained estimator predicts with."""
        raise NotImplementedError

    def to_bytes(self, estimator: Any) -> bytes:
        """Return the content of a file in the library's own format."""
        raise NotImplementedError

    def from_bytes(self, content: bytes, parameters: dict[str, Any]) -> Any:
        """Return what `raw` takes, of such a file."""
        raise NotImplementedError

    def is_trained(self, estimator: Any) -> bool:
        """Whether a classifier of the library was fitted."""
        return bool(estimator.__sklearn_is_fitted__())

    def check(self, estimator: Any) -> None:
        """Refuse an estimator that was trained, or whose parameters leave nothing to a `BoostedClassifier`.

        Raises
        ------
        ValueError
        """
        parameters = estimator.get_params()
        for name, own in self.taken.items():
            value = parameters.get(name)
            if not any(value is default or value == default for default in self.defaults):
                asked = f"BoostedClassifier sets {name} of the {self.classifier} itself"
                raise ValueError(refuse(asked, f"{name}={value!r}", f"leave it out and pass {own}"))
        if self.is_trained(estimator):
            asked = f"estimator must be an untrained {self.classifier}, since BoostedClassifier trains one on its loss"
            got = f"one that was trained with {self.trained_with(estimator)!r}"
            raise ValueError(refuse(asked, got, "pass sklearn.base.clone(estimator)"))

    def trained_with(self, estimator: Any) -> Any:
        """Return the objective of a trained estimator."""
        return estimator.objective


class XGBoost(Library):
    """XGBClassifier. Its margins are float32, and one that is given takes the place of base_score."""

    package, classifier, suffix = "xgboost", "XGBClassifier", ".ubj"
    error = "XGBoostError"
    taken: ClassVar = {
        "objective": "loss=",
        "eval_metric": "loss=",
        "early_stopping_rounds": "early_stopping_rounds=",
        "base_score": "nothing: it starts at the log prior",
        "scale_pos_weight": "class_weight=",
    }
    defaults = (None, "binary:logistic", "multi:softprob")  # the latter two are what it writes there itself

    def make(self, **parameters: Any) -> Any:
        from xgboost import XGBClassifier

        return XGBClassifier(**parameters)

    def fit(self, estimator: Any, training: Training) -> None:
        rows, held, given = training.rows, training.held, {}
        estimator.set_params(objective=training.objective)
        if held is not None:
            estimator.set_params(eval_metric=training.metric, early_stopping_rounds=training.patience)
            given = {"eval_set": [(held.X, held.codes)], "base_margin_eval_set": [training.starts(held)]}
            given["sample_weight_eval_set"] = None if held.weight is None else [held.weight]
        margin = training.starts(rows)
        estimator.fit(rows.X, rows.codes, sample_weight=rows.weight, base_margin=margin, verbose=False, **given)

    def raw(self, estimator: Any, X: Any, start: NDArray[np.float64]) -> NDArray[np.float64]:
        margins = repeat(np.zeros_like(start), X.shape[0])
        return np.asarray(estimator.predict(X, output_margin=True, base_margin=margins) + start)

    def rounds(self, estimator: Any) -> int:
        best = estimator.get_booster().attr("best_iteration")
        return int(estimator.get_booster().num_boosted_rounds()) if best is None else int(best) + 1

    def to_bytes(self, estimator: Any) -> bytes:
        return bytes(estimator.get_booster().save_raw("ubj"))

    def from_bytes(self, content: bytes, parameters: dict[str, Any]) -> Any:
        estimator = self.make(**parameters)
        estimator.load_model(bytearray(content))
        return estimator


class LightGBM(Library):
    """LGBMClassifier. It adds no init_score when it predicts; read from a file it is a `lightgbm.Booster`."""

    package, classifier, suffix = "lightgbm", "LGBMClassifier", ".txt"
    error = "LightGBMError"
    taken: ClassVar = {
        "objective": "loss=",
        "metric": "loss=",
        "early_stopping_round": "early_stopping_rounds=",
        "early_stopping_rounds": "early_stopping_rounds=",
        "class_weight": "class_weight=",
        "is_unbalance": "class_weight=",
        "scale_pos_weight": "class_weight=",
    }

    def make(self, **parameters: Any) -> Any:
        from lightgbm import LGBMClassifier

        return LGBMClassifier(**parameters)

    def fit(self, estimator: Any, training: Training) -> None:
        rows, held, given = training.rows, training.held, {}
        # Features that no leaf could be split on are kept: without any, LightGBM fails where an objective is custom.
        estimator.set_params(objective=training.objective, metric="None", feature_pre_filter=False)
        if held is not None:
            from lightgbm import early_stopping

            given = {"eval_metric": training.metric, "callbacks": [early_stopping(training.patience, verbose=False)]}
            given["eval_init_score"] = [training.starts(held)]
            given["eval_sample_weight"] = None if held.weight is None else [held.weight]
            if has_fit_parameter(estimator, "eval_X"):
                given |= {"eval_X": (held.X,), "eval_y": (held.codes,)}
            else:
                given["eval_set"] = [(held.X, held.codes)]
        estimator.fit(rows.X, rows.codes, sample_weight=rows.weight, init_score=training.starts(rows), **given)

    def raw(self, estimator: Any, X: Any, start: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(estimator.predict(X, raw_score=True) + start)

    def rounds(self, estimator: Any) -> int:
        booster = getattr(estimator, "booster_", estimator)
        return int(booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration())

    def to_bytes(self, estimator: Any) -> bytes:
        return str(getattr(estimator, "booster_", estimator).model_to_string()).encode()

    def from_bytes(self, content: bytes, parameters: dict[str, Any]) -> Any:
        from lightgbm import Booster

        return Booster(model_str=content.decode())

    def trained_with(self, estimator: Any) -> Any:
        return estimator.objective_


class CatBoost(Library):
    """CatBoostClassifier. It adds no baseline when it predicts.

    A custom objective of more than two classes costs it a call of Python for each row and round, 0.25 ms, so it
    computes plain cross-entropy by its own ``MultiClass``.
    """

    package, classifier, suffix = "catboost", "CatBoostClassifier", ".cbm"
    error = "CatBoostError"
    taken: ClassVar = {
        "loss_function": "loss=",
        "objective": "loss=",
        "eval_metric": "loss=",
        "early_stopping_rounds": "early_stopping_rounds=",
        "od_type": "early_stopping_rounds=",
        "od_wait": "early_stopping_rounds=",
        "od_pval": "early_stopping_rounds=",
        "class_weights": "class_weight=",
        "auto_class_weights": "class_weight=",
        "scale_pos_weight": "class_weight=",
        "boost_from_average": "nothing: it starts at the log prior",
    }

    def make(self, **parameters: Any) -> Any:
        from catboost import CatBoostClassifier

        return CatBoostClassifier(**parameters)

    def untrained(self, estimator: Any) -> Any:
        return type(estimator)(**estimator.get_params())  # scikit-learn cannot clone a list of cat_features

    def fit(self, estimator: Any, training: Training) -> None:
        from catboost import Pool

        objective, known = training.objective, estimator.get_params()
        chosen: dict[str, Any] = {"loss_function": objective, "eval_metric": training.metric}
        if objective.link == "softmax":
            chosen["classes_count"] = len(training.start)
            if objective.loss.is_cross_entropy and not objective.label_smoothing:
                chosen["loss_function"] = "MultiClass"
                if training.held is None:
                    del chosen["eval_metric"]
        if training.held is not None:
            chosen |= {"early_stopping_rounds": training.patience, "use_best_model": True}
        if not {"verbose", "logging_level", "silent", "verbose_eval", "metric_period"} & {*known}:
            chosen["logging_level"] = "Silent"
        estimator.set_params(**chosen)

        def pool(rows: Rows) -> Any:
            columns = {name: known.get(name) for name in ("cat_features", "text_features", "embedding_features")}
            return Pool(rows.X, rows.codes, weight=rows.weight, baseline=training.starts(rows), **columns)

        estimator.fit(pool(training.rows), eval_set=None if training.held is None else pool(training.held))

    def raw(self, estimator: Any, X: Any, start: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(estimator.predict(X, prediction_type="RawFormulaVal") + start)

    def rounds(self, estimator: Any) -> int:
        return int(estimator.tree_count_)

    def to_bytes(self, estimator: Any) -> bytes:
        metadata = estimator.get_metadata()
        for name in ("train_finish_time", "model_guid"):  # equal trees have equal bytes
            metadata[name] = ""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.cbm"
            estimator.save_model(str(path))
            return path.read_bytes()

    def from_bytes(self, content: bytes, parameters: dict[str, Any]) -> Any:
        return self.make(**parameters).load_model(blob=content)

    def is_trained(self, estimator: Any) -> bool:
        return bool(estimator.is_fitted())

    def trained_with(self, estimator: Any) -> Any:
        return estimator.get_all_params()["loss_function"]


LIBRARIES: dict[str, Library] = {library.package: library for library in (XGBoost(), LightGBM(), CatBoost())}


def library_of(estimator: Any) -> Library:
    """Return the library of a scikit-learn classifier.

    Raises
    ------
    ValueError
        If it is of none.
    """
    for kind in type(estimator).__mro__:
        library = LIBRARIES.get(kind.__module__.partition(".")[0])
        if library is not None and kind.__name__ == library.classifier:
            return library
    names = " or ".join(library.classifier for library in LIBRARIES.values())
    got = "None" if estimator is None else f"a {type(estimator).__name__}"
    raise ValueError(refuse(f"estimator must be an {names}", got))
