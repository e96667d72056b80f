"""``sqlib train``: train a full-precision network in bursts that can be continued."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from sqlib.cli import _common

if TYPE_CHECKING:
    from sqlib.training import CropPool, TrainConfig


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("train", help="train a network, or continue", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="configuration, such as edsr-small-x4")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="PATH",
        help="folders of training images, searched deep; or one crop pack",
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
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16"),
        help="of the forward pass (default: bf16 on CUDA, else fp32)",
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile (CUDA graphs on a GPU)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--pack",
        metavar="OUT",
        help="do not train: write a seeded crop pack of at most 30 MB, to be trained on elsewhere",
    )
    instead.add_argument(
        "--measure", action="store_true", help="do not train: images per second of the variants"
    )
    instead.add_argument(
        "--carry", metavar="OUT", help="do not train: write the checkpoint as files under 15 MB into OUT"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train; says at the end whether the schedule is complete and where the weights are."""
    from pathlib import Path

    started = time.monotonic()
    from sqlib import training
    from sqlib.training import checkpoint

    _common.known("configuration", args.config, training.CONFIGS)
    _common.check_device(args.device)
    config = training.config(args.config)
    folder = Path(args.resume or Path("training") / config.name)
    if args.carry:
        state = checkpoint.find(folder, config.name)
        if state is None:
            raise _common.Failure(
                f"there is no checkpoint of {config.name} in {folder}; give its --resume folder"
            )
        for path in checkpoint.carry(state, Path(args.carry), config.name):
            print(f"{path}: {path.stat().st_size:,} bytes, step {state['step']} of {config.steps}")
        return
    execution = training.Execution(args.device, args.precision, args.compile)
    pool = _pool(args.data, config)
    if args.pack:
        # A quarter larger than a patch, so that patches still move inside a crop.
        side = config.patch * 5 // 4 * config.scale
        made = training.write_pack(args.pack, pool, held_out=config.held_out, side=side)
        print(
            f"{args.pack}: {made['bytes']:,} bytes, {made['crops']} crops and {made['held_out']} held-out "
            f"images ({made['bytes'] / made['raw_bytes']:.2f} of their raw pixels)"
        )
        return
    if args.measure:
        for line in training.measure(config, pool, device=args.device):
            print(line, flush=True)
        return

    def log(line: str) -> None:
        print(line, flush=True)

    if training.train(
        config, pool, folder, minutes=args.minutes, execution=execution, log=log, started=started
    ):
        print(f"done: {folder / config.name}.safetensors and its card {config.name}.json")
    else:
        print(f"stopped in time; the same command continues from {folder}")


def _pool(sources: list[str], config: TrainConfig) -> CropPool:
    """The images of folders, or of one pack."""
    from pathlib import Path

    from sqlib import training

    smallest = config.patch * config.scale
    if any(Path(source).is_file() for source in sources):
        if len(sources) > 1:
            raise _common.UsageError(
                f"--data got {len(sources)} paths with a file among them; give one pack, or folders"
            )
        pool = training.read_pack(sources[0], scale=config.scale, smallest=smallest)
        print(f"{len(pool.hr)} images in the pack", flush=True)
        return pool
    images, skipped = training.load_images(sources[0] if len(sources) == 1 else sources, smallest=smallest)
    for name, reason in skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(f"{len(images)} images, {len(skipped)} skipped", flush=True)
    return training.CropPool.from_images(images, config.scale, config.seed)
