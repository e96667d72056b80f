"""Super-resolution networks in plain PyTorch, and the weights that ship with sqlib."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlib._checks import check_integer
from sqlib.errors import DataError, InputError
from sqlib.models._checkpoints import read_checkpoint
from sqlib.models._common import SRNetwork
from sqlib.models._layout import OWN, Layout
from sqlib.models._pretrained import by_hand, download_weights, local_file
from sqlib.models._receptive import receptive_radius
from sqlib.models._spec import Spec, WeightsFile, discover, names, register, spec
from sqlib.models._state_dict import load_strict, matching, weights_id

__all__ = [
    "Layout",
    "SRNetwork",
    "Spec",
    "WeightsFile",
    "available",
    "best",
    "card",
    "count_parameters",
    "create",
    "load",
    "matching",
    "names",
    "pretrained",
    "read_state",
    "receptive_radius",
    "register",
    "spec",
]

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


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
    known = spec(name)
    return known.network(name, scale, **known.names[name]).eval()


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a checkpoint into (state dict on the CPU, metadata of a safetensors header); see :func:`load`."""
    checkpoint = read_checkpoint(path)
    return checkpoint.tensors, checkpoint.metadata


def load(path: str | Path, name: str | None = None, *, scale: int) -> SRNetwork:
    """Load a checkpoint by path: ours, or in the layout of the network's official release.

    Parameters
    ----------
    path : a ``.safetensors``, ``.pth`` or ``.pt`` file, read without unpickling. What trainings put around a
        state dict (``params_ema``, ``state_dict``, ``module.``, ...) is taken off.
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
        Not a checkpoint, or one of another network or scale (strict: every name, shape and kind of number
        must fit, every value be finite). Tensors are named as they stand in the file.
    """
    checkpoint = read_checkpoint(path)
    name = name or checkpoint.metadata.get("name")
    if name is None:
        raise InputError(
            f"{path} does not say which network it belongs to; pass name=, one of {', '.join(names())}"
        )
    with torch.random.fork_rng(devices=[]):  # its random values give way to those of the file
        model = create(name, scale=scale)
    # Of two sets of names the one that the file has more of; some names are in both.
    layout = max(
        (OWN, spec(name).official(checkpoint.tensors, model)),
        key=lambda each: sum(each.theirs(key) in checkpoint.tensors for key in model.state_dict()),
    )
    load_strict(model, checkpoint.tensors, str(path), layout=layout, prefix=checkpoint.prefix)
    model.weights_id = weights_id(model)
    return model


def available() -> dict[str, list[int]]:
    """Networks whose weights ship with this installation, and at which scales."""
    found: dict[str, list[int]] = {}
    for path in sorted(WEIGHTS_FOLDER.glob("*-x[234].safetensors")):
        found.setdefault(path.stem[:-3], []).append(int(path.stem[-1]))
    return found


def best(scale: int) -> str:
    """Name of the network of highest PSNR among those that ship for ``scale``.

    The mean over the benchmarks that all of them are scored on: the five images of Set5 alone decide little.

    Raises
    ------
    DataError
        None ships for that scale; the message lists what does.
    """
    scale = check_integer("scale", scale, 1, 2**31 - 1)
    found = [name for name, scales in available().items() if scale in scales]
    if not found:
        have = ", ".join(f"{n} x{s}" for n, scales in available().items() for s in scales)
        raise DataError(f"no network ships for scale {scale}; shipped: {have or 'none'}")
    scores = {name: card(name, scale=scale)["scores"] for name in found}
    shared = set.intersection(*(set(each) for each in scores.values()))
    return max(found, key=lambda name: math.fsum(scores[name][dataset]["psnr"] for dataset in shared))


