"""``sqlib warmup``: compile the CPU kernels and keep them on disk, e.g. while a container image is built.

Without it the first use of each kernel compiles it, which takes seconds; afterwards every process reads it.
NUMBA_CACHE_DIR chooses the folder, which must be the same later; the machine code is for this processor.
"""

from __future__ import annotations

import argparse
import time

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("warmup", help="compile the CPU kernels ahead of use", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compile, or find everything compiled."""
    start = time.perf_counter()
    with _common.quiet_stdout(args.json):
        from sqlib._warmup import compiled, warmup

        warmup()
    counts = compiled()
    seconds = time.perf_counter() - start
    if args.json:
        _common.print_json({**counts._asdict(), "seconds": seconds})
        return
    print(f"{counts.compiled} kernel variants compiled, {counts.loaded} read from the cache, {seconds:.1f} s")
