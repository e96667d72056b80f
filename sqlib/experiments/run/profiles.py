"""Profiles: how much of a table is run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlib.errors import InputError
from sqlib.experiments.store.cells import CalibrationSpec, TrainingSpec


@dataclass(frozen=True)
class Profile:
    """How much of a table is run.

    ``datasets``, ``calibration`` and ``training`` replace the table's own where given; ``networks`` (name,
    scale) and ``bits`` restrict them. ``scratch`` profiles never write to a kept store.
    """

    name: str
    networks: tuple[tuple[str, int], ...] | None = None
    bits: tuple[int | str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    calibration: CalibrationSpec | None = None
    training: TrainingSpec | None = None
    scratch: bool = False


PROFILES = {
    # Every code path in seconds on a fresh machine: shipped weights and shipped photographs only.
    "smoke": Profile(
        "smoke",
        networks=(("edsr-small", 4), ("swinir-small", 4)),
        bits=(32, 4, "delta", "4-3", "delta-3"),
        datasets=("builtin[:2]@192",),
        calibration=CalibrationSpec("builtin", n=4, patch=48, batch=2),
        training=TrainingSpec("builtin", patch=24),
        scratch=True,
    ),
    "laptop": Profile("laptop"),
    "full": Profile("full"),
}


def profile(name: str) -> Profile:
    """The definition of one profile; InputError for an unknown name."""
    try:
        return PROFILES[name]
    except KeyError:
        raise InputError(f"unknown profile {name!r}; expected one of {', '.join(PROFILES)}") from None
