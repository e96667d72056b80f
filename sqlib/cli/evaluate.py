"""``sqlib evaluate``: PSNR and SSIM of a network on a dataset."""

from __future__ import annotations

import argparse
import sys

from sqlib.cli import _common, _tiles


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("evaluate", help="score a network on a dataset", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="network, such as carn-m")
    parser.add_argument("--scale", type=_common.positive, required=True, metavar="S", help="upscaling factor")
    parser.add_argument("--dataset", required=True, metavar="D", help="dataset, such as set5 or builtin")
    _common.add_weights(parser)
    _common.add_quantized(parser)
    parser.add_argument("--protocol", default="default", help="how to score (default: %(default)s)")
    parser.add_argument(
        "--patch", type=_common.positive, metavar="P", help="cut into patches of P low-resolution pixels"
    )
    parser.add_argument(
        "--overlap",
        type=_common.seed,
        metavar="O",
        help="pixels that patches share, with --patch (default: 0)",
    )
    parser.add_argument("--first", type=_common.positive, metavar="N", help="only the first N images")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _common.add_quantization(parser)
    _common.add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate and print."""
    from sqlib import datasets, evaluate, metrics, models

    _common.known("network", args.model, models.names())
    _common.known("dataset", args.dataset, datasets.names())
    _common.known("protocol", args.protocol, metrics.PROTOCOLS)
    tiling = _tiles.asked(args.patch, args.overlap, "--patch")
    recipe = _common.quantization(args)
    if recipe is not None and recipe.branches and tiling is None:
        print(f"{recipe.name} relates the patches of an image: give --patch to cut it", file=sys.stderr)
    _common.check_device(args.device)
    with _common.quiet_stdout(args.json):
        dataset = datasets.load(args.dataset, data_dir=args.data_dir)
        if args.first is not None:
            dataset = dataset.subset(args.first)
        model = _common.network(args, args.model, recipe)
        scores = evaluate.evaluate(
            model,
            dataset,
            scale=args.scale,
            protocol=metrics.PROTOCOLS[args.protocol],
            tiling=tiling,
            device=args.device,
            progress=not args.json and sys.stderr.isatty(),
        )
    used = _common.used(model)
    if args.json:
        _common.print_json(
            {
                "model": args.model,
                "scale": args.scale,
                "dataset": dataset.name,
                "quantized": args.quantized,
                **used,
                "recipe_options": dict(args.recipe_option),
                "psnr": scores.psnr,
                "ssim": scores.ssim,
                "protocol": scores.protocol.id,
                "n": scores.n,
                "seconds": scores.seconds,
                "images": scores.images,
            }
        )
        return
    for image in scores.images:
        print(f"{image['name']:<24} {image['psnr']:8.3f} dB  {image['ssim']:.4f}")
    label = f"{args.model} x{args.scale}" + (" {recipe} {bits} bit".format(**used) if used["recipe"] else "")
    print(f"{label} on {dataset.name} ({scores.n} images): {scores.psnr:.3f} dB, SSIM {scores.ssim:.4f}")
    print(f"protocol {scores.protocol.id}; {scores.seconds:.1f} s")
