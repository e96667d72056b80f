"""Training ClustBlock's extractor on textures, and quantizing it to 8 bits.

>>> trained, card = train_extractor("dtd/images")            # doctest: +SKIP
>>> trained.save("textures.safetensors")                     # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sqlib._checks import check_integer
from sqlib.engine import QuantizedModel, quantize_model, registry
from sqlib.fit.loop import Group, Task, fit
from sqlib.reference.extractor import FeatureExtractor
from sqlib.reference.textures import Crops, load_textures

_BATCH = 32
_RATE = 2e-3
_SIDES = (72, 84, 96)  # patches are 72 or 96 pixels wide in the paper


class Textured(Task):
    """Cross entropy of the class of random crops; the rate falls to zero along half a cosine."""

    name = "training of the extractor"

    def __init__(self, network: FeatureExtractor, crops: Crops, steps: int, seed: int) -> None:
        self.network, self.crops, self.steps = network, crops, steps
        self.generator = np.random.default_rng(seed)

    def groups(self) -> Sequence[Group]:
        """All parameters."""
        return [Group(list(self.network.parameters()), self._rate)]

    def _rate(self, step: int) -> float:
        return _RATE * (1 + math.cos(math.pi * step / self.steps)) / 2

    def loss(self, step: int) -> Tensor:
        """Of one batch, whose crops have one size."""
        x, label = self.crops.draw(_BATCH, _SIDES[step % len(_SIDES)], self.generator)
        return nn.functional.cross_entropy(self.network(x), label)

    def state(self) -> dict[str, Any]:
        """Parameters and the random generator's state."""
        return {"network": self.network.state_dict(), "generator": self.generator.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back."""
        self.network.load_state_dict(state["network"])
        self.generator.bit_generator.state = state["generator"]


def train_extractor(
    folder: str | PathLike[str], *, steps: int = 2500, held_out: float = 0.2, seed: int = 0
) -> tuple[QuantizedModel, dict[str, Any]]:
    """Train on a folder of class folders (`load_textures`) and quantize to 8 bits, by min and max.

    Batches of 32 random crops of 72, 84 or 96 pixels, mirrored and turned; Adam from 2e-3 down to 0. Weights
    have one range per tensor; the ranges of activations come from 480 crops of the training images.

    Parameters
    ----------
    steps : of the optimizer
    held_out : share of each class, the last files by name, on which the accuracy is measured
    seed : of weights, places and turns

    Returns
    -------
    extractor : QuantizedModel
    card : dict
        Classes, number of images, steps, and the accuracy on the held-out images, ``float`` and ``bits8``:
        the share of 72-pixel crops, four per image, whose class has the largest score.
    """
    steps = check_integer("steps", steps, 1, 10**9)
    seed = check_integer("seed", seed, 0, 2**31)
    textures = load_textures(folder)
    seen, unseen = textures.split(held_out)
    crops = Crops(seen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FeatureExtractor(len(textures.classes))
    fit(Textured(network, crops, steps, seed), every=max(1, steps // 10), check_every=10)
    calibration = [crops.draw(5 * _BATCH, side, np.random.default_rng((seed, side)))[0] for side in _SIDES]
    quantized = quantized_extractor(network, calibration)
    x, label = Crops(unseen).fixed(_SIDES[0])
    accuracy = {"float": _accuracy(network, x, label), "bits8": _accuracy(quantized, x, label)}
    return quantized, {
        "classes": list(textures.classes),
        "images": len(seen),
        "held_out": len(unseen),
        "steps": steps,
        "batch": _BATCH,
        "seed": seed,
        "accuracy": accuracy,
    }


def quantized_extractor(network: FeatureExtractor, calibration: Sequence[Tensor]) -> QuantizedModel:
    """Every convolution and the linear layer at 8 bits: one range per weight tensor and per activation."""
    recipe = registry.create("minmax", bits=8, weight_per="tensor")
    return quantize_model(network, recipe, calibration, skip=[])


@torch.no_grad()
def _accuracy(network: nn.Module, x: Tensor, label: Tensor) -> float:
    scores = torch.cat([network(part) for part in x.split(256)])
    return float((scores.argmax(1) == label).double().mean())
