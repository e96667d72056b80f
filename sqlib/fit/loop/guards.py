"""What surrounds a training: one at a time in a folder, and an end that loses nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sqlib.errors import DataError, InputError


@contextmanager
def only_one_in(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for one training; made if absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another training runs in {folder}; wait for it, or choose another folder (--resume)"
        ) from None
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror or error}); choose another folder (--resume)"
        ) from error
    try:
        yield
    finally:
        lock.release()


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a wish that the loop grants between two steps.

    A second one acts as it always does. Outside the main thread signals stay as they are.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, _number: int, _frame: object) -> None:
        self.asked = True
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before.clear()

    def __exit__(self, *_error: object) -> None:
        self._give_back()
