"""Cards: the JSON beside shipped weights that says how they were made and what they score."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlib
from sqlib import models
from sqlib._files import write_atomically
from sqlib.errors import DataError, InputError

if TYPE_CHECKING:
    from sqlib.training.crops import CropPool
    from sqlib.training.task import Training

HALF_TOLERANCE_DB = 0.005
"""Weights ship in half precision when no benchmark's mean PSNR moves by this much."""
LARGEST_FILE = 4_000_000
"""Bytes of a file of weights that ships."""


def export(run: Training, folder: Path, pool: CropPool) -> None:
    """Write the averaged weights of a finished run as safetensors (float32), and their card as JSON.

    Raises
    ------
    DataError
        ``folder`` cannot be written or is full.
    """
    from safetensors.torch import save

    config = run.config
    state = run.averaged.state_dict().items()  # counts of batches stay integers
    tensors = {k: (v.float() if v.is_floating_point() else v).cpu().contiguous() for k, v in state}
    path = folder / f"{config.name}.safetensors"
    write_atomically(path, save(tensors, metadata={"name": config.network, "scale": str(config.scale)}))
    model = models.load(path, scale=config.scale)
    card = {
        "name": config.network,
        "scale": config.scale,
        "parameters": models.count_parameters(model),
        "weights_id": model.weights_id,
        "dtype": "float32",
        "config": dataclasses.asdict(config),
        "data": {
            "folders": sorted({Path(name).parent.as_posix() for name in pool.names}),
            "images": sum(hr is not None for hr in run.training.hr),
            "inputs": sum(hr is None for hr in run.training.hr),
            "held_out": run.held_out.names,
            "sha256": pool.fingerprint(),
        },
        "seconds": round(run.seconds, 1),
        "bursts": run.bursts,
        **run.provenance,
        "sqlib": sqlib.__version__,
        "curve": run.curve,
    }
    _write(card, path.with_suffix(".json"))


def _write(card: dict[str, Any], path: Path) -> None:
    write_atomically(path, (json.dumps(card, indent=1) + "\n").encode())


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
    card = _card_of(weights)
    card["scores"] = _scores(models.load(weights, scale=card["scale"]), names, data_dir)
    _write(card, weights.with_suffix(".json"))
    return card


def ship(
    weights: str | Path, folder: str | Path, names: Sequence[str], *, data_dir: str | None = None
) -> dict[str, Any]:
    """Copy finished weights and their card into ``folder``, in half precision if no score minds.

    Parameters
    ----------
    weights : path of ``NAME-xS.safetensors`` (float32), with its card beside it
    folder : where they go, such as ``sqlib/models/weights``
    names : datasets to score on; the card gets the scores of what ships, and what half precision changed
    data_dir : folder of the datasets

    Returns
    -------
    dict : the card that ships. ``dtype`` is "float16" when the mean PSNR of every dataset moved by less than
        0.005 dB, else "float32"; ``half_change_db`` holds the moves.

    Raises
    ------
    InputError, DataError
        As :func:`add_scores`; also when the file would exceed 4 MB.
    """
    from safetensors.torch import save

    weights, folder = Path(weights), Path(folder)
    card = _card_of(weights)
    state, metadata = models.read_state(weights)
    scale = card["scale"]
    # Scored beside the source: what ships appears at the end, whole, or not at all.
    trial = weights.with_name(f"{weights.stem}.half.safetensors")
    try:
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        write_atomically(trial, save(half, metadata=metadata))
        scores = _scores(models.load(weights, scale=scale), names, data_dir)
        half_scores = _scores(models.load(trial, scale=scale), names, data_dir)
        change = {name: round(half_scores[name]["psnr"] - scores[name]["psnr"], 5) for name in scores}
        chosen = weights
        if all(abs(value) < HALF_TOLERANCE_DB for value in change.values()):
            card["dtype"], scores, chosen = "float16", half_scores, trial
        content = chosen.read_bytes()
        if len(content) > LARGEST_FILE:
            raise InputError(
                f"{weights.name} would have {len(content)} bytes; up to {LARGEST_FILE} ship, larger networks "
                "are recipes"
            )
        card["weights_id"] = models.load(chosen, scale=scale).weights_id
        card["scores"], card["half_change_db"] = scores, change
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / weights.name, content)
        _write(card, folder / weights.with_suffix(".json").name)
    finally:
        trial.unlink(missing_ok=True)
    return card


def _card_of(weights: Path) -> dict[str, Any]:
    """The card beside ``weights``, checked to be theirs."""
    path = weights.with_suffix(".json")
    if not path.is_file():
        raise DataError(f"{path} is missing; copy the card that belongs to {weights.name} beside it")
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if models.load(weights, scale=card["scale"]).weights_id != card["weights_id"]:
        raise InputError(f"{weights} is not what {path.name} describes; copy both files of one run")
    return card


def _scores(model: models.SRNetwork, names: Sequence[str], data_dir: str | None) -> dict[str, Any]:
    from sqlib import datasets
    from sqlib.evaluate import evaluate

    scores = {}
    for name in names:
        result = evaluate(model, datasets.load(name, data_dir=data_dir), scale=model.scale)
        scores[result.dataset] = {
            "psnr": round(result.psnr, 4),
            "ssim": round(result.ssim, 5),
            "n": result.n,
            "protocol": result.protocol.id,
        }
    return scores
