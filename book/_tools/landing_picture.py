"""Draw the start page's picture from the network that ships with the package (``make readme``)."""

from __future__ import annotations

from repository import ROOT

OUT = ROOT / "book" / "_static" / "landing.html"
#: photograph of the builtin set, and the corner and size of the crop shown, in high-resolution pixels
PHOTO, TOP, LEFT, HEIGHT, WIDTH = "astronaut", 40, 180, 84, 112
BITS = (32, 8, 4, 3, 2)
METHODS = {"Min-Max": "minmax", "ours": "dfsq-compensated"}


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from sqlib import datasets, evaluate, images, metrics, models, plots, quantize_model, recipes
    from sqlib.widgets import frames_html

    plots.use_style()
    network = models.pretrained(models.best(4), scale=4)
    photos = datasets.load("builtin")
    pair = photos.pair(photos.names.index(PHOTO), 4)
    crops = datasets.calibration("builtin", n=16, scale=4, seed=0)
    crop = slice(TOP, TOP + HEIGHT), slice(LEFT, LEFT + WIDTH)
    found = {}
    for bits in BITS:
        for name, recipe in METHODS.items():
            chosen = None if bits == 32 else recipes.create(recipe, bits=bits)
            model = network if chosen is None else quantize_model(network, chosen, crops)
            sr = evaluate.super_resolve(model, pair.lr)
            found[bits, name] = images.to_uint8(sr)[crop], metrics.psnr(sr, pair.hr, scale=4)
            print(bits, name, f"{found[bits, name][1]:.2f} dB", flush=True)

    def picture(bits: int) -> object:
        titles = [f"{name}, {found[bits, name][1]:.2f} dB" for name in METHODS]
        shown = [found[bits, name][0] for name in METHODS]
        return plots.image_grid([*shown, pair.hr[crop]], [*titles, "original"])

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
        "fewer bits: Min-Max, and the recipe of chapter 7. PSNR of the whole photograph; 32 bits are full "
        "precision.",
    )
    OUT.write_text(text + "\n", encoding="utf8")
    print("wrote", OUT.relative_to(ROOT), f"{len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
