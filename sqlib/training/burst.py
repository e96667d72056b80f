"""A burst on a borrowed machine, whole: unpack, resume, train, evaluate, write back. Needs torch and NumPy
only.

Run from a checkout::

    python -m sqlib.training.burst --pack x4=/carried/x4.pack --resume weights --out "$OUT" --device cuda \\
        edsr-baseline-x4=4 srresnet-x4=3

Each CONFIG=MINUTES is trained in turn on the pack of its scale, continued from the carried checkpoint in
``--resume`` if there is one. ``--out`` receives for each a checkpoint that fits the way back and
``CONFIG.burst.json`` with the curve, the speed and the state of the schedule. Minutes that a finished
schedule leaves go to the next.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlib.errors import InputError, SqlibError
from sqlib.training import checkpoint
from sqlib.training.config import TrainConfig, config
from sqlib.training.execution import PRECISIONS, Execution


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sqlib.training.burst", description=__doc__.splitlines()[0]
    )
    parser.add_argument("plan", nargs="+", metavar="CONFIG=MINUTES")
    parser.add_argument("--pack", action="append", required=True, metavar="xS=FILE", help="pack of one scale")
    parser.add_argument(
        "--resume", default="weights", metavar="DIR", help="carried checkpoints (default: weights)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="what travels back")
    parser.add_argument(
        "--work",
        default=str(Path(tempfile.gettempdir()) / "sqlib-burst"),
        metavar="DIR",
        help="exact checkpoints stay here",
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--measure", action="store_true", help="time the variants on each network first")
    return parser.parse_args(arguments)


def pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a dictionary."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"{text!r} is no {what}")
        found[key] = value
    return found


def one(
    trained: TrainConfig,
    pack: str,
    args: argparse.Namespace,
    execution: Execution,
    minutes: float,
    started: float,
) -> dict[str, Any]:
    """Train one configuration for ``minutes`` and write back its checkpoint; returns its report."""
    from sqlib import models
    from sqlib.training.loop import train, validate
    from sqlib.training.measure import measure
    from sqlib.training.pack import read_pack

    work, carried = Path(args.work) / trained.name, Path(args.resume)
    work.mkdir(parents=True, exist_ok=True)
    for path in carried.glob(f"{trained.name}.*pt") if not (work / checkpoint.FILE).exists() else ():
        shutil.copy(path, work / path.name)
    pool = read_pack(pack, scale=trained.scale, smallest=trained.patch * trained.scale)
    speeds = measure(trained, pool, device=args.device) if args.measure else []
    for line in speeds:
        print(line, flush=True)
    done = train(
        trained,
        pool,
        work,
        minutes=minutes,
        execution=execution,
        started=started,
        log=lambda line: print(line, flush=True),
    )
    state = checkpoint.read(work / checkpoint.FILE)
    # A burst may end between two validations of the loop: score what travels.
    average = models.create(trained.network, scale=trained.scale)
    average.load_state_dict(state["average"])
    _, held_out = pool.split(trained.held_out)
    score = validate(average.to(execution.torch_device), held_out, execution.torch_device)
    out = Path(args.out)
    files = checkpoint.carry(state, out, trained.name)
    report = {
        "config": trained.name,
        "complete": done,
        "step": state["step"],
        "steps": trained.steps,
        "bursts": state["bursts"],
        "curve": state["curve"],
        "psnr": score,
        "measured": speeds,
        "files": {path.name: path.stat().st_size for path in files},
    }
    speed = state["bursts"][-1]["images_per_second"] if state["bursts"] else 0.0
    sizes = ", ".join(f"{path.name} ({path.stat().st_size:,} bytes)" for path in files)
    done_so_far = f"step {state['step']} of {trained.steps}, held-out {score:.3f} dB"
    print(f"{trained.name}: {done_so_far}, {speed} images/s; {sizes}", flush=True)
    (out / f"{trained.name}.burst.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan; exit status 1 with a one-line message when a part of it fails, after the rest was written
    back.
    """
    started = time.monotonic()
    args = parse(arguments)
    status = 0
    try:
        packs = pairs(args.pack, "pack: expected xS=FILE such as x4=x4.pack")
        plan = {
            config(name): float(minutes)
            for name, minutes in pairs(args.plan, "part of the plan: expected CONFIG=MINUTES").items()
        }
        execution = Execution(args.device, args.precision, args.compile)
        missing = {f"x{c.scale}" for c in plan} - packs.keys()
        if missing:
            raise InputError(f"the plan needs a pack for {', '.join(sorted(missing))}; give --pack xS=FILE")
    except (SqlibError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    end = started
    for trained, minutes in plan.items():
        begun = time.monotonic()
        end += 60 * minutes
        try:
            one(trained, packs[f"x{trained.scale}"], args, execution, (end - begun) / 60, begun)
        except (SqlibError, OSError, RuntimeError) as error:
            print(f"error: {trained.name}: {error}", file=sys.stderr, flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
