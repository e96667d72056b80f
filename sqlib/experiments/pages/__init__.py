"""Results that are no scores (crops, curves, seconds), made once and packaged for the pages that show them.

A page record is made by a module here, ``python -m sqlib.experiments.pages NAME``, on a machine that has the
data; `read` gives it anywhere, with where it comes from; ``sqlib verify --pages`` makes it again.
"""

from __future__ import annotations

import json
from importlib import import_module, resources
from typing import Any

from sqlib.errors import InputError

#: Name of a page record -> what makes it. Seconds are another number each time: `check` only counts them.
PAGES = {"refqsr-crops": "refqsr_crops", "refqsr-latency": "refqsr_latency"}


def read(name: str) -> dict[str, Any]:
    """A page record.

    Parameters
    ----------
    name : str
        One of `PAGES`.

    Returns
    -------
    dict
        ``data`` as its module says, and ``code`` (a hash), ``cpu``, ``threads``, ``versions``, ``time``.

    Raises
    ------
    InputError
        No such record.
    """
    _module(name)
    text = (resources.files(__name__) / "records" / f"{name}.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def make(name: str) -> dict[str, Any]:
    """A page record, computed now; see `read`."""
    from datetime import UTC, datetime

    from sqlib.experiments.store import provenance

    module = _module(name)
    return {
        "data": module.make(),
        "code": provenance.code_hash([module.__name__]),
        "cpu": provenance.cpu_model(),
        "threads": provenance.threads(),
        "versions": provenance.versions(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check(name: str) -> str:
    """Make a packaged record again; empty if it comes out the same, else the first difference in words."""
    module = _module(name)
    found: str = module.difference(read(name)["data"], module.make())
    return found


def _module(name: str) -> Any:
    if name not in PAGES:
        raise InputError(f"no page record {name!r}; known: {', '.join(PAGES)}")
    return import_module(f"{__name__}.{PAGES[name]}")
