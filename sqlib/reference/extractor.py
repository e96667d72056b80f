"""ClustBlock's feature extractor (Table 1 of RefQSR): a small network that tells textures apart.

>>> import torch
>>> from sqlib.reference.extractor import extractor
>>> extract = extractor("textures")
>>> extract(torch.rand(8, 3, 72, 72)).shape
torch.Size([8, 10])
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqlib._checks import check_integer
from sqlib.engine import QuantizedModel, load_quantized
from sqlib.engine.artifact import read
from sqlib.errors import InputError

SMALLEST = 15
"""Pixels that an output of the last convolution sees, along each side: no patch may be smaller."""

AT_ONCE = 256
"""Patches in one batch: those of 72 x 72 pixels take half a megabyte each in the convolutions."""

_WEIGHTS = resources.files("sqlib.reference") / "weights"


class FeatureExtractor(nn.Module):
    """Three convolutions, the mean over all places, and one score per class of texture.

    Parameters
    ----------
    classes : number of scores, at least 2 (47 for all of DTD)

    Notes
    -----
    Input (N, 3, h, w) in 0..1, both sides at least 15; output (N, classes): the features V of the paper.
    Nothing is padded; that gives the 26.2 M multiplications for 72 x 72 pixels behind the 0.03 G of Table 3.
    The image is moved to -2..2 first, a linear map that the first convolution could have learned.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        classes = check_integer("classes", classes, 2, 10**6)
        self.conv1 = nn.Conv2d(3, 64, 3, stride=3)
        self.conv2 = nn.Conv2d(64, 64, 3)
        self.conv3 = nn.Conv2d(64, 32, 3)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        check_patches(x)
        x = F.relu(self.conv1(4 * x - 2))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        scores: Tensor = self.head(x.mean(dim=(2, 3)))
        return scores


def check_patches(x: Tensor) -> None:
    """Raise `InputError` unless `x` is a floating tensor (N, 3, h, w) and large enough."""
    if not isinstance(x, Tensor):
        raise InputError(f"patches are {type(x).__name__}; expected a tensor (N, 3, h, w) in 0..1")
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < SMALLEST:
        raise InputError(
            f"patches of shape {tuple(x.shape)}: expected (N, 3, h, w), {SMALLEST} pixels or more a side"
        )
    if not x.is_floating_point():
        raise InputError(f"patches of {x.dtype}: expected floating point in 0..1")


def extractor(weights: str | PathLike[str] = "textures", *, classes: int | None = None) -> QuantizedModel:
    """A trained extractor, quantized to 8 bits.

    Parameters
    ----------
    weights : "textures", trained by this project on 10 classes of DTD, or a file that
        `sqlib.reference.training.train_extractor` made
    classes : what the file must have; None accepts any number

    Returns
    -------
    QuantizedModel
        From patches (N, 3, h, w) in 0..1 to features (N, classes).

    Raises
    ------
    DataError
        No such file.
    InputError
        The file is no extractor, or one of another number of classes.
    """
    if not isinstance(weights, (str, PathLike)):
        raise InputError(
            f"extractor={weights!r}: expected 'textures', or the path of a file that train_extractor "
            "made (for a ClustBlock also a module)"
        )
    if weights == "textures":
        with resources.as_file(_WEIGHTS / "textures.safetensors") as path:
            return _loaded(path, classes)
    return _loaded(Path(weights), classes)


def card() -> dict[str, Any]:
    """How the shipped extractor was trained: its data, classes, steps and accuracy."""
    found: dict[str, Any] = json.loads((_WEIGHTS / "textures.json").read_text("utf-8"))
    return found


def _loaded(path: Path, classes: int | None) -> QuantizedModel:
    head = read(path)[2].get("network.head.weight")
    if head is None or head.ndim != 2:
        raise InputError(f"{path} holds no extractor of features: it has no head.weight (classes, 32)")
    if classes is not None and len(head) != classes:
        raise InputError(f"{path} tells {len(head)} classes of texture apart, not {classes}")
    return load_quantized(path, FeatureExtractor(len(head)))


def features(extract: nn.Module, patches: Sequence[Tensor]) -> Tensor:
    """Features of patches of any sizes, those of one size in batches of up to `AT_ONCE`.

    Parameters
    ----------
    extract : as from `extractor`; computes on its own device and in its own dtype
    patches : as for `single`

    Returns
    -------
    float32 tensor (N, classes)

    Raises
    ------
    InputError
        What `single` refuses; an extractor that gives no (N, classes).
    """
    whole = single(patches)
    same: dict[torch.Size, list[int]] = {}
    like = next((t for t in extract.parameters() if t.is_floating_point()), torch.zeros(()))
    for number, patch in enumerate(whole):
        same.setdefault(patch.shape, []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in same.values():
        for first in range(0, len(numbers), AT_ONCE):
            some = numbers[first : first + AT_ONCE]
            batch = torch.cat([whole[n].to(like.device, like.dtype) for n in some])
            with torch.no_grad():
                rows = extract(batch)
            if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(batch):
                shape = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
                raise InputError(
                    f"extractor gives {shape} for patches {tuple(batch.shape)}; expected (N, classes)"
                )
            found.update(zip(some, rows))
    return torch.stack([found[n] for n in range(len(whole))]).float()


def single(patches: Sequence[Tensor]) -> list[Tensor]:
    """The patches of an image as (1, 3, h, w) each, without gradient and large enough for the extractor.

    Parameters
    ----------
    patches : (3, h, w) or (1, 3, h, w) each, in 0..1, on any device and in any floating dtype. Where a side
        has less than 15 pixels, those of the border are repeated up to there.

    Raises
    ------
    InputError
        No list of patches, none in it, or one that is no tensor, has another shape or dtype, or values that
        are not finite; the message has its place in the list.
    """
    try:
        given = list(patches)
    except TypeError:
        raise InputError(
            f"patches are {type(patches).__name__}; expected a list of tensors (3, h, w)"
        ) from None
    if not given:
        raise InputError("no patches are given; expected one or more")
    return [_single(number, patch) for number, patch in enumerate(given)]


def _single(number: int, patch: Any) -> Tensor:
    expected = "expected a floating-point tensor (3, h, w) or (1, 3, h, w) in 0..1"
    if not isinstance(patch, Tensor):
        raise InputError(f"patch {number} is {type(patch).__name__}; {expected}")
    x = patch.detach()[None] if patch.ndim == 3 else patch.detach()
    if x.ndim != 4 or x.shape[:2] != (1, 3) or 0 in x.shape or not x.is_floating_point():
        raise InputError(f"patch {number} is {x.dtype} of shape {tuple(patch.shape)}; {expected}")
    if not x.float().isfinite().all():
        raise InputError(f"patch {number} contains NaN or infinity; {expected}")
    return _enlarged(x)


def _enlarged(patch: Tensor) -> Tensor:
    """Repeat the border pixels of a patch that is smaller than the extractor sees."""
    below, right = (max(0, SMALLEST - side) for side in patch.shape[2:])
    if not below and not right:
        return patch
    return F.pad(patch, (right // 2, right - right // 2, below // 2, below - below // 2), mode="replicate")
