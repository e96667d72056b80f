"""Reading checkpoint files by what they hold, whatever they are called; nothing is unpickled."""

from __future__ import annotations

import codecs
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlib.errors import DataError, InputError

# Entries of a training's checkpoint, or first parts of names, that hold the network; averaged weights first.
_WRAPPERS = (
    *(
        "params_ema",
        "model_ema",
        "ema_model",
        "ema_state_dict",
        "state_dict_ema",
        "net_g_ema",
        "g_ema",
        "ema",
    ),
    *("params", "state_dict", "model_state_dict", "model_state", "model", "net_g", "netG", "net", "network"),
    *("generator", "module", "_orig_mod", "weights"),
)
QUANTIZED = "sqlib.quantized"
"""Key of a safetensors header's metadata under which a quantized network says what it is."""

_DEPTH = 8  # of nested wrappers; pickled dictionaries may contain themselves

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


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a file, without the wrappers around them.

    Attributes
    ----------
    tensors : state dict on the CPU
    metadata : from a safetensors header
    prefix : what stood in front of every name in the file, such as ``"module."``
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    prefix: str = ""


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a ``.safetensors``, ``.pth`` or ``.pt`` file; its content counts, not its suffix.

    A state dict is taken out of what trainings put around it: dictionaries such as ``{"params_ema": ...}`` or
    ``{"state_dict": ..., "optimizer": ...}`` and prefixes such as ``module.`` or ``model.``, nested as they
    may be; of several, averaged weights first. Modules beside the network (a loss, ...) are left out.

    Raises
    ------
    DataError
        The file does not exist.
    InputError
        Not a path, or the file is no checkpoint, or holds anything but dense tensors. The message says what
        it is and what to do.
    """
    path, value, metadata = read_file(path)
    if QUANTIZED in metadata:
        raise InputError(
            f"{path} is a quantized network, whose weights a recipe may have changed; load it with "
            "sqlib.load_quantized(path, network)"
        )
    tensors, prefix = _unprefixed(_state(value, path), path)
    for key, tensor in tensors.items():
        kind = _unusual(tensor)
        if kind is not None:
            raise InputError(
                f"{path}: {prefix}{key} {kind}; expected dense tensors with values, as of model.state_dict()"
            )
    return Checkpoint({key: tensor.detach() for key, tensor in tensors.items()}, metadata, prefix)


def read_file(path: str | Path, *, pickled: bool = True) -> tuple[Path, Any, dict[str, str]]:
    """What a checkpoint file holds, as it stands there: (path, content, metadata of a safetensors header).

    Parameters
    ----------
    path
        Of a file.
    pickled
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
        other = what_else(path)
        if other is not None:
            raise InputError(f"{path} cannot be read as weights: it is {other}")
        if _is_safetensors(path):
            return path, *_read_safetensors(path)
        if not pickled:
            raise InputError(f"{path} is not a safetensors file; {wanted}")
        return path, _read_torch(path), {}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"weights file {path} cannot be read: {error.strerror}; {wanted}") from error


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
    except (zipfile.BadZipFile, OSError, ValueError):
        return f"damaged or cut off ({path.stat().st_size} bytes): copy or download it again"
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return "a TorchScript program: save the state dict of the network that it was made from"
    if "data.pkl" in inner:
        return None
    if any(name.endswith(("serialized_exported_program.json", "models/model.json")) for name in names):
        return "a program of torch.export: save the state dict of the network that it was made from"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays; expected a state dict of tensors"
    some = f"holding {', '.join(names[:3])}" if names else "holding nothing"
    return f"a zip archive {some}: unpack it and give the path of the weights inside"


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
            f"{path} cannot be read as weights: it is a safetensors file that is damaged or cut off "
            f"({path.stat().st_size} bytes): copy or download it again"
        ) from None


def _read_torch(path: Path) -> Any:
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
            reason = (
                f"it is damaged or cut off ({path.stat().st_size} bytes), or was not written by torch.save: "
                "copy, download or save it again"
            )
        else:
            reason = (
                f"it holds a pickled Python object ({found[1]}), which could run code: in a program that has "
                "its class, and where you trust the file, load it and save model.state_dict() alone"
            )
        raise InputError(f"{path} cannot be read as weights: {reason}") from None


def _is_state(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(entry, Tensor) for key, entry in value.items())
    )


def _holds_state(value: object, depth: int = _DEPTH) -> bool:
    """Whether there is a state dict somewhere inside; the tensors of an optimizer are none."""
    if not isinstance(value, Mapping) or "param_groups" in value or depth == 0:
        return False
    return _is_state(value) or any(_holds_state(entry, depth - 1) for entry in value.values())


def _state(value: Any, path: Path) -> Mapping[str, Tensor]:
    """The state dict in what a file holds: where several entries have one, that with a known name."""
    for _ in range(_DEPTH):
        if _is_state(value):
            return value  # type: ignore[no-any-return]
        if not isinstance(value, Mapping) or "param_groups" in value:
            break
        inner = [key for key, entry in value.items() if _holds_state(entry)]
        known = [wrapper for wrapper in _WRAPPERS if wrapper in inner]
        if len(inner) > 1 and not known:
            some = ", ".join(map(str, inner[:4]))
            raise InputError(f"{path} holds several state dicts ({some}); save the network's alone")
        if not inner:
            break
        value = value[(known or inner)[0]]
    raise InputError(
        f"{path} does not hold a state dict of tensors: it holds {_named(value)}; "
        "save model.state_dict() alone"
    )


def _named(value: Any) -> str:
    """What stands in a file instead of a state dict, in words."""
    if isinstance(value, Tensor):
        return "a single tensor"
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    if not value:
        return "nothing"
    if {"state", "param_groups"} <= value.keys():
        return "the state of an optimizer"
    for key, entry in value.items():
        if not isinstance(key, str):
            return f"entries without a name ({key!r}: {type(entry).__name__})"
        if isinstance(entry, Mapping):
            return f"{key!r}, a dictionary without weights"
        if not isinstance(entry, Tensor):
            return f"{key!r}, which is a {type(entry).__name__} and no tensor"
    return "wrappers in wrappers"


def _unprefixed(state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], str]:
    """Names without what wrappers of modules put in front of them, and what that was."""
    tensors, prefix = dict(state), ""
    while True:
        first = {key.partition(".")[0] for key in tensors if "." in key}
        wrapper = next((w for w in _WRAPPERS if w in first), None)
        if wrapper is None:
            return tensors, prefix
        inside = {key: v for key, v in tensors.items() if key.startswith(f"{wrapper}.")}
        # Beside a wrapped network there may be other modules, and counters; any other tensor is one too many.
        loose = [key for key, v in tensors.items() if "." not in key and v.numel() > 1]
        if loose:
            some = ", ".join(prefix + key for key in loose[:3])
            raise InputError(
                f"{path}: {some} unexpected beside '{prefix}{wrapper}.'; save the network's state dict alone"
            )
        tensors = {key.removeprefix(f"{wrapper}."): v for key, v in inside.items()}
        prefix += f"{wrapper}."


def _unusual(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.layout != torch.strided:
        return f"is sparse ({tensor.layout})"
    if tensor.is_meta:
        return "has no values (device meta)"
    if tensor.is_quantized:
        return f"is quantized ({tensor.dtype})"
    return None
