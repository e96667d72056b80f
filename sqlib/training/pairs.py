"""Pairs of low and high resolution by the names of image sets, for recipes that train on them."""

from __future__ import annotations

from os import PathLike

from sqlib import datasets
from sqlib._checks import check_integer
from sqlib.errors import InputError
from sqlib.images import as_rgb
from sqlib.training.crops import CropPool, Crops


def pairs(
    source: str,
    *,
    scale: int,
    patch: int = 48,
    seed: int = 0,
    data_dir: str | PathLike[str] | None = None,
    device: str = "cpu",
) -> Crops:
    """Random aligned crops of image sets, as :func:`sqlib.quantize_model` takes for ``pairs``.

    >>> data = sqlib.training.pairs("bsds400+t91", scale=4)                               # doctest: +SKIP
    >>> quantized = sqlib.quantize_model(network, PAMS(bits=4), crops, pairs=data)        # doctest: +SKIP

    Parameters
    ----------
    source : names of sets of originals (:func:`sqlib.datasets.load`), joined by ``"+"``; low resolution is
        made from them. Images too small for a crop are passed over
    scale : of the network
    patch : side of a crop in low-resolution pixels
    seed : of the draws
    data_dir : as in :func:`sqlib.datasets.load`
    device : where crops go

    Raises
    ------
    InputError
        An unknown set, or none of its images is large enough; a number that cannot be.
    DataError
        A set is missing, or has no originals.
    """
    if not isinstance(source, str) or not source:
        raise InputError(f"source={source!r}: expected names of image sets, such as 'bsds400+t91'")
    scale = check_integer("scale", scale, 2, 4)
    patch = check_integer("patch", patch, 1, 2**63 - 1)
    seed = check_integer("seed", seed, 0, 2**63 - 1)
    originals = []
    for part in (datasets.load(name, data_dir=data_dir) for name in source.split("+")):
        for i, name in enumerate(part.names):
            image = as_rgb(part.hr(i), name)
            if min(image.shape[:2]) >= patch * scale:
                originals.append((f"{part.name}/{name}", image))
    if not originals:
        raise InputError(
            f"no image of {source} holds a crop of {patch} x {patch} low-resolution pixels at x{scale}; use "
            "a smaller patch"
        )
    return Crops(CropPool.from_images(originals, scale, seed), patch, device)
