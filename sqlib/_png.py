"""PNG files row by row: a large image is never in memory a second time, neither as pixels nor as a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_ROWS = 64  # at once; some megabytes of the widest images


def chunks(
    image: NDArray[np.uint8], *, alpha: NDArray[np.uint8] | None = None, profile: bytes | None = None
) -> Iterator[bytes]:
    """The bytes of a PNG file, piece by piece.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    alpha : uint8 (H, W), None for an opaque image
    profile : ICC profile
    """
    height, width = image.shape[:2]
    yield b"\x89PNG\r\n\x1a\n"
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2 if alpha is None else 6, 0, 0, 0))
    if profile is not None:
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    packer = zlib.compressobj(6)
    above = np.zeros((1, width * (3 if alpha is None else 4)), np.uint8)
    for top in range(0, height, _ROWS):
        block = image[top : top + _ROWS]
        if alpha is not None:
            block = np.dstack([block, alpha[top : top + _ROWS]])
        rows = block.reshape(len(block), -1)
        packed = packer.compress(_filtered(rows, above, block.shape[2]))
        above = rows[-1:]
        if packed:
            yield _chunk(b"IDAT", packed)
    yield _chunk(b"IDAT", packer.flush())
    yield _chunk(b"IEND", b"")


def _filtered(rows: NDArray[np.uint8], before: NDArray[np.uint8], pixel: int) -> bytes:
    """Rows as differences to what is left of them (1), above (2) or between both (3), whichever is least."""
    above = np.concatenate([before, rows[:-1]])
    left = np.zeros_like(rows)
    left[:, pixel:] = rows[:, :-pixel]
    mean = ((left.astype(np.uint16) + above) >> 1).astype(np.uint8)
    tried = [rows - guess for guess in (left, above, mean)]  # modulo 256
    sizes = [np.minimum(t, -t).sum(1, dtype=np.int64) for t in tried]
    best = np.argmin(sizes, axis=0)
    out = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    out[:, 0] = best + 1
    for number, t in enumerate(tried):
        out[best == number, 1:] = t[best == number]
    return out.tobytes()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
