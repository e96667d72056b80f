"""The planner: a table and a profile in, cells out. Pure: looks at no data, no weights and no store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlib._checks import as_integer
from sqlib.errors import InputError
from sqlib.experiments import papers
from sqlib.experiments.papers import Method, Network, Table
from sqlib.experiments.run import profiles
from sqlib.experiments.store.cells import FULL_PRECISION, Cell, Place, bits_text, distinct
from sqlib.experiments.store.records import Record


def plan(table: str, profile: str, *, seed: int = 0) -> list[Cell]:
    """The cells of ``table`` in ``profile``, ordered so that neighbours share the most work.

    Order: network, then recipe and bits, then dataset. A network is loaded once and a quantized network is
    calibrated once for all its datasets.

    Raises
    ------
    InputError
        Unknown table or profile, or a seed that is not a non-negative integer.
    """
    drawn = as_integer(seed)
    if drawn is None or drawn < 0:
        raise InputError(f"seed is {seed!r}, expected an integer of 0 or more")
    chosen, extent = papers.table(table), profiles.profile(profile)
    cells: list[Cell] = []
    for network in chosen.networks:
        place = (network.name, network.scale)
        if not _allowed(profile, network.profiles) or not _allowed(place, extent.networks):
            continue
        for method in chosen.methods:
            if not _allowed(profile, method.profiles) or not _allowed(network.name, method.networks):
                continue
            for bits in method.bits:
                if _allowed(bits, extent.bits):
                    cells += _row(chosen, network, method, bits, extent, drawn)
    return cells


def planned(table: str) -> list[Cell]:
    """The cells of a table in any profile whose records are kept, each row and dataset once."""
    found = {}
    for profile in ("laptop", "full"):
        found.update({(cell.id, cell.place): cell for cell in plan(table, profile)})
    return list(found.values())


def _row(
    table: Table, network: Network, method: Method, bits: int | str, extent: profiles.Profile, seed: int
) -> Iterator[Cell]:
    """The cells of one row: a network, a method and a bit setting on every dataset."""
    from sqlib import recipes
    from sqlib.metrics import PROTOCOLS

    recipe = None
    if method.recipe is not None:
        options = {**method.options, "bits": method.recipe_bits(bits)}
        recipe = recipes.create(method.recipe, **options)
    cell = Cell(
        model=network.name,
        scale=network.scale,
        weights=network.weights,
        bits=FULL_PRECISION if recipe is None else bits_text(recipe.to_dict()["bits"]),
        dataset="",
        protocol="",
        # Full precision draws nothing: one cell serves every seed.
        seed=0 if recipe is None else seed,
        recipe=None if recipe is None else distinct(recipe),
        calibration=None if recipe is None else extent.calibration or table.calibration,
        training=(extent.training or method.training or table.training)
        if recipe is not None and recipe.paired
        else None,
        place=Place(table.paper, table.name, method.label, str(bits)),
    )
    for dataset in extent.datasets or [d for d in table.datasets if _allowed(d, network.datasets)]:
        tiling, counted = method.tiling or _of(table.tiling, dataset), _of(table.counted, dataset)
        protocol = replace(PROTOCOLS[table.protocol], tiling=tiling).id
        yield replace(cell, dataset=dataset, protocol=protocol, counted=counted)


def _of(given: Any, dataset: str) -> Any:
    """What a table says of one dataset; a part of it (``"builtin[:2]"``) is it."""
    return given.get(dataset.partition("[")[0]) if isinstance(given, Mapping) else given


def _allowed(value: object, choice: Sequence[object] | None) -> bool:
    return choice is None or value in choice


def only(cells: Iterable[Cell], texts: Sequence[str]) -> list[Cell]:
    """The cells whose line in a plan (``Cell.label``) holds each of ``texts``; upper and lower case are one.

    Raises
    ------
    InputError
        There are cells, and none is left; or ``texts`` is one text.
    """
    if isinstance(texts, str):
        raise InputError(f"only={texts!r}: expected a list of texts, such as [{texts!r}]")
    cells = list(cells)
    left = [cell for cell in cells if all(text.lower() in cell.label.lower() for text in texts)]
    if cells and not left:
        raise InputError(
            f"only {' '.join(map(repr, texts))}: none of {len(cells)} cells has all of it in its line, such "
            f"as {cells[0].label!r}; the command 'plan' prints the lines"
        )
    return left


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` -> (2, 8): the second of eight shards."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"shard is {text!r}, expected i/n with 1 <= i <= n, such as 2/8")
    return int(match[1]), int(match[2])


def shard(cells: Sequence[Cell], index: int, count: int) -> list[Cell]:
    """Every ``count``-th cell from the ``index``-th (from 1) on; the shards together are all cells once."""
    return list(cells[index - 1 :: count])


def network_of(cell: Cell) -> tuple[object, ...]:
    """What the (quantized) network of a cell depends on, as planned."""
    return (
        cell.model,
        cell.scale,
        cell.weights,
        str(cell.recipe),
        cell.bits,
        cell.calibration,
        cell.training,
        cell.seed,
    )


def groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Runs of cells that share one (quantized) network, the unit handed to a worker."""
    result: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        result.setdefault(network_of(cell), []).append(cell)
    return list(result.values())


@dataclass(frozen=True)
class Estimate:
    """What a plan costs: seconds of the cells for which a record says so, and how many have none."""

    seconds: float
    known: int
    unknown: int


def estimate(cells: Iterable[Cell], records: dict[str, Record]) -> Estimate:
    """Estimate the single-process time of ``cells`` from measured records.

    A cell is as long as its own record, else as the mean over records of the same network and dataset,
    else unknown: nothing is guessed across networks.
    """
    similar: dict[tuple[str, int, str], list[float]] = {}
    for record in records.values():
        cell = record["cell"]
        similar.setdefault((cell["model"], cell["scale"], cell["dataset"]), []).append(
            float(record["seconds"])
        )
    seconds, known, unknown = 0.0, 0, 0
    for cell in cells:
        times = similar.get((cell.model, cell.scale, cell.dataset), [])
        if cell.id in records:
            times = [float(records[cell.id]["seconds"])]
        if times:
            seconds, known = seconds + sum(times) / len(times), known + 1
        else:
            unknown += 1
    return Estimate(seconds, known, unknown)
