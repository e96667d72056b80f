"""One frozen configuration per trained network and scale."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi

from sqlib._checks import as_integer
from sqlib.errors import InputError
from sqlib.models import Spec
from sqlib.models._spec import follow


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the outcome of a training, besides images and machine.

    Parameters
    ----------
    network, scale : as in :func:`sqlib.models.create`
    steps : int
        Length of the whole schedule; a call may stop anywhere in it.
    batch, patch : int
        Crops per step and their side in low-resolution pixels.
    learning_rate, final_learning_rate : float
        Adam; linear warm-up over ``warmup`` steps, then a cosine from the first to the second.
    restarts : tuple of int
        Steps, ascending, at which warm-up and cosine begin anew, each cosine ending where the next begins
        (warm restarts, Loshchilov & Hutter 2017): how a network whose schedule is over learns on.
    ema : float
        Decay of the exponential moving average of the weights, which is what ships.
    later : tuple of (step, batch, patch)
        From each of these steps on, batch and patch are others.
    clip : float
        Largest norm of the gradient; a longer one is scaled down to it. 0: no limit.
    border : int
        Low-resolution pixels along the border of a crop that are left out of the loss: there a network sees
        zeros where the whole image goes on.
    teacher : str
        Network whose outputs are targets (:func:`sqlib.training.teacher_targets`), taken at ``scale``; "" for
        none. Images without an original have this target alone.
    teacher_share : float
        The target is ``teacher_share`` x teacher + (1 - ``teacher_share``) x original.
    start : str
        Weights to start from, as ``NETWORK-xSCALE`` (of another scale or network): tensors that fit by name
        and shape are taken, the rest is new; SRResNet takes the function of an EDSR of its size and scale,
        computed in its own layers. "" for random ones.
    frozen : int
        Steps for which the tensors taken from ``start`` stay as they are.
    held_out : int
        Training images kept aside for the printed validation score (never a test image).
    """

    network: str
    scale: int
    steps: int
    batch: int = 16
    patch: int = 48
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-6
    warmup: int = 200
    restarts: tuple[int, ...] = ()
    ema: float = 0.999
    later: tuple[tuple[int, int, int], ...] = ()
    clip: float = 0.0
    border: int = 0
    teacher: str = ""
    teacher_share: float = 0.75
    start: str = ""
    frozen: int = 0
    held_out: int = 12
    seed: int = 1

    def __post_init__(self) -> None:
        # A card gives it back as lists.
        object.__setattr__(self, "later", tuple(tuple(entry) for entry in self.later))
        object.__setattr__(self, "restarts", tuple(self.restarts))
        wrong = [
            name
            for name, valid in (
                ("steps", self.steps >= 1),
                ("batch", self.batch >= 1),
                ("patch", self.patch >= 1),
                ("learning_rate", self.learning_rate > 0),
                ("restarts", self.steps < 1 or self._cycles == sorted({*self._cycles})),
                ("later", self._ordered()),
                ("ema", 0 <= self.ema < 1),
                ("clip", self.clip >= 0),
                ("border", self.border >= 0 and all(2 * self.border < patch for patch in self._patches)),
                ("teacher_share", 0 <= self.teacher_share <= 1),
                ("frozen", 0 <= self.frozen <= self.steps and (self.start or not self.frozen)),
                ("held_out", self.held_out >= 1),
            )
            if not valid
        ]
        if wrong:
            values = ", ".join(f"{name}={getattr(self, name)!r}" for name in wrong)
            raise InputError(
                f"a training configuration cannot have {values}; expected positive sizes and rates, "
                "shares in 0..1, a border of less than half a patch, ascending restarts within the "
                "steps, later=((step, batch, patch), ...) likewise, and frozen steps only with a start"
            )

    def _ordered(self) -> bool:
        """Whether ``later`` holds positive integers, by threes, in the order of their steps."""
        if any(len(entry) != 3 or any((as_integer(v) or 0) < 1 for v in entry) for entry in self.later):
            return False
        steps = [step for step, *_ in self.later]
        return steps == sorted({*steps}) and all(step < self.steps for step in steps)

    @property
    def _patches(self) -> list[int]:
        return [self.patch, *(entry[-1] for entry in self.later if self._ordered())]

    @property
    def _cycles(self) -> list[int]:
        return [0, *self.restarts, self.steps]

    @property
    def name(self) -> str:
        return f"{self.network}-x{self.scale}"

    def crops_at(self, step: int) -> tuple[int, int]:
        """Batch and patch of 0-based ``step``."""
        batch, patch = self.batch, self.patch
        for first, *sizes in self.later:
            if step >= first:
                batch, patch = sizes
        return batch, patch

    @property
    def largest_patch(self) -> int:
        """Side, in low-resolution pixels, that every image must have."""
        return max(self._patches)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of 0-based ``step``: a pure function, so resuming anywhere continues it."""
        cycles = pairwise(self._cycles)
        began, end = next((began, end) for began, end in cycles if step < end or end == self.steps)
        step, steps = step - began, end - began
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, steps - self.warmup)
        span = self.learning_rate - self.final_learning_rate
        return self.final_learning_rate + 0.5 * span * (1 + cos(pi * min(1.0, progress)))


CONFIGS: dict[str, TrainConfig] = {}
"""By name, what the SPECs of all networks say of their training; of networks registered later too."""


def _learn(spec: Spec) -> None:
    for (network, scale), options in spec.training.items():
        try:
            found = TrainConfig(network, scale, **options)
        except (TypeError, InputError) as error:
            raise InputError(f"SPEC of {network}, training x{scale}: {error}") from None
        CONFIGS[found.name] = found


follow(_learn)


def config(name: str) -> TrainConfig:
    """The configuration called ``name``, such as ``edsr-small-x4``.

    Raises
    ------
    InputError
        Unknown name; the message lists the known ones.
    """
    if name not in CONFIGS:
        raise InputError(f"unknown training configuration {name!r}; expected one of {', '.join(CONFIGS)}")
    return CONFIGS[name]
