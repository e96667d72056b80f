"""``sqlib train``: train a full-precision network in bursts that can be continued."""

from __future__ import annotations

import argparse
import sys

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("train", help="train a network, or continue", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="configuration, such as edsr-small-x4")
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder of training images, searched deep"
    )
    parser.add_argument(
        "--minutes", type=_common.seconds, default=60.0, metavar="M", help="stop in time (default: 60)"
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="folder of the checkpoint, continued from if there is one (default: training/CONFIG)",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train; says at the end whether the schedule is complete and where the weights are."""
    from pathlib import Path

    from sqlib import training

    _common.known("configuration", args.config, training.CONFIGS)
    _common.check_device(args.device)
    config = training.config(args.config)
    folder = Path(args.resume or Path("training") / config.name)
    images, skipped = training.load_images(args.data, smallest=config.patch * config.scale)
    for name, reason in skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(f"{len(images)} images, {len(skipped)} skipped", flush=True)
    pool = training.CropPool.from_images(images, config.scale, config.seed)

    def log(line: str) -> None:
        print(line, flush=True)

    if training.train(config, pool, folder, minutes=args.minutes, device=args.device, log=log):
        print(f"done: {folder / config.name}.safetensors and its card {config.name}.json")
    else:
        print(f"stopped in time; the same command continues from {folder}")
