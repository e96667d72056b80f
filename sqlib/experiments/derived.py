"""Printed values that need no weights: recomputed from the networks whenever they are shown.

Such a value has no cell and no record, because nothing was measured: it follows from the network's definition
and the counting in :mod:`sqlib.cost`, takes a second, and is the same on every machine. A record would only
be a copy that can grow stale, so there is nothing for ``verify`` to recompute; a test compares each verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sqlib.experiments.frame import published_frame

if TYPE_CHECKING:
    from sqlib.cost import Cost


#: Tables that hold such values; others need not wait for them.
TABLES = frozenset({"2dquant-table1", "2dquant-table2"})


@dataclass(frozen=True)
class Derived:
    """A recomputed value in the unit of print, and how it was counted where that is not plain."""

    value: float
    note: str = ""


@cache
def derived_values() -> dict[str, Derived]:
    """Id of a printed value (``published_frame``) -> our value.

    Walks SwinIR-light and EDSR at x4 on the meta device, once per process. All values are for
    2DQuant's output of 512 x 512 pixels.
    """
    found = {**_table1_edsr(), **_table1_swinir(), **_table2()}
    known = set(published_frame(blanks=False)["id"])
    assert found.keys() <= known, f"no printed value is called {sorted(found.keys() - known)}"
    return found


SIZE = (512, 512)
#: DBDC+Pac: every convolution, the first and the last at 8 bits.
DBDC_EDSR = {"head": 8, "tail": 8, "*": 4}


def _table1_edsr() -> dict[str, Derived]:
    import torch

    from sqlib import cost, models

    with torch.device("meta"):
        edsr = models.create("edsr-large", scale=4)
    result = {}
    for row, bits in (("FP/32", 32), ("DBDC+Pac/4", DBDC_EDSR)):
        found = cost.cost(edsr, SIZE, bits=bits, skip=[])
        ops = cost.operations(found)["ops"]["Total"]
        result[f"2dquant-table1/EDSR/x4/{row}/-/params_mb"] = Derived(found.packed_bytes / cost.MB)
        result[f"2dquant-table1/EDSR/x4/{row}/LR128x128/ops_g"] = Derived(float(ops) / 1e9)
    return result


def _table1_swinir() -> dict[str, Derived]:
    from sqlib import cost

    result = {}
    for row, bits in (("FP/32", 32), ("DBDC+Pac/4", 4), ("2DQuant/4", 4)):
        total = _swinir(bits)
        tables = sum(t.bytes for t in total.stored if t.name.endswith("relative_position_bias"))
        size, unit, name = total.packed_bytes - tables, cost.MB, "MB of 10^6 bytes"
        if bits == 32:
            unit, name = cost.MIB, f"MiB of 2^20 bytes ({size / cost.MB:.2f} MB of 10^6)"
        result[f"2dquant-table1/SwinIR-light/x4/{row}/-/params_mb"] = Derived(
            size / unit,
            f"in {name}, without the tables of relative positions; with them "
            f"{total.packed_bytes / cost.MB:.2f} MB of 10^6",
        )
        exact = cost.operations(total)
        released = cost.operations(total, counting="swinir-release")
        result[f"2dquant-table1/SwinIR-light/x4/{row}/LR128x128/ops_g"] = Derived(
            float(released["ops"]["Total"]) / 1e9, _slips(float(exact["ops"]["Total"]))
        )
    return result


def _table2() -> dict[str, Derived]:
    from sqlib import cost

    exact = cost.operations(_swinir(32))
    released = cost.operations(_swinir(32), counting="swinir-release")
    result = {}
    for row in released.index:
        name = f"2dquant-table2/SwinIR-light/x4/{row}/32/LR128x128"
        ops, percent, true = (float(c[row]) for c in (released["ops"], released["percent"], exact["ops"]))
        result[f"{name}/ops_g"] = Derived(ops / 1e9, "" if true == ops else _slips(true))
        whole = f"{exact['percent'][row]:.2f} % in truth"
        result[f"{name}/ops_percent"] = Derived(
            percent, "" if row == "Total" else f"{whole}: the total is under-counted"
        )
    return result


def _slips(true: float) -> str:
    return (
        "with the slips of SwinIR's FLOPs function (see sqlib.cost.operations); "
        f"{true / 1e9:.2f} G when everything is counted as it runs"
    )


@cache
def _swinir(bits: int) -> Cost:
    import torch

    from sqlib import cost, models

    with torch.device("meta"):
        network = models.create("swinir-light", scale=4)
    return cost.cost(network, SIZE, bits=bits)
