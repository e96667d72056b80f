"""``sqlib cost``: operations, parameters and memory of super-resolving one image."""

from __future__ import annotations

import argparse
import re

from sqlib._checks import check_bits
from sqlib.cli import _common
from sqlib.errors import InputError


def image(text: str) -> tuple[int, int]:
    """``"1280x720"``: width and height of the output."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form WxH, such as 1280x720")
    return int(match[1]), int(match[2])


def bits(text: str) -> int | tuple[int, int]:
    """``"4"`` or ``"8,4"`` (weights, activations), 1 to 16 or 32."""
    try:
        values = [check_bits(int(part), full_precision=True) for part in text.split(",")]
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor two such as 8,4")
    return values[0] if len(values) == 1 else (values[0], values[1])


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "cost", help="count operations, bits and bytes of one image", description=__doc__
    )
    parser.add_argument("model", metavar="MODEL", help="network, such as srresnet; needs no weights")
    parser.add_argument("--scale", type=_common.positive, required=True, metavar="S", help="upscaling factor")
    parser.add_argument(
        "--image", type=image, required=True, metavar="WxH", help="size of the high-resolution output"
    )
    parser.add_argument(
        "--patch", type=_common.positive, metavar="P", help="cut into patches of P low-resolution pixels"
    )
    parser.add_argument(
        "--overlap", type=_common.seed, default=0, metavar="O", help="pixels that patches share (default: 0)"
    )
    parser.add_argument(
        "--bits", type=bits, default=32, metavar="B", help="bits, or weight,activation bits (default: 32)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Walk the network and print what it costs."""
    import torch

    from sqlib import models
    from sqlib.cost import MB, cost

    _common.known("network", args.model, models.names())
    with torch.device("meta"):  # shapes are all that is asked for
        network = models.create(args.model, scale=args.scale)
    with _common.quiet_stdout(args.json):
        found = cost(network, args.image, patch=args.patch, overlap=args.overlap, bits=args.bits)
    width, height = found.image_size
    if args.json:
        _common.print_json(
            {
                "model": args.model,
                "scale": args.scale,
                "image": f"{width}x{height}",
                "patch": args.patch,
                "overlap": args.overlap,
                "bits": args.bits,
                "bitops_g": found.bitops / 1e9,
                "fqr": found.fqr,
                "macs_g": found.macs / 1e9,
                "params": found.params,
                "packed_bytes": found.packed_bytes,
                "peak_bytes": found.peak_bytes,
                "patches": found.patches,
                "pixels": found.pixels,
            }
        )
        return
    label = args.bits if isinstance(args.bits, int) else "weights {}, activations {}".format(*args.bits)
    cut = (
        "in one piece" if args.patch is None else f"in {found.patches} patches, {args.overlap} pixels shared"
    )
    print(f"{args.model} x{args.scale}, output {width} x {height}, {cut}, bits: {label}")
    for name, value, what in (
        ("BitOPs", f"{found.bitops / 1e9:.2f} G", "2 MACs x weight bits x activation bits / 32^2, body only"),
        ("FQR", f"{found.fqr:.2f}", "mean bits of the quantized activations"),
        ("MACs", f"{found.macs / 1e9:.2f} G", "all layers, whatever their bits"),
        ("parameters", f"{found.params:,}", ""),
        ("packed size", f"{found.packed_bytes / MB:.2f} MB", "without the quantizers' bounds"),
        ("peak memory", f"{found.peak_bytes / MB:.2f} MB", "packed weights and live activations"),
    ):
        print(f"{name:<12}{value:>14}  {what}".rstrip())
