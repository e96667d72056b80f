"""State dicts: identifying them, strict loading, and starts from other networks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.models._layout import OWN, Layout

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def weights_id(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a network's state dict, in name order."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        digest.update(json.dumps([key, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_strict(
    model: nn.Module, state: Mapping[str, Tensor], source: str, *, layout: Layout = OWN, prefix: str = ""
) -> None:
    """Copy ``state`` into ``model``; every name, shape and kind of number must fit and every value be finite.

    Parameters
    ----------
    model : nn.Module
    state : names of ``layout`` -> tensors
    source : what the message calls the file
    layout : how the names of ``state`` relate to ours
    prefix : stood in front of every name in the file

    Raises
    ------
    InputError
        Names, as they stand in the file, what is missing, unexpected, misshapen, of another kind or not
        finite.
    """
    own = model.state_dict()
    parts: dict[str, list[str]] = {}
    for key in own:
        parts.setdefault(layout.theirs(key), []).append(key)
    unexpected = [key for key in state if key not in parts and not layout.is_constant(key)]
    missing = [key for key in parts if key not in state]
    problems = []
    for word, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            some = ", ".join(prefix + key for key in sorted(keys)[:3])
            problems.append(f"{len(keys)} {word} ({some}{', ...' if len(keys) > 3 else ''})")
    faults: dict[str, list[str]] = {}
    loaded = {}
    for key in sorted(parts.keys() & state.keys()):
        stacked = [own[part] for part in parts[key]]
        problem = _problem(state[key], stacked)
        if problem is not None:
            faults.setdefault(problem, []).append(key)
            continue
        value = layout.scaled(key, state[key].to(stacked[0].dtype))
        if len(stacked) == 1:
            loaded[parts[key][0]] = value
        else:
            loaded.update(zip(parts[key], value.split([len(part) for part in stacked]), strict=True))
    for problem, keys in faults.items():
        problems.append(f"{prefix}{keys[0]} {problem}" + (f" (and {len(keys) - 1} more)" * (len(keys) > 1)))
    if problems:
        label = f"{getattr(model, 'name', type(model).__name__)} x{getattr(model, 'scale', '?')}"
        raise InputError(
            f"{source} does not fit {label}: {'; '.join(problems[:4])}; check the network's name and scale, "
            "and how the file was saved"
        )
    if layout.check is not None:
        try:
            layout.check(state)
        except InputError as error:
            raise InputError(f"{source}: {prefix}{error}") from None
    model.load_state_dict(loaded, strict=True)


def matching(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """The tensors of ``state`` that ``model`` can start from: same name, same shape, same kind of number.

    Weights of another scale share the body with ``model``, and those of a relative some layers; everything
    else stays as it was made. Nothing is copied: ``model.load_state_dict(taken, strict=False)`` does that.

    Parameters
    ----------
    state : a state dict in ``model``'s own names, as :func:`read_state` gives it, and as
        ``spec(name).official(state, network).translate(state)`` makes it of the names of a release.
    model : the network that is to start.

    Returns
    -------
    taken : name -> tensor in ``model``'s dtype; empty where nothing fits.
    new : names of ``model``, in its order, that ``state`` has nothing for.
    left : names of ``state``, in its order, that ``model`` has no place for, or one of another shape.

    Raises
    ------
    InputError
        A tensor that would be taken holds NaN, infinite values, or some beyond ``model``'s dtype.
    """
    taken = {}
    for key, own in model.state_dict().items():
        value = state.get(key)
        if value is None or value.shape != own.shape or not _same_kind(value, own):
            continue
        problem = _problem(value, [own])
        if problem is not None:
            raise InputError(f"{key} {problem}; nothing can start from it")
        taken[key] = value.to(own.dtype)
    new = [key for key in model.state_dict() if key not in taken]
    return taken, new, [key for key in state if key not in taken]


def _same_kind(value: Tensor, own: Tensor) -> bool:
    """Whether both are weights, or both are counts."""
    return value.dtype in (_FLOATS if own.is_floating_point() else _INTEGERS)


def _problem(value: Tensor, stacked: list[Tensor]) -> str | None:
    """Why ``value`` cannot become the tensors ``stacked``, which lie in it along the first axis."""
    own = stacked[0]
    expected = own.shape if len(stacked) == 1 else (sum(map(len, stacked)), *own.shape[1:])
    if value.shape != expected:
        return f"is {tuple(value.shape)}, expected {tuple(expected)}"
    if not _same_kind(value, own):
        wanted = "weights in 16-, 32- or 64-bit floats" if own.is_floating_point() else "integers"
        return f"is {str(value.dtype).removeprefix('torch.')}, expected {wanted}"
    if not torch.isfinite(value).all():
        return "holds NaN or infinite values"
    if not torch.isfinite(value.to(own.dtype)).all():
        return f"holds values beyond the range of {str(own.dtype).removeprefix('torch.')}"
    return None
