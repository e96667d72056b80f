"""``sqlib upscale``: enlarge one image."""

from __future__ import annotations

import argparse

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("upscale", help="enlarge an image", description=__doc__)
    parser.add_argument("input", metavar="IN", help="image file")
    parser.add_argument("output", metavar="OUT", help="image file to write; its suffix decides the format")
    parser.add_argument("--scale", type=_common.positive, required=True, metavar="S", help="upscaling factor")
    parser.add_argument("--model", default="edsr-small", help="network (default: %(default)s)")
    _common.add_weights(parser)
    _common.add_quantization(parser)
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, upscale, write."""
    from pathlib import Path

    if not Path(args.output).parent.is_dir():
        raise _common.UsageError(f"the folder of {args.output!r} does not exist")
    if Path(args.output).is_dir():
        raise _common.UsageError(f"{args.output!r} is a folder, expected an image file")
    from sqlib import images, models
    from sqlib.evaluate import super_resolve

    _common.known("network", args.model, models.names())
    _common.check_quantization(args)
    image = images.read_image(args.input)
    model = _common.network(args, args.model)
    result = super_resolve(model, image, device=args.device)
    images.write_image(args.output, result.clip(0, 255).round().astype("uint8"))
    print(f"{args.output}: {result.shape[1]} x {result.shape[0]} from {image.shape[1]} x {image.shape[0]}")
