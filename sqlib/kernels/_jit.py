"""`njit` as this package uses it: on-disk cache where possible, GIL released, never parallel.

Numba's own ``parallel=True`` is not used at all: its OpenMP layer kills a forked child, its workqueue layer
aborts when two Python threads enter it at once, its pool spins against torch's, and its on-disk cache does
not tell a parallel from a serial variant. The kernels release the GIL instead, and large arrays
are split over a plain thread pool (`sqlib.kernels._threads`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile `function` on its first call (never at import), cached on disk when a folder is writable.

    Numba writes next to the source file, or else to the user's cache folder. Where neither can be written
    it refuses the decoration itself; the kernel then works without a cache and compiles once per process.
    `options` are those of `numba.njit`.
    """
    if function is None:
        return lambda function: jit(function, **options)
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        return numba.njit(nogil=True, **options)(function)
