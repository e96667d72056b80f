"""Reading and writing image files: one array convention for the whole library.

Images are uint8 arrays (H, W, 3), RGB. The rules by which other kinds of file become that are fixed here and
tested one by one, because a silently different conversion moves PSNR.
"""

from __future__ import annotations

import io
import stat
import warnings
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sqlib._decode import Decoded, decode
from sqlib._files import write_atomically
from sqlib._pixels import as_rgb, to_uint8
from sqlib._png import chunks
from sqlib.errors import DataError, InputError, SqlibError

__all__ = [
    "EXTENSIONS",
    "READABLE",
    "Photo",
    "as_rgb",
    "check_format",
    "read_image",
    "read_photo",
    "to_uint8",
    "write_image",
]

EXTENSIONS = (".png", ".bmp", ".jpg", ".jpeg", ".webp")  # that are written
READABLE = (*EXTENSIONS, ".tif", ".tiff")  # that are looked for in folders

_FORMATS = {".png": "PNG", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_WITH_ALPHA, _WITH_PROFILE = ("PNG", "WEBP"), ("PNG", "JPEG", "WEBP")
_LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}  # of libjpeg and libwebp


class Photo(NamedTuple):
    """An image file as a photographer sees it.

    Attributes
    ----------
    rgb : uint8 (H, W, 3), as `read_image` gives it
    alpha : uint8 (H, W), 255 where opaque; None if all of it is
    profile : the ICC profile of its colours, or None
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    profile: bytes | None


def read_photo(path: str | PathLike[str]) -> Photo:
    """Read an image file with its opacity and colour profile, for `write_image`.

    As `read_image`, and a warning, too, where 16 bits a sample are rounded to 8.
    """
    found = _decoded(Path(path))
    lost = [*found.lost, *(["16 bits a sample rounded to 8"] if found.deep else [])]
    if lost:
        warnings.warn(f"{path}: {'; '.join(lost)}", stacklevel=2)
    return Photo(found.rgb, found.alpha, found.profile)


def read_image(path: str | PathLike[str], *, warn: bool = True) -> NDArray[np.uint8]:
    """Read an image file as RGB.

    Parameters
    ----------
    path : path to a PNG, BMP, JPEG, WebP or TIFF file (whatever else Pillow reads is accepted too). The
        content decides the format, not the suffix.
    warn : say in one warning what the file holds that the result does not

    Returns
    -------
    uint8 array (H, W, 3)

    Raises
    ------
    DataError
        No file at ``path``.
    InputError
        The file is not an image, is damaged or cut off, is larger than Pillow's limit, or holds samples that
        are not unsigned integers of 1 to 8 or 16 bits.

    Notes
    -----
    - Gray: the one channel is repeated three times (Set14 and BSD100 contain gray images).
    - Palette: colours are looked up.
    - Alpha: dropped, with a warning where it is not opaque; the stored colours are kept as they are, nothing
      is blended over a background.
    - 16 bits: ``round(value / 257)``, which maps 0..65535 onto 0..255 evenly. (Pillow alone would cut off
      the low byte.) PNG, TIFF and PNM only. Signed integers, floating point and other depths are refused:
      the file does not say which value is white.
    - CMYK: Pillow's conversion without colour profile. Profiles and gamma entries are ignored everywhere,
      as every super-resolution benchmark does, with a warning if they are not those of sRGB.
    - EXIF orientation is applied: a phone photo comes out upright. Benchmark files have none.
    - Several frames or pages: the first one, with a warning.
    """
    found = _decoded(Path(path))
    notes = [*found.lost, *found.beside]
    if notes and warn:
        warnings.warn(f"{path}: {'; '.join(notes)}", stacklevel=2)
    return found.rgb


def _decoded(path: Path) -> Decoded:
    """What a file holds; the errors of `read_image`."""
    try:
        data = _bytes(path)
    except SqlibError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return decode(data)
    except InputError as error:
        raise InputError(f"cannot read the image {path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"cannot read the image {path}: {error}; cut it, or raise PIL.Image.MAX_IMAGE_PIXELS if it comes "
            "from a source you trust"
        ) from error
    except MemoryError:
        raise
    # Damage makes Pillow and tifffile fail in any way; which one depends on the format and on where it is.
    except Exception as error:
        known = not isinstance(error, UnidentifiedImageError)
        reason = str(error) or type(error).__name__ if known else "no image begins like this"
        raise InputError(
            f"cannot read the image {path}: {reason}; the file is damaged, cut off or of an unknown format"
        ) from error


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected an image file")
    if not path.exists():
        raise DataError(f"no image file at {path}")
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise InputError(f"{path} is a device; expected an image file")
    data = path.read_bytes()
    if not data:
        raise InputError(f"cannot read the image {path}: it is empty (0 bytes); the file is damaged, cut off")
    return data


def check_format(path: str | PathLike[str], size: tuple[int, int] | None = None) -> str:
    """Pillow's name of the format that the suffix of ``path`` stands for.

    Parameters
    ----------
    path : file to be written; its suffix is one of :data:`EXTENSIONS`
    size : rows and columns of the image, where they are known

    Raises
    ------
    InputError
        Another suffix, or an image that the format has no room for.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"cannot write {path}: extension {path.suffix!r}, expected one of {', '.join(EXTENSIONS)}"
        )
    limit = _LARGEST_SIDE.get(kind)
    if size is not None and limit is not None and max(size) > limit:
        raise InputError(
            f"cannot encode {size[1]} x {size[0]} pixels as {path.suffix}: its sides hold {limit} at most; "
            "write .png"
        )
    return kind


