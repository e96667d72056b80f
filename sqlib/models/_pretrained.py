"""Where weights are looked for, and how third-party ones are fetched."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from sqlib._download import cache_folder, fetch
from sqlib._tensor_files import what_else
from sqlib.errors import DataError, InputError
from sqlib.models._spec import WeightsFile


def weights_cache() -> Path:
    """Folder of downloaded checkpoints."""
    return cache_folder() / "weights"


def local_file(name: str, scale: int, known: WeightsFile | None) -> Path | None:
    """A file with these weights in ``$SQLIB_WEIGHTS`` or in the cache, or None.

    It is called as ``known`` says, or ``NAME-xS.safetensors`` as training calls its result.

    Raises
    ------
    InputError
        The file in the cache is not the one on record. One in ``$SQLIB_WEIGHTS`` is the user's own choice: a
        warning.
    DataError
        ``$SQLIB_WEIGHTS`` is no folder; a folder or file cannot be read.
    """
    files = [f"{name}-x{scale}.safetensors"]
    if known is not None:
        files.insert(0, known.file)
    given = os.environ.get("SQLIB_WEIGHTS")
    folders = [Path(given).expanduser()] if given else []
    for folder in folders:
        if not (os.path.isdir(folder) and os.access(folder, os.X_OK)):
            raise DataError(
                f"SQLIB_WEIGHTS={given!r} is not a folder that can be opened: name one, or unset the variable"
            )
    for folder in (*folders, weights_cache()):
        for file in files:
            path = folder / file
            try:
                if not path.is_file():
                    continue
                if known is None or known.sha256 is None or file != known.file:
                    return path
                check_sha256(path, known.sha256)
            except OSError as error:
                variable = "SQLIB_WEIGHTS" if folder in folders else "SQLIB_CACHE"
                raise DataError(
                    f"{path} cannot be read ({error.strerror or error}): let its owner allow it, or set "
                    f"{variable} to another folder"
                ) from error
            except InputError as error:
                if folder not in folders:
                    raise InputError(
                        f"{error}. Delete it to fetch it again, or load it with "
                        f"sqlib.models.load(path, {name!r}, scale={scale})"
                    ) from None
                warnings.warn(f"{error}: expect other scores", stacklevel=3)
            return path
    return None


def download_weights(known: WeightsFile, check: Callable[[Path], object]) -> Path:
    """Fetch a checkpoint into the cache.

    Parameters
    ----------
    known : WeightsFile
        With an address.
    check : callable
        Raises where a file without a checksum is not what it should be.

    Raises
    ------
    DataError
        Offline, refused, cut off, another file, ...; nothing is left behind.
    """
    assert known.url is not None
    sha256 = known.sha256
    target = weights_cache() / known.file
    fetch(
        known.url,
        target,
        check=check if sha256 is None else lambda path: check_sha256(path, sha256),
        by_hand=f"By hand: {by_hand(known)}",
    )
    return target


def by_hand(known: WeightsFile) -> str:
    """How a user gets the file without this program."""
    source = f"save {known.url}" if known.url else f"the file from {known.source}, saved"
    return (
        f"{source} as {weights_cache() / known.file}, or under that name in a folder that "
        f"SQLIB_WEIGHTS names (licence {known.licence})"
    )


def check_sha256(path: Path, expected: str) -> None:
    """Raise InputError where the file is another one; the message says what it is, where that can be told."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        other = what_else(path)
        differs = f"not the file on record (SHA-256 {found}, expected {expected}): cut off or replaced"
        raise InputError(f"{path} is {other or differs}")
