"""TIFF beyond eight bits a sample, which Pillow does not read right: colour loses bits or is scrambled.

tifffile (a dependency of scikit-image) reads it; what it means as an image of 8 bits is decided here.
"""

from __future__ import annotations

import io
import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sqlib._pixels import from_16_bits
from sqlib.errors import InputError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION, _PROFILE = 274, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_PREMULTIPLIED = 1
_KINDS = {2: "signed integers", 3: "floating point (mode 'F')", 5: "complex integers", 6: "complex numbers"}


class DeepTiff(NamedTuple):
    """A 16-bit TIFF: uint8 RGB, the largest sample in 0..65535, what else the file holds."""

    rgb: NDArray[np.uint8]
    largest: int
    transparent: bool
    profile: bytes | None
    frames: int


def is_tiff(data: bytes) -> bool:
    """By the first four bytes; BigTIFF too."""
    return data[:4] in _MAGIC


def read_deep(data: bytes) -> DeepTiff | None:
    """The first image of a TIFF of 16 bits a sample; None where Pillow is to read it (at most 8 bits).

    Raises
    ------
    InputError
        Samples that are not unsigned integers of 1 to 8 or 16 bits, a colour model other than gray and RGB, a
        compression that cannot be undone here, a file that is cut off.
    """
    import tifffile

    # What it logs about odd files would be printed; what matters of it is an error below.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        kind, bits = int(page.sampleformat), page.bitspersample
        if kind in _KINDS:
            raise InputError(
                f"samples are {_KINDS[kind]} of {bits} bits, expected unsigned integers of 1, 8 or 16 bits: "
                "the file does not say which value is white; save it as 8 or 16 bits unsigned"
            )
        if isinstance(bits, int) and bits <= 8:
            return None
        if bits != 16:
            raise InputError(f"samples have {bits} bits, expected 1, 8 or 16 bits; save them as 8 or 16 bits")
        if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            name = getattr(page.photometric, "name", page.photometric)
            raise InputError(f"16-bit samples of the colour model {name}, expected gray or RGB")
        check_size(page.imagewidth, page.imagelength)
        planes = _planes(page, data)
        frames = len(file.pages)
        orientation = page.tags.get(_ORIENTATION)
        profile = page.tags.get(_PROFILE)
    colours = planes[..., :3] if planes.shape[2] >= 3 else planes[..., :1].repeat(3, axis=2)
    transparent = False
    if planes.shape[2] in (2, 4):
        transparent = int(planes[..., -1].min()) < 65535
        if transparent and _PREMULTIPLIED in page.extrasamples:
            raise InputError("16-bit colours multiplied by alpha; save the image without transparency")
    image = Image.fromarray(from_16_bits(colours))
    if orientation is not None:
        image.getexif()[_ORIENTATION] = orientation.value
        image = ImageOps.exif_transpose(image)
    return DeepTiff(
        np.array(image), int(colours.max()), transparent, None if profile is None else profile.value, frames
    )


def check_size(width: int, height: int) -> None:
    """Refuse what Pillow would refuse: a few bytes can claim to be an image that fills the memory."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise InputError(
            f"{width} x {height} pixels are more than {2 * limit:,}; cut the image, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if it comes from a source you trust"
        )


def _planes(page: Any, data: bytes) -> NDArray[np.uint16]:
    """Samples (H, W, 1 to 4) in 0..65535, white 65535."""
    # Missing parts come back as zeros, without an error.
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > len(data) or 0 in page.databytecounts:
        raise InputError("the file is damaged, cut off: it ends before its pixels do")
    samples = _unpacked(page, data)
    size, count = (page.imagelength, page.imagewidth), int(page.samplesperpixel)
    if (
        samples.shape not in ((*size, count), (count, *size), size)
        or not 1 <= count <= 4
        or (count >= 3) != (page.photometric == _RGB)
    ):
        raise InputError(f"16-bit samples of shape {samples.shape}, expected an image of gray or RGB")
    if samples.shape == size:
        samples = samples[:, :, None]
    elif page.planarconfig == 2:  # one plane after the other
        samples = np.moveaxis(samples, 0, 2)
    if page.photometric == _WHITE_IS_ZERO:
        samples = np.concatenate([65535 - samples[..., :1], samples[..., 1:]], axis=2)
    return np.asarray(samples, dtype=np.uint16)


def _unpacked(page: Any, data: bytes) -> NDArray[Any]:
    """The samples as tifffile has them; Pillow knows more compressions and reads one gray channel right."""
    try:
        samples: NDArray[Any] = page.asarray()
        return samples
    except Exception as error:  # damaged or unknown compressed data fails in any way
        if page.samplesperpixel == 1 and page.photometric == _BLACK_IS_ZERO and "imagecodecs" in str(error):
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image.convert("I"))
        name = getattr(page.compression, "name", page.compression)
        raise InputError(
            f"16-bit samples that cannot be unpacked (compression {name}: {str(error)[:80]}); save them "
            "uncompressed, with deflate, or as PNG; or the file is damaged, cut off"
        ) from error
