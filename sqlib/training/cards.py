"""Cards: the JSON beside shipped weights that says how they were made and what they score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlib import datasets, models
from sqlib.errors import InputError
from sqlib.evaluate import evaluate


def add_scores(weights: str | Path, names: Sequence[str], *, data_dir: str | None = None) -> dict[str, Any]:
    """Score finished weights on benchmarks and write the result into their card.

    Parameters
    ----------
    weights : path of ``NAME-xS.safetensors``, with its card ``NAME-xS.json`` beside it
    names : datasets, as in :func:`sqlib.datasets.load`
    data_dir : folder of the datasets

    Returns
    -------
    dict : the card, whose ``scores`` maps each dataset's true name to ``psnr`` (dB), ``ssim``, ``n`` and the
        ``protocol`` id.

    Raises
    ------
    InputError
        The weights are not the ones the card was written for.
    DataError
        Weights, card or a dataset are absent.
    """
    weights = Path(weights)
    path = weights.with_suffix(".json")
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = models.load(weights, scale=card["scale"])
    if model.weights_id != card["weights_id"]:
        raise InputError(f"{weights} is not what {path.name} describes; copy both files of one run")
    scores = {}
    for name in names:
        result = evaluate(model, datasets.load(name, data_dir=data_dir), scale=card["scale"])
        scores[result.dataset] = {
            "psnr": round(result.psnr, 4),
            "ssim": round(result.ssim, 5),
            "n": result.n,
            "protocol": result.protocol.id,
        }
    card["scores"] = scores
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card
