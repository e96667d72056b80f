"""What a network is, as plain data: its modules and tensors; and putting saved tensors into another one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from sqlib.errors import InputError

_NO_MATTER = {"training", "inplace", "p", "momentum"}  # to what a layer computes in evaluation mode
_ABOUT_WEIGHTS = {"name", "weights_id", "licence", "default_skip"}


class Identity(TypedDict):
    """A network without the values of its tensors.

    `modules` have a type and their plain settings, `shared` leads from a tensor's further names to the first
    one, `passing` are the buffers that are not part of the state dict, `strides` are of the tensors whose
    memory is in another order than their axes.
    """

    modules: dict[str, dict[str, Any]]
    shared: dict[str, str]
    passing: list[str]
    strides: dict[str, list[int]]


def describe(network: nn.Module) -> tuple[Identity, dict[str, Tensor]]:
    """A network as plain data and tensors: every parameter and buffer, those that are shared once.

    Raises
    ------
    InputError
        A module has a state that is not in its tensors.
    """
    for path, module in network.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise InputError(
                f"module {path!r} ({type(module).__name__}) has a state beyond its tensors "
                "(get_extra_state), which a file of tensors cannot hold; keep it in buffers"
            )
    tensors, shared = _tensors(network)
    identity = Identity(
        modules=settings(network),
        shared=shared,
        passing=_passing(network),
        strides={n: list(t.stride()) for n, t in tensors.items() if not t.is_contiguous() and _dense(t)},
    )
    return identity, tensors


def settings(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Of every module its type, and what its public attributes say in numbers and names."""
    return {path: _settings(path, m) for path, m in network.named_modules(remove_duplicate=False)}


def match(saved: Identity, tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Hold what `describe` gave against another network.

    Raises
    ------
    InputError
        It is another network; the message names the first module or tensor that differs.

    Warns
    -----
    UserWarning
        A module that is not PyTorch's own has another setting.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    _match_modules(saved["modules"], modules)
    own, shared = _tensors(network)
    passing = {*saved["passing"], *_passing(network)}
    for name in [*tensors, *own]:
        there, here = (f"of shape {tuple(t[name].shape)}" if name in t else "missing" for t in (tensors, own))
        if there != here and name not in passing:
            raise InputError(f"tensor {name!r} is {there} in the file, {here} in the network")
    for name in [*saved["shared"], *shared]:
        there, here = (repr(s.get(name, name)) for s in (saved["shared"], shared))
        if there != here and name not in passing:
            raise InputError(f"tensor {name!r} is {there} in the file, {here} in the network")


def _match_modules(saved: Mapping[str, Mapping[str, Any]], modules: Mapping[str, nn.Module]) -> None:
    odd = []
    for path in dict.fromkeys([*saved, *modules]):
        there = saved.get(path, {"type": "missing"})
        here = _settings(path, modules[path]) if path in modules else {"type": "missing"}
        where = f"module {path!r}" if path else "the network"
        if there.get("type") != here["type"]:
            raise InputError(f"{where} is {there.get('type')} in the file, {here['type']} in the network")
        for name in there:
            if name in here and there[name] != here[name]:
                text = f"{where} has {name}={there[name]!r} in the file, {here[name]!r} in the network"
                if type(modules[path]).__module__.startswith("torch."):
                    raise InputError(text)
                odd.append(text)
    if odd:
        more = f"; and {len(odd) - 3} more" if len(odd) > 3 else ""
        warnings.warn(
            f"{'; '.join(odd[:3])}{more}: results differ from those of the network that was saved, unless "
            "that does not matter to them",
            stacklevel=4,
        )


@torch.no_grad()
def restore(saved: Identity, tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Give a network that matches the saved tensors, with their dtype and order in memory; the device stays.

    A buffer that is not part of the state dict stays as it is where it is missing or has another shape.
    """
    for name, mine in _tensors(network)[0].items():
        new = tensors.get(name)
        if new is None or new.shape != mine.shape:
            continue
        if name in saved["strides"]:
            new = _ordered(name, new, saved["strides"][name])
        if (mine.dtype, mine.stride()) == (new.dtype, new.stride()):
            mine.copy_(new)  # into its memory, which other tensors may be views of
        else:
            mine.data = new.to(mine.device)


def _ordered(name: str, t: Tensor, strides: list[int]) -> Tensor:
    fits = len(strides) == t.ndim and all(0 <= s <= t.numel() for s in strides)
    if not fits or not _dense(torch.empty_strided(t.shape, strides, device="meta")):
        raise InputError(f"tensor {name!r} of shape {tuple(t.shape)} cannot have strides {strides}")
    return torch.empty_strided(t.shape, strides, dtype=t.dtype).copy_(t)


def _dense(t: Tensor) -> bool:
    return bool(torch.ops.aten.is_non_overlapping_and_dense.default(t))


def _tensors(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parameters and buffers by their first names, and the first names by the others."""
    names: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for name, t in (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ):
        first = names.setdefault(id(t), name)
        if first == name:
            tensors[name] = t
        else:
            shared[name] = first
    return tensors, shared


def _passing(network: nn.Module) -> list[str]:
    return sorted(
        f"{path}.{name}".lstrip(".")
        for path, module in network.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    )


def _settings(path: str, module: nn.Module) -> dict[str, Any]:
    left_out = _NO_MATTER if path else _NO_MATTER | _ABOUT_WEIGHTS
    own = {k: plain(v) for k, v in vars(module).items() if not k.startswith("_") and k not in left_out}
    known = {k: v for k, v in own.items() if v is not ...}
    return {**known, "type": type(module).__name__}


def plain(value: Any) -> Any:
    """A value as JSON has it, `...` for what it has not."""
    if isinstance(value, (tuple, list)):
        values = [plain(v) for v in value]
        return ... if any(v is ... for v in values) else values
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or type(value) in (bool, int, float, str) else ...
