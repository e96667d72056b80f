"""Reading and writing image files: one array convention for the whole library.

Images are uint8 arrays (H, W, 3), RGB. The rules by which other kinds of file become that are fixed here and
tested one by one, because a silently different conversion moves PSNR.
"""

from __future__ import annotations

import io
import struct
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sqlib._pixels import as_rgb, to_uint8
from sqlib.errors import DataError, InputError

__all__ = ["EXTENSIONS", "as_rgb", "read_image", "to_uint8", "write_image"]

EXTENSIONS = (".png", ".bmp", ".jpg", ".jpeg", ".webp")

_EIGHT_BIT_MODES = {
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY_ALPHA, _PNG_RGBA = 4, 6


def read_image(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Read an image file as RGB.

    Parameters
    ----------
    path : path to a PNG, BMP, JPEG or WebP file (whatever else Pillow reads is accepted too)

    Returns
    -------
    uint8 array (H, W, 3)

    Raises
    ------
    DataError
        No file at ``path``.
    InputError
        The file is not an image, is damaged or cut off, or holds samples that are not 1, 8 or 16 bits.

    Notes
    -----
    - Gray: the one channel is repeated three times (Set14 and BSD100 contain gray images).
    - Palette: colours are looked up.
    - Alpha: dropped; the stored colours are kept as they are, nothing is blended over a background.
    - 16 bits: ``round(value / 257)``, which maps 0..65535 onto 0..255 evenly. (Pillow alone would cut off
      the low byte.)
    - CMYK: Pillow's conversion without colour profile. Profiles and gamma entries are ignored everywhere,
      as every super-resolution benchmark does.
    - EXIF orientation is applied: a phone photo comes out upright. Benchmark files have none.
    - Several frames: the first one.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected an image file")
    if not path.exists():
        raise DataError(f"no image file at {path}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return _decode(data)
    # Pillow reports damage through all of these; which one depends on the format and on where it is.
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, Image.DecompressionBombError) as error:
        raise InputError(
            f"cannot read the image {path}: {error}; the file is damaged, cut off or of an unknown format"
        ) from error


def _decode(data: bytes) -> NDArray[np.uint8]:
    if _is_deep_gray_alpha_png(data):
        return _decode_deep_gray_alpha(data)
    with Image.open(io.BytesIO(data)) as opened:
        low_byte = _low_byte_of_deep_colour(opened, data)
        opened.load()
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
            return _gray(_from_16_bits(np.asarray(image.convert("I"), dtype=np.int64)))
        if image.mode not in _EIGHT_BIT_MODES:
            raise ValueError(f"samples of mode {image.mode!r}, expected 1, 8 or 16 bits")
        # RGBA -> RGB in Pillow drops alpha and leaves the colours alone, except for premultiplied modes.
        rgb = np.array(image.convert("RGB"), dtype=np.uint8)
    if low_byte is not None:
        return _from_16_bits(rgb.astype(np.int64) * 256 + low_byte)
    return rgb


def _from_16_bits(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError("samples outside 0..65535, expected 1, 8 or 16 bits")
    return ((2 * values + 257) // 514).astype(np.uint8)  # round(v / 257); 257 is odd, so there are no ties


def _gray(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(plane[:, :, None], 3, axis=2)


def _low_byte_of_deep_colour(image: Image.Image, data: bytes) -> NDArray[np.uint8] | None:
    """Low bytes (H, W, 3) of a 16-bit colour image, None for all others.

    Pillow has no 16-bit colour mode and keeps the high byte of each sample. Decoding a second time with the
    byte order declared the other way round makes it keep the low byte.
    """
    tiles = list(getattr(image, "tile", []))
    swapped = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "RGB;16L": "RGB;16B", "RGBA;16L": "RGBA;16B"}
    if not any(_rawmode(tile) in swapped for tile in tiles):
        return None
    with Image.open(io.BytesIO(data)) as second:
        # setattr: the list holds named tuples in new releases of Pillow and plain ones in old releases.
        setattr(second, "tile", [(*tile[:3], _with_rawmode(tile[3], swapped)) for tile in tiles])  # noqa: B010
        return np.array(ImageOps.exif_transpose(second).convert("RGB"), dtype=np.uint8)


def _rawmode(tile: tuple[object, ...]) -> str | None:
    args = tile[3]
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else None


def _with_rawmode(args: object, names: dict[str, str]) -> object:
    if isinstance(args, tuple):
        return (names.get(args[0], args[0]), *args[1:])
    return names.get(args, args) if isinstance(args, str) else args


def _is_deep_gray_alpha_png(data: bytes) -> bool:
    """16-bit gray with alpha: sample depth 16 and colour type 4 in the header chunk."""
    return (
        data[:8] == _PNG_SIGNATURE and data[12:16] == b"IHDR" and data[24:26] == bytes([16, _PNG_GRAY_ALPHA])
    )


def _decode_deep_gray_alpha(data: bytes) -> NDArray[np.uint8]:
    """A 16-bit gray+alpha pixel is four bytes, as an 8-bit RGBA pixel: declare it so, then join the bytes."""
    header = data[12:24] + bytes([8, _PNG_RGBA]) + data[26:29]
    relabelled = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    with Image.open(io.BytesIO(relabelled)) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image), dtype=np.int64)
    return _gray(_from_16_bits(pixels[:, :, 0] * 256 + pixels[:, :, 1]))


def write_image(path: str | PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a uint8 RGB array (H, W, 3); the extension decides the format.

    PNG, BMP and WebP are written without loss, JPEG with quality 95 and full colour resolution. The file
    appears at once or not at all (written beside its place, then renamed).

    Raises
    ------
    InputError
        Unknown extension, or an array that is not uint8 (H, W, 3).
    DataError
        The folder does not exist or cannot be written.
    """
    path = Path(path)
    image = as_rgb(image, "write_image")
    suffix = path.suffix.lower()
    if suffix not in EXTENSIONS:
        raise InputError(
            f"cannot write {path}: extension {path.suffix!r}, expected one of {', '.join(EXTENSIONS)}"
        )
    options: dict[str, dict[str, object]] = {
        ".jpg": {"quality": 95, "subsampling": 0},
        ".jpeg": {"quality": 95, "subsampling": 0},
        ".webp": {"lossless": True},
    }
    formats = {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    buffer = io.BytesIO()
    try:
        Image.fromarray(image).save(buffer, format=formats[suffix], **options.get(suffix, {}))
    except (OSError, ValueError) as error:  # e.g. WebP's limit of 16383 pixels
        raise InputError(
            f"cannot encode {image.shape[1]} x {image.shape[0]} pixels as {suffix}: {error}"
        ) from error
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(buffer.getvalue())
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
