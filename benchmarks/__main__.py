"""Run every benchmark to its end and print one table: ``python benchmarks [--only NAME ...] [--quick]``.

A ratio below its aim is shown and fails nothing: the machine decides it, too. A benchmark that crashes is a
row that says so, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _measure import ROWS, Row, machine, table

FOLDER = Path(__file__).parent


def benchmarks(folder: Path) -> dict[str, Path]:
    """Name -> file of every benchmark of a folder, sorted."""
    return {path.stem: path for path in sorted(folder.glob("[a-z]*.py"))}


def run(name: str, path: Path, environment: dict[str, str]) -> tuple[list[Row], bool]:
    """Rows of one benchmark, run in a process of its own, and whether it ended as it should.

    What it reported before a crash is kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        environment = {**os.environ, **environment, ROWS: str(file)}
        process = subprocess.Popen(
            [sys.executable, str(path)], env=environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        last = ""
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        status = process.wait()
        text = file.read_text(encoding="utf-8") if file.exists() else ""
    rows = [Row(**json.loads(line)) for line in text.splitlines()]
    if status != 0:
        ended = f"killed by signal {-status}" if status < 0 else f"crashed: {last or f'status {status}'}"
        rows.append(Row(name, "", note=ended))
    elif not rows:
        rows.append(Row(name, "", note="compares nothing with an aim, see its own output"))
    return rows, status == 0


def main(argv: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Run and print; returns the exit status."""
    known = benchmarks(folder)
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--only", nargs="+", choices=list(known), default=list(known), metavar="NAME")
    parser.add_argument(
        "--quick", action="store_true", help="see that everything runs; the ratios mean nothing"
    )
    options = parser.parse_args(argv)
    rows: list[Row] = []
    sound = True
    try:
        for name in options.only:
            print(f"\n== {name}", flush=True)
            found, ended = run(name, known[name], {"SQLIB_BENCH_QUICK": "1"} if options.quick else {})
            rows += found
            sound = sound and ended
    except KeyboardInterrupt:
        rows.append(Row(name, "", note="interrupted"))
        sound = False
    print(f"\n{machine()}")
    if options.quick:
        print("quick: tiny runs, whose ratios mean nothing")
    print("ratio: the median of the baseline over that of ours, taken in turns in one process\n")
    print(table(rows))
    missed = sum(row.verdict == "below its aim" for row in rows)
    aims = sum(row.aim is not None and not row.note for row in rows)
    print(f"\n{aims - missed} of {aims} aims reached")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
