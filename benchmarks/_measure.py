"""Side-by-side timing and the rows of `make bench`'s table.

Contenders take turns in one process, so that drift hits all of them alike. A row says how many times as fast
(or as small) ours is as a named baseline of the same run, by their medians, and what was aimed at.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

#: Set by ``python benchmarks --quick``: does everything run? Its ratios mean nothing.
QUICK = bool(os.environ.get("SQLIB_BENCH_QUICK"))
#: Where `report` leaves rows for the table of all benchmarks.
ROWS = "SQLIB_BENCH_ROWS"


def measure(
    contenders: Mapping[str, Callable[[], object]], *, repeats: int = 50, warmup: int = 3
) -> dict[str, list[float]]:
    """Seconds per call, `repeats` of them per contender, taken in turns after `warmup` unmeasured calls."""
    if QUICK:
        repeats, warmup = min(repeats, 2), min(warmup, 1)
    for call in contenders.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def show(title: str, seconds: Mapping[str, list[float]], baseline: str) -> None:
    """Print minimum and median in milliseconds, and both as multiples of `baseline`."""
    low, mid = min(seconds[baseline]), statistics.median(seconds[baseline])
    print(f"\n{title}")
    print(f"{'':<42}{'min ms':>10}{'median ms':>11}{'x min':>8}{'x median':>10}")
    for name, values in seconds.items():
        a, b = min(values), statistics.median(values)
        print(f"{name:<42}{a * 1e3:>10.3f}{b * 1e3:>11.3f}{a / low:>8.2f}{b / mid:>10.2f}")


@dataclass(frozen=True)
class Row:
    """One comparison: `ratio` is the baseline's amount over ours, `aim` the least that was asked for, if any.

    `note` says why there is no ratio: a crash, or data that are not here.
    """

    benchmark: str
    case: str
    baseline: str = ""
    ours: str = ""
    ratio: float = math.nan
    aim: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the aim is reached."""
        if self.note or self.aim is None:
            return self.note
        return "reached" if self.ratio >= self.aim else "below its aim"


def report(row: Row) -> None:
    """Print a row, and hand it to the table of all benchmarks where that is being made."""
    aim = "" if row.aim is None else f", aim {_number(row.aim)}: {row.verdict}"
    ratio = "" if math.isnan(row.ratio) else f": {_number(row.ratio)} times {row.baseline}{aim}"
    print(f"{row.case}, {row.ours}{ratio}{' ' + row.note if row.note else ''}", flush=True)
    if os.environ.get(ROWS):
        with Path(os.environ[ROWS]).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(row)) + "\n")


def compare(
    benchmark: str,
    case: str,
    seconds: Mapping[str, list[float]],
    baseline: str,
    ours: str,
    aim: float | None = None,
) -> None:
    """Report the ratio of two contenders' medians."""
    ratio = statistics.median(seconds[baseline]) / statistics.median(seconds[ours])
    report(Row(benchmark, case, baseline, ours, ratio, aim))


def machine() -> str:
    """Where this was measured: processor, cores, threads and versions."""
    from sqlib.experiments.store.provenance import cpu_model, threads, versions

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shown = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{cpu_model()}, {cores} cores; {threads()} threads where none are named; {shown}"


def table(rows: Iterable[Row]) -> str:
    """The rows as text: benchmark, case, baseline, ours, ratio, aim, reached or not."""
    lines = [("benchmark", "case", "baseline", "ours", "ratio", "aim", "")]
    for row in rows:
        ratio = "" if math.isnan(row.ratio) else _number(row.ratio)
        aim = "" if row.aim is None else _number(row.aim)
        lines.append((row.benchmark, row.case, row.baseline, row.ours, ratio, aim, row.verdict))
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    return "\n".join(
        "  ".join(
            [*(line[i].ljust(widths[i]) for i in range(4)), *(line[i].rjust(widths[i]) for i in (4, 5))]
            + [line[6]]
        ).rstrip()
        for line in lines
    )


def _number(value: float) -> str:
    """Three digits that count: 0.94, 12.7, 2,796."""
    if not 0 < value < math.inf:
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"
