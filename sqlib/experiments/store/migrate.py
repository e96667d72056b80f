"""Records of an older form, rewritten in today's: found and kept as they are, never computed again.

In that form a record's key held the table and the label that asked for it, so one experiment could have
several records; these become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlib.errors import InputError, RecordError
from sqlib.experiments.store.cells import (
    FULL_PRECISION,
    CalibrationSpec,
    Cell,
    ResolvedCell,
    bits_text,
    distinct,
)
from sqlib.experiments.store.records import FORMAT, OutdatedRecord, Record, check_fields, mean, unseal
from sqlib.experiments.store.working import Store

OLD = 1
_KEPT = ("seconds", "seconds_preparing", "device", "cpu", "threads", "versions", "code", "data", "weights_id")


@dataclass(frozen=True)
class Migration:
    """How many records were read and written, and the differences between records of one experiment."""

    read: int
    written: int
    differences: tuple[str, ...]


def migrate(source: Path, target: Store) -> Migration:
    """Write every record of the folder ``source`` into the empty store ``target``; ``source`` stays as it is.

    Records that have today's form already are taken as they are; of an experiment that has both, they win.

    Raises
    ------
    InputError
        ``target`` holds records, or ``source`` none of the older form.
    RecordError
        A record of ``source`` cannot be read; nothing is written.
    """
    files = sorted(source.glob("[0-9a-f][0-9a-f]/*.json"))
    if target.keys():
        raise InputError(f"store {str(target.path)!r} holds records; give a folder that is not there yet")
    old: list[Record] = []
    kept: dict[str, Record] = {}
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        try:
            unseal(text, source=str(file))
        except OutdatedRecord:
            old.append(upgraded(unseal(text, source=str(file), form=OLD)))
        else:
            kept[file.stem] = Store(source).read(file.stem)
    if not old:
        raise InputError(f"{str(source)!r} holds no records of an older form")
    records, differences = merged(record for record in old if record["key"] not in kept)
    target.prepare()
    for record in (*records, *kept.values()):
        target.write(record["key"], record)
    return Migration(len(files), len(records) + len(kept), tuple(differences))


def upgraded(old: Mapping[str, Any]) -> Record:
    """One record of the older form in today's, without its checksum.

    Raises
    ------
    RecordError
        It lacks what today's form needs.
    """
    try:
        planned = dict(old["planned"])
        for name in ("paper", "table", "method"):
            del planned[name]
        planned["bits"] = FULL_PRECISION
        if planned["recipe"] is not None:
            planned.update(_recipe(planned["recipe"]))
        if planned["calibration"] is not None:
            planned["calibration"] = CalibrationSpec(**planned["calibration"])
        crops = None if old["calibration"] is None else old["calibration"]["sha256"]
        cell = Cell(**planned)
        found = ResolvedCell(cell, old["cell"]["dataset"], old["data"], old["weights_id"], crops)
        record = {
            **{name: old[name] for name in (*_KEPT, "calibration", "time", "profile") if name in old},
            "key": found.key,
            "cell": cell.to_dict(),
            "dataset": found.dataset,
            "images": [
                {"name": image["name"], "metrics": {k: v for k, v in image.items() if k != "name"}}
                for image in old["images"]
            ],
        }
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"record {str(old.get('key'))[:12]} of format {OLD} cannot become {FORMAT}: {error!r}"
        ) from error
    check_fields(record)
    return record


def _recipe(old: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's recipe and bits; a recipe that cannot be made here, or not as it was, keeps all options."""
    from sqlib import recipes

    bits = bits_text(old["bits"])
    try:
        return {"recipe": distinct(recipes.from_dict(dict(old))), "bits": bits}
    except InputError:
        return {"recipe": {name: value for name, value in old.items() if name != "bits"}, "bits": bits}


def merged(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """One record an experiment, in key order, and what differed between those of one experiment.

    Kept is the one that knows how long its network took to prepare, else one of a single thread, else the
    newest.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(str(record["key"]), []).append(record)
    kept, differences = [], []
    for key in sorted(groups):
        first, *others = sorted(groups[key], key=_worth, reverse=True)
        kept.append(first)
        for other in others:
            if other["images"] != first["images"]:
                gaps = {m: mean(other, m) - mean(first, m) for m in first["images"][0]["metrics"]}
                words = ", ".join(f"{metric} by {gap:+.2e}" for metric, gap in gaps.items())
                threads = f"{other['threads']} and {first['threads']} threads"
                differences.append(
                    f"{Cell.from_dict(first['cell']).label}: {words} ({threads}; the latter kept)"
                )
    return kept, differences


def _worth(record: Record) -> tuple[int, int, str]:
    return round(record.get("seconds_preparing") or 0.0), -int(record["threads"]), str(record["time"])
