"""The bits that passes over real images used, in the mean over their samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sqlib._checks import FULL_PRECISION
from sqlib.cost._bits import Bits
from sqlib.engine.batches import arguments
from sqlib.engine.context import Context
from sqlib.engine.site import Site
from sqlib.errors import InputError
from sqlib.patches import Grid, split
from sqlib.quantizers import QuantizerBank

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

Size = tuple[int, int]
Pieces = list[list[Tensor]]
"""Patches (1, C, h, w), those of each image together."""

AT_ONCE = 2**17
"""Pixels in one pass; a larger patch goes alone."""


class Widths(ABC):
    """Bits of the operands of call sites, for patches of each size."""

    @abstractmethod
    def mean(self, site: Site, roles: Iterable[str], size: Size) -> float:
        """Mean over patches of this size of the product of the bits of these operands."""

    def share(self, site: Site, size: Size) -> float:
        """How many of the patches of this size reach the site, from 0 to 1."""
        return 1

    def over(self, operand: tuple[Site, str], counts: Mapping[Size, int]) -> float:
        """Mean bits of one operand over the patches of all sizes that reach it."""
        site, role = operand
        reached = {size: n * self.share(site, size) for size, n in counts.items()}
        reached = {size: n for size, n in reached.items() if n}
        if not reached:
            return FULL_PRECISION
        return sum(n * self.mean(site, (role,), size) for size, n in reached.items()) / sum(reached.values())


class Static(Widths):
    """Bits that are the same for every patch."""

    def __init__(self, bits: Bits) -> None:
        self.bits = bits

    def mean(self, site: Site, roles: Iterable[str], size: Size) -> int:
        """The product."""
        product = 1
        for role in roles:
            product *= self.bits(site, role)
        return product

    def over(self, operand: tuple[Site, str], counts: Mapping[Size, int]) -> int:
        """The bits."""
        return self.bits(*operand)


class Used(Widths):
    """Bits that passes used; with `branches`, a site that none of them reached has no part in the cost."""

    def __init__(self, contexts: Iterable[Context], branches: bool = False) -> None:
        self.branches = branches
        self.found: dict[str, dict[Size | None, dict[str, list[Tensor]]]] = {}
        self.samples: dict[Size | None, int] = {}
        for context in contexts:
            self.samples[context.size] = self.samples.get(context.size, 0) + context.samples
            for (site, role), widths in context.operands.items():
                by_size = self.found.setdefault(site, {})
                by_size.setdefault(context.size, {}).setdefault(role, []).append(widths.double())

    def share(self, site: Site, size: Size) -> float:
        """Over samples of this size; of all sizes if none had it."""
        sizes = [size] if size in self.samples else list(self.samples)
        by_size = self.found.get(site.name, {})
        reached = sum(len(torch.cat(next(iter(by_size[one].values())))) for one in sizes if one in by_size)
        return reached / sum(self.samples[one] for one in sizes) if by_size else int(not self.branches)

    def mean(self, site: Site, roles: Iterable[str], size: Size) -> float:
        """Over samples of this size that reach the site; of all sizes if none had it."""
        by_size = self.found.get(site.name)
        if by_size is None:
            if site.active:
                raise InputError(
                    f"the passes never reached the call site {site.name!r}, so its bits are not known; give "
                    "passes of the model over images such as are to be counted"
                )
            by_size = {None: {}}
        sizes = [by_size[size]] if size in by_size else list(by_size.values())
        product = torch.ones(1, dtype=torch.float64)
        for role in roles:
            parts = [widths for one in sizes for widths in one.get(role, [])]
            product = product * (torch.cat(parts) if parts else FULL_PRECISION)
        return float(product.mean())


def patches(images: Any, size: Size, patch: int | None, overlap: int) -> Pieces:
    """Patches of all images.

    Raises
    ------
    InputError
        No images, or such as have not the size (width, height).
    """
    grid = Grid(size[1], size[0], patch or max(size), overlap)
    found: Pieces = []
    for number, image in enumerate(_single(images)):
        if (image.shape[-1], image.shape[-2]) != size:
            raise InputError(
                f"images: number {number} has {image.shape[-1]}x{image.shape[-2]} pixels (width x height), "
                f"expected the low-resolution size {size[0]}x{size[1]}"
            )
        found.append(split(image, grid))
    if not found:
        raise InputError("images is empty, expected low-resolution images (C, H, W) or batches of them")
    return found


def by_size(pieces: Pieces) -> dict[Size, list[Tensor]]:
    """Patches of all images by (width, height), each size in the order of the images."""
    found: dict[Size, list[Tensor]] = {}
    for piece in chain.from_iterable(pieces):
        found.setdefault((piece.shape[-1], piece.shape[-2]), []).append(piece)
    return found


def _single(images: Any) -> Iterator[Tensor]:
    several = isinstance(images, Iterable) and not isinstance(images, Tensor)
    for batch in images if several else (images,):
        if not isinstance(batch, Tensor) or batch.ndim not in (3, 4) or not batch.is_floating_point():
            raise InputError(
                f"images has a {type(batch).__name__} {tuple(getattr(batch, 'shape', ()))}, expected "
                "floating-point tensors (C, H, W) or (N, C, H, W)"
            )
        yield from (batch if batch.ndim == 4 else batch[None]).split(1)


def used(
    model: QuantizedModel | None, pieces: Pieces | None, context: Context | Iterable[Context] | None
) -> Used | None:
    """The bits of the passes that are given, or of passes over these patches; None where bits are static.

    Raises
    ------
    InputError
        Banks of quantizers, and nothing to run them on; contexts without a pass, or of no quantized model.
    """
    if context is not None:
        contexts = list(context) if isinstance(context, Iterable) else [context]
        if model is None or not all(isinstance(c, Context) for c in contexts):
            raise InputError(
                "context= takes what quantized.passes() or quantized.context() gave, for the quantized model"
            )
        if not any(c.samples and c.bits for c in contexts):
            raise InputError("the context has seen no pass: run the model in its block, then count")
        return Used((c for c in contexts if c.samples), model.recipe.branches)
    if model is None or not (model.has_banks or model.recipe.branches):
        return None
    if pieces is None:
        raise InputError(
            f"the bits depend on what the network is given ({_first(model)}): give images=, low-resolution "
            "images to run it on, or context=, passes over some (quantized.passes())"
        )
    if model.training:
        raise InputError("the model is in training mode, and passes would change it; call model.eval()")
    with torch.no_grad(), model.passes() as passes:
        _run(model, pieces)
    return Used(passes, model.recipe.branches)


def _run(model: QuantizedModel, pieces: Pieces) -> None:
    """Passes over all patches, those of one image together where the recipe relates them."""
    together = model.together
    if together is not None:
        for image in pieces:
            for _ in together([arguments(piece, model.network)[0][0] for piece in image]):
                pass
        return
    for (width, height), group in by_size(pieces).items():
        for batch in torch.cat(group).split(max(1, AT_ONCE // (width * height))):
            model(*arguments(batch, model.network)[0])


def _first(model: QuantizedModel) -> str:
    """Where bits are chosen first."""
    homes = *model.activations.items(), *model.weights.items()
    for key, bank in homes:
        if isinstance(bank, QuantizerBank):
            return f"first at {key.replace('/', '.')!r}: {'/'.join(map(str, bank.widths))}"
    return "which parts of it run"
