"""Which fields a record has, so that one that lacks some is found when it is read, not later."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sqlib.errors import RecordError
from sqlib.experiments.cells import Cell

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    """A float, or the text by which records write those that JSON has not."""
    if value in ("nan", "inf", "-inf"):
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _seconds(value: Any) -> bool:
    return _number(value) and math.isfinite(float(value)) and float(value) >= 0


def _digits(value: Any) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) < 4


_CELL: dict[str, tuple[str, Check]] = {
    **dict.fromkeys(
        ("paper", "table", "model", "weights", "method", "dataset", "protocol"), ("a text", _text)
    ),
    **dict.fromkeys(("scale", "seed"), ("an integer of 0 or more", _count)),
    "bits": ("a number as text", _digits),
    "recipe": ("null or an object", lambda value: value is None or isinstance(value, dict)),
    "calibration": ("null or an object", lambda value: value is None or isinstance(value, dict)),
}
_SPEC: dict[str, tuple[str, Check]] = {
    "source": ("a text", _text),
    **dict.fromkeys(("n", "patch", "batch"), ("an integer of 0 or more", _count)),
}
_SCORES: dict[str, tuple[str, Check]] = dict.fromkeys(("psnr", "ssim"), ("a number", _number))
_RECORD: dict[str, tuple[str, Check]] = {
    **dict.fromkeys(
        ("key", "cpu", "device", "code", "data", "weights_id", "time", "profile"), ("a text", _text)
    ),
    **_SCORES,
    **dict.fromkeys(("n", "threads"), ("an integer of 0 or more", _count)),
    **dict.fromkeys(("cell", "planned", "versions"), ("an object", lambda value: isinstance(value, dict))),
    "images": ("a list", lambda value: isinstance(value, list)),
    "seconds": ("a number of seconds", _seconds),
    "calibration": ("null or an object", lambda value: value is None or isinstance(value, dict)),
}


def check_fields(record: Mapping[str, Any]) -> None:
    """Check what the readers of records (tables, estimates, `verify`) rely on.

    Raises
    ------
    RecordError
        Names the first field that is missing, unknown (of a newer version, in a cell) or of another type.
    """
    _check(record, _RECORD, "")
    if record.get("seconds_preparing") is not None:
        _check(record, {"seconds_preparing": ("a number of seconds", _seconds)}, "")
    _check(record["versions"], {"torch": ("a text", _text)}, "versions.")
    for name in ("cell", "planned"):
        _check(record[name], _CELL, f"{name}.")
        if record[name]["calibration"] is not None:
            _check(record[name]["calibration"], _SPEC, f"{name}.calibration.")
        Cell.from_dict(record[name])
    if record["calibration"] is not None:
        _check(record["calibration"], {"sha256": ("a text", _text)}, "calibration.")
    if len(record["images"]) != record["n"]:
        raise RecordError(f"it lists {len(record['images'])} images and counts {record['n']}")
    for number, image in enumerate(record["images"]):
        if not isinstance(image, dict):
            raise RecordError(f"field 'images[{number}]' is not an object")
        _check(image, {"name": ("a text", _text), **_SCORES}, f"images[{number}].")


def _check(found: Mapping[str, Any], expected: Mapping[str, tuple[str, Check]], prefix: str) -> None:
    for name, (kind, check) in expected.items():
        if name not in found:
            raise RecordError(f"field '{prefix}{name}' is missing")
        if not check(found[name]):
            shown = repr(found[name])
            shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
            raise RecordError(f"field '{prefix}{name}' is {shown}, expected {kind}")
