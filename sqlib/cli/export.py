"""``sqlib export``: write a quantized network as an ONNX file with integer weights and activations.

Quantizes as ``sqlib quantize`` does, or takes its file (``--quantized``). What layers return is quantized in
8 bits, too, over its range on the calibration images, so that runtimes compute in integers throughout; with
``--float-outputs`` the numbers are those of ``sqlib evaluate``, and slower.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, cast

from sqlib.cli import _common

if TYPE_CHECKING:
    from sqlib import QuantizedModel


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("export", help="write a quantized network as ONNX", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="network, such as edsr-baseline")
    parser.add_argument("output", metavar="OUT", help="file to write, ending in .onnx")
    parser.add_argument("--scale", type=_common.positive, required=True, metavar="S", help="upscaling factor")
    _common.add_weights(parser)
    _common.add_quantized(parser)
    parser.add_argument(
        "--float-outputs", action="store_true", help="quantize operands alone, as the recipe says"
    )
    parser.add_argument(
        "--round-zero",
        action="store_true",
        help="move bounds that are real numbers by up to half a step, so that zero is a level",
    )
    parser.add_argument("--int4", action="store_true", help="store weights of 4 bits and fewer in 4 bits")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists (never an input)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _common.add_quantization(parser)
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Quantize and write; whatever is wrong with the output is found before anything is computed."""
    from sqlib import models
    from sqlib.export import export_onnx

    _common.known("network", args.model, models.names())
    if args.recipe is None and args.quantized is None:
        raise _common.UsageError("give --recipe, or --quantized with a file of 'sqlib quantize'")
    inputs = [path for path in (args.weights, args.quantized) if path is not None]
    _common.check_output_file(args.output, ".onnx", "an ONNX file", inputs=inputs, overwrite=args.force)
    recipe = _common.quantization(args, calibrates=not args.float_outputs)
    with _common.quiet_stdout(args.json):
        model = cast("QuantizedModel", _common.network(args, args.model, recipe))
        crops = None if args.float_outputs else _common.calibration(args)
        written = export_onnx(model, args.output, outputs=crops, round_zero=args.round_zero, int4=args.int4)
    found = {
        "output": args.output,
        "model": args.model,
        "scale": args.scale,
        **_common.used(model),
        "recipe_options": dict(args.recipe_option),
        "quantized_sites": len(written.quantized),
        "integer_sites": len(written.integer),
        "bytes": written.bytes,
    }
    if args.json:
        _common.print_json(found)
        return
    print(
        "{output}: {model} x{scale} {recipe} {bits} bit, {integer_sites} of {quantized_sites} quantized call "
        "sites in integers, {size:.2f} MB".format(**found, size=written.bytes / 1e6)
    )
