"""Reading and identifying weights: our safetensors, third-party checkpoints by path; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqlib.errors import DataError, InputError

_WRAPPERS = ("params_ema", "params", "state_dict", "model")


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a checkpoint into (state dict on the CPU, metadata).

    Parameters
    ----------
    path : ``.safetensors`` (metadata from its header), ``.pth`` or ``.pt`` (read with ``weights_only=True``).
        A state dict wrapped in ``params_ema``, ``params``, ``state_dict`` or ``model`` is unwrapped.

    Raises
    ------
    DataError
        The file does not exist.
    InputError
        The file is not a checkpoint, or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"weights file {path} does not exist; give the path of a .safetensors, .pth or .pt file"
        )
    from safetensors import safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                # The file object is not a mapping: it has keys() but cannot be iterated.
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return tensors, dict(file.metadata() or {})
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} cannot be read as weights ({reason}); expected a state dict of tensors"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(
            f"{path} does not hold a state dict of tensors; expected one, flat or under {_WRAPPERS}"
        )
    return {key.removeprefix("module."): value for key, value in state.items()}, {}


def weights_id(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a network's state dict, in name order."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(json.dumps([key, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_strict(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy ``state`` into ``model``; every name and shape must fit and every value be finite.

    Raises
    ------
    InputError
        Names what is missing, unexpected, misshapen or not finite.
    """
    own = model.state_dict()
    problems = []
    for word, keys in (("missing", own.keys() - state.keys()), ("unexpected", state.keys() - own.keys())):
        if keys:
            some = ", ".join(sorted(keys)[:3])
            problems.append(f"{len(keys)} {word} ({some}{', ...' if len(keys) > 3 else ''})")
    for key in sorted(own.keys() & state.keys()):
        if own[key].shape != state[key].shape:
            problems.append(f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}")
        elif not torch.isfinite(state[key]).all():
            problems.append(f"{key} holds NaN or infinite values")
    if problems:
        label = f"{getattr(model, 'name', type(model).__name__)} x{getattr(model, 'scale', '?')}"
        raise InputError(
            f"{source} does not fit {label}: {'; '.join(problems[:4])}; check the network's name and scale"
        )
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, strict=True)


def matching(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors of ``state`` that ``model`` can start from: same name, same shape, same kind of number.

    Weights of another scale share the body with ``model``, and those of a relative some layers; everything
    else stays as it was made. Nothing is copied: ``model.load_state_dict(taken, strict=False)`` does that.

    Parameters
    ----------
    state : a state dict in ``model``'s own names, as :func:`read_state` and a network's translation of the
        official names give it.
    model : the network that is to start.

    Returns
    -------
    taken : name -> tensor in ``model``'s dtype; empty where nothing fits.
    new : names of ``model``, in its order, that ``state`` has nothing for.
    left : names of ``state``, in its order, that ``model`` has no place for, or one of another shape.

    Raises
    ------
    InputError
        A tensor that would be taken holds NaN or infinite values.
    """
    taken = {}
    for key, own in model.state_dict().items():
        value = state.get(key)
        if value is None or value.shape != own.shape or value.is_floating_point() != own.is_floating_point():
            continue
        taken[key] = value.to(own.dtype)
        if not torch.isfinite(taken[key]).all():
            raise InputError(f"{key} holds NaN or infinite values; nothing can start from it")
    new = [key for key in model.state_dict() if key not in taken]
    return taken, new, [key for key in state if key not in taken]
