"""Downloads: where they are kept, and files that arrive whole or not at all."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sqlib.errors import DataError, SqlibError


def cache_folder() -> Path:
    """``$SQLIB_CACHE``, else the platform's cache folder for sqlib (``~/.cache/sqlib`` on Linux)."""
    given = os.environ.get("SQLIB_CACHE")
    if given:
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("sqlib"))


def download(url: str, target: Path) -> None:
    """Write the answer of ``url`` to ``target``, which may be left incomplete.

    Raises
    ------
    DataError
        A short reason: no connection, the status of the server, broken off, disk full.
    """
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(progressbar=sys.stderr.isatty())(url, str(target), None)
    except requests.exceptions.HTTPError as error:
        raise DataError(f"the server answered {str(error).partition(' for url')[0]}") from error
    except requests.exceptions.Timeout as error:
        raise DataError("the server did not answer in time") from error
    except requests.exceptions.ConnectionError as error:
        # The cause is nested in several layers that print as objects at addresses.
        cause = re.findall(r"\[Errno -?\d+\] ([^'\"()]+)", str(error))
        raise DataError(f"no connection ({cause[-1] if cause else 'is this machine online?'})") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise DataError("the connection broke off before the end of the file") from error
    except OSError as error:
        raise DataError(f"{error.strerror or error}") from error


def fetch(url: str, target: Path, *, check: Callable[[Path], object], by_hand: str) -> None:
    """Download ``url`` to ``target``, which appears complete and checked or not at all.

    Several processes may do so at once; each has its own partial file.

    Parameters
    ----------
    url : str
    target : Path
        In the cache; its folder is made.
    check : callable
        Gets the path of the partial file; raises a :class:`SqlibError` where it is not what it should be.
    by_hand : str
        What a user can do instead, for the message.

    Raises
    ------
    DataError
        The message names the address and the reason, and ends with ``by_hand``.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".partial-", dir=target.parent)
    except OSError as error:
        raise unwritable(target.parent, error, by_hand) from error
    os.close(handle)
    partial = Path(name)
    try:
        download(url, partial)
        check(partial)
        partial.replace(target)
    except (OSError, SqlibError) as error:
        reason = str(error).replace(f"{partial} ", "the answer ").replace(str(partial), "the answer")
        raise DataError(f"fetching {url} failed: {reason}. {by_hand}") from error
    finally:
        partial.unlink(missing_ok=True)


def unwritable(folder: Path, error: OSError, by_hand: str) -> DataError:
    """The error for a cache folder that cannot be written."""
    return DataError(
        f"the cache folder {folder} cannot be written ({error.strerror or error}): "
        f"set SQLIB_CACHE to one that can. {by_hand}"
    )
