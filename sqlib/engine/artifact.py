"""The file that holds a quantized network: tensors, and a manifest in JSON in the header of safetensors.

The manifest says the version of the format and a SHA-256 over everything else, so a file is read as it was
written or not at all. Equal networks give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlib._files import check_output, write_atomically
from sqlib._tensor_files import read_file
from sqlib.errors import InputError
from sqlib.models._checkpoints import QUANTIZED

FORMAT = 1
"""Goes up when a file can no longer be read by the program that reads this one."""


def write(path: str | PathLike[str], manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file at once or not at all; one that is already there is replaced.

    Raises
    ------
    InputError
        No path, a folder, a place that cannot be written, a tensor that safetensors cannot hold.
    DataError
        A full disk and the like.
    """
    from safetensors.torch import save

    try:
        path = Path(path)
        check_output(path, overwrite=True)
    except TypeError:
        raise InputError(f"path is {type(path).__name__}, expected the name of a file to write") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:  # too long, or with characters that no name has
        raise InputError(f"{str(path)[:80]!r} cannot be the name of a file: {error.args[-1]}") from error
    empty = next((name for name, t in tensors.items() if t.device.type == "meta"), None)
    if empty is not None:
        raise InputError(f"tensor {empty!r} is on the meta device, which holds no values; load them first")
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    try:
        text = _json({**manifest, "sha256": _digest(manifest, plain)})
    except (TypeError, ValueError) as error:  # an option of somebody's recipe
        raise InputError(f"the manifest cannot be written as JSON: {error}") from error
    try:
        data = save(plain, {QUANTIZED: text})
    except (KeyError, TypeError, ValueError) as error:  # a kind of number that it has no name for
        kinds = ", ".join(sorted({str(t.dtype) for t in plain.values()}))
        raise InputError(f"safetensors cannot hold these tensors ({kinds}): {error}") from error
    write_atomically(path, data)


def read(path: str | PathLike[str]) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """What `write` was given, on the CPU, with the path as such.

    Raises
    ------
    DataError
        No such file.
    InputError
        Anything but a file of `write`, as it was written, in a format known here.
    """
    path, tensors, metadata = read_file(path, pickled=False)  # type: ignore[arg-type]
    if QUANTIZED not in metadata:
        raise InputError(
            f"{path} holds tensors but does not say how they are quantized: it is an ordinary checkpoint; "
            "load it into the network (sqlib.models.load) and quantize that, or give a file that "
            "QuantizedModel.save wrote"
        )
    try:
        manifest = json.loads(metadata[QUANTIZED])
    except ValueError as error:
        raise InputError(f"{path}: its manifest is not JSON ({error}); save the network again") from None
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputError(f"{path}: its manifest has no number of a format; save the network again")
    if version > FORMAT:
        raise InputError(
            f"{path} has format {version}, this version of sqlib reads formats up to {FORMAT}: install the "
            "version that wrote the file, or a newer one"
        )
    if manifest.pop("sha256", None) != _digest(manifest, tensors):
        raise InputError(
            f"{path} is not as it was written: its manifest or a tensor has been changed since (the SHA-256 "
            "differs); copy it again, or save the network again"
        )
    return path, manifest, tensors


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _digest(manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_json(manifest).encode())
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
