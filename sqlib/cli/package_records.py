"""``sqlib package-records``: put records of working stores among those that ship with sqlib."""

from __future__ import annotations

import argparse

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "package-records", help="put records among those that ship with sqlib", description=__doc__
    )
    parser.add_argument("stores", nargs="+", metavar="STORE", help="folder that reproduce wrote to")
    parser.add_argument("--into", metavar="DIR", help="packaged folder (default: that of this installation)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the packaged files and say how many records they hold."""
    from sqlib.experiments.run.packaging import package_records

    for store in args.stores:
        _common.check_store(store)
    result = package_records(args.stores, args.into)
    if args.json:
        _common.print_json({"papers": result.papers, "left_out": list(result.left_out)})
        return
    for paper, count in result.papers.items():
        print(f"{paper}: {count} records")
    for label in result.left_out:
        print(f"left out, no table shows it: {label}")
