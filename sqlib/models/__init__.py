"""Super-resolution networks in plain PyTorch, and the weights that ship with sqlib."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sqlib.errors import DataError, InputError
from sqlib.models import bsrn, carn, edsr, elan, rdn, srresnet, swinir
from sqlib.models._common import SRNetwork
from sqlib.models._weights import load_strict, read_state, weights_id

__all__ = [
    "SRNetwork",
    "available",
    "card",
    "count_parameters",
    "create",
    "load",
    "names",
    "pretrained",
    "read_state",
]

WEIGHTS_FOLDER = Path(__file__).parent / "weights"

_Build = Callable[[str, int], SRNetwork]
_Rename = Callable[[dict[str, Tensor]], dict[str, Tensor]]
# name -> (constructor, translation of the official release's parameter names)
_NETWORKS: dict[str, tuple[_Build, _Rename]] = {
    "edsr-baseline": (partial(edsr.EDSR, blocks=16, features=64), edsr.from_official),
    "edsr-large": (partial(edsr.EDSR, blocks=32, features=256, residual_scale=0.1), edsr.from_official),
    "edsr-small": (partial(edsr.EDSR, blocks=8, features=32), edsr.from_official),
    "carn": (carn.CARN, carn.from_official),
    "carn-single": (lambda name, scale: carn.CARN(name, scale, scales=(scale,)), carn.from_official),
    "carn-m": (partial(carn.CARN, mobile=True, groups=4), carn.from_official),
    "srresnet": (srresnet.SRResNet, srresnet.from_official),
    "rdn": (rdn.RDN, rdn.from_official),
    "elan-light": (elan.ELAN, elan.from_official),
    "bsrn": (bsrn.BSRN, bsrn.from_official),
    "swinir-light": (swinir.SwinIR, swinir.from_official),
    "swinir-small": (partial(swinir.SwinIR, depths=(2, 2)), swinir.from_official),
}


def names() -> list[str]:
    """Names that :func:`create` understands."""
    return list(_NETWORKS)


def _entry(name: str) -> tuple[_Build, _Rename]:
    if name not in _NETWORKS:
        raise InputError(f"unknown network {name!r}; expected one of {', '.join(_NETWORKS)}")
    return _NETWORKS[name]


def create(name: str, *, scale: int) -> SRNetwork:
    """Build a network with random weights, in evaluation mode.

    Parameters
    ----------
    name : one of :func:`names`
    scale : 2, 3 or 4

    Raises
    ------
    InputError
        Unknown name or scale.
    """
    return _entry(name)[0](name, scale).eval()


def load(path: str | Path, name: str | None = None, *, scale: int) -> SRNetwork:
    """Load a checkpoint by path: ours, or the official layout of EDSR-PyTorch or CARN-pytorch.

    Parameters
    ----------
    path : a ``.safetensors``, ``.pth`` or ``.pt`` file; read without unpickling.
    name : network's name; may be left out for our own files, which carry it.
    scale : 2, 3 or 4; multi-scale checkpoints (CARN) hold several.

    Returns
    -------
    network in evaluation mode with ``weights_id`` set.

    Raises
    ------
    DataError
        No such file.
    InputError
        Not a checkpoint, or one of another network or scale (strict: every name and shape must fit).
    """
    state, metadata = read_state(path)
    name = name or metadata.get("name")
    if name is None:
        raise InputError(
            f"{path} does not say which network it belongs to; pass name=, one of {', '.join(names())}"
        )
    model = create(name, scale=scale)
    if state.keys() != model.state_dict().keys():
        state = _entry(name)[1](state)
    load_strict(model, state, str(path))
    model.weights_id = weights_id(model)
    return model


def available() -> dict[str, list[int]]:
    """Networks whose weights ship with this installation, and at which scales."""
    found: dict[str, list[int]] = {}
    for path in sorted(WEIGHTS_FOLDER.glob("*-x[234].safetensors")):
        found.setdefault(path.stem[:-3], []).append(int(path.stem[-1]))
    return found


def pretrained(name: str, *, scale: int) -> SRNetwork:
    """A network with the weights that ship with sqlib.

    Raises
    ------
    InputError
        Unknown name or scale.
    DataError
        Known, but no weights ship for it: the message lists what exists and how to train the rest.
    """
    create(name, scale=scale)
    path = WEIGHTS_FOLDER / f"{name}-x{scale}.safetensors"
    if not path.is_file():
        from sqlib.training.config import CONFIGS

        have = ", ".join(f"{n} x{s}" for n, scales in available().items() for s in scales) or "none"
        train = f" or train it with 'python -m sqlib train {name}-x{scale} --data DIR'"
        raise DataError(
            f"no weights ship for {name} x{scale}; shipped: {have}. Load a checkpoint with "
            f"sqlib.models.load(path, {name!r}, scale={scale})"
            + (train if f"{name}-x{scale}" in CONFIGS else "; no training configuration exists for it yet")
        )
    return load(path, name, scale=scale)


def card(name: str, *, scale: int) -> Mapping[str, Any]:
    """The record of how shipped weights were made: data, steps, seed, versions, device, curve, scores."""
    path = WEIGHTS_FOLDER / f"{name}-x{scale}.json"
    if not path.is_file():
        raise DataError(f"no weights ship for {name} x{scale}; sqlib.models.available() lists what does")
    loaded: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def count_parameters(model: SRNetwork) -> int:
    """Learnable parameters; the fixed colour shift is not among them."""
    return sum(parameter.numel() for parameter in model.parameters())
