"""What RefQSR's printed BitOPs and FQR of fixed bits follow from, and the share of query patches in them.

A reference patch has b_high everywhere. A query patch has b_high in the first block and in the refinement
blocks that replace the last ones, and elsewhere weights of b_medium and activations of b_low. Convolutions of
a refinement block cost what those of the replaced block do: in SRResNet and CARN both have two of 3x3, and in
ELAN print fits these better than any of 3x3. So

.. math:: FQR = b_{high} - q\\,(b_{high} - FQR_{query})

gives the share q of query patches from any printed FQR, and with it BitOPs follow but for what a refinement
block computes beside its convolutions and cost volume. Clustering is in them, once for every patch and as if
each had its nominal size: without it no number for the rest fits SRResNet, which has two refinement blocks,
and CARN, which has one.
"""

from __future__ import annotations

import csv
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlib._checks import FULL_PRECISION
from sqlib.experiments.papers.schema import printed

if TYPE_CHECKING:
    from torch import nn

    from sqlib.cost import Cost

SETTINGS = ((8, 5), (8, 4), (8, 3), (4, 3), (4, 2))
"""Printed pairs of b_high and b_low."""

BESIDE = 4.5
"""32-bit operations for each number of a query's features in a refinement block, fitted to the BitOPs of
SRResNet and CARN: fewer than norm, pooling, warping, difference and sum take, about 12."""

_POOL = 3


class Split(NamedTuple):
    """BitOPs of one patch as a reference and as a query, and the query's FQR."""

    reference: float
    query: float
    query_fqr: float


@cache
def split(name: str, high: int, low: int, patch: tuple[int, int], medium: int | None = None) -> Split:
    """Both prices of a patch (width, height), low-resolution pixels at x4; b_medium by the rule, or given."""
    network = _network(name)
    reference, query = _walked(name, medium)[high, low]
    pixels, positions = patch[0] * patch[1], -(-patch[0] // _POOL) * -(-patch[1] // _POOL)
    beside = 0.0
    for module in _blocks(network)[1]:
        features = _channels(network, module)
        beside += 2 * positions**2 * features * low**2 / FULL_PRECISION**2 + BESIDE * features * pixels
    scale = pixels / reference.pixels
    return Split(reference.bitops * scale, query.bitops * scale + beside, query.fqr)


@cache
def _network(name: str) -> nn.Module:
    import torch

    from sqlib import models

    with torch.device("meta"):
        return models.create(name, scale=4)


@cache
def _walked(name: str, medium: int | None = None) -> dict[tuple[int, int], tuple[Cost, Cost]]:
    """(b_high, b_low) -> cost of 48 x 48 pixels as a reference and, cost volume aside, as a query."""
    from sqlib import cost

    network = _network(name)
    first, replaced = _blocks(network)
    planned: list[Any] = [high for high, _ in SETTINGS]
    for high, low in SETTINGS:
        middle = medium or round((high + low) / 2)  # half to even
        kept = {f"{module}.*": (high, high) for module in (first, *replaced)}
        planned.append({**kept, "*": (middle, low)})
    found = cost.by_bits(network, (192, 192), planned)
    half = len(SETTINGS)
    return dict(zip(SETTINGS, zip(found[:half], found[half:], strict=True), strict=True))


def _blocks(network: nn.Module) -> tuple[str, tuple[str, ...]]:
    """First block, and those that are replaced."""
    from sqlib.recipes import RefQSR

    recipe = RefQSR()
    return recipe.first_block(network), recipe.replaced(network)


def _channels(network: nn.Module, name: str) -> int:
    from torch import nn

    return [m for m in network.get_submodule(name).modules() if isinstance(m, nn.Conv2d)][-1].out_channels


def refinement(name: str, high: int, low: int, patch: tuple[int, int]) -> float:
    """BitOPs of all refinement blocks on one patch, convolutions of 3x3."""
    network, pixels = _network(name), patch[0] * patch[1]
    positions, total = -(-patch[0] // _POOL) * -(-patch[1] // _POOL), 0.0
    for module in _blocks(network)[1]:
        features = _channels(network, module)
        macs = 2 * 9 * features**2 * pixels * high**2 + positions**2 * features * low**2
        total += 2 * macs / FULL_PRECISION**2 + BESIDE * features * pixels
    return total


def refinement_params(name: str, high: int) -> float:
    """Weights of all refinement blocks, b bits as b/32 of a parameter."""
    network = _network(name)
    widths = [_channels(network, module) for module in _blocks(network)[1]]
    return sum(2 * 9 * features**2 for features in widths) * high / FULL_PRECISION


@cache
def printed_values() -> dict[tuple[str, str, str, str, str], float]:
    """(network, method, bits, dataset, metric) -> value, of Tables 2 and 4."""
    found = {}
    for file in printed("refqsr"):
        if file.name in ("refqsr_table2.csv", "refqsr_table4.csv"):
            with file.open(encoding="utf-8") as lines:
                for row in csv.DictReader(lines):
                    place = row["model"], row["method"], row["bits"], row["dataset"], row["metric"]
                    found[place] = float(row["value"])
    return found


def implied_share(label: str, name: str, dataset: str) -> float:
    """Share of query patches in the printed FQR: the least-squares fit over `SETTINGS`."""
    above = below = 0.0
    for high, low in SETTINGS:
        fqr = printed_values()[label, "PAMS+RefQSR", f"{high}-{low}", dataset, "fqr"]
        gain = high - split(name, high, low, (48, 48)).query_fqr
        above, below = above + gain * (high - fqr), below + gain * gain
    return above / below


@cache
def clustering(patches: int, side: int) -> float:
    """BitOPs of ClustBlock for square patches."""
    from sqlib.reference.clustering_cost import clustblock_bitops

    return patches * clustblock_bitops([(side, side)])
