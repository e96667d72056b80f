"""Bytes of an image file to uint8 RGB, and what that leaves out; `sqlib.images.read_image` has the rules."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from sqlib._pixels import from_16_bits
from sqlib._tiff import is_tiff, read_deep
from sqlib.errors import InputError

_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_EIGHT_BIT_MODES = (*_ALPHA_MODES, "1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_DEEP_GRAY_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY_ALPHA, _PNG_RGBA = 4, 6
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, _PNG_GRAY_ALPHA: 2, _PNG_RGBA: 4}  # of a pixel, by colour type
# Left, top, and steps across and down of the seven passes of an interlaced PNG.
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE = 2**16
_SWAPPED = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
_EXTRA_SAMPLES = 338  # the TIFF tag
_GAMMA = 1 / 2.2


class Decoded(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    rgb : ndarray of uint8
        uint8 (H, W, 3).
    lost : list of str
        One phrase for each thing in the file that is nowhere here.
    alpha, profile : (ndarray of uint8 or None), (bytes or None)
        uint8 (H, W) unless all of it is opaque, and an ICC profile of RGB colours; else None.
    beside : sequence of str
        Phrases as in `lost`, for those who take the colours alone.
    deep : bool
        Whether 16 bits a sample were rounded to 8.
    """

    rgb: NDArray[np.uint8]
    lost: list[str]
    alpha: NDArray[np.uint8] | None = None
    profile: bytes | None = None
    beside: Sequence[str] = ()
    deep: bool = False


def decode(data: bytes) -> Decoded:
    """The image and what else a file holds.

    Raises
    ------
    InputError
        The content is understood and has no right value as an 8-bit RGB image, or is too large.
    Exception
        Whatever Pillow raises for damage, of many kinds.
    """
    if is_tiff(data):
        deep = read_deep(data)
        if deep is not None:
            notes = [*_frames(deep.frames), *(["transparency dropped"] if deep.transparent else [])]
            return Decoded(deep.rgb, [*notes, *_profile(deep.profile), *_dark(deep.largest)], deep=True)
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as opened:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit itself is an error
        notes = _frames(getattr(opened, "n_frames", 1))
        low_byte = _low_byte_of_deep_colour(opened, data)
        _refuse_other_deep_colour(opened, data)
        opened.load()
        key = None
        if opened.format == "PNG":
            _check_complete_png(data)
            key = _transparent_key(opened, depth=data[24])
        image: Image.Image = ImageOps.exif_transpose(opened)
        icc = image.info.get("icc_profile")
        alpha, profile = _alpha(image), icc if image.mode.startswith("RGB") and _of_rgb(icc) else None
        beside: list[str] = []
        (notes if alpha is None else beside).extend(_transparency(image))
        (notes if profile is None else beside).extend(_profile(icc))
        notes += [*_gamma(image), *_extra_channels(opened)]
        if _is_deep_gray_alpha_png(data):
            samples = _deep_gray_alpha(data)
        elif image.mode in _DEEP_GRAY_MODES:
            samples = np.asarray(image.convert("I"), dtype=np.int64)
        elif image.mode in _EIGHT_BIT_MODES:
            # RGBA -> RGB in Pillow drops alpha and leaves the colours alone, except for premultiplied modes.
            rgb = np.array(image.convert("RGB"), dtype=np.uint8)
            if low_byte is None:
                return Decoded(rgb, notes, alpha, profile, beside)
            samples = rgb.astype(np.int64) * 256 + low_byte
        else:
            raise InputError(f"samples of mode {image.mode!r}, expected 1, 8 or 16 bits of gray or colour")
    if key is not None:
        found = samples == key
        alpha = np.where(found if found.ndim == 2 else found.all(axis=2), 0, 255).astype(np.uint8)
        alpha = alpha if alpha.min() < 255 else None
        beside = [*beside, *(["transparency dropped"] if alpha is not None else [])]
    rgb = from_16_bits(samples)
    if rgb.ndim == 2:
        rgb = np.repeat(rgb[:, :, None], 3, axis=2)
    return Decoded(rgb, [*notes, *_dark(int(samples.max()))], alpha, profile, beside, deep=True)


