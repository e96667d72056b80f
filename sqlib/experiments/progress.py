"""Progress of a run: a bar with the time left on a terminal, one line per cell elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Counts cells on standard error; silent unless ``enabled``."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        self._total, self._done, self._worked = total, 0, 0
        self._start = time.monotonic()
        self._lines = enabled and not sys.stderr.isatty()
        self._bar: Any = None
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="cell", file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, text: str, *, worked: bool) -> None:
        """One cell is settled; ``worked`` says it was computed, so that it counts in the time left."""
        self._done += 1
        self._worked += worked
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()
        elif self._lines:
            print(f"[{self._done}/{self._total}] {text}{self._time_left()}", file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        if not self._worked or self._done == self._total:
            return ""
        # Cells that were already there took no time: the pace is that of computed cells only.
        left = (time.monotonic() - self._start) / self._worked * (self._total - self._done)
        return f"; about {duration(left)} left"


def duration(seconds: float) -> str:
    """``"42 s"``, ``"3 min"``, ``"2.5 h"``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
