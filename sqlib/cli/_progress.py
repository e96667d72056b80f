"""How far a fit is, on standard error: a bar on a terminal, elsewhere one line with what it will take."""

from __future__ import annotations

import sys
import time
from typing import Any

_SETTLED = 10  # steps after which the pace is known; the first compiles and fills caches


class FitProgress:
    """Hears of the steps of one fit (see `sqlib._progress`); use it as a context manager."""

    def __init__(self, label: str, hint: str = "") -> None:
        self._label, self._hint = label, hint
        self._bar: Any = None
        self._total = self._done = 0
        self._start = 0.0

    def __enter__(self) -> FitProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def expect(self, total: int) -> None:
        self._close()
        self._total, self._done = total, 0
        if total > 0 and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=self._label, unit="step", dynamic_ncols=True)

    def tick(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._done == 1:
            self._start = time.monotonic()
        if self._bar is None and self._done == min(_SETTLED, self._total):
            self._say()

    def _say(self) -> None:
        from sqlib.experiments.run.progress import duration

        line = f"sqlib: {self._label}: {self._total:,} steps"
        if self._done > 1:
            pace = (time.monotonic() - self._start) / (self._done - 1)
            line += f", about {duration(pace * self._total)}"
        print(line + self._hint, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
