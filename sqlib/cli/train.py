"""``sqlib train``: train a full-precision network, from originals or from a teacher; continue a training."""

from __future__ import annotations

import argparse
import sys
import time

from sqlib.cli import _common


def add(commands: _common.Subparsers) -> None:
    """Register the command."""
    parser = commands.add_parser("train", help="train a network, or continue", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="configuration, such as edsr-small-x4")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="DIR", help="folders of original images, searched deep"
    )
    parser.add_argument(
        "--inputs",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of low-resolution images without original, which the configuration's teacher enlarges",
    )
    parser.add_argument(
        "--start",
        metavar="WEIGHTS",
        help="NETWORK-xSCALE or a file to start from (default: what the configuration names)",
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
        help="of the forward pass (default: bf16 where the processor has it, else fp32)",
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile (CUDA graphs on a GPU)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train; says at the end whether the schedule is complete and where the weights are."""
    from pathlib import Path

    started = time.monotonic()
    from tqdm import tqdm

    from sqlib import training
    from sqlib.fit import progress

    _common.known("configuration", args.config, training.CONFIGS)
    _common.check_device(args.device)
    config = training.config(args.config)
    folder = Path(args.resume or Path("training") / config.name)
    execution = training.Execution(args.device, args.precision, args.compile)
    with progress(config.name):
        prepared = training.prepare(
            config,
            args.data,
            args.inputs,
            start=args.start,
            continuing=(folder / training.CHECKPOINT).is_file(),
            device=args.device,
            show=_common.show,
        )
    for name, reason in prepared.skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    print(f"{len(prepared.pool.lr)} images, {len(prepared.skipped)} skipped", flush=True)

    def log(line: str) -> None:
        with tqdm.external_write_mode():
            print(line, flush=True)

    with progress(config.name):
        finished = training.train(
            config,
            prepared.pool,
            folder,
            minutes=args.minutes,
            execution=execution,
            start=prepared.start,
            provenance=prepared.provenance,
            log=log,
            started=started,
        )
    if finished:
        print(f"done: {folder / config.name}.safetensors and its card {config.name}.json")
    else:
        print(f"stopped in time; the same command continues from {folder}")
