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

if TYPE_CHECKING:
    from sqlib.engine import QuantizedModel
    from sqlib.reference.clustering import Cluster

REFERENCE, QUERY = "reference", "query"
"""Roles of the samples of a pass (`sqlib.engine.Context`)."""

AT_ONCE = 2**17
"""Pixels in one pass, 14 patches of 96 x 96; a larger patch goes alone."""


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
    block
        From (N, C, h, w) to the same.
    refer
        Called with features of query and reference; gives the query's, refined.
    number
        Which of the refined blocks this is.
    kept
        "input" or "output": features of the reference before or behind its block. The paper does not say
        which; the query's are those before. "query": the query is its own reference (Table 5). "nothing":
        a reference of zeros, which shows what refinement does without one.
    adds
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
    model: QuantizedModel, patches: Sequence[Tensor], cluster: Cluster, *, at_once: int = AT_ONCE
) -> list[Tensor]:
    """All patches of one image: references in batches of one size, then queries in batches likewise.

    Parameters
    ----------
    model
        Made with `sqlib.recipes.RefQSR`.
    patches
        (1, C, h, w) each, of any sizes.
    cluster
        Finds the reference of each.
    at_once
        Pixels in one pass, which bounds the memory of passes. Besides, the features that are kept are those
        of all references that have a query: C x h x w numbers for each of the refined blocks.

    Returns
    -------
    list of Tensor
        (1, C, scale h, scale w) each, in the order of `patches`.
    """
    clustering = cluster(patches)
    asked = set(clustering.reference[clustering.is_query].tolist())
    out: dict[int, Tensor] = {}
    kept: dict[int, Kept] = {}
    numbers = range(len(patches))
    alone = [n for n in numbers if not clustering.is_query[n]]
    for some in _alike(alone, lambda n: patches[n].shape, at_once):
        with references() as seen, model.context(roles=REFERENCE):
            out.update(zip(some, model(torch.cat([patches[n] for n in some])).split(1), strict=True))
        kept.update({n: seen.of([place]) for place, n in enumerate(some) if n in asked})
    reference = clustering.reference.tolist()

    def sizes(n: int) -> Any:
        return patches[n].shape, patches[reference[n]].shape

    for some in _alike([n for n in numbers if clustering.is_query[n]], sizes, at_once):
        with queries(_joined([kept[reference[n]] for n in some])), model.context(roles=QUERY):
            out.update(zip(some, model(torch.cat([patches[n] for n in some])).split(1), strict=True))
    return [out[n] for n in numbers]


def _joined(parts: Sequence[Kept]) -> Kept:
    return Kept({number: torch.cat([part[number] for part in parts]) for number in parts[0]})


def _alike(numbers: Sequence[int], key: Callable[[int], Any], at_once: int) -> Iterator[list[int]]:
    """Numbers of patches that can run in one pass: of equal sizes, and not too many."""
    groups: dict[Any, list[int]] = {}
    for number in numbers:
        groups.setdefault(key(number), []).append(number)
    for found, group in groups.items():
        shape = found if isinstance(found, torch.Size) else found[0]
        step = max(1, at_once // (shape[-1] * shape[-2]))
        yield from (group[start : start + step] for start in range(0, len(group), step))
