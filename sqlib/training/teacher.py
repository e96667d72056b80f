"""A teacher: what tells it from others, and whether it enlarges photographs in the range we give it."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import torch
from torch import Tensor

from sqlib import datasets, models
from sqlib.engine.identity import describe
from sqlib.errors import InputError
from sqlib.models import SRNetwork
from sqlib.models._state_dict import weights_id
from sqlib.resize import downscale

LARGEST_ERROR = 20.0
"""Mean error (of 255) on the photographs; nearest neighbours have 11 at x4, red and blue exchanged 53."""
TOLERANCE = 1.005
"""Of two errors that count as equal. Of the networks here, every other range costs at least 1.7 per cent."""

_RANGES = {"0..1": (0.0, 1.0), "0..255": (0.0, 255.0), "-1..1": (-1.0, 1.0), "0..1/255": (0.0, 1 / 255)}
_SIDE = 48
_OWN = ("0..1", "0..1")


def teacher_id(teacher: SRNetwork) -> str:
    """What a teacher's outputs depend on, as they are now, in one SHA-256.

    For a network as :func:`sqlib.models.load` returns it, the one of its weights. For any other, of weights,
    class and name, the settings of every module, the buffers that are not saved, and ``weights_id`` as it
    says. A function that is an attribute of a module does not count: give such a teacher a ``weights_id`` of
    its own.
    """
    weights = weights_id(teacher)
    settings = _settings(teacher)
    known = weights == teacher.weights_id and teacher.name in models.names()
    if known and settings == _settings(models.create(teacher.name, scale=teacher.scale)):
        return weights
    said = [weights, teacher.weights_id, teacher.name, settings]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _settings(network: SRNetwork) -> str:
    """All that makes a network but its weights, as text; not how its tensors lie in memory."""
    structure, tensors = describe(network)
    structure["modules"][""].pop("licence", None)  # of a file, not of what is computed
    fixed = {name: tensors[name].tolist() for name in structure["passing"] if name in tensors}
    kind = f"{type(network).__module__}.{type(network).__qualname__}"
    return json.dumps([kind, structure["modules"], structure["shared"], fixed], sort_keys=True)


def check_teacher(teacher: SRNetwork, device: torch.device) -> None:
    """Hold a teacher's enlargements of reduced photographs against the photographs, in several ranges.

    The photographs are the middles of the builtin ones: what is to be trained on may be dark, in which a
    wrong range does not show, or noise and small print, which no teacher enlarges. A network changes little
    when input and output are multiplied by 255, so only the comparison tells which range it was trained in.

    Parameters
    ----------
    teacher : in evaluation mode, on ``device``
    device : of the teacher

    Raises
    ------
    InputError
        Outputs of a wrong shape, or far from the photographs; or another range than 0..1 is better.
    """
    small, photo = (x.to(device) for x in _photographs(teacher.scale))
    errors = {}
    with torch.inference_mode():
        for taken, (lower, upper) in _RANGES.items():
            out = teacher(lower + (upper - lower) * small).float()
            if out.shape != photo.shape:
                raise InputError(
                    f"the teacher {teacher.name} makes {tuple(out.shape)} of {tuple(small.shape)}; a teacher "
                    f"for x{teacher.scale} must make {tuple(photo.shape)}"
                )
            for given, (low, high) in _RANGES.items():
                errors[taken, given] = 255 * float(((out - low) / (high - low) - photo).abs().mean())
    own = errors[_OWN]
    best = min(errors, key=lambda pair: math.inf if math.isnan(errors[pair]) else errors[pair])
    if own <= LARGEST_ERROR and own <= TOLERANCE * errors[best]:  # false for NaN
        return
    found = f"of photographs, reduced and enlarged again, its error is {own:.2f} of 255"
    if errors[best] <= LARGEST_ERROR:
        found += (
            f" as it stands, {errors[best]:.2f} when it takes RGB in {best[0]} and gives it in {best[1]}. "
            "Wrap or change it so that both are in 0..1"
        )
    else:
        found += (
            f", expected at most {LARGEST_ERROR:.0f}. A teacher must take and give RGB in 0..1 and have "
            "trained weights"
        )
    raise InputError(f"{teacher.name} x{teacher.scale} is no teacher as it is: {found}")


def _photographs(scale: int) -> tuple[Tensor, Tensor]:
    """The middles of the builtin photographs, reduced and as they are: (N, 3, h, w) in 0..1."""
    photos = datasets.load("builtin")
    side = _SIDE * scale
    originals = []
    for i in range(len(photos.names)):
        hr = photos.hr(i)
        top, left = (hr.shape[0] - side) // 2, (hr.shape[1] - side) // 2
        originals.append(np.ascontiguousarray(hr[top : top + side, left : left + side]))
    both = [downscale(hr, scale) for hr in originals], originals
    small, photo = (torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2).float() / 255 for each in both)
    return small, photo
