"""Scoring a network on an image set."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast
from typing import Protocol as Interface

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlib import metrics
from sqlib._checks import check_integer
from sqlib._device import usable_device
from sqlib.datasets import Pair
from sqlib.errors import InputError
from sqlib.images import as_rgb, to_uint8
from sqlib.metrics import DEFAULT, Protocol
from sqlib.patches import Grid, Tiling, split
from sqlib.patches.image_statistics import image_statistics, measuring
from sqlib.patches.pieces import Canvas
from sqlib.patches.tiling import check_tiling

__all__ = ["Scores", "evaluate", "super_resolve"]

Item = TypeVar("Item")


_PIXELS_AT_ONCE = 2**17  # in a batch of patches: larger ones gain no time on a CPU, and memory is bounded
_IMPLAUSIBLE = 16.0  # no picture in 0..1; networks that diverge or compute in 0..255 get there


class ImagePairs(Interface):
    """What :func:`evaluate` needs of a dataset; :class:`sqlib.datasets.Dataset` has it."""

    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...
    def pairs(self, scale: int) -> Iterator[Pair]: ...


@dataclass(frozen=True)
class Scores:
    """Scores of one network on one set.

    Attributes
    ----------
    psnr, ssim : means over the images (dB; at most 1)
    protocol : how they were computed
    n : number of images
    images : one dict(name, psnr, ssim) per image
    seconds : wall time, images and metrics included
    dataset : true name of the set
    scale : upscaling factor
    """

    psnr: float
    ssim: float
    protocol: Protocol
    n: int
    images: list[dict[str, Any]]
    seconds: float
    dataset: str
    scale: int

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON, with the protocol as its id."""
        return {**vars(self), "protocol": self.protocol.id}


def super_resolve(
    model: nn.Module,
    lr: NDArray[np.uint8],
    *,
    tiling: Tiling | None = None,
    device: str | torch.device = "cpu",
    rounded: bool = False,
    one_image: bool = False,
    progress: bool = False,
) -> NDArray[Any]:
    """Upscale one image, whole or patch by patch.

    Parameters
    ----------
    model : network with input (1, 3, h, w) in [0, 1]; moved to ``device``, used in evaluation mode, and
        left in the mode it was in. It gets the input in its own dtype (half and bfloat16 networks too)
    lr : uint8 (h, w, 3)
    tiling : how to cut ``lr``, in its pixels; None for the whole image. Patches of one size go through the
        network as batches of at most 2^17 pixels (14 patches of 96 x 96), a larger patch alone. Of the
        upscaled patches the middle is kept (:func:`sqlib.patches.merge`). A network that relates the patches
        of an image (RefQSR) bounds its passes itself; it looks at all patches in its own dtype first, then
        keeps features of its reference patches (:func:`sqlib.reference.two_path.upscale_patches`)
    device : "cpu", "cuda", ...
    rounded : give uint8 by :func:`sqlib.images.to_uint8`, patch by patch: of a large image there is then
        never more than its bytes and one batch, and what a network that relates patches keeps
    one_image : with a tiling, quantizers that measure what they are given (DFSQ's) have the statistics of the
        whole image, gathered in a first pass (:mod:`sqlib.patches.image_statistics`): no seams, twice the
        time. False: every patch is measured by itself, as in a protocol with a tiling
    progress : with a tiling, show a bar on standard error

    Returns
    -------
    float32 (scale * h, scale * w, 3) in gray levels 0..255, neither clipped nor rounded; uint8 if ``rounded``

    Raises
    ------
    InputError
        Not an image, an unusable device, an output that is not an image, NaN or infinite values.

    Notes
    -----
    A network of convolutions gives the pixels of the whole image, up to float rounding, if the overlap is at
    least twice the radius of its receptive field. One that looks at statistics of its whole input does not
    (SubsetQuantizer, channel attention, a bit selector), whatever the overlap: patches are another protocol.
    With ``one_image`` SubsetQuantizer comes close.
    """
    check_tiling(tiling)
    with _ready(model, device) as where:
        image = as_rgb(lr, "super_resolve")
        if tiling is None or not one_image or not measuring(model):
            return _run(model, image, where, tiling, rounded, progress)
        with image_statistics(model) as complete:
            _, patches = _cut(image, tiling)
            for _ in _progress(_patches(model, patches, where), len(patches), "measuring", "patch", progress):
                pass
            complete()
            return _run(model, image, where, tiling, rounded, progress)