def write_image(
    path: str | PathLike[str],
    image: NDArray[np.uint8],
    *,
    alpha: NDArray[np.uint8] | None = None,
    profile: bytes | None = None,
) -> None:
    """Write a uint8 RGB array (H, W, 3); the extension decides the format.

    Parameters
    ----------
    path : file to write
    image : colours
    alpha : opacity, uint8 (H, W)
    profile : ICC profile of the colours

    Warns
    -----
    UserWarning
        A format without room for opacity (JPEG, BMP) or for a profile (BMP), which is left out.

    Raises
    ------
    InputError
        Unknown extension, an array that is not uint8 (H, W, 3), an image too large for the format, or a
        write-protected file.
    DataError
        The folder does not exist or cannot be written.

    Notes
    -----
    PNG, BMP and WebP are written without loss, JPEG with quality 95 and full colour resolution. The file
    appears at once or not at all (written beside its place, then renamed). A file that is already there is
    replaced, unless it is write-protected; a link is followed. PNG is written row by row, so that a large
    image is in memory once.
    """
    path = Path(path)
    image = as_rgb(image, "write_image")
    kind = check_format(path, image.shape[:2])
    if alpha is not None and (alpha.dtype != np.uint8 or alpha.shape != image.shape[:2]):
        raise InputError(f"alpha is {alpha.dtype} of shape {alpha.shape}, the image {image.shape}")
    dropped = [] if alpha is None or kind in _WITH_ALPHA else ["transparency"]
    dropped += [] if profile is None or kind in _WITH_PROFILE else ["colour profile"]
    if dropped:
        warnings.warn(f"{path}: {', '.join(dropped)} dropped, {path.suffix} has none", stacklevel=2)
    if kind == "PNG":
        write_atomically(path, chunks(image, alpha=alpha, profile=profile))
        return
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},  # the colours of transparent pixels, too
    }
    buffer = io.BytesIO()
    try:
        if alpha is not None and kind in _WITH_ALPHA:
            image = np.dstack([image, alpha])
        if profile is not None and kind in _WITH_PROFILE:
            options[kind]["icc_profile"] = profile
        Image.fromarray(image).save(buffer, format=kind, **options.get(kind, {}))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot encode {image.shape[1]} x {image.shape[0]} pixels as {path.suffix}: {error}"
        ) from error
    write_atomically(path, buffer.getbuffer())
