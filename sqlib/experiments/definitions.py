"""What each table is made of: our networks, the paper's methods as recipes, and the three profiles.

A later table is one more entry of ``TABLES``; a later network with the paper's architecture names the
printed network it stands for (``published``), and only then do its numbers get verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlib.errors import InputError
from sqlib.experiments.cells import CalibrationSpec


@dataclass(frozen=True)
class Network:
    """One of our networks in a table; ``published`` is the printed network it stands for, if any."""

    name: str
    scale: int
    weights: str
    published: str | None = None


@dataclass(frozen=True)
class Method:
    """A row of a table: its label and the recipe behind it (None: full precision).

    Only a method that is what the paper printed carries the printed label; a variant (a shorter schedule, a
    step of our own) has a label of its own and never earns the printed value's verdict. ``profiles``
    restricts it to those named.
    """

    label: str
    recipe: str | None
    bits: tuple[int, ...] = (32,)
    options: Mapping[str, Any] = field(default_factory=dict)
    profiles: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """A table of a paper as a product of networks, methods with their bits, and datasets."""

    name: str
    paper: str
    title: str
    networks: tuple[Network, ...]
    methods: tuple[Method, ...]
    calibration: CalibrationSpec
    datasets: tuple[str, ...]
    protocol: str = "default"


@dataclass(frozen=True)
class Profile:
    """How much of a table is run.

    ``networks``, ``datasets`` and ``calibration`` replace the table's own where given; ``also`` adds
    datasets. ``scratch`` profiles never write to a kept store.
    """

    name: str
    networks: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    calibration: CalibrationSpec | None = None
    also: tuple[str, ...] = field(default=())
    scratch: bool = False


PROFILES = {
    # Every code path in seconds on a fresh machine: shipped weights and shipped photographs only.
    "smoke": Profile(
        "smoke",
        networks=("edsr-small",),
        datasets=("builtin[:2]@192",),
        calibration=CalibrationSpec("builtin", n=4, patch=48, batch=2),
        scratch=True,
    ),
    "laptop": Profile("laptop"),
    "full": Profile("full", also=("urban100",)),
}

TABLES = {
    "dfsq-table2": Table(
        name="dfsq-table2",
        paper="dfsq",
        title="DFSQ Table 2: EDSR at 8, 6, 4 and 3 bits",
        networks=(Network("carn-m", 4, "carn_m.pth"), Network("edsr-small", 4, "pretrained")),
        methods=(Method("FP", None), Method("MinMax", "minmax", (8, 6, 4, 3))),
        # 32 crops of 48 x 48 LR pixels as in the paper, but from the DIV2K images that are at hand.
        calibration=CalibrationSpec("div2k", n=32, patch=48, batch=16),
        datasets=("set5", "set14", "b100"),
    ),
}

#: Printed method label -> our recipe, for saying what a value that was not run still needs.
RECIPES = {
    "MinMax": "minmax",
    "Percentile": "percentile",
    "DFSQ": "dfsq",
    "BRECQ": "brecq",
    "QDROP": "qdrop",
    "DBDC+Pac": "dbdc_pac",
    "DOBI": "twodquant",
    "2DQuant": "twodquant",
    "PAMS": "pams",
    "DDTB": "ddtb",
    "CADyQ": "cadyq",
    "CABM": "cabm",
}

#: Metric -> (what we store, how far a drop may move and still be close). The SSIM figure is what 0.05 dB
#: amounts to near 32 dB and 0.89, where one dB of PSNR is worth about 0.02.
SCORES = {"psnr_y": ("psnr", 0.05), "ssim_y": ("ssim", 0.001)}


def table(name: str) -> Table:
    """The definition of one table; InputError for an unknown name."""
    try:
        return TABLES[name]
    except KeyError:
        raise InputError(f"unknown table {name!r}; expected one of {', '.join(TABLES)}") from None


def profile(name: str) -> Profile:
    """The definition of one profile; InputError for an unknown name."""
    try:
        return PROFILES[name]
    except KeyError:
        raise InputError(f"unknown profile {name!r}; expected one of {', '.join(PROFILES)}") from None
