"""The files of a boosted classifier: the library's own, and a sealed one of ours that names it by digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from crossent._version import __version__
from crossent.calibration.classifier import METHODS
from crossent.errors import describe, first_line, refuse
from crossent.files import write_together
from crossent.losses import from_table
from crossent.sealed import SealError, require, seal, unseal

from .libraries import LIBRARIES, Library, library_of

__all__ = ["booster_content", "load_model", "named_booster", "save_model"]

ENTRY, VERSION = "crossent.boosted", 1
T = TypeVar("T")
Tensors = dict[str, NDArray[Any]]


def named_booster(library: Library, name: str, content: bytes) -> dict[str, Any]:
    """Return how a sealed file names the booster's file beside it."""
    return {"library": library.package, "file": name, "sha256": hashlib.sha256(content).hexdigest()}


def booster_content(folder: Path, named: dict[str, Any]) -> bytes:
    """Return the content of a booster's file, if it is the one that `named_booster` named.

    Raises
    ------
    SealError
    """
    name = named["file"]
    require(isinstance(name, str) and Path(name).name == name, f"it names {name!r} as the booster's file")
    require(named["library"] in LIBRARIES, f"its library is {named['library']!r}")
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise SealError(f"the booster's file {name!r} beside it cannot be read ({error.strerror})") from error
    found = hashlib.sha256(content).hexdigest()
    require(found == named["sha256"], f"the booster's file {name!r} beside it is not the one that was saved with it")
    return content


def save_model(model: Any, path: Path) -> list[Path]:
    """Write what `load_model` reads."""
    library = library_of(model.estimator)
    beside = path.with_suffix(library.suffix)
    if beside == path:
        asked = f"{library.suffix} is the suffix of {library.classifier}'s own file, which lies beside the model"
        raise ValueError(refuse(asked, str(path), "call the model .safetensors"))
    booster = library.to_bytes(model.estimator_)
    tensors: Tensors = {"start": model.start_}
    calibrator = None if model.calibrator_ is None else _calibrator_entry(model.calibrator_, tensors)
    loss = model.loss
    content = {
        "crossent_version": __version__,
        "booster": named_booster(library, beside.name, booster),
        "classes": _class_list(model.classes_),
        "classes_dtype": model.classes_.dtype.str,
        "loss": None if loss is None else [list(row) for row in loss.table()],
        "parameters": _plain(model.get_params(deep=False)),
        "estimator": _plain(model.estimator.get_params()),
        "calibrator": calibrator,
        "rounds": model.n_iter_,
        "features": int(model.n_features_in_),
        "feature_names": [*map(str, model.feature_names_in_)] if hasattr(model, "feature_names_in_") else None,
    }
    files = {beside: booster, path: seal(ENTRY, VERSION, content, tensors)}
    write_together(files)
    return [*files]


def load_model(kind: type[T], path: Path) -> T:
    """Return the classifier that `save_model` wrote, of the class `kind`.

    Raises
    ------
    ValueError
        If a file is not what was saved.
    """
    try:
        content, tensors = unseal(path, ENTRY, VERSION, anew="save it again")
        booster = booster_content(path.parent, content["booster"])
        library = LIBRARIES[content["booster"]["library"]]
        estimator = library.make(**content["estimator"])
        loss = None if content["loss"] is None else from_table(tuple(row) for row in content["loss"])
        model: Any = kind(estimator, **content["parameters"], loss=loss)  # type: ignore[call-arg]
        model.classes_ = np.array(content["classes"], dtype=content["classes_dtype"])
        start = tensors["start"]  # seal makes () to (1,)
        model.start_ = start if len(start) > 1 else start.reshape(())
        model.estimator_ = library.from_bytes(booster, content["estimator"])
        model.n_iter_, model.n_features_in_ = content["rounds"], content["features"]
        if content["feature_names"] is not None:
            model.feature_names_in_ = np.array(content["feature_names"], dtype=object)
        model.calibrator_ = None
        if content["calibrator"] is not None:
            model.calibrator_ = _calibrator(content["calibrator"], tensors)
            model.calibration = clone(model.calibrator_)
    except SealError as error:
        raise ValueError(f"cannot read {str(path)!r} as a boosted classifier: {error}") from error
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        what = f"its parts do not fit together ({first_line(error)})"
        raise ValueError(f"cannot read {str(path)!r} as a boosted classifier: {what}") from error
    return cast(T, model)


def _class_list(classes: NDArray[Any]) -> list[Any]:
    found = classes.tolist()
    if not all(isinstance(label, str | int | float) for label in found):
        raise ValueError(refuse("classes must be numbers or texts to be saved", describe(classes), "pickle the model"))
    return list(found)


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that JSON holds as they are, None left out."""
    return {name: value for name, value in parameters.items() if value is not None and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _calibrator_entry(calibrator: Any, tensors: Tensors) -> dict[str, Any]:
    """Return what JSON holds of a fitted calibrator, and add its arrays to the tensors."""
    names = {kind: name for name, kind in METHODS.items()}
    plain: dict[str, Any] = {}
    floats: dict[str, str] = {}  # in hexadecimal, which knows infinity
    arrays: Tensors = {}
    for name, value in vars(calibrator).items():
        if isinstance(value, float):
            floats[name] = value.hex()
        elif _is_plain(value):
            plain[name] = value
        elif isinstance(value, list):
            arrays |= {f"calibrator.{name}.{place}": np.asarray(part) for place, part in enumerate(value)}
        else:
            arrays[f"calibrator.{name}"] = np.asarray(value)
    if type(calibrator) not in names or any(array.dtype.kind not in "fiub" for array in arrays.values()):
        asked = "a saved model holds a calibrator of numbers"
        raise ValueError(refuse(asked, type(calibrator).__name__, "pickle the model, or take another method"))
    tensors |= arrays
    return {"method": names[type(calibrator)], "values": plain, "floats": floats}


def _calibrator(entry: dict[str, Any], tensors: Tensors) -> Any:
    state = {**entry["values"], **{name: float.fromhex(text) for name, text in entry["floats"].items()}}
    for key in sorted(tensors, key=lambda key: (len(key), key)):
        first, _, rest = key.partition(".")
        name, _, place = rest.partition(".")
        if place:
            state.setdefault(name, []).append(tensors[key])
        elif first == "calibrator":
            state[name] = tensors[key]
    calibrator = METHODS[entry["method"]]()
    calibrator.__dict__.update(state)
    return calibrator
