"""Where image sets are looked for, and how they are fetched."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import warnings
import zipfile
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from sqlib._download import cache_folder, download, unwritable
from sqlib.datasets._catalogue import Entry, entry
from sqlib.datasets._dataset import Dataset, Item
from sqlib.datasets._layout import find, list_images
from sqlib.errors import DataError, InputError

__all__ = ["cache_folder", "from_folder", "load"]

# Colour photographs among the installed sample images. Left out: drawings and test charts, the second view of
# the stereo pair, and astronomy, retina and microscope images, which are not what these networks are for.
_BUILTIN = {
    "skimage": ("data", ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}


def load(
    name: str, *, data_dir: str | PathLike[str] | None = None, allow_unverified: bool = False
) -> Dataset:
    """Find an image set by name.

    Parameters
    ----------
    name : one of :func:`sqlib.datasets.names`
    data_dir : folder searched first, then ``$SQLIB_DATA``, then the cache (:func:`cache_folder`). The layouts
        that are recognized are listed in ``sqlib/datasets/_layout.py``; the set's own folder will do too.
    allow_unverified : fetch a set that is in none of these from an address whose content this project has
        not checked. Without it nothing is downloaded from such an address.

    Returns
    -------
    Dataset. An incomplete set carries its true name (``urban100[30]``).

    Raises
    ------
    InputError
        Unknown name.
    DataError
        The set is nowhere; the message says where to put it and what address is known. Also: ambiguous
        files, a failed download, a cache that cannot be written.
    """
    known = entry(name)
    if known.name == "builtin":
        return _dataset(known, _builtin_items())
    roots = _roots(data_dir)
    for root in roots:
        try:
            items = find(root, known)
        except PermissionError as error:
            raise DataError(f"cannot look for {known.name!r} in {root}: {error}") from error
        if items:
            return _dataset(known, items)
    if known.url is None or not (allow_unverified or known.url_verified):
        raise DataError(_missing(known, roots))
    return _downloaded(known, roots)


def from_folder(folder: str | PathLike[str], *, name: str | None = None) -> Dataset:
    """All images directly inside ``folder`` as a set of originals, named ``folder:NAME``."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    items = tuple(Item(stem, path) for stem, path in list_images(folder).items())
    if not items:
        raise DataError(f"no PNG, BMP, JPEG, WebP or TIFF image in {folder}")
    return Dataset(f"folder:{name or folder.resolve().name}", items, len(items))


def _dataset(known: Entry, items: tuple[Item, ...]) -> Dataset:
    return Dataset(known.name, items, known.count, known=known.fingerprints)


def _roots(data_dir: str | PathLike[str] | None) -> list[Path]:
    roots = []
    if data_dir is not None:
        root = Path(data_dir).expanduser()
        if not root.is_dir():
            raise DataError(f"data_dir {os.fspath(data_dir)!r} is not a folder")
        roots.append(root)
    if os.environ.get("SQLIB_DATA"):
        roots.append(Path(os.environ["SQLIB_DATA"]).expanduser())
    cache = cache_folder()
    archives = sorted(p for p in cache.glob("*.unpacked") if p.is_dir()) if os.path.isdir(cache) else []
    return [*roots, cache, *archives]


def _builtin_items() -> tuple[Item, ...]:
    items = []
    for package, (folder, files) in _BUILTIN.items():
        spec = find_spec(package)  # locates without importing
        for place in (spec.submodule_search_locations or []) if spec else []:
            paths = [Path(place) / folder / file for file in files]
            items += [Item(path.stem, path) for path in paths if path.is_file()]
    if not items:
        raise DataError("scikit-image and scikit-learn hold no photographs here: reinstall both with pip")
    return tuple(sorted(items, key=lambda item: item.name))


def _missing(known: Entry, roots: list[Path]) -> str:
    folder = known.folders[0]
    inner = folder if known.low_resolution or folder.endswith("_HR") else f"{folder}/HR"
    places = ", ".join(f"{root}" + ("" if os.path.isdir(root) else " (does not exist)") for root in roots)
    if known.url is None:
        source = f"No verified URL is recorded for it ({known.about})."
    else:
        call = f"sqlib.datasets.load({known.name!r}, allow_unverified=True)"
        source = f"Source: {known.url} (not verified by this project; {call} fetches it)."
    return (
        f"dataset {known.name!r} not found in {places}. Put its {known.count} images into "
        f"{cache_folder() / inner}, or set SQLIB_DATA to a folder that holds {inner}. {source}"
    )


def _downloaded(known: Entry, roots: list[Path]) -> Dataset:
    assert known.url is not None
    unpacked = _fetch(known.url, _missing(known, roots))
    items = find(unpacked, known)
    if not items:
        raise DataError(f"{known.url} was unpacked to {unpacked}, but holds no folder {known.folders[0]}")
    dataset = _dataset(known, items)
    if dataset.altered:
        warnings.warn(
            f"the pixels of {dataset.name} from {known.url} differ from those on record: expect other scores",
            stacklevel=3,
        )
    return dataset


def _fetch(url: str, by_hand: str) -> Path:
    """Download and unpack an archive below the cache; the folder appears complete or not at all."""
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    except OSError as error:
        raise unwritable(cache, error, by_hand) from error
    target = cache / f"{Path(url).name}.unpacked"
    try:
        archive = partial / Path(url).name
        download(url, archive)
        _unpack(archive, partial / "files")
        (partial / "files").rename(target)
    except (OSError, InputError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"fetching {url} failed: {error}. {by_hand}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _unpack(archive: Path, target: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            content.extractall(target)  # drops absolute paths and ".." itself
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as content:
            # Not extractall: Python before 3.11.4 cannot be told what to refuse.
            for member in content:
                place = (target / member.name).resolve()
                if not place.is_relative_to(target.resolve()):
                    raise InputError(f"it would write outside its folder ({member.name})")
                data = content.extractfile(member) if member.isfile() else None
                if data is not None:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with data, place.open("wb") as file:
                        shutil.copyfileobj(data, file)
    else:
        raise InputError("the answer is neither a zip nor a tar archive")
