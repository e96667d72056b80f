"""Tables about trained networks: what ships, how it was trained, and what is still to be trained."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sqlib import models
from sqlib.training.config import CONFIGS, TrainConfig

if TYPE_CHECKING:
    import pandas as pd

AIMS = {
    "edsr-baseline-x4": 31.85,
    "edsr-baseline-x2": 37.75,
    "swinir-light-x4": 31.7,
    "swinir-light-x2": 37.7,
    "swinir-light-x3": 34.0,
    "srresnet-x4": 31.6,
    "carn-single-x4": 32.0,
    "rdn-x4": 31.8,
    "rdn-x2": 37.7,
}
"""What we aim at on Set5 (PSNR of luma, dB), set before the training, for some 590 images and hours."""


def _shipped() -> list[tuple[str, int]]:
    return [(name, scale) for name, scales in models.available().items() for scale in scales]


def shipped() -> pd.DataFrame:
    """One row per network whose weights ship: size, training, speed, device; read from the cards."""
    import pandas as pd

    rows = []
    for name, scale in _shipped():
        card = models.card(name, scale=scale)
        path = models.WEIGHTS_FOLDER / f"{name}-x{scale}.safetensors"
        last = card["bursts"][-1]
        rows.append(
            {
                "network": f"{name} x{scale}",
                "parameters": card["parameters"],
                "file (kB)": path.stat().st_size / 1000,
                "stored as": card["dtype"],
                "teacher": card.get("teacher", {}).get("name", "none"),
                "start": card.get("start", {}).get("from", "random"),
                "images": card["data"]["images"],
                "steps": card["config"]["steps"],
                "batch": card["config"]["batch"],
                "minutes": card["seconds"] / 60,
                "images/s": last["images_per_second"],
                "device": f"{last['device']}, {last['threads']} thread{'s' * (last['threads'] != 1)}",
                "sha256": card["weights_id"][:8],
            }
        )
    return pd.DataFrame(rows)


def scores() -> pd.DataFrame:
    """Scores of what ships: a row per network and dataset, with protocol and the effect of half precision."""
    import pandas as pd

    rows = []
    for name, scale in _shipped():
        card = models.card(name, scale=scale)
        for dataset, score in card["scores"].items():
            rows.append(
                {
                    "network": f"{name} x{scale}",
                    "dataset": dataset,
                    "PSNR (dB)": score["psnr"],
                    "SSIM": score["ssim"],
                    "images": score["n"],
                    "change by float16 (dB)": card["half_change_db"][dataset],
                    "protocol": score["protocol"],
                }
            )
    return pd.DataFrame(rows)


def curves() -> pd.DataFrame:
    """PSNR (dB) against the step, for every network that ships; ``on`` says on which images.

    ``l1`` is the mean training loss in 0..255 since the row before, absent where a card does not have it.
    """
    import pandas as pd

    parts = []
    for name, scale in _shipped():
        card = models.card(name, scale=scale)
        part = pd.DataFrame(card["curve"])
        parts.append(part.assign(network=f"{name} x{scale}", on=card.get("curve_on", "held-out images")))
    return pd.concat(parts, ignore_index=True)


def missing() -> pd.DataFrame:
    """One row per configuration whose weights do not ship: aim, operations, where it starts."""
    import pandas as pd

    done = {f"{name}-x{scale}" for name, scale in _shipped()}
    return pd.DataFrame(
        [
            {
                "configuration": c.name,
                "parameters": models.count_parameters(models.create(c.network, scale=c.scale)),
                "steps": c.steps,
                "batch": c.batch,
                "aim on Set5 (dB)": AIMS.get(c.name),
                "PFLOP": training_flops(c) / 1e15,
                "teacher": c.teacher or "none",
                "start": c.start or "random",
            }
            for c in CONFIGS.values()
            if c.name not in done
        ]
    )


def training_flops(config: TrainConfig) -> int:
    """Floating-point operations of a whole schedule, whose crops may change on the way."""
    starts = [0, *(step for step, _, _ in config.later), config.steps]
    return sum((end - start) * step_flops(config, *config.crops_at(start)) for start, end in pairwise(starts))


def step_flops(config: TrainConfig, batch: int | None = None, patch: int | None = None) -> int:
    """Floating-point operations of one training step (products, forward and backward), counted by torch.

    Of ``batch`` crops of ``patch`` x ``patch`` low-resolution pixels, by default the first ones' sizes.

    Runs on the meta device: shapes only, no arithmetic, so it takes milliseconds and no memory.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = models.create(config.network, scale=config.scale).train()
        patch = patch or config.patch
        lr = torch.zeros(batch or config.batch, 3, patch, patch)
        counter = FlopCounterMode(display=False)
        with counter:
            model(lr).sum().backward()
    return int(counter.get_total_flops())
