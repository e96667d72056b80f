"""How far a long computation is: tqdm's bar on a terminal, elsewhere one line with what it will take.

Nothing is shown unless somebody asks for it:

>>> with sqlib.fit.progress("brecq"):                                                     # doctest: +SKIP
...     quantized = sqlib.quantize_model(network, recipe, calibration)                    # doctest: +SKIP
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

_SETTLED = 10  # steps after which the pace is known; the first compiles and fills caches

_SHOWN: ContextVar[tuple[str, str] | None] = ContextVar("sqlib progress", default=None)


@contextmanager
def progress(label: str, hint: str = "") -> Iterator[None]:
    """Show on standard error how far the trainings inside are.

    Parameters
    ----------
    label : str
        What runs.
    hint : str
        Added to the line that is printed where there is no terminal.
    """
    token = _SHOWN.set((label, hint))
    try:
        yield
    finally:
        _SHOWN.reset(token)


class Bar:
    """Progress over `total` steps; a context manager. `label` stands in for that of `progress`."""

    def __init__(self, total: int, *, label: str | None = None, unit: str = "step") -> None:
        shown = _SHOWN.get()
        terminal = sys.stderr.isatty()
        self.total, self.unit = total, unit
        self.done = self.skipped = 0
        self.label, self.hint = shown or ("", "")
        self.label = label or self.label
        self._line = shown is not None and not terminal
        self._start = time.monotonic()
        self._bar = tqdm(
            total=total,
            desc=self.label,
            unit=unit,
            dynamic_ncols=True,
            disable=shown is None or not terminal or total <= 0,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def skip(self, steps: int) -> None:
        """These steps were done before, and tell nothing of the pace."""
        self.skipped += steps
        if not self._bar.disable:
            self._bar.initial += steps
            self._bar.update(steps)

    def update(self) -> None:
        """One step is done."""
        self.done += 1
        self._bar.update()
        if self._line:
            if self.done == 1:
                self._start = time.monotonic()
            if self.done == min(_SETTLED, self.total - self.skipped):
                self._say()

    def _say(self) -> None:
        line = f"sqlib: {self.label}: {self.total:,} {self.unit}s"
        if self.done > 1:
            pace = (time.monotonic() - self._start) / (self.done - 1)
            line += f", about {tqdm.format_interval(pace * (self.total - self.skipped))}"
        print(line + self.hint, file=sys.stderr, flush=True)
