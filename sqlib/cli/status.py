"""``sqlib status``: which cells are measured, and the scoreboard's counts."""

from __future__ import annotations

import argparse

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("status", help="what is measured and what is missing", description=__doc__)
    parser.add_argument("table", nargs="?", metavar="TABLE", help="table (default: all)")
    parser.add_argument("--profile", default="laptop", help="laptop or full (default: %(default)s)")
    parser.add_argument(
        "--store", metavar="DIR", help="your records (default: $SQLIB_STORE, else the user's data folder)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the state of the stores."""
    from sqlib.experiments import papers
    from sqlib.experiments.report.status import status
    from sqlib.experiments.run import profiles

    kept = [name for name, profile in profiles.PROFILES.items() if not profile.scratch]
    _common.known("profile", args.profile, kept)
    if args.table is not None:
        _common.known("table", args.table, papers.tables())
    _common.check_store(args.store)
    state = status(args.profile, table=args.table, store=args.store)
    if args.json:
        _common.print_json(state)
        return
    print(f"your store: {state['store']}{'' if state['exists'] else ' (no such folder yet)'}")
    if state["unreadable"]:
        print(f"records that cannot be read and are ignored: {len(state['unreadable'])}")
    for table in state["tables"]:
        print(
            f"{table['table']} ({args.profile}): {table['cells']} cells, {table['own']} in your store, "
            f"{table['packaged']} shipped with sqlib, {len(table['missing'])} missing"
        )
        for label in table["missing"]:
            print(f"  missing: {label}")
    names = [name for name in next(iter(state["scoreboard"].values())) if name != "values"]
    print(f"\n{'printed values':<16}{'values':>8}" + "".join(f"{name:>9}" for name in names))
    for name, row in state["scoreboard"].items():
        print(f"{name:<16}{row['values']:>8}" + "".join(f"{row[verdict]:>9}" for verdict in names))
