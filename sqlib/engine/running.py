"""Which modules a thread is executing, and who traces them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlib.engine.tracing import Tracer


class Running(threading.local):
    """Module paths being executed in this thread, innermost last, and who traces; None outside a pass."""

    stack: list[tuple[str, str, bool]] | None = None
    tracer: Tracer | None = None


running = Running()
