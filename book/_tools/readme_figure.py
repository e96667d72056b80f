"""Draw README.md's figure from the network that ships with the package (``make readme``)."""

from __future__ import annotations

from repository import ROOT

OUT = ROOT / "book" / "_static" / "readme.png"
#: photograph of the builtin set, and the corner and side of the crop shown, in high-resolution pixels
PHOTO, CORNER, SIDE = "astronaut", (20, 160), 120
BITS = (8, 4, 3, 2)


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from sqlib import datasets, evaluate, images, metrics, models, plots, quantize_model, recipes

    plots.use_style()
    network = models.pretrained(models.best(4), scale=4)
    photos = datasets.load("builtin")
    pair = photos.pair(photos.names.index(PHOTO), 4)
    crops = datasets.calibration("builtin", n=16, scale=4, seed=0)
    top, left = CORNER
    shown = [pair.hr[top : top + SIDE, left : left + SIDE]]
    titles = ["original"]
    for bits in (32, *BITS):
        model = network if bits == 32 else quantize_model(network, recipes.MinMax(bits=bits), crops)
        sr = evaluate.super_resolve(model, pair.lr)
        score = metrics.psnr(sr, pair.hr, scale=4)
        shown.append(images.to_uint8(sr)[top : top + SIDE, left : left + SIDE])
        titles.append(f"{'full precision' if bits == 32 else f'{bits} bits'}\n{score:.2f} dB")
    figure = plots.image_grid(shown, titles, columns=6, width=9)
    figure.savefig(OUT, dpi=130, bbox_inches="tight", metadata={"Software": None})
    print("wrote", OUT.relative_to(ROOT))


if __name__ == "__main__":
    main()
