"""The working store: one JSON record per computed cell, content-addressed, written atomically.

Layout: ``<store>/<key[:2]>/<key>.json``, networks whose recipe learns in ``<store>/artifacts``, locks in
``<store>/.locks``, half-written files in ``<store>/.tmp``, what could not be read and was made again in
``<store>/.damaged``. A reader therefore never sees half a record, and one that it cannot read is set aside:
ignored, named, counted, and left for inspection.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlib.errors import InputError, RecordError, StoreError
from sqlib.experiments.store.locks import lock
from sqlib.experiments.store.records import OutdatedRecord, Record, check_fields, seal, serves, unseal


@dataclass(frozen=True)
class Unreadable:
    """What lies where records lie and cannot be read as one, and why."""

    path: Path
    reason: str
    outdated: bool = False

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class Store:
    """A folder of records.

    Opening reads nothing and creates nothing; :meth:`prepare` makes the folder and checks that it can be
    written. Several processes may use one store at a time.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

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

    @property
    def artifacts(self) -> Path:
        """Folder of the networks whose recipe learns; made when the first is."""
        return self.path / "artifacts"

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

    def usable(self, key: str, profile: str) -> Record | None:
        """The record of ``key`` if it serves a run of ``profile``; None where there is none to be read."""
        try:
            record = self.read(key)
        except (KeyError, RecordError):
            return None
        return record if serves(record, profile) else None

    def set_aside(self, key: str, reason: str) -> Path:
        """Move a record that cannot be read out of the way, keeping it for inspection, and warn."""
        target = set_aside(self.file(key), self.path / ".damaged")
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
                mine = held.enter_context(lock(path, wait=wait))
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
                reason = str(error).removeprefix(f"record {path} ")
                unreadable.append(Unreadable(path, reason, isinstance(error, OutdatedRecord)))
        return records, unreadable

    def records(self) -> list[Record]:
        """All sound records in key order; each other one is named by a warning and left where it is."""
        records, unreadable = self.survey()
        warn_of(unreadable, self.path)
        return records

    def check_current(self) -> None:
        """InputError where records of an older form lie here, which a run would not find and do again."""
        old = sum(item.outdated for item in self.survey()[1])
        if old:
            raise InputError(
                f"store {str(self.path)!r} holds {old} records in the form of an older sqlib; "
                f"{migration(self.path)}, then use NEW, or give another folder with --store or $SQLIB_STORE"
            )


def migration(path: Path) -> str:
    """The command that rewrites the records of an older form in a store."""
    return f"run: python -m sqlib migrate {shlex.quote(str(path))} NEW"


def warn_of(unreadable: Sequence[Unreadable], path: Path) -> None:
    """A warning for each thing in ``path`` that cannot be read, and one for all that have an older form."""
    old = [item for item in unreadable if item.outdated]
    if old:
        warnings.warn(
            f"{len(old)} records in {path} have the form of an older sqlib and are ignored; "
            f"{migration(path)}",
            stacklevel=3,
        )
    others = [item for item in unreadable if not item.outdated]
    for number, item in enumerate(others, 1):
        count = f"{number} of {len(others)} in {path} that cannot be read"
        warnings.warn(f"{item}; ignored ({count})", stacklevel=3)


def set_aside(path: Path, folder: Path) -> Path:
    """Move a file into ``folder`` under a name that is not taken; returns where it is now."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}-{len(list(folder.glob(f'{path.stem}-*')))}{path.suffix}"
    os.replace(path, target)
    return target


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
