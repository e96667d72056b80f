r"""What super-resolving an image costs: BitOPs, FQR, operations, parameters, packed size, memory.

>>> from sqlib import cost, models
>>> network = models.create("srresnet", scale=4)
>>> found = cost.cost(network, (1280, 720), patch=72, overlap=6, bits=8)
>>> round(found.bitops / 1e9, 2), found.fqr, found.patches
(9.27, 8.0, 8)

Units: one multiplication with its addition is one MAC; BitOPs count two operations for it, Ops (2DQuant)
one. G is :math:`10^9`, MB :math:`10^6` bytes; nothing here is a power of two unless it says MiB.
"""

from __future__ import annotations

from sqlib.cost._cost import bitops, by_bits, cost
from sqlib.cost._operations import MB, MIB, operations
from sqlib.cost._patches import patch_sizes
from sqlib.cost._results import Cost, LayerCost
from sqlib.cost._storage import Stored
from sqlib.cost._walk import Product, Walk, walk

__all__ = [
    "MB",
    "MIB",
    "Cost",
    "LayerCost",
    "Product",
    "Stored",
    "Walk",
    "bitops",
    "by_bits",
    "cost",
    "operations",
    "patch_sizes",
    "walk",
]
