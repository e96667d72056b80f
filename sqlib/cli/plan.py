"""``sqlib plan``: the cells of a table, and what they cost."""

from __future__ import annotations

import argparse
import math
from itertools import chain

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "plan", help="list the cells of a table, or of all, and their cost", description=__doc__
    )
    parser.add_argument("table", nargs="?", metavar="TABLE", help="table (default: all)")
    parser.add_argument("--profile", default="laptop", help="smoke, laptop or full (default: %(default)s)")
    _common.add_only(parser)
    parser.add_argument("--cost", action="store_true", help="only the estimated time, from measured records")
    parser.add_argument("--store", metavar="DIR", help="records to estimate from, besides the packaged ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _print_outstanding(table: str) -> None:
    """What networks without weights would take, as operations and as hours of an assumed GPU."""
    from sqlib.experiments.report import work

    for row in work.outstanding(table).to_dict("records"):
        learning = f"{row['learning']:,.0f} x 10^15 operations for the recipes that learn"
        if math.isnan(row["training"]):
            print(f"  {row['network']}: {learning}; no schedule of training is configured yet")
        else:
            rate = f"{work.RATE / 1e12:.0f} x 10^12 a second (assumed)"
            print(
                f"  {row['network']}: {row['training']:,.0f} x 10^15 operations of training, {learning}; "
                f"about {row['hours']:.1f} h of a GPU that does {rate}"
            )


def run(args: argparse.Namespace) -> None:
    """Print cells or their cost."""
    from sqlib.experiments import papers
    from sqlib.experiments.run import profiles
    from sqlib.experiments.run.plan import estimate, plan
    from sqlib.experiments.run.progress import duration
    from sqlib.experiments.store.layers import shown_records

    _common.known("profile", args.profile, profiles.PROFILES)
    if args.table is not None:
        _common.known("table", args.table, papers.tables())
    _common.check_store(args.store)
    tables = [args.table] if args.table else list(papers.tables())
    cells = {name: plan(name, args.profile) for name in tables}
    if args.only:
        chosen = _common.only(chain.from_iterable(cells.values()), args.only)
        rows = {(cell.id, cell.place) for cell in chosen}  # a cell may stand in several rows
        cells = {name: [c for c in cells[name] if (c.id, c.place) in rows] for name in tables}
        tables = [name for name in tables if cells[name]]
    records = shown_records(args.store) if args.cost else {}
    costs = {name: estimate(cells[name], records) for name in tables} if args.cost else {}
    if args.json:
        result: dict[str, object] = {"profile": args.profile}
        for name in tables:
            if args.cost:
                cost = costs[name]
                result[name] = {"cells": len(cells[name]), "seconds": cost.seconds, "unknown": cost.unknown}
            else:
                result[name] = [
                    {"id": cell.id, **cell.to_dict(), "row": vars(cell.place)} for cell in cells[name]
                ]
        _common.print_json(result)
        return
    for name in tables:
        if args.cost:
            cost = costs[name]
            time = f"about {duration(cost.seconds)} for {cost.known}" if cost.known else "no estimate"
            unknown = f", {cost.unknown} never measured" if cost.unknown else ""
            print(f"{name} ({args.profile}): {len(cells[name])} cells, {time}{unknown}")
            if args.profile == "full":
                _print_outstanding(name)
        else:
            for cell in cells[name]:
                print(f"{cell.id[:12]}  {name}  {cell.label}")
