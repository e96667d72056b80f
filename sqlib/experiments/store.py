"""The store: one JSON record per computed cell, content-addressed, written atomically.

Layout: ``<store>/<key[:2]>/<key>.json``, locks in ``<store>/.locks``, half-written files in ``<store>/.tmp``,
records that failed their checksum in ``<store>/.damaged``. A reader therefore never sees half a record.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlib.errors import InputError, RecordError
from sqlib.experiments.cells import Cell, jsonable, sha256
from sqlib.experiments.claims import claim

#: Version of the record layout; records of another version are not read.
FORMAT = 1
Record = dict[str, Any]


def default_store() -> Path:
    """``$SQLIB_STORE``, else ``store`` in the user's data folder for sqlib."""
    if os.environ.get("SQLIB_STORE"):
        return Path(os.environ["SQLIB_STORE"])
    import platformdirs

    return platformdirs.user_data_path("sqlib", appauthor=False) / "store"


def packaged_store() -> Store:
    """The records measured by the project itself, shipped inside the package."""
    return Store(Path(__file__).parent / "measured")


def seal(content: Mapping[str, Any]) -> Record:
    """``content`` as a record: JSON values only, with the format version and a checksum over all of it."""
    record = jsonable({**content, "format": FORMAT})
    record.pop("checksum", None)
    return {**record, "checksum": sha256(record)}


def unseal(text: str, *, source: str) -> Record:
    """Parse and check one record.

    Raises
    ------
    RecordError
        Not JSON, not a record, truncated, altered, or of another format.
    """
    try:
        record = json.loads(text)
    except ValueError as error:
        raise RecordError(f"record {source} is damaged: not complete JSON ({error})") from error
    if not isinstance(record, dict) or "checksum" not in record:
        raise RecordError(f"record {source} is damaged: it has no checksum")
    body = {name: value for name, value in record.items() if name != "checksum"}
    if sha256(body) != record["checksum"]:
        raise RecordError(f"record {source} is damaged: its content does not fit its checksum")
    if record.get("format") != FORMAT:
        raise RecordError(f"record {source} has format {record.get('format')!r}, this sqlib reads {FORMAT}")
    return record


class Store:
    """A folder of records.

    Opening reads nothing and creates nothing; :meth:`prepare` makes the folder and checks that it can be
    written. Several processes may use one store at a time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def prepare(self) -> Store:
        """Create the folders and try a write; raises InputError where that is not possible."""
        try:
            for name in (".locks", ".tmp"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            probe = self.path / ".tmp" / f"probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"store {str(self.path)!r} cannot be written ({error.strerror or error}); "
                "give another folder with --store or $SQLIB_STORE"
            ) from error
        return self

    def file(self, key: str) -> Path:
        """Where the record of ``key`` is or would be."""
        return self.path / key[:2] / f"{key}.json"

    def __contains__(self, key: str) -> bool:
        return self.file(key).is_file()

    def read(self, key: str) -> Record:
        """The record of ``key``; KeyError where there is none, RecordError where it is damaged."""
        path = self.file(key)
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise KeyError(key) from None
        record = unseal(text, source=str(path))
        if record.get("key") != key:
            raise RecordError(f"record {path} is damaged: it belongs to key {record.get('key')!r}")
        return record

    def usable(self, key: str, *, claimed: bool = False) -> Record | None:
        """The record of ``key``, or None where there is none or it is damaged.

        The holder of the claim (``claimed=True``) also moves a damaged one to ``.damaged``, so that it is
        computed again; nobody else may, because it could be a fresh record by then.
        """
        try:
            return self.read(key)
        except KeyError:
            return None
        except RecordError as error:
            if claimed:
                self.set_aside(key, str(error))
            return None

    def set_aside(self, key: str, reason: str) -> Path:
        """Move a damaged record out of the way, keeping it for inspection, and warn."""
        import warnings

        folder = self.path / ".damaged"
        folder.mkdir(exist_ok=True)
        target = folder / f"{key}-{len(list(folder.glob(f'{key}-*')))}.json"
        os.replace(self.file(key), target)
        warnings.warn(f"{reason}; moved to {target}, the cell is computed again", stacklevel=3)
        return target

    def write(self, key: str, content: Mapping[str, Any]) -> Record:
        """Seal ``content`` and store it under ``key`` in one step: readers see all of it or nothing.

        The caller holds the claim on ``key``, so the temporary file of a killed predecessor is overwritten.
        """
        record = seal({**content, "key": key})
        target = self.file(key)
        temporary = self.path / ".tmp" / f"{key}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(record, stream, indent=1, sort_keys=True, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
        return record

    def claim(self, key: str, *, wait: bool = False) -> contextlib.AbstractContextManager[bool]:
        """Context manager yielding whether this process alone may compute ``key``."""
        return claim(self.path / ".locks" / f"{key}.lock", wait=wait)

    def keys(self) -> list[str]:
        """Keys of all records, sorted."""
        return sorted(path.stem for path in self.path.glob("[0-9a-f][0-9a-f]/*.json"))

    def records(self) -> Iterator[Record]:
        """All sound records in key order; damaged ones are reported by a warning and left where they are."""
        import warnings

        for key in self.keys():
            try:
                yield self.read(key)
            except RecordError as error:
                warnings.warn(f"{error}; ignored", stacklevel=2)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; systems that cannot open a folder do not need it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def latest_records(*layers: tuple[str, Store]) -> dict[str, Record]:
    """Planned cell id -> the record to show, with its layer's name under ``origin``.

    Earlier layers win over later ones (the reader's own store over the packaged one); within a layer the
    newest record wins. Smoke records answer other questions and are left out.
    """
    chosen: dict[str, Record] = {}
    for origin, store in reversed(layers):
        layer: dict[str, Record] = {}
        for record in store.records():
            if record.get("profile") == "smoke":
                continue
            planned = Cell.from_dict(record["planned"]).id
            if planned not in layer or record["time"] > layer[planned]["time"]:
                layer[planned] = {**record, "origin": origin}
        chosen.update(layer)
    return chosen