def evaluate(
    model: nn.Module,
    dataset: ImagePairs,
    *,
    scale: int,
    protocol: str | Protocol = DEFAULT,
    tiling: Tiling | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Scores:
    """Mean PSNR and SSIM of ``model`` over ``dataset``.

    Parameters
    ----------
    model : as in :func:`super_resolve`
    dataset : :class:`sqlib.datasets.Dataset` or anything with ``name``, ``len`` and ``pairs(scale)``
    scale : must be the network's own
    protocol : preset name or :class:`sqlib.metrics.Protocol`
    tiling : as in :func:`super_resolve`; it becomes part of the scores' protocol. Default: that of
        ``protocol``, which is None in all presets
    device : as in :func:`super_resolve`
    progress : show a bar on standard error

    Raises
    ------
    InputError
        Wrong scale, no set of images or an empty one, an image too small for crop and window (the message
        names it), NaN outputs, a protocol of another tiling, a set that gives other than ``len`` pairs.
    """
    rules = _with_tiling(metrics.protocol(protocol), tiling)
    scale = check_integer("scale", scale, 1, 2**31 - 1)
    own = getattr(model, "scale", scale)
    if own != scale:
        raise InputError(
            f"the network upscales by {own}, evaluation was asked at x{scale}: use the network's scale"
        )
    if not all(hasattr(dataset, need) for need in ("name", "pairs", "__len__")):
        raise InputError(
            f"dataset is {_named(dataset)}, expected a set of images such as sqlib.datasets.load(NAME) or "
            "sqlib.datasets.from_folder(PATH)"
        )
    if len(dataset) == 0:
        raise InputError(f"{dataset.name} has no images to evaluate on")
    start = time.perf_counter()
    images = []
    with _ready(model, device) as where:
        for pair in _progress(dataset.pairs(scale), len(dataset), dataset.name, "image", progress):
            try:
                sr = _run(model, as_rgb(pair.lr, "the low-resolution image"), where, rules.tiling)
                made, given = sr.shape[:2], pair.lr.shape[:2]
                if made != (scale * given[0], scale * given[1]):
                    raise InputError(
                        f"the network made {made[0]} x {made[1]} of {given[0]} x {given[1]} pixels, "
                        f"evaluation was asked at x{scale}: use the network's scale"
                    )
                scores = {
                    "psnr": metrics.psnr(sr, pair.hr, rules, scale=scale),
                    "ssim": metrics.ssim(sr, pair.hr, rules, scale=scale),
                }
            except InputError as error:
                raise InputError(f"{dataset.name}, {pair.name}: {error}") from error
            images.append({"name": pair.name, **scores})
    if len(images) != len(dataset):
        raise InputError(f"{dataset.name} is of {len(dataset)} images, and its pairs() gave {len(images)}")
    if getattr(dataset, "altered", False):
        warnings.warn(
            f"the pixels of {dataset.name} here are not those on record for a set of this name: do not "
            "compare these scores with published ones",
            stacklevel=2,
        )
    return Scores(
        psnr=float(np.mean([image["psnr"] for image in images])),
        ssim=float(np.mean([image["ssim"] for image in images])),
        protocol=rules,
        n=len(images),
        images=images,
        seconds=time.perf_counter() - start,
        dataset=dataset.name,
        scale=scale,
    )


def _named(value: Any) -> str:
    return repr(value) if isinstance(value, (str, bytes)) else type(value).__name__


@contextmanager
def _ready(model: nn.Module, device: str | torch.device) -> Iterator[torch.device]:
    """Model on ``device`` and in evaluation mode; modes (module by module) are put back at the end."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model is {type(model).__name__}, expected a torch.nn.Module")
    where = usable_device(device)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise InputError("the network's tensors are on the device 'meta', without values: load weights first")
    try:
        model.to(where)
    except RuntimeError as error:  # most often the memory of a GPU
        raise InputError(f"the network does not fit {where}: {str(error).splitlines()[0]}") from error
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield where
    finally:
        for module, training in modes.items():
            module.training = training


def _with_tiling(rules: Protocol, tiling: Tiling | None) -> Protocol:
    check_tiling(tiling)
    if tiling is None or tiling == rules.tiling:
        return rules
    if rules.tiling is not None:
        raise InputError(
            f"the protocol is {rules.id}, evaluation was asked with {tiling.id}: give one tiling"
        )
    return replace(rules, tiling=tiling)


def _run(
    model: nn.Module,
    lr: NDArray[np.uint8],
    device: torch.device,
    tiling: Tiling | None,
    rounded: bool = False,
    progress: bool = False,
) -> NDArray[Any]:
    finish = to_uint8 if rounded else np.ascontiguousarray
    if tiling is None:
        out = _forward(model, _as_input(_bytes(lr), model, device))
        image, largest = finish(_gray(out)), float(out.max())
    else:
        grid, patches = _cut(lr, tiling)
        made = _patches(model, patches, device)
        canvas, largest = None, -math.inf
        for number, out in _progress(made, len(grid.boxes), "upscaling", "patch", progress):
            canvas = canvas or Canvas(grid, out.shape[2] // grid.boxes[number].height)
            canvas.put(number, finish(_gray(out)))
            largest = max(largest, float(out.max()))
        image = cast(Canvas, canvas).image
    if largest > _IMPLAUSIBLE:
        warnings.warn(
            f"the network returned values up to {largest:.4g} where white is 1.0: does it compute in 0..255? "
            "Wrap it so that it takes and gives 0..1",
            stacklevel=3,
        )
    return image


def _bytes(lr: NDArray[np.uint8]) -> Tensor:
    """The image as (1, 3, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(lr.transpose(2, 0, 1)))[None]


def _cut(lr: NDArray[np.uint8], tiling: Tiling) -> tuple[Grid, list[Tensor]]:
    """The patches of an image, and where they lie."""
    grid = Grid(lr.shape[0], lr.shape[1], tiling.patch, tiling.overlap)
    return grid, split(_bytes(lr), grid)


def _gray(out: Tensor) -> NDArray[np.float32]:
    """The one image in (1, 3, H, W), as (H, W, 3) in gray levels."""
    image: NDArray[np.float32] = (out[0] * 255).permute(1, 2, 0).cpu().numpy()
    return image


def _as_input(x: Tensor, model: nn.Module, device: torch.device) -> Tensor:
    """Bytes as the network takes them: of a large image only those of a batch, to save memory."""
    return (x.float() / 255).to(device, _dtype(model))


def _patches(model: nn.Module, patches: list[Tensor], device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """What ``model`` makes of the patches of one image, each with its number, in any order."""
    together = getattr(model, "together", None)
    if together is not None:
        for number, out in _related(together, _Inputs(patches, model, device)):
            yield number, _checked(out, patches[number], model)
        return
    alike: dict[torch.Size, list[int]] = {}
    for number, patch in enumerate(patches):
        alike.setdefault(patch.shape, []).append(number)
    for (_, _, height, width), numbers in alike.items():
        step = max(1, _PIXELS_AT_ONCE // (height * width))
        for start in range(0, len(numbers), step):
            batch = numbers[start : start + step]
            x = torch.cat([patches[number] for number in batch])
            out = _forward(model, _as_input(x, model, device))
            yield from zip(batch, out.split(1))


@torch.inference_mode()
def _related(together: Any, inputs: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    yield from together(inputs)


class _Inputs(Sequence[Tensor]):
    """Patches as the network takes them, made whenever one is asked for."""

    def __init__(self, patches: list[Tensor], model: nn.Module, device: torch.device) -> None:
        self.patches, self.model, self.device = patches, model, device

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, number: Any) -> Any:
        return _as_input(self.patches[number], self.model, self.device)


def _forward(model: nn.Module, x: Tensor) -> Tensor:
    """One pass over images (N, 3, h, w), with every check that a batch allows: float32, finite."""
    with torch.inference_mode():
        return _checked(model(x), x, model)


def _checked(out: Any, x: Tensor, model: nn.Module) -> Tensor:
    """What the network made of `x`, as float32."""
    n, size = len(x), tuple(x.shape[2:])
    if not isinstance(out, torch.Tensor) or out.ndim != 4 or out.shape[:2] != (n, 3):
        shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        given = "one image" if n == 1 else f"a batch of {n}"
        raise InputError(f"the network returned {shape} for {given}; expected ({n}, 3, H, W)")
    scale = getattr(model, "scale", None)
    if scale is not None and tuple(out.shape[2:]) != (scale * size[0], scale * size[1]):
        raise InputError(f"the network returned {tuple(out.shape[2:])} pixels for {size}; expected x{scale}")
    if not out.is_floating_point():
        raise InputError(f"the network returned {out.dtype}; expected floating point, white 1.0")
    out = out.float()
    bad = int((~torch.isfinite(out)).sum())
    if bad:
        raise InputError(f"the network returned {bad} NaN or infinite values: check its weights")
    return out


def _dtype(model: nn.Module) -> torch.dtype:
    """What the network computes in: that of its first floating-point tensor (half and bfloat16 too)."""
    tensors = (*model.parameters(), *model.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def _progress(items: Iterator[Item], total: int, name: str, unit: str, show: bool) -> Iterator[Item]:
    if not show:
        return items
    from tqdm import tqdm

    return iter(tqdm(items, total=total, desc=name, unit=unit))
