"""``sqlib migrate``: write the records of a store from an older sqlib anew, computing nothing."""

from __future__ import annotations

import argparse

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "migrate", help="bring a store from an older sqlib into today's form", description=__doc__
    )
    parser.add_argument("old", metavar="OLD", help="folder of the store; it stays as it is")
    parser.add_argument("new", metavar="NEW", help="folder to write to; not there yet, or empty")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Migrate and say how many records became how many."""
    from pathlib import Path

    from sqlib.experiments.store.migrate import migrate
    from sqlib.experiments.store.working import Store

    _common.check_store(args.old)
    result = migrate(Path(args.old), Store(args.new))
    if args.json:
        _common.print_json(vars(result))
        return
    print(f"{result.read} records read, {result.written} written to {args.new}")
    if result.read > result.written:
        print(f"{result.read - result.written} were of an experiment that another record has, too")
    for difference in result.differences:
        print(f"they differed: {difference}")
