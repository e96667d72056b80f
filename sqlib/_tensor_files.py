"""Reading files of tensors by what they hold, whatever they are called; nothing is unpickled."""

from __future__ import annotations

import codecs
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlib.errors import DataError, InputError

WEIGHTS = "weights"
"""What most files are read as, in messages."""

_MAGIC = {
    b"\x89HDF": "an HDF5 file (Keras)",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
}


def read_file(path: str | Path, *, pickled: bool = True) -> tuple[Path, Any, dict[str, str]]:
    """What a checkpoint file holds, as it stands there: (path, content, metadata of a safetensors header).

    Parameters
    ----------
    path : str or Path
        Of a file.
    pickled : bool
        Whether a file of `torch.save` is read as well (tensors and plain data only).
    """
    try:
        path = Path(path)
    except TypeError:
        raise InputError(
            f"weights are loaded by path, got {type(path).__name__}: write it to a file"
        ) from None
    wanted = f"give the path of a {'.safetensors, .pth or .pt' if pickled else '.safetensors'} file"
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"weights file {path} {what}; {wanted}")
        return path, *contents(path, pickled=pickled)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"weights file {path} cannot be read: {error.strerror}; {wanted}") from error


def contents(path: Path, what: str = WEIGHTS, *, pickled: bool = True) -> tuple[Any, dict[str, str]]:
    """The content of a file that exists, and the metadata of a safetensors header.

    Raises
    ------
    InputError
        It cannot be read as `what`. The message says what it is and what to do; nothing of PyTorch's.
    OSError
        It cannot be opened.
    """
    try:
        other = what_else(path)
        if other is not None:
            raise InputError(f"it is {other}")
        if _is_safetensors(path):
            return _read_safetensors(path)
        if pickled:
            return _read_torch(path, what), {}
    except InputError as error:
        raise InputError(f"{path} cannot be read as {what}: {error}") from None
    raise InputError(f"{path} is not a safetensors file; give the path of a .safetensors file")


def what_else(path: Path) -> str | None:
    """What a file without weights is, and what to do about it; None where it may hold some."""
    with path.open("rb") as file:
        head = file.read(1024)
    size = path.stat().st_size
    if not head:
        return "empty: copy or download it again"
    if head.startswith(b"version https://git-lfs"):
        return f"a Git-LFS pointer of {size} bytes: run 'git lfs pull', or download the file itself"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "a web page (HTML): download the file that the page is about"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _what_zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name if ":" in name else f"{name}; expected a state dict of tensors"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    if all(character.isprintable() or character in "\t\n\r" for character in text):
        return f"a text file that begins with {text[:40]!r}: download it again"
    return None


def _what_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inner = {name.partition("/")[2] for name in names}
            if "data.pkl" in inner and "constants.pkl" not in inner:
                return _damaged_part(archive)
    except (zipfile.BadZipFile, OSError, ValueError):
        return f"damaged or cut off ({path.stat().st_size} bytes): copy or download it again"
    if "constants.pkl" in inner:
        return "a TorchScript program: save the state dict of the network that it was made from"
    if any(name.endswith(("serialized_exported_program.json", "models/model.json")) for name in names):
        return "a program of torch.export: save the state dict of the network that it was made from"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays; expected a state dict of tensors"
    some = f"holding {', '.join(names[:3])}" if names else "holding nothing"
    return f"a zip archive {some}: unpack it and give the path of the weights inside"


def _damaged_part(archive: zipfile.ZipFile) -> str | None:
    """What :func:`torch.load` does not look at: the checksums in a file of `torch.save`."""
    for member in archive.infolist():
        if not member.CRC:  # none was kept (torch.serialization.set_crc32_options)
            continue
        try:
            with archive.open(member) as part:
                while part.read(1 << 20):
                    pass
        except Exception:  # damaged bytes make it fail in any way
            return f"damaged in {member.filename}, by its checksum: download it again, or restore a copy"
    return None


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    # The length of a JSON header, then the header.
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # The file object is not a mapping: it has keys() but cannot be iterated.
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except Exception:  # safetensors raises its own type, and others for types of number that torch lacks
        raise InputError(
            f"it is a safetensors file that is damaged or cut off ({path.stat().st_size} bytes): copy or "
            "download it again"
        ) from None


def _read_torch(path: Path, what: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about versions and storages: nothing that a user could change
            with path.open("rb") as file:  # given a path, PyTorch goes by its suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes make the unpickler fail in any way
        # PyTorch's text is left out: it advises to switch off safe loading, in colours.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise InputError(
                f"it is damaged or cut off ({path.stat().st_size} bytes), or was not written by torch.save: "
                "copy, download or save it again"
            ) from None
        advice = (
            ": in a program that has its class, and where you trust the file, load it and save "
            "model.state_dict() alone"
        )
        raise InputError(
            f"it holds a pickled Python object ({found[1]}), which could run code"
            + advice * (what == WEIGHTS)
        ) from None
