"""Two paths through one network: reference patches first, then query patches that look at them.

Some of the last blocks of the network are `RefinedBlock`. On the reference path such a block runs as it is,
and what goes into it is kept; on the query path a `RefER` takes its place, which compares the query with what
was kept of its reference. Who is what in a pass is said by the block of code it runs in:

>>> with references() as kept:                                               # doctest: +SKIP
...     upscaled = network(reference_patches)
>>> with queries(kept.of([0, 0, 2])):                                        # doctest: +SKIP
...     others = network(three_query_patches)

Outside of both, every patch is its own reference, which is the network without query patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from sqlib.engine.running import running
from sqlib.errors import InputError
from sqlib.reference.refinement import RefER

if TYPE_CHECKING:
    from sqlib.engine import QuantizedModel
    from sqlib.reference.clustering import Cluster

REFERENCE, QUERY = "reference", "query"
"""Roles of the samples of a pass (`sqlib.engine.Context`)."""

AT_ONCE = 2**17
"""Pixels in one pass, 14 patches of 96 x 96; a larger patch goes alone."""

ENTRIES_AT_ONCE = 2**26
"""Entries of the cost volumes of one pass, 256 MiB in float32: 64 pairs of patches of 96 x 96 that are
pooled by 3, without pooling 2 pairs of 72 x 72; a larger volume is computed alone."""


class Kept(dict[int, Tensor]):
    """Features of reference patches by the number of the block they are for, (N, C, h, w) each."""

    def of(self, index: Sequence[int]) -> Kept:
        """Those of some of the patches, in this order; one may be there several times."""
        return Kept({number: features[list(index)] for number, features in self.items()})


class _Path(NamedTuple):
    """What this thread's passes are."""

    role: str | None = None
    kept: Kept | None = None


def _path() -> _Path:
    found: _Path | None = running.path
    return found or _Path()


@contextmanager
def _as(role: str, kept: Kept | None) -> Iterator[None]:
    outer, running.path = running.path, _Path(role, kept)
    try:
        yield
    finally:
        running.path = outer


@contextmanager
def references() -> Iterator[Kept]:
    """Passes in the block are over reference patches; their features are kept, of the last pass."""
    kept = Kept()
    with _as(REFERENCE, kept):
        yield kept


@contextmanager
def queries(kept: Kept) -> Iterator[None]:
    """Passes in the block are over query patches; `kept` has the features of the reference of each."""
    with _as(QUERY, kept):
        yield


@contextmanager
def both() -> Iterator[None]:
    """In passes in the block both paths are computed, so that observers see them.

    Every sample is a query of the one before it, and the network goes on with the reference path.
    """
    with _as("both", None):
        yield


class RefinedBlock(nn.Module):
    """A block of a network, and what takes its place on the query path.

    Parameters
    ----------
    block : nn.Module
        From (N, C, h, w) to the same.
    refer : nn.Module
        Called with features of query and reference; gives the query's, refined.
    number : int
        Which of the refined blocks this is.
    kept : str
        "input" or "output": features of the reference before or behind its block. The paper does not say
        which; the query's are those before. "query": the query is its own reference (Table 5). "nothing":
        a reference of zeros, which shows what refinement does without one.
    adds : bool
        Whether `block` adds its input to what it computes, as a residual block does. Otherwise the network
        does so, and the input is taken off what `refer` returns, which has it in it.
    """

    def __init__(
        self, block: nn.Module, refer: nn.Module, number: int, *, kept: str = "input", adds: bool = True
    ) -> None:
        super().__init__()
        self.block, self.refer = block, refer
        self.number, self.kept, self.adds = number, kept, adds

    def forward(self, x: Tensor) -> Tensor:
        role, kept = _path()
        if role is not None and running.tracer is not None and running.tracer.reentrant:
            raise InputError(
                "the network computes parts of it again in a reentrant checkpoint, which gives features of "
                "references no gradient: call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
            )
        if role == QUERY:
            return self._refined(x, self._reference(x, kept))
        out: Tensor = self.block(x)
        if role == "both":
            self._refined(x, (out if self.kept == "output" else x).roll(1, 0))
        elif kept is not None:
            kept[self.number] = out if self.kept == "output" else x
        return out

    def _refined(self, x: Tensor, reference: Tensor) -> Tensor:
        refined: Tensor = self.refer(x, reference)
        return refined if self.adds else refined - x

    def _reference(self, x: Tensor, kept: Kept | None) -> Tensor:
        if self.kept in ("query", "nothing"):
            return x if self.kept == "query" else torch.zeros_like(x)
        known = None if kept is None else kept.get(self.number)
        if known is None or len(known) != len(x):
            found = "none" if known is None else f"those of {len(known)}"
            raise InputError(
                f"{len(x)} query patches need the features of as many references, found {found}: run the "
                "references in a block of sqlib.reference.two_path.references() first"
            )
        return known


def two_path(model: QuantizedModel, low: Tensor) -> Tensor:
    """One batch of pairs: the first half are references, the second half their queries, in the same order.

    Returns
    -------
    Tensor
        What the network makes of them, in the order of `low`.
    """
    half = len(low) // 2
    if len(low) % 2:
        raise InputError(f"a batch of {len(low)} patches, expected pairs: as many references as queries")
    with references() as kept, model.context(roles=REFERENCE):
        first = model(low[:half])
    with queries(kept), model.context(roles=QUERY):
        second = model(low[half:])
    return torch.cat([first, second])


