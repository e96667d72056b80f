"""The command line: one small file per command, each with ``add(subparsers)`` and a ``run(args)``.

Nothing heavy is imported here or at the top of a command's file: ``--help`` must answer at once.

Exit status: 0, 2 for a usage error, 1 for a failure. Both come with one line on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

import sqlib
from sqlib.cli._common import Failure, UsageError
from sqlib.errors import SqlibError

#: One module of this package per command, in the order of ``--help``.
COMMANDS = (
    "evaluate",
    "upscale",
    "quantize",
    "export",
    "cost",
    "plan",
    "reproduce",
    "status",
    "verify",
    "package_records",
    "migrate",
    "train",
    "warmup",
    "run_notebooks",
)


class _Parser(argparse.ArgumentParser):
    """argparse prints its whole usage before the error; here an error is one line.

    No argument is empty: an empty path would mean the current folder, which nobody asks for by giving
    nothing (an unset variable in a script does).
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            value = getattr(found, action.dest, None)
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not text.strip():
                    name = "/".join(action.option_strings) or action.metavar
                    self.error(f"argument {name}: got {text!r}, expected something")
        return found, rest


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
    _print_anything()
    name = "sqlib"
    try:
        args = parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed its line, or the help
        status = stop.code if isinstance(stop.code, int) else 2
    else:
        name = f"sqlib {args.command}"
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = _run(args, name)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk shows here, not after the status is decided
    except BrokenPipeError:
        _drop_output()
        return status or 1
    except OSError as error:
        _drop_output()
        return _fail(name, f"cannot print: {error.strerror or error}", 1)
    return status


def _run(args: argparse.Namespace, name: str) -> int:
    try:
        args.run(args)
    except UsageError as error:
        return _fail(name, error, 2)
    except (SqlibError, Failure) as error:
        return _fail(name, error, 1)
    except KeyboardInterrupt:
        return _fail(name, "interrupted; what was finished is kept", 1)
    except BrokenPipeError:
        _drop_output()  # the reader (`| head`) has left: nobody to tell
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


def _print_anything() -> None:
    """Names in characters that the console does not know are printed as escapes, rather than not at all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send the rest of standard output nowhere, so that Python does not try again at exit."""
    # a stream without a file behind it has nothing to drop
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
