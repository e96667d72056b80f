"""What distillation is asked to do. Imports neither torch nor numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqlib._checks import check_flag, check_integer, check_number
from sqlib.errors import InputError

GROUPS = ("bounds", "weight_bounds", "activation_bounds", "biases", "norms")
LOSSES = ("paper", "release", "attention", "attention-detached")


@dataclass(frozen=True)
class Options:
    """Options of `sqlib.fit.distill`; the defaults are those of 2DQuant's paper, where it prints them.

    Parameters
    ----------
    train : tuple of str
        Which parameters: "bounds" (both of the next two), "weight_bounds", "activation_bounds", "biases" (of
        convolutions and linear layers), "norms" (scales and shifts of normalization layers).
    loss : str
        "paper" or "release" (2DQuant), "attention" or "attention-detached" (PTQ4SR); formulas in
        `sqlib.fit.distillation.loss`.
    iterations, batch : int
        Optimizer steps; samples per step, drawn without replacement within a step (all, if there are fewer).
    learning_rate, final_learning_rate : float
        Of Adam, from the first along half a cosine to the second; equal: constant.
    betas : tuple of float
        Of Adam.
    feature_weight : float
        Weight of the feature term; 0 leaves it out.
    features : tuple of str or None
        Patterns of the modules whose outputs are compared, e.g. ``("blocks.*",)``, matched part by part of
        the dotted name. None: the blocks of a network of `sqlib.models`, none for others. ``()``: the output
        alone.
    feature_axis : int or None
        Channel axis of features ("attention" needs it). None: as `sqlib.models` has them, otherwise found by
        what the last layer of each module computes.
    augment : bool
        Give every drawn sample one of the eight flips and rotations (of four, if it is not square).
    relative : bool
        False: rates are in the units of the bounds, as published. True: in units of the width that a pair of
        bounds starts with (of the root mean square of a bias or norm parameter), so that a rate means the
        same in a network that computes in 0..1 as in one that computes in 0..255.
    scale_gradients : bool
        Multiply gradients of bounds by 1/sqrt(n (2^(b-1) - 1)) with n values under b bits, as LSQ does. Adam
        cancels such factors, up to its epsilon.
    seed : int
        Of the draws.
    """

    train: tuple[str, ...] = ("bounds",)
    loss: str = "paper"
    iterations: int = 3000
    batch: int = 32
    learning_rate: float = 1e-2
    final_learning_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    feature_weight: float = 5.0
    features: tuple[str, ...] | None = None
    feature_axis: int | None = None
    augment: bool = True
    relative: bool = False
    scale_gradients: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "train", _names("train", self.train))
        unknown = sorted(set(self.train) - set(GROUPS))
        if unknown or not self.train:
            raise InputError(f"train={list(self.train)}: expected one or more of {', '.join(GROUPS)}")
        if self.loss not in LOSSES:
            raise InputError(f"loss={self.loss!r}: expected one of {', '.join(LOSSES)}")
        for name, low, high in (("iterations", 0, 10**9), ("batch", 1, 10**9), ("seed", 0, 2**63 - 1)):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), low, high))
        rate = check_number("learning_rate", self.learning_rate, 0, math.inf, above=True)
        object.__setattr__(self, "learning_rate", rate)
        for name in ("final_learning_rate", "feature_weight"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), 0, math.inf))
        if self.features is not None:
            object.__setattr__(self, "features", _names("features", self.features))
        if self.feature_axis is not None:
            axis = check_integer("feature_axis", self.feature_axis, -8, 8)
            object.__setattr__(self, "feature_axis", axis)
        for name in ("augment", "relative", "scale_gradients"):
            check_flag(name, getattr(self, name))
        betas: Any = self.betas
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise InputError(f"betas={betas!r}: expected a pair, e.g. (0.9, 0.999)")
        pair = tuple(check_number("betas", b, 0, 1) for b in betas)
        if max(pair) == 1:
            raise InputError(f"betas={betas!r}: expected numbers of at least 0 and below 1")
        object.__setattr__(self, "betas", pair)


def _names(option: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v for v in value):
        raise InputError(f"{option}={value!r}: expected a list of names")
    return tuple(value)
