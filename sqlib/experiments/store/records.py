"""Records: what one experiment gave, sealed with a checksum, and checked field by field when it is read.

A record holds the planned cell and what decided the answer (true name and hash of the data, hash of the
weights, calibration crops), a dictionary of metrics for every image, and how it was measured. Means are made
from the images, so they cannot disagree with them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from sqlib.errors import RecordError
from sqlib.experiments.store.cells import Cell, jsonable, sha256
from sqlib.experiments.store.metrics import METRICS

#: Version of the record layout; records of another version are not read.
FORMAT = 2
#: The profile whose records answer other questions than tables do and are never shown.
SMOKE = "smoke"
Record = dict[str, Any]
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


_CELL: dict[str, tuple[str, Check]] = {
    **dict.fromkeys(("model", "weights", "bits", "dataset", "protocol"), ("a text", _text)),
    **dict.fromkeys(("scale", "seed"), ("an integer of 0 or more", _count)),
    "recipe": ("null or an object", lambda value: value is None or isinstance(value, dict)),
    "calibration": ("null or an object", lambda value: value is None or isinstance(value, dict)),
}
_TRAINING: dict[str, tuple[str, Check]] = {
    "source": ("a text", _text),
    "patch": ("an integer of 0 or more", _count),
}
_RECIPE: dict[str, tuple[str, Check]] = {
    "name": ("a text", _text),
    "version": ("an integer of 0 or more", _count),
}
_SPEC: dict[str, tuple[str, Check]] = {
    "source": ("a text", _text),
    **dict.fromkeys(("n", "patch", "batch"), ("an integer of 0 or more", _count)),
}
_RECORD: dict[str, tuple[str, Check]] = {
    **dict.fromkeys(
        ("key", "cpu", "device", "code", "dataset", "data", "weights_id", "time", "profile"),
        ("a text", _text),
    ),
    "threads": ("an integer of 0 or more", _count),
    **dict.fromkeys(("cell", "versions"), ("an object", lambda value: isinstance(value, dict))),
    "images": ("a list with something in it", lambda value: isinstance(value, list) and bool(value)),
    "seconds": ("a number of seconds", _seconds),
    "calibration": ("null or an object", lambda value: value is None or isinstance(value, dict)),
}


def serves(record: Mapping[str, Any], profile: str) -> bool:
    """Whether a run of ``profile`` need not compute again what ``record`` holds."""
    return profile == SMOKE or bool(record["profile"] != SMOKE)


def mean(record: Mapping[str, Any], metric: str) -> float:
    """Mean of a metric over the images of a record.

    Raises
    ------
    RecordError
        The record was scored by other metrics.
    """
    import numpy as np

    try:
        return float(np.mean([float(image["metrics"][metric]) for image in record["images"]]))
    except KeyError:
        held = ", ".join(record["images"][0]["metrics"])
        raise RecordError(f"record {record['key'][:12]} holds {held}, not {metric!r}") from None


def seal(content: Mapping[str, Any]) -> Record:
    """``content`` as a record: JSON values only, with the format version and a checksum over all of it."""
    record = jsonable({**content, "format": FORMAT})
    record.pop("checksum", None)
    return {**record, "checksum": sha256(record)}


def unseal(text: str, *, source: str, form: int = FORMAT) -> Record:
    """Parse one sealed record, check its checksum and return the content alone.

    Raises
    ------
    OutdatedRecord
        It has the form of an older sqlib.
    RecordError
        Not JSON, not a record, truncated, altered, or of a newer form.
    """
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(record, dict) or "checksum" not in record:
            raise RecordError(f"record {source} is damaged: it has no checksum")
        found = sha256({name: value for name, value in record.items() if name != "checksum"})
    except (ValueError, RecursionError) as error:  # numbers beyond a float and endless brackets, too
        raise RecordError(f"record {source} is damaged: not complete JSON ({error})") from error
    if found != record["checksum"]:
        raise RecordError(f"record {source} is damaged: its content does not fit its checksum")
    given = record.get("format")
    if given != form:
        older = isinstance(given, int) and not isinstance(given, bool) and given < form
        kind, advice = (OutdatedRecord, MIGRATE) if older else (RecordError, "a newer sqlib wrote it: update")
        raise kind(f"record {source} has format {given!r}, this sqlib reads {form} ({advice})")
    return {name: value for name, value in record.items() if name not in ("checksum", "format")}


MIGRATE = "python -m sqlib migrate OLD NEW writes the records of the folder OLD anew into NEW"


class OutdatedRecord(RecordError):
    """A sound record in the form of an older sqlib."""


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is no JSON value")


def check_fields(record: Mapping[str, Any]) -> None:
    """Check what the readers of records (tables, estimates, `verify`) rely on.

    Raises
    ------
    RecordError
        Names the first field that is missing, of another type or, in a cell or among the metrics, unknown.
    """
    _check(record, _RECORD, "")
    if record.get("seconds_preparing") is not None:
        _check(record, {"seconds_preparing": ("a number of seconds", _seconds)}, "")
    _check(record["versions"], {"torch": ("a text", _text)}, "versions.")
    _check(record["cell"], _CELL, "cell.")
    if record["cell"]["calibration"] is not None:
        _check(record["cell"]["calibration"], _SPEC, "cell.calibration.")
    if record["cell"].get("training") is not None:
        _check(record["cell"], {"training": ("an object", lambda value: isinstance(value, dict))}, "cell.")
        _check(record["cell"]["training"], _TRAINING, "cell.training.")
    if record["cell"]["recipe"] is not None:
        _check(record["cell"]["recipe"], _RECIPE, "cell.recipe.")
    Cell.from_dict(record["cell"])
    if record["cell"].get("training") is not None:
        _check(record, {"training": ("an object", lambda value: isinstance(value, dict))}, "")
        _check(record["training"], {"sha256": ("a text", _text)}, "training.")
    if record["calibration"] is not None:
        _check(record["calibration"], {"sha256": ("a text", _text)}, "calibration.")
    for number, image in enumerate(record["images"]):
        _check_image(image, f"images[{number}]", record["images"][0])


def _check_image(image: Any, where: str, first: Any) -> None:
    if not isinstance(image, dict):
        raise RecordError(f"field '{where}' is not an object")
    scored = ("an object with something in it", lambda value: isinstance(value, dict) and bool(value))
    _check(image, {"name": ("a text", _text), "metrics": scored}, f"{where}.")
    for name in image["metrics"]:
        if name not in METRICS:
            raise RecordError(
                f"'{where}' has the unknown metric {name!r}, expected {', '.join(METRICS)}: update sqlib"
            )
    _check(image["metrics"], dict.fromkeys(first["metrics"], ("a number", _number)), f"{where}.metrics.")


def _check(found: Mapping[str, Any], expected: Mapping[str, tuple[str, Check]], prefix: str) -> None:
    for name, (kind, check) in expected.items():
        if name not in found:
            raise RecordError(f"field '{prefix}{name}' is missing")
        if not check(found[name]):
            shown = repr(found[name])
            shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
            raise RecordError(f"field '{prefix}{name}' is {shown}, expected {kind}")
