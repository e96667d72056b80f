"""Checkpoints: the tensors of a network, taken out of what trainings put around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlib._tensor_files import read_file
from sqlib.errors import InputError

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
