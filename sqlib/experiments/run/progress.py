"""Progress of a run: a bar with the time left on a terminal, one line per cell elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Counts cells on standard error; silent unless ``enabled``."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        self._lines = enabled and not sys.stderr.isatty()
        # its bar would fill a log with carriage returns: there only its clock is used
        self._bar = tqdm(
            total=total, unit="cell", dynamic_ncols=True, disable=not enabled, delay=1e9 if self._lines else 0
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, text: str, *, worked: bool) -> None:
        """One cell is settled; ``worked`` says it was computed, so that it counts in the time left."""
        if self._bar.disable:
            return
        if not worked:
            # Cells that were already there took no time: the pace is that of computed cells only.
            self._bar.initial += 1
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()
        if self._lines:
            bar = self._bar
            print(f"[{bar.n}/{bar.total}] {text}{self._time_left()}", file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        now = self._bar.format_dict
        worked, left = now["n"] - now["initial"], now["total"] - now["n"]
        return f"; about {duration(now['elapsed'] / worked * left)} left" if worked and left else ""


def duration(seconds: float) -> str:
    """``"42 s"``, ``"3 min"``, ``"2.5 h"``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
