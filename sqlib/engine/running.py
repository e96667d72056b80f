"""Which modules a thread is executing, and who traces them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlib.engine.tracing import Tracer


class Running(threading.local):
    """Module paths being executed in this thread, innermost last, and who traces; None outside a pass.

    ``path`` is free for what is known of a pass by modules that a recipe has put into the network; what the
    backward pass computes again sees it as the first time.
    """

    stack: list[tuple[str, str, bool]] | None = None
    tracer: Tracer | None = None
    path: Any = None


running = Running()
