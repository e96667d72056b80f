"""The store: one JSON record per computed cell, content-addressed, written atomically.

Layout: ``<store>/<key[:2]>/<key>.json``, locks in ``<store>/.locks``, half-written files in ``<store>/.tmp``,
records that could not be read and were computed again in ``<store>/.damaged``. A reader therefore never sees
half a record, and one that it cannot read is set aside: ignored, named, counted, and left for inspection.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sqlib.errors import InputError, RecordError, StoreError
from sqlib.experiments.cells import Cell, jsonable, sha256
from sqlib.experiments.claims import claim
from sqlib.experiments.fields import check_fields

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
        record = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(record, dict) or "checksum" not in record:
            raise RecordError(f"record {source} is damaged: it has no checksum")
        if record.get("format") != FORMAT:
            raise RecordError(
                f"record {source} has format {record.get('format')!r}, this sqlib reads {FORMAT}"
            )
        body = {name: value for name, value in record.items() if name != "checksum"}
        found = sha256(body)
    except (ValueError, RecursionError) as error:  # numbers beyond a float and endless brackets, too
        raise RecordError(f"record {source} is damaged: not complete JSON ({error})") from error
    if found != record["checksum"]:
        raise RecordError(f"record {source} is damaged: its content does not fit its checksum")
    return record


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is no JSON value")


@dataclass(frozen=True)
class Unreadable:
    """What lies where records lie and cannot be read as one, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


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
            try:
                # As large as a record is: a full disk still makes an empty file.
                probe.write_bytes(bytes(1 << 16))
            finally:
                probe.unlink(missing_ok=True)
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
        """The record of ``key``; KeyError where there is none, RecordError where it cannot be read."""
        path = self.file(key)
        try:
            if path.exists() and not path.is_file():  # a folder, or a pipe that would keep us waiting
                raise RecordError(f"record {path} is damaged: it is not a file")
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise KeyError(key) from None
        except OSError as error:
            raise RecordError(f"record {path} cannot be read: {error.strerror or error}") from error
        record = unseal(text, source=str(path))
        if record.get("key") != key:
            raise RecordError(f"record {path} is damaged: it belongs to key {record.get('key')!r}")
        try:
            check_fields(record)
        except RecordError as error:
            raise RecordError(f"record {path} is of no use: {error}") from error
        return record

    def usable(self, key: str) -> Record | None:
        """The record of ``key``, or None where there is none or it cannot be read."""
        try:
            return self.read(key)
        except (KeyError, RecordError):
            return None

    def set_aside(self, key: str, reason: str) -> Path:
        """Move a record that cannot be read out of the way, keeping it for inspection, and warn."""
        folder = self.path / ".damaged"
        folder.mkdir(exist_ok=True)
        target = folder / f"{key}-{len(list(folder.glob(f'{key}-*')))}.json"
        os.replace(self.file(key), target)
        warnings.warn(f"{reason}; moved to {target}, the cell was computed again", stacklevel=3)
        return target

    def write(self, key: str, content: Mapping[str, Any]) -> Record:
        """Seal ``content`` and store it under ``key`` in one step: readers see all of it or nothing.

        The caller holds the claim on ``key``, so the temporary file of a killed predecessor is overwritten.
        What lies there and cannot be read is moved to ``.damaged`` once the new record is complete.

        Raises
        ------
        StoreError
            The disk is full, or the store cannot be written for another reason.
        """
        record = seal({**content, "key": key})
        target = self.file(key)
        temporary = self.path / ".tmp" / f"{key}.json"
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("w", encoding="utf-8", newline="\n") as stream:
                    json.dump(record, stream, indent=1, sort_keys=True, allow_nan=False)
                    stream.write("\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                self._make_way(key)
                os.replace(temporary, target)
            except OSError:
                with contextlib.suppress(OSError):  # half a record only takes room; the error says why
                    temporary.unlink()
                raise
            _sync_folder(target.parent)
        return record

    def _make_way(self, key: str) -> None:
        try:
            self.read(key)
        except KeyError:
            return
        except RecordError as error:
            self.set_aside(key, str(error))

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool = False) -> Iterator[bool]:
        """Context manager yielding whether this process alone may compute ``key``.

        Raises
        ------
        StoreError
            The lock cannot be made.
        """
        path = self.path / ".locks" / f"{key}.lock"
        with contextlib.ExitStack() as held:
            with _writing(path):
                mine = held.enter_context(claim(path, wait=wait))
            yield mine

    def keys(self) -> list[str]:
        """Keys of all records, sorted; whether they can be read is not looked at."""
        return [path.stem for path in self._files() if path == self.file(path.stem)]

    def _files(self) -> list[Path]:
        """Files that are records by their name or by their folder, sorted by name."""
        found = [*self.path.glob("*.json"), *self.path.glob("[!.]*/*.json")]
        kept = (f for f in found if _KEY.fullmatch(f.stem) or _FOLDER.fullmatch(f.parent.name))
        return sorted(kept, key=lambda path: (path.stem, path))

    def survey(self) -> tuple[list[Record], list[Unreadable]]:
        """All records in key order, and what lies among them and cannot be read."""
        records, unreadable = [], []
        for folder in (self.path, *sorted(self.path.glob("[0-9a-f][0-9a-f]"))):
            if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
                unreadable.append(Unreadable(folder, "is a folder that may not be read"))
        for path in self._files():
            try:
                if path != self.file(path.stem) or not _KEY.fullmatch(path.stem):
                    raise RecordError(f"record {path} is not named as records are, ab/ab...json")
                records.append(self.read(path.stem))
            except KeyError:
                unreadable.append(Unreadable(path, "is a link that leads nowhere"))
            except RecordError as error:
                unreadable.append(Unreadable(path, str(error).removeprefix(f"record {path} ")))
        return records, unreadable

    def records(self) -> list[Record]:
        """All sound records in key order; each other one is named by a warning and left where it is."""
        records, unreadable = self.survey()
        for number, item in enumerate(unreadable, 1):
            count = f"{number} of {len(unreadable)} in {self.path} that cannot be read"
            warnings.warn(f"{item}; ignored ({count})", stacklevel=2)
        return records


_KEY = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{2}")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; systems that cannot open or sync a folder do not need it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
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
