"""Draw the pictures of the start page and of README.md from the network that ships (``make readme``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repository import ROOT

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

STATIC = ROOT / "book" / "_static"
NETWORK = "edsr-baseline"
#: photograph of the builtin set, and the corner and size of the crop shown, in high-resolution pixels
PHOTO, TOP, LEFT, HEIGHT, WIDTH = "astronaut", 40, 180, 84, 112
CROP = slice(TOP, TOP + HEIGHT), slice(LEFT, LEFT + WIDTH)
BITS = (32, 8, 4, 3, 2)
METHODS = {"Min-Max": "minmax", "ours": "dfsq-compensated"}


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from sqlib import datasets, plots

    plots.use_style()
    photos = datasets.load("builtin")
    pair = photos.pair(photos.names.index(PHOTO), 4)
    found = {(bits, name): _enlarged(pair, bits, name) for bits in BITS for name in METHODS}
    _slider(found, pair.hr[CROP])
    figure = _grid(found, pair.hr[CROP])
    figure.savefig(STATIC / "readme.png", dpi=130, bbox_inches="tight", metadata={"Software": None})


def _enlarged(pair: Any, bits: int, method: str) -> tuple[Any, float]:
    """The crop after enlarging four times, and the PSNR of the whole photograph."""
    from sqlib import evaluate, images, metrics, models, quantize_model, recipes

    model = models.pretrained(NETWORK, scale=4)
    if bits < 32:
        model = quantize_model(model, recipes.create(METHODS[method], bits=bits), [_crops()])
    sr = evaluate.super_resolve(model, pair.lr)
    score = metrics.psnr(sr, pair.hr, scale=4)
    print(bits, method, f"{score:.2f} dB", flush=True)
    return images.to_uint8(sr)[CROP], score


def _crops() -> Tensor:
    """To calibrate with: 16 crops of the other photographs."""
    import numpy as np
    import torch

    from sqlib import datasets

    drawn = datasets.calibration("builtin", n=21, scale=4, seed=0)
    others = [x for x, (name, *_) in zip(drawn.patches, drawn.crops, strict=True) if name != PHOTO]
    return torch.from_numpy(np.stack(others[:16])).permute(0, 3, 1, 2).float() / 255


def _slider(found: dict[tuple[int, str], tuple[Any, float]], original: Any) -> None:
    """landing.html: a slider over the bits, both methods beside the original."""
    from sqlib import plots
    from sqlib.widgets import frames_html

    def picture(bits: int) -> Figure:
        titles = [f"{name}, {found[bits, name][1]:.2f} dB" for name in METHODS]
        shown = [found[bits, name][0] for name in METHODS]
        return plots.image_grid([*shown, original], [*titles, "original"])

    def alt(bits: int) -> str:
        scores = " and ".join(f"{name} {found[bits, name][1]:.2f} dB" for name in METHODS)
        return f"A crop of a photograph, enlarged four times with {bits} bits; the whole has {scores}."

    text = frames_html(
        picture,
        BITS,
        label="bits",
        start=4,
        alt=alt,
        caption="EDSR-baseline enlarges a photograph four times, with weights and activations of fewer and "
        "fewer bits: Min-Max, and the recipe of chapter 7, calibrated on other photographs. PSNR of the "
        "whole photograph; 32 bits are full precision.",
    )
    (STATIC / "landing.html").write_text(text + "\n", encoding="utf8")


def _grid(found: dict[tuple[int, str], tuple[Any, float]], original: Any) -> Figure:
    """readme.png: a row per method, fewer bits to the right."""
    from sqlib import plots

    full, score = found[32, "ours"]
    first = {"Min-Max": ("original", original), "ours": (f"full precision\n{score:.2f} dB", full)}
    shown, titles = [], []
    for method in METHODS:
        title, image = first[method]
        shown += [image, *(found[bits, method][0] for bits in BITS[1:])]
        titles += [title, *(f"{method}, {bits} bits\n{found[bits, method][1]:.2f} dB" for bits in BITS[1:])]
    return plots.image_grid(shown, titles, columns=len(BITS), width=9)


if __name__ == "__main__":
    main()
