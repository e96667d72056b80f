"""``sqlib run-notebooks``: execute the book's notebooks through papermill."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "run-notebooks", help="execute notebooks through papermill", description=__doc__
    )
    parser.add_argument("outdir", metavar="OUTDIR", help="folder for the executed notebooks")
    parser.add_argument("--profile", default="smoke", help="smoke, laptop or full (default: %(default)s)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="only this notebook; repeatable"
    )
    parser.add_argument(
        "--notebooks", default="notebooks", metavar="DIR", help="their folder (default: %(default)s)"
    )
    parser.add_argument("--kernel", metavar="NAME", help="Jupyter kernel (default: the notebook's own)")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="further parameter",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Execute them all; name the failing ones at the end."""
    from sqlib.errors import InputError, SqlibError
    from sqlib.experiments.run import profiles
    from sqlib.experiments.run.notebook import check_parameters, run_notebook, select_notebooks

    _common.known("profile", args.profile, profiles.PROFILES)
    given = {name: _value(value) for name, value in args.parameter}
    names = ["profile", *(name for name, _ in args.parameter)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _common.UsageError(f"parameter {twice} is given {names.count(twice)} times (--profile is one)")
    notebooks = select_notebooks(args.notebooks, args.only)
    _check_targets(Path(args.outdir), Path(args.notebooks), [path.name for path in notebooks])
    params = {"profile": args.profile, **given}
    for path in notebooks:  # all of them before the first runs: a typing error costs no time
        try:
            check_parameters(path, params)
        except InputError as error:
            raise _common.UsageError(str(error)) from None
    failed = []
    for number, path in enumerate(notebooks, 1):
        start = time.monotonic()
        try:
            run_notebook(
                path, Path(args.outdir) / path.name, kernel=args.kernel, **{"profile": args.profile, **given}
            )
            state = "done"
        except SqlibError as error:
            failed.append(path.name)
            state = " ".join(str(error).split())
        print(
            f"[{number}/{len(notebooks)}] {path.name}: {state} in {time.monotonic() - start:.0f} s",
            file=sys.stderr,
        )
    if failed:
        raise _common.Failure(f"{len(failed)} of {len(notebooks)} notebooks failed: {', '.join(failed)}")
    print(f"{len(notebooks)} notebooks executed into {args.outdir}")


def _check_targets(outdir: Path, sources: Path, names: list[str]) -> None:
    """No executed notebook may land on a source, whatever the folders are called and linked to."""
    if outdir.exists() and not outdir.is_dir():
        raise _common.UsageError(f"{str(outdir)!r} is not a folder")
    for name in names:
        target = outdir / name
        if target.exists():
            same = next((s for s in sorted(sources.glob("*.ipynb")) if target.samefile(s)), None)
            if same is not None:
                raise _common.UsageError(
                    f"{str(target)!r} would overwrite the source {str(same)!r}: give another OUTDIR"
                )


def _value(text: str) -> int | float | str | None:
    """A parameter from the command line: a number where it reads as one, None for ``None``, else text."""
    if text == "None":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
