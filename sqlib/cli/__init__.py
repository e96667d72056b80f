"""The command line: one small file per command, each with ``add(subparsers)`` and a ``run(args)``.

Nothing heavy is imported here or at the top of a command's file: ``--help`` must answer at once.

Exit status: 0, 2 for a usage error, 1 for a failure. Both come with one line on standard error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

import sqlib
from sqlib.cli._common import Failure, UsageError
from sqlib.errors import SqlibError

#: One module of this package per command, in the order of ``--help``.
COMMANDS = (
    "evaluate",
    "upscale",
    "cost",
    "plan",
    "reproduce",
    "status",
    "verify",
    "train",
    "warmup",
    "run_notebooks",
)


class _Parser(argparse.ArgumentParser):
    """argparse prints its whole usage before the error; here an error is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(
        prog="sqlib",
        description="Quantize super-resolution networks and reproduce the book's tables.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"sqlib {sqlib.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"sqlib.cli.{name}").add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed its line, or the help
        return stop.code if isinstance(stop.code, int) else 2
    name = f"sqlib {args.command}"
    warnings.showwarning = _show_warning
    try:
        args.run(args)
    except UsageError as error:
        return _fail(name, error, 2)
    except (SqlibError, Failure) as error:
        return _fail(name, error, 1)
    except KeyboardInterrupt:
        return _fail(name, "interrupted; what was finished is kept", 1)
    except BrokenPipeError:
        # The reader (`| head`) has left: nobody to tell, and Python must not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, MemoryError) as error:
        return _fail(name, f"{type(error).__name__}: {error}", 1)
    except Exception as error:
        if os.environ.get("SQLIB_TRACEBACK"):
            raise
        return _fail(
            name, f"internal error: {type(error).__name__}: {error} (SQLIB_TRACEBACK=1 shows where)", 1
        )
    return 0


def _fail(name: str, error: object, status: int) -> int:
    text = " ".join(str(error).split())
    print(f"{name}: error: {text}", file=sys.stderr)
    return status


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Warnings as one plain line; the place in the source helps nobody at a command line."""
    print(f"sqlib: warning: {' '.join(str(message).split())}", file=file or sys.stderr)