def _transparent_key(image: Image.Image, depth: int) -> NDArray[np.int64] | None:
    """The samples that a 16-bit PNG declares transparent, taken from Pillow, which compares other numbers.

    Pillow spreads 2 and 4 bits over 0..255 and leaves the key as it was; here it is spread, too.
    """
    key = image.info.get("transparency")
    if key is None or image.mode == "P":
        return None
    if depth == 16:
        return np.asarray(image.info.pop("transparency"), dtype=np.int64)
    if depth in (2, 4):
        image.info["transparency"] = key * (255 // (2**depth - 1))
    return None


def _frames(count: int) -> list[str]:
    return [f"{count - 1} of {count} frames dropped (the first is read)"] if count > 1 else []


def _transparency(image: Image.Image) -> list[str]:
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return []
    if image.mode == "La":
        image = image.convert("LA")
    least = image.convert("RGBA").getchannel("A").getextrema()[0]
    return ["transparency dropped"] if least < 255 else []  # type: ignore[operator]  # one band: two numbers


def _alpha(image: Image.Image) -> NDArray[np.uint8] | None:
    """Opacity, if any pixel is not opaque."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return None
    image = image.convert("LA") if image.mode == "La" else image
    found = np.array(image.convert("RGBA").getchannel("A"), dtype=np.uint8)
    return found if found.size and found.min() < 255 else None


def _of_rgb(icc: bytes | None) -> bool:
    """Whether a profile describes RGB colours."""
    if not icc:
        return False
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space.strip() == "RGB"
    except (OSError, ImageCms.PyCMSError, ImportError):
        return False


def _extra_channels(image: Image.Image) -> list[str]:
    """Channels of a TIFF that are neither colour nor alpha."""
    extra = getattr(image, "tag_v2", {}).get(_EXTRA_SAMPLES, ())
    count = len(extra) - (image.mode in _ALPHA_MODES)
    return [f"{count} extra channel{'s' * (count > 1)} dropped"] if count > 0 else []


def _profile(icc: bytes | None) -> list[str]:
    """Colours under another profile than sRGB look different from what the numbers say."""
    if not icc:
        return []
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc))).strip()
    except (OSError, ImageCms.PyCMSError, ImportError):  # damaged; or a Pillow without LittleCMS
        name = "unreadable"
    return [] if "srgb" in name.lower() else [f"colour profile {name!r} ignored (taken as sRGB)"]


def _gamma(image: Image.Image) -> list[str]:
    gamma = image.info.get("gamma")
    if not isinstance(gamma, float) or gamma <= 0 or "srgb" in image.info or "icc_profile" in image.info:
        return []
    return [] if abs(gamma - _GAMMA) < 0.01 else [f"gamma entry {gamma:g} ignored (taken as sRGB)"]


def _dark(largest: int) -> list[str]:
    if not 0 < largest <= 255:
        return []
    return [
        f"its 16-bit samples reach {largest} of 65535, nearly black: if 255 is meant as white, save it as "
        "8 bits"
    ]


def _low_byte_of_deep_colour(image: Image.Image, data: bytes) -> NDArray[np.uint8] | None:
    """Low bytes (H, W, 3) of a 16-bit colour PNG, None for all others.

    Pillow has no 16-bit colour mode and keeps the high byte of each sample. Decoding a second time with the
    byte order declared the other way round makes it keep the low byte.
    """
    tiles = list(getattr(image, "tile", []))
    if image.format != "PNG" or not any(_rawmode(tile) in _SWAPPED for tile in tiles):
        return None
    with Image.open(io.BytesIO(data)) as second:
        # setattr: the list holds named tuples in new releases of Pillow and plain ones in old releases.
        setattr(second, "tile", [(*tile[:3], _with_rawmode(tile[3])) for tile in tiles])  # noqa: B010
        return np.array(ImageOps.exif_transpose(second).convert("RGB"), dtype=np.uint8)


def _refuse_other_deep_colour(image: Image.Image, data: bytes) -> None:
    """Formats of which Pillow would keep the high byte only, or give samples of unknown scale."""
    if image.format in ("PNG", "PPM") or is_tiff(data):
        return  # read right: here, by Pillow, by tifffile
    tiles = list(getattr(image, "tile", []))
    deep = any("16" in str(tile[0]) or "16" in str(_rawmode(tile)) for tile in tiles)
    if image.format == "JPEG2000":
        deep = _jpeg2000_bits(data) > 8
    if deep:
        raise InputError(f"{image.format} of more than 8 bits a sample; save it as PNG")


def _jpeg2000_bits(data: bytes) -> int:
    """Bits of the first component by the SIZ marker, which begins every codestream; 0 without one."""
    start = data.find(b"\xff\x4f\xff\x51")
    depth = data[start + 42 : start + 43] if start >= 0 else b""
    return (depth[0] & 0x7F) + 1 if depth else 0


def _check_complete_png(data: bytes) -> None:
    """Refuse pixel data that end early but in good order: Pillow leaves the rest black."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits = depth * _PNG_SAMPLES[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, across, down in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        expected += rows * (1 + -(-columns * bits // 8)) if columns > 0 else 0
    unpacker, found = zlib.decompressobj(), 0
    for piece in _png_pixel_data(data):
        found += len(unpacker.decompress(piece))
        if found >= expected:  # whatever follows is nobody's, and may be endless
            return
    raise InputError(f"its pixel data end after {found} of {expected} bytes; the file is cut off")


def _png_pixel_data(data: bytes) -> Iterator[bytes]:
    """What the IDAT chunks hold, in pieces that do not take much memory unpacked."""
    start = len(_PNG_SIGNATURE)
    while start + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        if kind == b"IDAT":
            for begin in range(start + 8, start + 8 + size, _PIECE):
                yield data[begin : min(begin + _PIECE, start + 8 + size)]
        start += 12 + size


def _rawmode(tile: tuple[object, ...]) -> str | None:
    args = tile[3]
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else None


def _with_rawmode(args: object) -> object:
    if isinstance(args, tuple):
        return (_SWAPPED.get(args[0], args[0]), *args[1:])
    return _SWAPPED.get(args, args) if isinstance(args, str) else args


def _is_deep_gray_alpha_png(data: bytes) -> bool:
    """16-bit gray with alpha: sample depth 16 and colour type 4 in the header chunk."""
    return (
        data[:8] == _PNG_SIGNATURE and data[12:16] == b"IHDR" and data[24:26] == bytes([16, _PNG_GRAY_ALPHA])
    )


def _deep_gray_alpha(data: bytes) -> NDArray[np.int64]:
    """A 16-bit gray+alpha pixel is four bytes, as an 8-bit RGBA pixel: declare it so, then join the bytes."""
    header = data[12:24] + bytes([8, _PNG_RGBA]) + data[26:29]
    relabelled = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    with Image.open(io.BytesIO(relabelled)) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image), dtype=np.int64)
    return pixels[:, :, 0] * 256 + pixels[:, :, 1]
