"""A quantized network from its file, without the calibration data and without unpickling.

>>> quantized.save("edsr.safetensors")                                       # doctest: +SKIP
>>> quantized = sqlib.load_quantized("edsr.safetensors", network)            # doctest: +SKIP
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from torch import nn

from sqlib.engine import artifact, identity, registry, saving
from sqlib.engine.model import CARRIED, QuantizedModel
from sqlib.engine.network import check_network, copied, ordinary_tensors
from sqlib.engine.recipe import Recipe
from sqlib.engine.tracing import add_hooks
from sqlib.errors import InputError


def load_quantized(path: str | PathLike[str], network: nn.Module) -> QuantizedModel:
    """Rebuild what `QuantizedModel.save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.
    network : nn.Module
        The full-precision network that was quantized, or another one made in the same way: it gives the code,
        all of its parameters and buffers come from the file. Never changed.

    Returns
    -------
    QuantizedModel
        In evaluation mode, on the device of `network`. On the same machine, with the same versions and number
        of threads, its outputs equal those of the saved one bit for bit.

    Raises
    ------
    DataError
        No such file.
    InputError
        The file is no quantized network, is damaged, was changed, has a newer format, belongs to another
        network (the message names the first module or tensor that differs), or names a class of quantizers
        that is not known (`sqlib.quantizers.saved_as`).

    Warns
    -----
    UserWarning
        A module that is not PyTorch's own has another setting than it had; the recipe is unknown here, or
        known in another version.

    Notes
    -----
    Compared are types of modules, their settings (public attributes that are numbers, truth values, names or
    tuples of these) and names and shapes of tensors. Buffers that are not part of the state dict are taken
    from the file as well, where they are there and of the same shape.
    """
    if not isinstance(network, nn.Module):
        raise InputError(
            f"network is {type(network).__name__}, expected the torch.nn.Module that was quantized"
        )
    if isinstance(network, QuantizedModel):
        raise InputError("network is already quantized; give a network like the one it was made from")
    check_network(network)
    path, found, tensors = artifact.read(path)
    try:
        manifest = saving.check(found)
        own, recipe = saving.network_tensors(tensors), _recipe(manifest["recipe"])
        with ordinary_tensors(network):
            copy = copied(network)
            recipe.prepare(copy)
            identity.match(manifest["network"], own, copy)
            copy.eval()
            identity.restore(manifest["network"], own, copy)
            add_hooks(copy)
            model = QuantizedModel(copy, recipe)
            saving.fill(model, manifest, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    for name in CARRIED:
        if name in manifest["about"]:
            value = manifest["about"][name]
            setattr(model, name, tuple(value) if isinstance(value, list) else value)
    first = next(copy.parameters(), None)
    if first is not None:
        model.weights.to(first.device)
        model.activations.to(first.device)
    return model.eval()


@dataclass(frozen=True)
class Unknown(Recipe):
    """A recipe that is not known here; it can be shown and saved again, not applied."""

    data: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Nothing is known of its options."""

    def to_dict(self) -> dict[str, Any]:
        """As it was found."""
        return dict(self.data)


def _recipe(data: dict[str, Any]) -> Recipe:
    try:
        return registry.from_dict(data)
    except InputError as error:
        warnings.warn(f"{error} (the saved network works without it)", stacklevel=3)
        return Unknown(data.get("bits", 8), data)
