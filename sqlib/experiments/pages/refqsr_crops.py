"""Crops of shipped photographs as Figures 10 and 11 of RefQSR have them, from the networks of Tables 2 and 5.

Each photograph, shrunk to a quarter, is cut into patches of 24 pixels that share 6. Shown are the 96 x 96
pixels where DDTB at 4 bits loses most to full precision.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

PHOTOGRAPHS = ("astronaut", "china", "coffee")
PATCH, OVERLAP, SIDE, STEP = 24, 6, 96, 24

_SHORT = ", 1,000 iterations of 8 crops"
_REFINED = ", 300 iterations of 8 pairs"
#: Title -> table, label and bits of its row.
ROWS: dict[str, tuple[str, str, int | str]] = {
    "full precision": ("refqsr-table2", "FP", 32),
    "DDTB 8": ("refqsr-table2", f"DDTB{_SHORT}", 8),
    "DDTB 4": ("refqsr-table2", f"DDTB{_SHORT}", 4),
    "DDTB+RefQSR 8-5": ("refqsr-table2", f"DDTB+RefQSR{_REFINED}", "8-5"),
    "DDTB+RefQSR 4-3": ("refqsr-table2", f"DDTB+RefQSR{_REFINED}", "4-3"),
    "w/o RefER": ("refqsr-table5", f"CADyQ+RefQSR w/o RefER{_REFINED}", "delta-3"),
    "CADyQ+RefQSR": ("refqsr-table5", f"CADyQ+RefQSR{_REFINED}", "delta-3"),
}
#: The network of the last row with every patch as a reference.
ALL = "all patches references"

Image = NDArray[np.uint8]


def make() -> dict[str, Any]:
    """Crops as PNG in base64, with the PSNR and the FQR of the whole photograph.

    Returns
    -------
    dict
        By photograph: ``place`` (top, left), ``crops`` (title, or "original", to PNG), ``psnr`` and ``fqr``
        (title to number).
    """
    from sqlib import datasets, metrics
    from sqlib.patches import Tiling

    photos = datasets.load("builtin")
    pairs = {name: photos.pair(photos.names.index(name), 4) for name in PHOTOGRAPHS}
    protocol = replace(metrics.DEFAULT, tiling=Tiling(PATCH, OVERLAP))
    found: dict[str, dict[str, Any]] = {name: {"psnr": {}, "fqr": {}, "images": {}} for name in PHOTOGRAPHS}
    for title, upscale in _upscalers():
        for name, pair in pairs.items():
            image, bits = upscale(pair.lr)
            found[name]["images"][title] = image
            found[name]["psnr"][title] = round(float(metrics.psnr(image, pair.hr, protocol, scale=4)), 3)
            found[name]["fqr"][title] = round(bits, 3)
    result = {}
    for name, pair in pairs.items():
        images = {"original": pair.hr, **found[name].pop("images")}
        top, left = _worst(pair.hr, images["full precision"], images["DDTB 4"])
        crops = {t: _png(i[top : top + SIDE, left : left + SIDE]) for t, i in images.items()}
        result[name] = {"place": [top, left], "crops": crops, **found[name]}
    return result


def crop(text: str) -> Image:
    """The pixels (96, 96, 3) of one of the crops."""
    from PIL import Image as Pillow

    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(text))))


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """PSNR within 0.02 dB, and pixels within one grey level on average."""
    for name, was in old.items():
        for title, psnr in was["psnr"].items():
            now = new[name]["psnr"][title]
            if abs(now - psnr) > 0.02:
                return f"{name}, {title}: {now} dB, recorded {psnr}"
            pixels = [crop(r["crops"][title]).astype(float) for r in (was, new[name])]
            if np.abs(pixels[0] - pixels[1]).mean() > 1:
                return f"{name}, {title}: another crop"
    return ""


def _upscalers() -> Any:
    """Title and what gives a picture (uint8) and its FQR, one network at a time."""
    from sqlib.experiments import plan
    from sqlib.experiments.run.compute import Workbench
    from sqlib.experiments.store import layers
    from sqlib.experiments.store.working import Store

    bench = Workbench(artifacts=Store(layers.default_store()).artifacts)
    for title, (table, label, bits) in ROWS.items():
        (cell,) = {
            replace(c, dataset="builtin")
            for c in plan(table, "laptop")
            if c.model == "edsr-small" and c.place and (c.place.method, c.place.bits) == (label, str(bits))
        }
        network = bench.network(bench.resolve(cell))
        yield title, _upscaler(network)
        if title == "CADyQ+RefQSR":
            yield ALL, _upscaler(network, alone=True)


def _upscaler(network: Any, *, alone: bool = False) -> Callable[[Image], tuple[Image, float]]:
    from sqlib.engine import QuantizedModel
    from sqlib.evaluate import super_resolve
    from sqlib.experiments.run.scoring import fqr
    from sqlib.images import to_uint8
    from sqlib.patches import Tiling

    tiling = Tiling(PATCH, OVERLAP)

    def upscale(lr: Image) -> tuple[Image, float]:
        if not isinstance(network, QuantizedModel):
            return to_uint8(super_resolve(network, lr, tiling=tiling)), 32.0
        with network.passes() as passes:
            image = _alone(network, lr) if alone else super_resolve(network, lr, tiling=tiling)
        return to_uint8(image), fqr(passes, network)

    return upscale


def _alone(network: Any, lr: Image) -> NDArray[np.float32]:
    """Every patch is a reference."""
    import torch

    from sqlib.patches import Grid, merge, split
    from sqlib.reference.clustering import assign
    from sqlib.reference.two_path import upscale_patches

    x = torch.from_numpy(lr.transpose(2, 0, 1).astype(np.float32))[None] / 255
    grid = Grid(x.shape[2], x.shape[3], PATCH, OVERLAP)
    with torch.inference_mode():
        done = upscale_patches(network, split(x, grid), lambda patches: assign(np.eye(len(patches)), 1.0))
    return np.ascontiguousarray((merge(done, grid, 4)[0] * 255).permute(1, 2, 0).numpy())


def _worst(truth: Image, full: Image, few: Image) -> tuple[int, int]:
    """Top and left of the crop where `few` loses most to `full`, every 24 pixels."""
    lost = ((few.astype(float) - truth) ** 2 - (full.astype(float) - truth) ** 2).sum(axis=2)
    places = [
        (top, left)
        for top in range(0, lost.shape[0] - SIDE + 1, STEP)
        for left in range(0, lost.shape[1] - SIDE + 1, STEP)
    ]
    return max(places, key=lambda at: lost[at[0] : at[0] + SIDE, at[1] : at[1] + SIDE].sum())


def _png(image: Image) -> str:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(image)).save(stream, "png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