def upscale_patches(
    model: QuantizedModel,
    patches: Sequence[Tensor],
    cluster: Cluster,
    *,
    at_once: int = AT_ONCE,
    entries: int = ENTRIES_AT_ONCE,
) -> list[Tensor]:
    """All patches of one image: references in batches of one size, then queries in batches likewise.

    Parameters
    ----------
    model : QuantizedModel
        Made with `sqlib.recipes.RefQSR`.
    patches : sequence of Tensor
        (1, C, h, w) each, of any sizes, of one floating dtype and on one device.
    cluster : Cluster
        Finds the reference of each.
    at_once, entries : int
        Pixels in one pass, and entries of its cost volumes in one refinement block; together they bound the
        memory of passes. Besides, the features that are kept are those of all references that have a query:
        C x h x w numbers for each of the refined blocks. `cluster` is given all patches at once.

    Returns
    -------
    list of Tensor
        (1, C, scale h, scale w) each, in the order of `patches`.

    Raises
    ------
    InputError
        Patches of another shape, or not all of one dtype and on one device.
    """
    made = dict(each_upscaled(model, patches, cluster, at_once=at_once, entries=entries))
    return [made[n] for n in range(len(made))]


def each_upscaled(
    model: QuantizedModel,
    patches: Sequence[Tensor],
    cluster: Cluster,
    *,
    at_once: int = AT_ONCE,
    entries: int = ENTRIES_AT_ONCE,
) -> Iterator[tuple[int, Tensor]]:
    """The patches of `upscale_patches`, as soon as they are known.

    Parameters
    ----------
    model, patches, cluster, at_once, entries
        As there. A patch is asked for again in each of its passes.

    Yields
    ------
    int, Tensor
        Number of a patch and what the network made of it.
    """
    shapes = _shapes(patches)
    clustering = cluster(patches)
    asked = set(clustering.reference[clustering.is_query].tolist())
    kept: dict[int, Kept] = {}
    alone = [n for n in range(len(shapes)) if not clustering.is_query[n]]
    for some in _alike(alone, lambda n: shapes[n], lambda shape: at_once // _pixels(shape)):
        with references() as seen, model.context(roles=REFERENCE):
            made = model(torch.cat([patches[n] for n in some]))
        kept.update({n: seen.of([place]) for place, n in enumerate(some) if n in asked})
        yield from zip(some, made.split(1), strict=True)
    others = [n for n in range(len(shapes)) if clustering.is_query[n]]
    reference = clustering.reference.tolist()

    def sizes(n: int) -> tuple[torch.Size, torch.Size]:
        return shapes[n], shapes[reference[n]]

    def count(sizes: tuple[torch.Size, torch.Size]) -> int:
        return min(at_once // _pixels(sizes[0]), entries // _volume(model, *sizes))

    for some in _alike(others, sizes, count):
        with queries(_joined([kept[reference[n]] for n in some])), model.context(roles=QUERY):
            made = model(torch.cat([patches[n] for n in some]))
        yield from zip(some, made.split(1), strict=True)


def _joined(parts: Sequence[Kept]) -> Kept:
    return Kept({number: torch.cat([part[number] for part in parts]) for number in parts[0]})


def _shapes(patches: Sequence[Tensor]) -> list[torch.Size]:
    """Of patches that are what they should be."""
    shapes, kinds = [], set()
    for number, patch in enumerate(patches):
        if not isinstance(patch, Tensor) or not patch.is_floating_point():
            kind = patch.dtype if isinstance(patch, Tensor) else type(patch).__name__
            raise InputError(f"patch {number} is {kind}: expected a floating-point tensor (1, C, h, w)")
        if patch.ndim != 4 or len(patch) != 1 or 0 in patch.shape:
            raise InputError(f"patch {number} has shape {tuple(patch.shape)}: expected (1, C, h, w)")
        shapes.append(patch.shape)
        kinds.add(f"{patch.dtype} on {patch.device}")
    if len(kinds) > 1:
        found = " and ".join(sorted(kinds))
        raise InputError(f"the patches are {found}: give all of them as the network takes them")
    return shapes


def _pixels(shape: torch.Size) -> int:
    return shape[-1] * shape[-2]


def _volume(model: QuantizedModel, query: torch.Size, reference: torch.Size) -> int:
    """Entries of the largest cost volume of a pair of patches, whose features are of their size."""
    sizes = [(shape[-2], shape[-1]) for shape in (query, reference)]
    refers = [m for m in model.network.modules() if isinstance(m, RefER)]
    # a query that is its own reference meets its own size
    return max((r.entries(sizes[0], size) for r in refers for size in sizes), default=1)


def _alike(
    numbers: Sequence[int], key: Callable[[int], Any], at_once: Callable[[Any], int]
) -> Iterator[list[int]]:
    """Numbers of patches that can run in one pass: of equal sizes, and not too many, but one at least."""
    groups: dict[Any, list[int]] = {}
    for number in numbers:
        groups.setdefault(key(number), []).append(number)
    for found, group in groups.items():
        step = max(1, at_once(found))
        yield from (group[start : start + step] for start in range(0, len(group), step))
