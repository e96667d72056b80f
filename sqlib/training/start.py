"""What a training starts from: tensors of other weights that fit by name and shape, or their function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sqlib import models
from sqlib.errors import InputError
from sqlib.models import Layout, SRNetwork
from sqlib.models.srresnet import SRResNet
from sqlib.training.srresnet_from_edsr import adopt_edsr


@dataclass(frozen=True)
class Start:
    """Weights that a training begins with.

    Attributes
    ----------
    tensors : name (ours) -> tensor; some or all of them fit the network
    function : whether they are computed so that the network does what their source does, in other layers;
        otherwise they are tensors of the source
    """

    tensors: Mapping[str, Tensor]
    function: bool = False


def find_start(
    source: str,
    network: str,
    scale: int,
    *,
    images: Sequence[NDArray[np.uint8]],
    show: Callable[[str], object] | None = None,
) -> Start:
    """Weights for a network to begin with.

    Parameters
    ----------
    source : ``NETWORK-xSCALE``, or the path of a checkpoint, in our names or those of the network's release
    network, scale : what is to start; SRResNet takes the function of an EDSR of its size and scale
    images : uint8 (h, w, 3); SRResNet's normalizations then begin with the statistics of their features
    show : gets the licence of a third party's weights, as in `sqlib.models.pretrained`

    Raises
    ------
    DataError
        No such weights.
    InputError
        No checkpoint, or one of which nothing fits; no images where their features are needed.
    """
    model = models.create(network, scale=scale)
    name, _, of = source.rpartition("-x")
    named = name in models.names() and of.isdecimal()
    start = models.pretrained(name, scale=int(of), show=show) if named else None
    if isinstance(model, SRResNet):
        edsr = start or _edsr_of(source, scale)
        if edsr is not None and adopt_edsr(model, edsr, images):
            return Start(model.state_dict(), function=True)
    if start is not None:
        found = start.state_dict()
    else:
        state = models.read_state(source)[0]
        # Colours shifted otherwise are no reason against a start, which learns on.
        layout = dataclasses.replace(models.spec(network).official(state, model), check=None)
        readings = [each.translate(state) for each in (Layout({}), layout)]
        found = max(readings, key=lambda reading: len(models.matching(reading, model)[0]))
    fitting(found, model)
    return Start(found)


def _edsr_of(path: str, scale: int) -> SRNetwork | None:
    """The EDSR whose weights a file holds, whole; None where it holds others."""
    for name in models.spec("edsr-baseline").names:
        try:
            return models.load(path, name, scale=scale)
        except InputError:
            continue
    return None


def fitting(start: Mapping[str, Tensor], model: SRNetwork) -> tuple[dict[str, Tensor], list[str]]:
    """What ``model`` takes of ``start``, and the names of what is new in it.

    Raises
    ------
    InputError
        Nothing fits but, at most, a vector by chance.
    """
    taken, new, _ = models.matching(start, model)
    if not any(value.dim() > 1 for value in taken.values()):
        raise InputError(
            f"none of the {len(start)} tensors to start from fits {model.name}-x{model.scale} by name and "
            "shape; start from weights of the same network at another scale, or of one that shares its layers"
        )
    return taken, new
