"""Side-by-side timing: contenders take turns in one process, so that drift hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def measure(
    contenders: Mapping[str, Callable[[], object]], *, repeats: int = 50, warmup: int = 3
) -> dict[str, list[float]]:
    """Seconds per call, `repeats` of them per contender, taken in turns after `warmup` unmeasured calls."""
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
