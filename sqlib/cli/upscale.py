"""``sqlib upscale``: enlarge images.

An image of more than 512 x 512 pixels is cut into tiles by itself where that leaves no seam: with a network
of convolutions alone. How far a pixel of the input spreads is tried out, and tiles share twice that. No pixel
changes by it if the activations of a quantized network have fixed levels; where they are quantized by
statistics of the image, these are gathered in a first pass over the tiles, which comes close. Other networks
(with windows, pooling, channel attention, or bits chosen by the image) take the whole image, unless --tile
and --overlap say otherwise.

Transparency is enlarged as well (bicubic) and a colour profile goes along, where the format of OUT has room
for them; what is lost is said in one line.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from sqlib.cli import _common, _tiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("upscale", help="enlarge images", description=__doc__)
    parser.add_argument("inputs", nargs="+", metavar="IN", help="image files")
    parser.add_argument(
        "output",
        metavar="OUT",
        help="image file to write, whose suffix decides the format; or a folder (of several images always), "
        "where each is called as before and is a .png",
    )
    parser.add_argument("--scale", type=_common.positive, required=True, metavar="S", help="upscaling factor")
    parser.add_argument("--model", metavar="M", help="network (default: the best that ships for the scale)")
    _common.add_weights(parser)
    _common.add_quantized(parser)
    parser.add_argument(
        "--tile", type=_common.positive, metavar="T", help="cut into tiles of T low-resolution pixels"
    )
    parser.add_argument(
        "--overlap",
        type=_common.seed,
        metavar="O",
        help="pixels that tiles share, with --tile (default: what changes no pixel, where there is such)",
    )
    parser.add_argument("--force", action="store_true", help="replace what exists (never an input)")
    _common.add_quantization(parser)
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, upscale, write; whatever is wrong with the output is found before anything is computed."""
    from tqdm import tqdm

    from sqlib import images, models
    from sqlib.evaluate import super_resolve
    from sqlib.patches.image_statistics import measuring

    targets = _targets(args)
    tiling = _tiles.asked(args.tile, args.overlap, "--tile")
    if args.quantized is not None and args.model is None:
        raise _common.UsageError("--quantized needs --model, the network that was quantized")
    name = args.model or models.best(args.scale)
    _common.known("network", name, models.names())
    recipe = _common.quantization(args)
    _common.check_device(args.device)
    sizes = []
    for source, target in zip(args.inputs, targets, strict=True):
        height, width = images.read_image(source, warn=False).shape[:2]
        images.check_format(target, (height * args.scale, width * args.scale))
        sizes.append((height, width))
    model = _common.network(args, name, recipe)
    seamless = None
    if args.overlap is None and (args.tile is not None or max(h * w for h, w in sizes) > _tiles.WHOLE):
        seamless = _tiles.seamless_overlap(model)
        if args.tile is not None:
            tiling = _tiles.with_overlap(args.tile, seamless, model)
        elif seamless is None:
            warnings.warn(
                f"no cut avoids seams, because {_tiles.why_not(model)}: it is "
                "enlarged in one piece, which may need much memory; --tile and --overlap cut it all the same",
                stacklevel=2,
            )
    progress = sys.stderr.isatty()
    jobs = list(zip(args.inputs, targets, sizes, strict=True))
    for source, target, (height, width) in tqdm(
        jobs, unit="image", disable=not progress or len(jobs) == 1, leave=False
    ):
        cut = tiling
        if cut is None and seamless is not None and height * width > _tiles.WHOLE:
            cut = _tiles.automatic(height, width, seamless)
        photo = images.read_photo(source)
        result = super_resolve(
            model, photo.rgb, tiling=cut, device=args.device, rounded=True, one_image=True, progress=progress
        )
        alpha = None if photo.alpha is None else _enlarged(photo.alpha, args.scale)
        images.write_image(target, result, alpha=alpha, profile=photo.profile)
        tiles = "" if cut is None else f", tiles of {cut.patch} sharing {cut.overlap}"
        if cut is not None and measuring(model):
            tiles += ", its statistics gathered from them in a first pass"
        tqdm.write(
            f"{target}: {result.shape[1]} x {result.shape[0]} from {width} x {height} by {name}{tiles}",
            file=sys.stdout,
        )


def _enlarged(alpha: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Bicubic, in memory of its own size."""
    import numpy as np
    from PIL import Image

    size = alpha.shape[1] * scale, alpha.shape[0] * scale
    return np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))


def _targets(args: argparse.Namespace) -> list[str]:
    """Where each result goes; a usage error for a place where it must not or cannot be."""
    from sqlib import images
    from sqlib._files import check_output
    from sqlib.errors import InputError

    targets = [args.output]
    folder = Path(args.output).is_dir()
    if len(args.inputs) > 1 or folder:
        if not folder:
            raise _common.UsageError(f"{args.output!r} is no folder, and {len(args.inputs)} images are given")
        targets = [str(Path(args.output, f"{Path(source).stem}.png")) for source in args.inputs]
        places = [os.path.realpath(target) for target in targets]  # one may be a link to another
        for number, target in enumerate(targets):
            if places[number] in places[:number]:
                raise _common.UsageError(f"two of the images would be {target!r}: upscale them one by one")
    inputs = [path for path in (*args.inputs, args.weights, args.quantized) if path is not None]
    try:
        for target in targets:
            images.check_format(target)
            check_output(target, inputs=inputs, overwrite=args.force)
    except InputError as error:
        raise _common.UsageError(str(error)) from None
    return targets
