"""Crop packs: training images small enough to carry to a borrowed machine, readable with NumPy alone.

File layout: the magic line, a little-endian uint32 header length, a JSON header, then one LZMA stream per
image and resolution. Before compression the red and blue planes become differences to green and every row
becomes differences between neighbours (all modulo 256), which photographs like: about 0.45 of the raw size,
and decoding is a cumulative sum.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import DataError, InputError
from sqlib.training.checkpoint import atomic_write
from sqlib.training.crops import CropPool

MAGIC = b"sqlib crop pack 1\n"
LIMIT = 30_000_000
"""Bytes of a pack."""
Image = NDArray[np.uint8]


def encode(image: Image) -> bytes:
    """Compress a uint8 (H, W, 3) image without loss."""
    planes = np.moveaxis(image, -1, 0).copy()
    planes[0] -= planes[1]
    planes[2] -= planes[1]
    planes[:, :, 1:] -= planes[:, :, :-1].copy()
    return lzma.compress(planes.tobytes(), preset=6)


def decode(data: bytes, shape: tuple[int, int, int]) -> Image:
    """Inverse of :func:`encode`."""
    height, width, _ = shape
    planes = np.frombuffer(lzma.decompress(data), np.uint8).reshape(3, height, width)
    planes = np.add.accumulate(planes, axis=2, dtype=np.uint8)
    planes[0] += planes[1]
    planes[2] += planes[1]
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def write_pack(
    path: str | Path, pool: CropPool, *, held_out: int, side: int, limit: int = LIMIT
) -> dict[str, Any]:
    """Write a pack: the held-out images whole, then seeded crops of the others until ``limit`` is reached.

    Parameters
    ----------
    path : file to write, atomically
    pool : all images, with the seed and scale of the training
    held_out : how many images :meth:`CropPool.split` sets aside; they stay the same as without a pack
    side : of a crop in high-resolution pixels, a multiple of the scale; larger than a patch, so that patches
        still move inside it. Smaller images are taken whole
    limit : bytes

    Returns
    -------
    dict : ``crops``, ``held_out``, ``bytes``, ``raw_bytes`` (of high-resolution pixels), ``sha256`` of the
        data that a training on this pack reports.

    Raises
    ------
    InputError
        ``side`` is no multiple of the scale, or the limit is too small for the held-out images and one crop.
    """
    if side % pool.scale or side <= 0:
        raise InputError(f"side={side}: expected a positive multiple of the scale {pool.scale}")
    training, aside = pool.split(held_out)
    rng = np.random.default_rng([pool.seed, 0x9ACC])
    area = np.array([image.shape[0] * image.shape[1] for image in training.lr], dtype=np.float64)
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    kept = CropPool([], [], [], pool.scale, pool.seed, reserved=len(aside.hr))
    used = 0

    def add(name: str, hr: Image, lr: Image) -> bool:
        nonlocal used
        streams = [encode(hr), encode(lr)]
        # 200 bytes pay for the entry in the header.
        size = sum(map(len, streams)) + 200
        if used + size > limit - 1000:
            return False
        used += size
        entries.append(
            {"name": name, "hr": list(hr.shape), "lr": list(lr.shape), "bytes": [*map(len, streams)]}
        )
        blobs.extend(streams)
        kept.names.append(name)
        kept.hr.append(hr)
        kept.lr.append(lr)
        return True

    for name, hr, lr in zip(aside.names, aside.hr, aside.lr, strict=True):
        if not add(name, hr, lr):
            raise InputError(f"limit={limit} bytes cannot hold the {held_out} held-out images; raise it")
    seen: dict[int, int] = {}
    while True:
        # Without replacement first: every image once before any image twice.
        fresh = [
            i for i in range(len(area)) if seen.get(i, 0) == min(seen.get(j, 0) for j in range(len(area)))
        ]
        i = int(rng.choice(fresh, p=area[fresh] / area[fresh].sum()))
        seen[i] = seen.get(i, 0) + 1
        small = training.lr[i]
        height, width = (min(size, side // pool.scale) for size in small.shape[:2])
        top, left = (int(rng.integers(n - k + 1)) for n, k in zip(small.shape, (height, width), strict=False))
        s = pool.scale
        lr = small[top : top + height, left : left + width]
        hr = training.hr[i][top * s : (top + height) * s, left * s : (left + width) * s]
        if not add(f"{training.names[i]}@{left * s},{top * s}", hr, lr):
            break
        if seen[i] > 4:  # the folder is smaller than the pack could be
            break
    if len(kept.hr) == len(aside.hr):
        raise InputError(f"limit={limit} bytes cannot hold one crop beside the held-out images; raise it")
    _reserve_last(kept)
    order = [*range(len(aside.hr), len(entries)), *range(len(aside.hr))]
    entries = [entries[i] for i in order]
    blobs = [blob for i in order for blob in blobs[2 * i : 2 * i + 2]]
    payload = b"".join(blobs)
    header = json.dumps(
        {
            "scale": pool.scale,
            "seed": pool.seed,
            "reserved": kept.reserved,
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
            "images": entries,
        }
    ).encode()
    content = MAGIC + struct.pack("<I", len(header)) + header + payload
    if len(content) > limit:
        raise InputError(
            f"the pack has {len(content)} bytes, more than limit={limit}; shorten the file names"
        )
    atomic_write(Path(path), lambda target: target.write_bytes(content))
    return {
        "crops": len(kept.hr) - kept.reserved,
        "held_out": kept.reserved,
        "bytes": len(content),
        "raw_bytes": sum(image.nbytes for image in kept.hr),
        "sha256": kept.fingerprint(),
    }


def _reserve_last(pool: CropPool) -> None:
    """Move the held-out images, written first, to the end, where ``CropPool.reserved`` expects them."""
    kinds: tuple[list[Any], ...] = (pool.names, pool.hr, pool.lr)
    for kind in kinds:
        kind[:] = kind[pool.reserved :] + kind[: pool.reserved]


def read_pack(path: str | Path, *, scale: int, smallest: int) -> CropPool:
    """Read a pack into memory.

    Parameters
    ----------
    path : file of :func:`write_pack`
    scale : of the training; must be the pack's
    smallest : side of a high-resolution patch; every image must be as large

    Raises
    ------
    DataError
        No such file.
    InputError
        Not a pack, a damaged one, one of another scale, or crops smaller than a patch.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"crop pack {path} does not exist; write one with 'python -m sqlib train CONFIG --pack'"
        )
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise InputError(f"{path} is no crop pack; expected a file of 'python -m sqlib train CONFIG --pack'")
    start = len(MAGIC) + 4
    try:
        (length,) = struct.unpack("<I", content[len(MAGIC) : start])
        header = json.loads(content[start : start + length])
        payload = memoryview(content)[start + length :]
        intact = hashlib.sha256(payload).hexdigest() == header["payload_sha256"]
    except (ValueError, KeyError, struct.error):
        intact = False
    if not intact:
        raise InputError(f"{path} is damaged; write the pack again")
    if header["scale"] != scale:
        raise InputError(
            f"{path} was packed for x{header['scale']}, the configuration is x{scale}; pack again"
        )
    pool = CropPool([], [], [], header["scale"], header["seed"], header["reserved"])
    position = 0
    for entry in header["images"]:
        pool.names.append(entry["name"])
        for kind, images in (("hr", pool.hr), ("lr", pool.lr)):
            size = entry["bytes"][0 if kind == "hr" else 1]
            images.append(decode(bytes(payload[position : position + size]), tuple(entry[kind])))
            position += size
        if min(entry["hr"][:2]) < smallest:
            raise InputError(
                f"{path}: {entry['name']} is smaller than a patch of {smallest} x {smallest}; "
                "pack with a larger side"
            )
    return pool
