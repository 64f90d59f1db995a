"""Runs the command line and says in one sentence what went wrong."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from stepwell.cli.app import app
from stepwell.errors import Diverged, Interrupted, UserError


def main() -> None:
    """Runs the command line. Exit codes: 2 a mistake the user can mend, 3 diverged, 130 and 143 stopped."""
    command = typer.main.get_command(app)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # Not app(): that prints usage errors in its own form, and takes a closed pipe for a failure.
        with command.make_context("stepwell", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except _USAGE as error:
        _fail(_usage(error), 2)
    except UserError as error:
        _fail(str(error), 2)
    except Diverged as error:
        _fail(str(error), 3)
    except BrokenPipeError:
        # The reader (head, less) has left: nothing is wrong. Python must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except _Terminated:
        _fail(_stopped(), 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        _fail(_stopped(), 128 + signal.SIGINT)
    except Interrupted as error:
        _fail(str(error), 128 + error.signal)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{(error.strerror or str(error)).lower()}", 2)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: like Ctrl-C it must let everything on the way out remove what is half written."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


def _stopped() -> str:
    verb = next(
        (verb for verb in ("train", "compare", "cross-validate", "ensemble") if verb in sys.argv[1:2]), None
    )
    return (
        f"stopped at once; what had begun goes on with stepwell {verb} --resume"
        if verb
        else "stopped at once"
    )


# What typer raises for wrong options and arguments; it exports only this one kind of it.
_USAGE: Any = typer.BadParameter.__base__


def _usage(error: Any) -> str:
    """A usage error in words, without the library's terms."""
    context = error.ctx
    hint = f"`{context.command_path if context else 'stepwell'} --help` shows how"
    if isinstance(error, typer.BadParameter) and error.message:
        what = (
            error.message.replace("Input should be", "must be")
            .replace("a valid integer", "a whole number")
            .partition(", unable")[0]
        )
        return f"{' '.join(error.param.opts) if error.param else 'value'}: {what}; {hint}"
    what = error.format_message().strip().rstrip(".").replace("(Possible", "(possible")
    return f"{what[0].lower()}{what[1:]}; {hint}"


def _fail(sentence: str, code: int) -> None:
    print(
        f"stepwell: {' '.join(sentence.split()).rstrip('.')}{'' if sentence.rstrip().endswith('?') else '.'}",
        file=sys.stderr,
    )
    sys.exit(code)
