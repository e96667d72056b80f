"""``sqlib reproduce``: compute a table's cells into a store. Stop and resume at will."""

from __future__ import annotations

import argparse
import sys

from sqlib.cli import _common

_WHERE = """\
where it runs:
  laptop     sqlib reproduce dfsq-table2 --jobs 2
             sqlib reproduce dfsq-table2 --only 'edsr-small x4' --only set5
  cluster    sqlib reproduce dfsq-table2 --profile full --dask tcp://10.0.0.1:8786
             (the address that 'dask scheduler' prints; 'dask worker ADDRESS --nthreads 1' on each machine,
             or dask-jobqueue under SLURM; workers need sqlib and the data, but no shared folder)
  CI matrix  sqlib reproduce dfsq-table2 --shard 3/8 --store part-3
             (8 jobs, each with a store of its own; copied into one folder the stores are one)
A record that exists is never computed again, wherever it was computed.
"""


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "reproduce",
        help="compute a table",
        description=__doc__,
        epilog=_WHERE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="TABLE", help="table, such as dfsq-table2")
    parser.add_argument("--profile", default="laptop", help="smoke, laptop or full (default: %(default)s)")
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="folder of records (default: $SQLIB_STORE, else the user's data folder)",
    )
    parser.add_argument("--jobs", type=_common.positive, metavar="N", help="worker processes (default: 1)")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="on the workers of this Dask scheduler, such as tcp://10.0.0.1:8786"
    )
    parser.add_argument("--shard", metavar="i/n", help="only the i-th of n parts, for n machines")
    _common.add_only(parser)
    parser.add_argument(
        "--seed", type=_common.seed, default=0, help="of the calibration (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the missing cells and say what became of each."""
    from sqlib.errors import InputError
    from sqlib.experiments import papers
    from sqlib.experiments.run import profiles
    from sqlib.experiments.run.plan import parse_shard, plan
    from sqlib.experiments.run.reproduce import reproduce

    _common.known("table", args.table, papers.tables())
    _common.known("profile", args.profile, profiles.PROFILES)
    if args.store == "":
        raise _common.UsageError("store '' is no folder; name one, or leave --store out")
    if args.shard is not None:
        try:
            parse_shard(args.shard)
        except InputError as error:
            raise _common.UsageError(str(error)) from None
    _common.only(plan(args.table, args.profile), args.only)
    if args.dask is None:  # else it is a device of the workers
        _common.check_device(args.device)
    elif args.jobs is not None or args.shard is not None:
        raise _common.UsageError(
            "--dask with --jobs or --shard: the scheduler divides the work; give one of the three"
        )
    with _common.quiet_stdout(args.json):
        result = reproduce(
            args.table,
            profile=args.profile,
            store=args.store,
            device=args.device,
            data_dir=args.data_dir,
            seed=args.seed,
            jobs=args.jobs or 1,
            dask=args.dask,
            shard=args.shard,
            only=args.only,
            progress=True,
        )
    summary = result.summary
    if not summary.outcomes and args.shard is None:
        others = [name for name in profiles.PROFILES if plan(args.table, name)]
        raise _common.Failure(
            f"{args.table} plans nothing in profile {args.profile!r}; try --profile {' or '.join(others)}"
        )
    if args.json:
        _common.print_json(
            {
                "table": args.table,
                "profile": args.profile,
                "store": str(result.store.path),
                "cells": [
                    {"id": item.cell.id, "cell": item.cell.label, "state": item.state, "note": item.note}
                    for item in summary.outcomes
                ],
            }
        )
    else:
        print(f"{args.table} ({args.profile}): {summary}")
        for reason in dict.fromkeys(item.note for item in summary.of("skipped")):
            print(f"not run: {reason}", file=sys.stderr)
        kept = "" if not profiles.PROFILES[args.profile].scratch or args.store else " (scratch, not kept)"
        print(f"store: {result.store.path}{kept}")
    if summary.of("failed"):
        first = summary.of("failed")[0]
        raise _common.Failure(
            f"{len(summary.of('failed'))} cells failed, first {first.cell.label}: {first.note}"
        )
    if summary.outcomes and not summary.done:
        raise _common.Failure(f"no cell could be run: {summary.outcomes[0].note}")
