"""Calibration data: read once, kept, and checked against what the network takes before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sqlib.errors import InputError

_EXPECTED = (
    "an iterable of input tensors (N, C, H, W), of tuples of tensors for several inputs, or of dictionaries "
    "of keyword arguments"
)
_PAIRS = (
    "; a loader of (image, label) pairs or of (low, high) resolution pairs has to give images only: "
    "(x for x, _ in loader)"
)


def batches(calibration: Any, network: nn.Module, *, name: str = "calibration") -> list[Any]:
    """Check the calibration data, or others of that kind with another `name`, and keep the batches.

    Whatever is given is read exactly once, because not everything that can be iterated gives the same again
    (a progress bar around a generator, a shuffling loader). A single tensor counts as one batch. Tensors are
    those of `kept`.

    Raises
    ------
    InputError
        Nothing to iterate, no batches, or a batch that the network's ``forward`` has no parameters for.
    """
    if isinstance(calibration, Tensor):
        calibration = [calibration]
    if isinstance(calibration, (str, bytes, Mapping)) or not isinstance(calibration, Iterable):
        raise InputError(f"{name} is {type(calibration).__name__}, expected {_EXPECTED}")
    found = kept(calibration)
    if not found:
        raise InputError(f"{name} is empty, expected {_EXPECTED}")
    for number, batch in enumerate(found):
        try:
            _check(batch, network)
            arguments(batch, network)
        except InputError as error:
            raise InputError(f"{name} batch {number}: {error}") from error
    if not any(t.numel() for batch in found for t in tensors(batch)):
        raise InputError(f"{name} has no values: batch 0 is {described(found[0])}; give at least one image")
    return found


def kept(data: Iterable[Any]) -> list[Any]:
    """All batches of some data, read once, with tensors that nobody overwrites.

    Tensors of anything but a list or tuple are copied: a loader may fill one buffer again and again.
    """
    lasting = isinstance(data, (list, tuple))
    return [_kept(batch, copy=not lasting) for batch in data]


def arguments(batch: Any, network: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of one batch, on the network's device and in its floating dtype.

    For one pass: tensors are copies, because a network may change its input in place (``x -= mean``).
    """
    if isinstance(batch, Tensor):
        return (placed(batch, network, copy=True),), {}
    if isinstance(batch, (tuple, list)) and any(isinstance(v, Tensor) for v in batch):
        return tuple(placed(v, network, copy=True) for v in batch), {}
    if isinstance(batch, dict) and all(isinstance(k, str) for k in batch):
        return (), {k: placed(v, network, copy=True) for k, v in batch.items()}
    raise InputError(
        f"the batch is {type(batch).__name__}, expected a tensor (N, C, H, W), a tuple of tensors or a "
        "dictionary of keyword arguments"
    )


def placed(value: Any, network: nn.Module, *, copy: bool = False) -> Any:
    """`value` with every tensor in it on the network's device and, if it is floating, in its dtype.

    A tensor that is so is itself returned, or with `copy` a copy.
    """
    own = (*network.parameters(), *network.buffers())
    reference = next((t for t in own if t.is_floating_point()), torch.zeros(()))

    def place(t: Tensor) -> Tensor:
        dtype = reference.dtype if t.is_floating_point() else t.dtype
        return t.to(reference.device, dtype, copy=copy)

    return _mapped(place, value)


def copied(value: Any) -> Any:
    """`value` with a copy in the place of every tensor in it, detached."""
    return _mapped(lambda t: t.detach().clone(), value)


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a batch or in what a network returns."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


def described(value: Any) -> str:
    """Shape and dtype of a tensor, type of anything else, in brackets for several."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(described(v) for v in value)}]"
    return type(value).__name__


def _mapped(function: Any, value: Any) -> Any:
    """`value` with every tensor in it replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_make"):  # a named tuple
        return value._make(_mapped(function, v) for v in value)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(function, v) for v in value)
    if isinstance(value, dict):
        return {k: _mapped(function, v) for k, v in value.items()}
    return value


def _kept(batch: Any, copy: bool) -> Any:
    """The batch with tensors that nobody overwrites, and that outlive `torch.inference_mode`."""

    def own(t: Tensor) -> Tensor:
        if t.device.type == "meta":
            raise InputError(
                f"the data have a tensor {described(t)} on the meta device, which holds no values; give real "
                "images"
            )
        return t.detach().clone() if copy or t.is_inference() else t

    return _mapped(own, batch)


def _check(batch: Any, network: nn.Module) -> None:
    """Whether ``forward`` has a parameter for everything in the batch, and a value for what it needs."""
    if network._forward_pre_hooks:  # they may rewrite the arguments: the pass will tell
        return
    try:
        parameters = list(inspect.signature(network.forward).parameters.values())
    except (TypeError, ValueError):  # no Python function behind it: the pass will tell
        return
    kinds = {p.kind for p in parameters}
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p.name for p in parameters if p.default is p.empty and "VAR" not in p.kind.name]
    takes = f"{type(network).__name__}.forward takes {', '.join(p.name for p in parameters) or 'nothing'}"
    if isinstance(batch, dict):
        unknown = sorted(
            set(batch) - {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}, key=str
        )
        if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise InputError(
                f"the dictionary has the keys {', '.join(map(repr, batch))}, but {takes}; leave out "
                f"{', '.join(map(repr, unknown))}"
            )
        missing = [name for name in needed if name not in batch]
        if missing:
            raise InputError(
                f"the dictionary has the keys {', '.join(map(repr, batch))}, but {takes}, of which "
                f"{', '.join(missing)} must be given"
            )
        return
    given = list(batch) if isinstance(batch, (tuple, list)) else [batch]
    if len(given) > len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise InputError(f"{len(given)} values {described(given)} are given, but {takes}{_PAIRS}")
    optional = [p.name for p in positional[: len(given)] if p.default is not p.empty]
    if len(given) > 1 and optional:
        names = ", ".join(repr(p.name) for p in positional[: len(given)])
        raise InputError(
            f"{len(given)} values {described(given)} are given, and {optional[0]!r} of {takes} is optional: "
            f"it may not be meant. Give a dictionary with the keys {names} if it is{_PAIRS}"
        )
    missing = [name for name in needed if name not in {p.name for p in positional[: len(given)]}]
    if missing:
        raise InputError(
            f"{described(given)} is given, but {takes}, of which {', '.join(missing)} is missing; give a "
            "tuple or a dictionary of all inputs"
        )
