"""The lookup of all tables and profiles, and how printed methods and metrics map to ours.

The tables themselves are in one file per paper (``_dfsq.py``, ``_twodquant.py``). A network with the
paper's architecture names the printed network it stands for (``published``), and only then do its numbers
get verdicts.
"""

from __future__ import annotations

from sqlib.errors import InputError
from sqlib.experiments import _dfsq, _twodquant
from sqlib.experiments._schema import Method, Network, Profile, Table
from sqlib.experiments.cells import CalibrationSpec

__all__ = [
    "PROFILES",
    "RECIPES",
    "SCORES",
    "TABLES",
    "Method",
    "Network",
    "Profile",
    "Table",
    "profile",
    "table",
]

PROFILES = {
    # Every code path in seconds on a fresh machine: shipped weights and shipped photographs only.
    "smoke": Profile(
        "smoke",
        networks=(("edsr-small", 4), ("swinir-small", 4)),
        bits=(32, 4),
        datasets=("builtin[:2]@192",),
        calibration=CalibrationSpec("builtin", n=4, patch=48, batch=2),
        scratch=True,
    ),
    "laptop": Profile("laptop"),
    "full": Profile("full"),
}

TABLES = {table.name: table for table in (*_dfsq.TABLES, *_twodquant.TABLES)}

#: Printed method label -> our recipe, for saying what a value that was not run still needs.
RECIPES = {
    "MinMax": "minmax",
    "Percentile": "percentile",
    "DFSQ": "dfsq",
    "BRECQ": "brecq",
    "QDROP": "qdrop",
    "DBDC+Pac": "dbdc-pac",
    "DOBI": "dobi",
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
    found = TABLES.get(name)
    if found is None:
        raise InputError(f"unknown table {name!r}; expected one of {', '.join(TABLES)}")
    return found


def profile(name: str) -> Profile:
    """The definition of one profile; InputError for an unknown name."""
    try:
        return PROFILES[name]
    except KeyError:
        raise InputError(f"unknown profile {name!r}; expected one of {', '.join(PROFILES)}") from None
