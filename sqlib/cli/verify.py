"""``sqlib verify``: recompute a sample of the records that ship with sqlib."""

from __future__ import annotations

import argparse
import sys

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "verify", help="recompute a sample of the shipped records", description=__doc__
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sample", type=_common.positive, metavar="N", help="how many records")
    what.add_argument(
        "--pages",
        action="store_true",
        help="make again what pages show beside scores (crops, times); networks that are not kept here are "
        "trained for it",
    )
    parser.add_argument(
        "--max-seconds", type=_common.seconds, metavar="S", help="start no cell that would end later"
    )
    parser.add_argument("--seed", type=_common.seed, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument("--store", metavar="DIR", help="check these records instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Verify and print; fails when nothing was verified, anything differs or a record cannot be read."""
    if args.pages:
        return _pages(args)
    from sqlib.experiments.run.compute import Workbench
    from sqlib.experiments.run.verify import verify
    from sqlib.experiments.store.working import Store

    _common.check_store(args.store)
    _common.check_device(args.device)
    with _common.quiet_stdout(args.json):
        result = verify(
            sample=args.sample,
            max_seconds=args.max_seconds,
            seed=args.seed,
            store=Store(args.store) if args.store is not None else None,
            bench=Workbench(device=args.device, data_dir=args.data_dir),
            progress=True,
        )
    if args.json:
        _common.print_json(
            {
                "verified": len(result.verified),
                "n": result.n,
                "differ": [{"cell": cell, "reason": reason} for cell, reason in result.differ],
                "skipped": [{"cell": cell, "reason": reason} for cell, reason in result.skipped],
                "not_reached": result.not_reached,
                "unreadable": [{"path": str(item.path), "reason": item.reason} for item in result.unreadable],
            }
        )
    else:
        print(result)
        for reason in dict.fromkeys(reason for _, reason in result.skipped):
            print(f"skipped: {reason}", file=sys.stderr)
    for item in result.unreadable:
        print(f"unreadable: {item}", file=sys.stderr)
    if result.differ:
        cell, reason = result.differ[0]
        raise _common.Failure(f"{len(result.differ)} records differ, first {cell}: {reason}")
    if result.unreadable:
        total = result.readable + len(result.unreadable)
        raise _common.Failure(f"{len(result.unreadable)} of {total} records cannot be read")
    if not result.verified:
        raise _common.Failure("nothing was verified" if result.n else "there are no records to verify")


def _pages(args: argparse.Namespace) -> None:
    from sqlib.experiments.pages import PAGES, check
    from sqlib.experiments.run.compute import NotAvailable

    for name in ("store", "max_seconds", "data_dir"):
        if getattr(args, name) is not None:
            raise _common.UsageError(f"--{name.replace('_', '-')} is for records, not for --pages")
    found: dict[str, str] = {}
    skipped: dict[str, str] = {}
    with _common.quiet_stdout(args.json):
        for name in PAGES:
            try:
                found[name] = check(name)
            except NotAvailable as error:
                skipped[name] = str(error)
    differ = {name: text for name, text in found.items() if text}
    if args.json:
        _common.print_json(
            {"verified": sorted(found.keys() - differ), "differ": differ, "skipped": skipped, "n": len(PAGES)}
        )
    else:
        print(f"verified {len(found) - len(differ)} of {len(PAGES)} page records")
        for name, reason in skipped.items():
            print(f"skipped {name}: {reason}", file=sys.stderr)
    if differ or not found:
        raise _common.Failure("; ".join(f"{n}: {t}" for n, t in differ.items()) or "nothing was verified")
