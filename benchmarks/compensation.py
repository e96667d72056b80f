"""What error-compensated weights gain: drop from full precision of several recipes, and calibration seconds.

Run: ``python benchmarks/compensation.py [--networks edsr-small carn-m] [--bits 8 6 4 3 2]
[--sets set5 set14] [--recipes ...]``.
Calibrated as the tables are: 32 seeded crops of 48 x 48 from DIV2K, no labels. CARN-M needs
``$SQLIB_WEIGHTS``, the sets ``$SQLIB_DATA``; without them their rows say so. Aim at 6, 4 and 3 bits: at most
half of DFSQ's drop. ``--time`` measures calibration alone, on EDSR-baseline's shape
with random weights. The recipe's options were chosen on other images (``--sets held-out``: DIV2K images that
gave no calibration crop, taken as high-resolution ones).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import torch
from _measure import QUICK, Row, report

import sqlib
from sqlib import datasets, models
from sqlib.datasets import Calibration, Pair
from sqlib.errors import DataError
from sqlib.evaluate import evaluate
from sqlib.recipes import DFSQ, CompensatedDFSQ, MinMax, Recipe
from sqlib.resize import downscale

OURS = "exact points per tile, compensated"
AIMS = {6: 2.0, 4: 2.0, 3: 2.0}
OFF = dict(retarget=False, compensate=False, correct_bias=False)
RECIPES: dict[str, Callable[[int], Recipe]] = {
    "Min-Max": lambda bits: MinMax(bits=bits),
    "DFSQ": lambda bits: DFSQ(bits=bits),
    "exact points per tile, clipped weights": lambda bits: CompensatedDFSQ(bits=bits, **OFF),
    "DFSQ points per tile, compensated": lambda bits: CompensatedDFSQ(bits=bits, selector="release"),
    OURS: lambda bits: CompensatedDFSQ(bits=bits),
    "  without re-targeting": lambda bits: CompensatedDFSQ(bits=bits, retarget=False),
    "  without bias correction": lambda bits: CompensatedDFSQ(bits=bits, correct_bias=False),
    "  weights only": lambda bits: CompensatedDFSQ(bits=(bits, 32)),
    "  activations only": lambda bits: CompensatedDFSQ(bits=(32, bits)),
}
DEFAULT = (
    "Min-Max",
    "DFSQ",
    "exact points per tile, clipped weights",
    OURS,
)


class HeldOut:
    """Images that gave no calibration crop, as high-resolution images."""

    name = "held-out"

    def __init__(self, calibration: Calibration, n: int) -> None:
        self.images = datasets.load("div2k-lrx4")
        used = {name for name, _, _ in calibration.crops}
        self.chosen = [i for i, name in enumerate(self.images.names) if name not in used][:n]

    def __len__(self) -> int:
        return len(self.chosen)

    def pairs(self, scale: int) -> Iterator[Pair]:
        """High- and low-resolution images."""
        for index in self.chosen:
            image = self.images.lr(index, scale)
            height, width = (side // scale * scale for side in image.shape[:2])
            image = image[:height, :width]
            yield Pair(name=self.images.names[index], hr=image, lr=downscale(image, scale))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", default=["edsr-small", "carn-m"])
    parser.add_argument("--bits", nargs="+", type=int, default=[4] if QUICK else [8, 6, 4, 3, 2])
    parser.add_argument("--sets", nargs="+", default=["set5"] if QUICK else ["set5", "set14"])
    parser.add_argument(
        "--recipes", nargs="+", default=["DFSQ", OURS] if QUICK else list(DEFAULT), choices=list(RECIPES)
    )
    parser.add_argument("--images", type=int, default=8, help="held-out images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    try:
        calibration = datasets.calibration("div2k", n=32, patch=48, scale=4, seed=options.seed, batch=16)
    except DataError as error:
        report(Row("compensation", "calibration", note=f"not run: {error}"))
        return
    if options.time:
        model: torch.nn.Module = models.create("edsr-baseline", scale=4)
        for label in ("DFSQ", OURS):
            start, cpu = time.perf_counter(), time.process_time()
            sqlib.quantize_model(model, RECIPES[label](4), calibration)
            wall, spent = time.perf_counter() - start, time.process_time() - cpu
            threads = torch.get_num_threads()
            print(f"EDSR-baseline, {label}: {wall:.1f} s, {spent:.1f} CPU s, {threads} threads", flush=True)
        return
    for name in options.networks:
        try:
            compare_recipes(name, options, calibration)
        except DataError as error:
            report(Row("compensation", name, note=f"not run: {error}"))


def compare_recipes(name: str, options: argparse.Namespace, calibration: Calibration) -> None:
    """Drops of one network, as text; and of ours against DFSQ's, as rows."""
    model = models.pretrained(name, scale=4)
    sets = [
        HeldOut(calibration, options.images) if s == "held-out" else datasets.load(s) for s in options.sets
    ]
    full = [evaluate(model, s, scale=4).psnr for s in sets]
    print(f"\n{name} x4, full precision: {' / '.join(f'{v:.3f}' for v in full)} dB ({options.sets})")
    for bits in options.bits:
        found: dict[str, list[float]] = {}
        for label in options.recipes:
            cpu = time.process_time()
            quantized = sqlib.quantize_model(model, RECIPES[label](bits), calibration)
            cpu = time.process_time() - cpu
            found[label] = [f - evaluate(quantized, s, scale=4).psnr for f, s in zip(full, sets)]
            shown = " / ".join(f"{d:.3f}" for d in found[label])
            print(f"{bits} bit  {label:<32} drop {shown} dB   {cpu:6.1f} CPU s", flush=True)
        if {"DFSQ", OURS} <= found.keys():
            for dataset, theirs, ours in zip(options.sets, found["DFSQ"], found[OURS]):
                # A network that loses nothing has reached any share of a loss.
                ratio = theirs / ours if ours > 0 else math.inf
                case = f"{name} x4, {bits} bit, {dataset}: dB lost"
                report(Row("compensation", case, "DFSQ", OURS, ratio, AIMS.get(bits)))


if __name__ == "__main__":
    main()