def pretrained(
    name: str,
    *,
    scale: int,
    allow_unverified: bool = False,
    download: bool = True,
    show: Callable[[str], object] | None = None,
) -> SRNetwork:
    """A network with weights by name, from the first of these places that has them.

    1. What ships with sqlib (:func:`available`); 2. a file in the folder ``$SQLIB_WEIGHTS``; 3. the user's
    cache; 4. for third-party checkpoints a download into the cache. A file is called as in ``files`` of the
    network's :func:`spec`, or ``NAME-xS.safetensors``.

    Parameters
    ----------
    name : one of :func:`names`
    scale : 2, 3 or 4
    allow_unverified : fetch also a file whose content this project has not checked, from its publisher's
        address. Without it only files with a checksum on record are downloaded.
    download : whether anything may be downloaded
    show : gets a line with the licence where the weights are a third party's. Without it the licence is
        logged, where they are downloaded.

    Returns
    -------
    network in evaluation mode; ``weights_id`` says which weights, ``licence`` whose terms (None for those
    that ship, and where none is on record).

    Raises
    ------
    InputError
        Unknown name or scale; a file that does not fit, or in the cache or among those that ship another
        than the one on record.
    DataError
        Nowhere to be found, or the download failed: the message names the address and where to put the file
        by hand, what ships, and how to train the rest. ``$SQLIB_WEIGHTS`` is no folder, or one that cannot
        be read.
    """
    create(name, scale=scale)
    shipped = WEIGHTS_FOLDER / f"{name}-x{scale}.safetensors"
    if shipped.is_file():
        model = load(shipped, name, scale=scale)
        if model.weights_id != card(name, scale=scale)["weights_id"]:
            raise InputError(
                f"{shipped} is not what its card describes: damaged or replaced; reinstall sqlib"
            )
        return model
    known = spec(name).file(name, scale)
    path = local_file(name, scale, known)
    if path is None:
        fetchable = known is not None and known.url is not None and (known.sha256 or allow_unverified)
        if known is None or not fetchable or not download:
            raise DataError(_nowhere(name, scale))
        try:
            path = download_weights(known, lambda partial: load(partial, name, scale=scale))
        except DataError as error:
            raise DataError(f"no weights ship for {name} x{scale}, and {error}") from error
        show = show or _log
    model = load(path, name, scale=scale)
    if known is not None and path.name == known.file:
        model.licence = known.licence
        if show is not None:
            show(
                f"{path}: licence {known.licence}, from {known.source}; see their terms before you pass it on"
            )
    return model


def _log(line: str) -> None:
    import pooch

    pooch.get_logger().info("%s", line)


def _nowhere(name: str, scale: int) -> str:
    have = ", ".join(f"{n} x{s}" for n, scales in available().items() for s in scales) or "none"
    known = spec(name).file(name, scale)
    third = ""
    if known is not None:
        third = f" A third party's file exists: {by_hand(known)}"
        if known.url is not None:
            extra = "" if known.sha256 else ", allow_unverified=True"
            note = "" if known.sha256 else ", whose content this project has not checked"
            flag = "" if known.sha256 else " (on the command line: --allow-unverified)"
            third += f"; sqlib.models.pretrained({name!r}, scale={scale}{extra}){flag} downloads it{note}"
        third += "."
    train = f" or train it with 'python -m sqlib train {name}-x{scale} --data DIR'"
    return (
        f"no weights ship for {name} x{scale}; shipped: {have}.{third} Load a checkpoint with "
        f"sqlib.models.load(path, {name!r}, scale={scale}) (on the command line: --weights PATH)"
        + (train if (name, scale) in spec(name).training else "; no training configuration exists for it yet")
    )


def card(name: str, *, scale: int) -> Mapping[str, Any]:
    """The record of how shipped weights were made: data, steps, seed, versions, device, curve, scores.

    Of a third party's checkpoint, what its entry knows: file, licence, source, url, sha256.
    """
    scale = check_integer("scale", scale, 1, 2**31 - 1)
    path = WEIGHTS_FOLDER / f"{name}-x{scale}.json"
    if path.is_file():
        loaded: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return loaded
    known = spec(name).file(name, scale)
    if known is None:
        raise DataError(f"no weights ship for {name} x{scale}; sqlib.models.available() lists what does")
    return asdict(known)


def count_parameters(model: SRNetwork) -> int:
    """Learnable parameters; the fixed colour shift is not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


discover(sys.modules[__name__])
