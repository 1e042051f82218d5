"""What a command refuses before it begins, so that it neither loses a file nor works for nothing; how it writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from ..files import Busy, Content, locked, same_place, write_together
from ..regression.checkpoint import exclusive, read_checkpoint
from .errors import InputError


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written; one that is yet to be made, if it cannot be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"cannot write to {str(folder)!r}: {str(there)!r} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {str(folder)!r}: no permission to write in {str(there)!r}")


def prediction_suffix(path: Path) -> str:
    """Return the suffix by which predictions are written, or refuse another one."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"predictions are written as .csv or .parquet, and {str(path)!r} ends in neither")
    return suffix


def refuse_folders(paths: Iterable[Path]) -> None:
    """Refuse to write files in the place of folders."""
    for path in paths:
        if path.is_dir():
            raise InputError(f"cannot write {str(path)!r}: it is a folder")


def refuse_outputs(folder: Path, outputs: Iterable[Path]) -> None:
    """Refuse a folder for a report in which these files of it cannot be written."""
    refuse_unwritable(folder)
    refuse_folders(outputs)


def refuse_over(outputs: Iterable[Path], inputs: Iterable[str]) -> None:
    """Refuse to write over what is read, whatever link, ``..`` or spelling leads to it."""
    read = [path for path in inputs if os.path.lexists(path)]
    for output in outputs:
        for path in read:
            if same_place(output, path):
                raise InputError(f"{str(output)!r} cannot be written over {path!r}, which is read: write another file")


def refuse_among(output: Path, source: str) -> None:
    """Refuse an output that the folder or the pattern `source`, which is read, would hold from then on."""
    if os.path.isfile(source):
        return
    folder, pattern = (source, "*.parquet") if os.path.isdir(source) else os.path.split(source)
    if fnmatch(output.name, pattern) and same_place(output.parent, folder or "."):
        raise InputError(f"{str(output)!r} would be among the data {source!r} from then on: write it elsewhere")


def refuse_checkpoint(checkpoint: Path, data: Iterable[str], outputs: Iterable[Path]) -> None:
    """Refuse a checkpoint that is a folder or the data, or that takes the place of an output or of its folder."""
    if checkpoint.is_dir():
        raise InputError(f"the checkpoint {str(checkpoint)!r} is a folder")
    refuse_over([checkpoint], data)
    for output in outputs:
        for one, other in ((checkpoint, output), (output, checkpoint)):
            place = Path(os.path.realpath(other))
            if any(same_place(one, path) for path in (place, *place.parents)):
                raise InputError(
                    f"the checkpoint {str(checkpoint)!r} and the output {str(output)!r} take the same place: "
                    "pass another --checkpoint"
                )


def refuse_to_lose(checkpoint: Path, resume: bool) -> None:
    """Refuse a checkpoint that cannot be written, is another file or, without `resume`, is of an earlier fit."""
    refuse_unwritable(checkpoint.parent)
    if not checkpoint.exists():
        return
    try:
        with exclusive(checkpoint):
            read_checkpoint(checkpoint)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not resume:
        raise InputError(
            f"there is a checkpoint of an unfinished fit, {str(checkpoint)!r}: pass --resume to go on from it, or "
            "remove it"
        )


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove the checkpoint of a fit that has ended, unless another fit keeps it by now."""
    with suppress(Busy), locked(checkpoint):
        checkpoint.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path, name: str) -> Iterator[None]:
    """Keep a folder for one command at a time: for all those that write the file `name` there.

    Raises
    ------
    InputError
        If another one is at work there.
    """
    try:
        with locked(folder / name):
            yield
    except Busy as error:
        raise InputError(
            f"another crossent is writing to {str(folder)!r}: wait until it has ended, or pass another --output"
        ) from error


def write_files(files: Mapping[Path, Content]) -> None:
    """Write files as `crossent.files.write_together` does.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    refuse_folders(files)
    try:
        write_together(files)
    except OSError as error:
        raise InputError(f"cannot write {str(error.filename)!r}: {error.strerror}") from error
