"""The packaged store: the project's own records, one compact sorted file per paper.

``<paper>.jsonl`` has one record a line, in key order, with its own checksum. What many records share stands
once: ``calibrations.jsonl`` holds crops, ``images.jsonl`` the names of a set's images, by their hash. A
record taken out of here is the one that was put in, field by field.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlib.errors import DataError, RecordError
from sqlib.experiments.store.cells import canonical_json, sha256
from sqlib.experiments.store.records import Record, check_fields, seal, unseal
from sqlib.experiments.store.working import Unreadable, warn_of

_CALIBRATIONS, _IMAGES = "calibrations", "images"
Shared = dict[str, dict[str, Any]]


def strangers(folder: Path, papers: Iterable[str]) -> list[str]:
    """Papers that have a file in ``folder`` and are none of ``papers``."""
    known = {*papers, _CALIBRATIONS, _IMAGES}
    return sorted(file.stem for file in folder.glob("*.jsonl") if file.stem not in known)


class PackagedStore:
    """A folder of packaged records, read once per process and only when somebody asks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"PackagedStore({str(self.path)!r})"

    def survey(self) -> tuple[list[Record], list[Unreadable]]:
        """All records in key order, and the lines that cannot be read."""
        files = sorted(self.path.glob("*.jsonl"))
        stats = [(file, file.stat()) for file in files]
        return _survey(tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in stats))

    def records(self) -> list[Record]:
        """All sound records in key order; each line that is none is named by a warning."""
        records, unreadable = self.survey()
        warn_of(unreadable, self.path)
        return records


def package(folder: Path, papers: Mapping[str, Iterable[Record]]) -> None:
    """Write the packaged form of ``papers`` (name to records) into ``folder``; equal records, equal bytes.

    Raises
    ------
    DataError
        The folder cannot be written, or is full: what it held stays.
    """
    shared: dict[str, Shared] = {_CALIBRATIONS: {}, _IMAGES: {}}
    lines = {
        paper: [_pack(record, shared) for record in sorted(records, key=lambda record: str(record["key"]))]
        for paper, records in papers.items()
    }
    for kind, entries in shared.items():
        lines[kind] = [canonical_json(seal({"hash": name, **entries[name]})) for name in sorted(entries)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What is shared grows first and is cut last: stopped anywhere, every record finds what it refers to.
        grown = {kind: sorted({*lines[kind], *_lines(folder / f"{kind}.jsonl")}) for kind in shared}
        # All of them, then their names: what is there stays as it is until everything is written.
        with TemporaryDirectory(prefix=".new-", dir=folder) as new:
            for step, files in (("grown", grown), ("cut", lines)):
                Path(new, step).mkdir()
                for name, texts in files.items():
                    with open(Path(new, step, f"{name}.jsonl"), "wb") as file:
                        file.write("".join(f"{text}\n" for text in texts).encode())
                        file.flush()
                        os.fsync(file.fileno())
            for kind in grown:
                Path(new, "grown", f"{kind}.jsonl").replace(folder / f"{kind}.jsonl")
            for paper in papers:
                Path(new, "cut", f"{paper}.jsonl").replace(folder / f"{paper}.jsonl")
            for old in folder.glob("*.jsonl"):
                if old.stem not in lines:
                    old.unlink()
            for kind in shared:
                Path(new, "cut", f"{kind}.jsonl").replace(folder / f"{kind}.jsonl")
    except OSError as error:
        raise DataError(
            f"the packaged records in {folder} cannot be written: {error.strerror or error}"
        ) from error


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _pack(record: Record, shared: dict[str, Shared]) -> str:
    packed = {**record, "images": None}
    if record["calibration"] is not None:
        packed["calibration"] = sha256(record["calibration"])
        shared[_CALIBRATIONS][packed["calibration"]] = {"calibration": record["calibration"]}
    names = [image["name"] for image in record["images"]]
    packed["names"] = sha256(names)
    shared[_IMAGES][packed["names"]] = {"names": names}
    packed["images"] = {
        metric: [image["metrics"][metric] for image in record["images"]]
        for metric in record["images"][0]["metrics"]
    }
    return canonical_json(seal(packed))


def _unpack(text: str, source: str, shared: dict[str, Shared]) -> Record:
    record = unseal(text, source=source)
    try:
        names = shared[_IMAGES][record.pop("names")]["names"]
        if record["calibration"] is not None:
            record["calibration"] = shared[_CALIBRATIONS][record["calibration"]]["calibration"]
        columns = record["images"]
        if any(len(values) != len(names) for values in columns.values()):
            raise RecordError(f"record {source} is of no use: it does not have one score for every image")
        record["images"] = [
            {"name": name, "metrics": {metric: values[number] for metric, values in columns.items()}}
            for number, name in enumerate(names)
        ]
        check_fields(record)
    except RecordError as error:
        raise RecordError(f"record {source} is of no use: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"record {source} is of no use: {error!s} is not in {_IMAGES}.jsonl or {_CALIBRATIONS}.jsonl"
        ) from error
    return record


@lru_cache(maxsize=4)
def _survey(files: tuple[tuple[Path, int, int], ...]) -> tuple[list[Record], list[Unreadable]]:
    unreadable: list[Unreadable] = []
    shared: dict[str, Shared] = {_CALIBRATIONS: {}, _IMAGES: {}}
    records = []
    # what is shared first: the papers' files refer to it
    for file, *_ in sorted(files, key=lambda item: item[0].stem not in shared):
        for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            source = f"{file} line {number}"
            try:
                if file.stem in shared:
                    entry = unseal(text, source=source)
                    shared[file.stem][entry.pop("hash")] = entry
                else:
                    records.append(_unpack(text, source, shared))
            except RecordError as error:
                unreadable.append(Unreadable(file, str(error).removeprefix(f"record {file} ")))
    return sorted(records, key=lambda record: str(record["key"])), unreadable
