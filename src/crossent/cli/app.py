"""The application: its commands, and how each of them ends."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Any

try:
    import typer
    import typer.core
except ModuleNotFoundError as error:  # pragma: no cover
    raise SystemExit("the command line needs more packages: pip install 'crossent[cli]'") from error

from ..about import add_version_to, say_once_when_compiling
from ..doctor.commands import register
from ..text import plain
from .calibrate import calibrate
from .endings import say
from .fit import fit
from .predict import predict
from .report import report

__all__ = ["app", "main"]

# The error of a command line that no command understands. Typer does not export it by name.
_UsageError: Any = typer.BadParameter.__base__


class _OneSentence(typer.core.TyperGroup):
    """Commands whose usage errors are one sentence on stderr, as all others are, and not a box of several lines."""

    def main(self, *args: Any, **extra: Any) -> Any:
        given = args[0] if args else extra.get("args")
        extra.setdefault("obj", ["crossent", *(sys.argv[1:] if given is None else given)])  # for the model card
        is_program = extra.pop("standalone_mode", True)
        extra["standalone_mode"] = False
        if not is_program:
            return super().main(*args, **extra)
        try:
            sys.exit(super().main(*args, **extra))
        except typer.Abort:
            say("interrupted")
            sys.exit(130)
        except _UsageError as error:
            message = error.format_message()
            if "\n" in message:  # there was no command at all, and the message is the help
                sys.stderr.write(f"{message}\n")
            elif message:  # else the help has been printed
                command = "crossent" if error.ctx is None else error.ctx.command_path
                say(f"{message.rstrip('.')} (see {command} --help)")
            sys.exit(error.exit_code)


app = typer.Typer(
    cls=_OneSentence,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, apply and judge classifiers by cross-entropy.",
)
add_version_to(app)
for _command in (fit, predict, report, calibrate):
    app.command()(_command)
register(app)


def main() -> None:
    """Run the command line; `crossent` calls this."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a report is worth more than an arrow that the encoding lacks
    say_once_when_compiling(say)
    try:
        app()
    except Exception:  # nobody foresaw it, and its message may quote data
        for line in traceback.format_exc().split("\n"):
            sys.stderr.write(f"{plain(line)}\n")
        sys.exit(1)
