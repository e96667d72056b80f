"""``sqlib quantize``: quantize a network and keep it as a file, for ``evaluate`` and ``upscale --quantized``.

In the program, `sqlib.load_quantized(OUT, network)` gives it back.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sqlib.cli import _common

if TYPE_CHECKING:
    from sqlib import QuantizedModel


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("quantize", help="quantize a network into a file", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="network, such as edsr-baseline")
    parser.add_argument("output", metavar="OUT", help="file to write, ending in .safetensors")
    parser.add_argument("--scale", type=_common.positive, required=True, metavar="S", help="upscaling factor")
    _common.add_weights(parser)
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists (never an input)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _common.add_quantization(parser, required=True)
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Quantize and save; whatever is wrong with the output is found before anything is computed."""
    from sqlib import models

    _common.known("network", args.model, models.names())
    inputs = [] if args.weights is None else [args.weights]
    _common.check_output_file(
        args.output, ".safetensors", "a safetensors file", inputs=inputs, overwrite=args.force
    )
    recipe = _common.quantization(args)
    with _common.quiet_stdout(args.json):
        model = cast("QuantizedModel", _common.network(args, args.model, recipe))
        model.save(args.output)
    sites, size = model.sites.values(), Path(args.output).stat().st_size
    found = {
        "output": args.output,
        "model": args.model,
        "scale": args.scale,
        **_common.used(model),
        "recipe_options": dict(args.recipe_option),
        "sites": len(sites),
        "quantized_sites": sum(site.active for site in sites),
        "bytes": size,
    }
    if args.json:
        _common.print_json(found)
        return
    print(
        "{output}: {model} x{scale} {recipe} {bits} bit, {quantized_sites} of {sites} call sites quantized, "
        "{size:.2f} MB".format(**found, size=size / 1e6)
    )
