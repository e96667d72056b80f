"""The package's thread pool: kernels release the GIL, so plain Python threads run them side by side.

Results never depend on the number of threads: a thread gets whole planes or elements that do not interact.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Below this many values per thread, handing work to a thread costs more than it saves.
VALUES_PER_THREAD = 1 << 19

_pool: tuple[int, ThreadPoolExecutor] | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None  # threads do not survive a fork; the child starts its own when it needs them


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _executor(threads: int) -> ThreadPoolExecutor:
    global _pool
    if _pool is None or _pool[0] < threads:
        _pool = (threads, ThreadPoolExecutor(threads, thread_name_prefix="sqlib-kernel"))
    return _pool[1]


def run_split(part: Callable[[int, int], Any], count: int, threads: int) -> None:
    """Call ``part(start, stop)`` for `threads` nearly equal parts of range(count), at once.

    An exception in any part is raised here.
    """
    threads = min(threads, count)
    if threads <= 1:
        part(0, count)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    pending = [_executor(threads).submit(part, a, b) for a, b in itertools.pairwise(edges)]
    for future in pending:
        future.result()
