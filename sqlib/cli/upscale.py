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
    parser.add_argument("--model", metavar="M", help="network (default: the best that ships for the scale)")
    _common.add_weights(parser)
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists (never IN)")
    _common.add_quantization(parser)
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, upscale, write; whatever is wrong with the output is found before anything is computed."""
    from sqlib import images, models
    from sqlib._files import check_output
    from sqlib.errors import InputError
    from sqlib.evaluate import super_resolve

    inputs = [path for path in (args.input, args.weights) if path is not None]
    try:
        images.check_format(args.output)
        check_output(args.output, inputs=inputs, overwrite=args.force)
    except InputError as error:
        raise _common.UsageError(str(error)) from None
    name = args.model or models.best(args.scale)
    _common.known("network", name, models.names())
    recipe = _common.quantization(args)
    _common.check_device(args.device)
    image = images.read_image(args.input)
    height, width = image.shape[:2]
    images.check_format(args.output, (height * args.scale, width * args.scale))
    model = _common.network(args, name, recipe)
    result = super_resolve(model, image, device=args.device)
    images.write_image(args.output, images.to_uint8(result))
    print(f"{args.output}: {result.shape[1]} x {result.shape[0]} from {width} x {height} by {name}")
