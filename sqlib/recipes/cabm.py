"""CABM: bits of the whole network looked up by the edges of a patch (Tian et al., CVPR 2023)."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlib.engine.options import choice, integer, number
from sqlib.engine.recipe import Lesson, Recipe
from sqlib.engine.registry import register
from sqlib.errors import InputError
from sqlib.recipes._trained import channel_axis
from sqlib.recipes.cadyq import CADyQ, ContentLoss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.fit.quantization_aware.task import Answer
    from sqlib.quantizers import EdgeTable


@register("cabm")
@dataclass(frozen=True)
class CABM(CADyQ):
    """CADyQ's selectors, replaced by a table of what they chose; then fine-tuned.

    Parameters
    ----------
    edges : str
        What the score of a patch is taken from: the "image", or as in the "release", which takes an image in
        0..255 for one in 0..1, so that almost every pixel is white. Which one the paper's figures come from
        is not known.
    data_range : int
        Value of white in the network's input; an integer.
    limit : float
        Configurations with this mean width or more are passed over when a patch is looked up; 100: none are
        (the release fine-tunes with 6 and tests with 100). Where all would be, none are, with a warning.
    table_patch, table_overlap : int
        Patches of which the table is made.

    Notes
    -----
    The other options are those of `CADyQ`, which it starts from; `learning_rate` is that of fine-tuning.

    The table is made from the calibration data, cut into patches: give whole low-resolution pictures (the
    papers' are those of DIV2K's validation set). It is ``model.edge_table``, which files do not keep; what
    they keep is each selector's column of the cheapest configuration of each score.

    Fine-tuning has the distillation losses of CADyQ without its bits. The teacher is CADyQ's network with the
    largest width everywhere, which is an 8-bit network like the one that taught CADyQ.
    """

    learning_rate: float = number(1e-5, 0, above=True)
    edges: str = choice("image", "release")
    data_range: int = integer(1, 1)
    limit: float = number(6.0, 0, 100, above=True)
    table_patch: int = integer(96, 1)
    table_overlap: int = integer(2, 0)

    def check(self) -> dict[str, Any]:
        """Patches that are larger than their overlap."""
        if self.table_overlap >= self.table_patch:
            raise InputError(
                f"table_patch={self.table_patch} and table_overlap={self.table_overlap}: expected patches "
                "larger than their overlap"
            )
        return dict(super().check())

    def starts_from(self) -> Recipe | None:
        """CADyQ with the same options, but for the rate."""
        own = {f.name for f in dataclasses.fields(CADyQ)} - {"learning_rate"}
        return CADyQ(**{name: getattr(self, name) for name in own})

    def learn(self, model: QuantizedModel, lesson: Lesson) -> None:
        """Make the table, then fine-tune weights and bounds."""
        from sqlib.quantizers import QuantizerBank, StaticBits, TableBits

        start = lesson.start
        assert start is not None
        if banks(model) != banks(start):
            raise InputError(
                f"start chooses the bits of {len(banks(start))} activations, here {len(banks(model))} are "
                "quantized: make it with the same skip=, and calibration data of the same kind"
            )
        score: dict[str, Any] = {"data_range": self.data_range, "saturated": self.edges == "release"}
        patch, overlap = self.table_patch, self.table_overlap
        table = edge_table(start, lesson.calibration, patch=patch, overlap=overlap, **score)
        limit = self._limit(table)
        teacher = copy.deepcopy(start)
        for column, (_, _, key) in enumerate(banks(start)):
            known = copy.deepcopy(start.activations[key])
            assert isinstance(known, QuantizerBank)
            own = {width: known.at(width) for width in known.widths}
            model.add_activation(key, QuantizerBank(own, TableBits(table, column, limit=limit, **score)))
            teacher.activations[key].selector = StaticBits(max(self.candidates))
        model.edge_table = table  # type: ignore[assignment]
        self.distil(model, lesson, teacher=teacher)

    def criterion(self, network: nn.Module) -> Callable[[Answer], Tensor]:
        """CADyQ's loss without its bits."""
        return ContentLoss(self.transfer, self.block_transfer, 0.0, 0.0, channel_axis(network))

    def _limit(self, table: EdgeTable) -> float:
        cheapest = float(table.means.min())
        if cheapest < self.limit:
            return self.limit
        warnings.warn(
            f"no configuration has a mean below limit={self.limit:g} bits (the cheapest {cheapest:.2f}), so "
            "that none is passed over: CADyQ has not learned to spare bits, train it longer or with a larger "
            "bit_weight",
            stacklevel=2,
        )
        return 100.0


def banks(model: QuantizedModel) -> list[tuple[str, str, str]]:
    """(call site, operand, name in ``model.activations``) of every bank of activations, in their order."""
    from sqlib.quantizers import QuantizerBank

    return [
        (site.name, role, key.replace(".", "/"))
        for site in model.sites.values()
        for role, key in site.activation_keys.items()
        if isinstance(model.activation_quantizer(site, role), QuantizerBank)
    ]


def edge_table(
    model: QuantizedModel,
    images: Iterable[Any],
    *,
    patch: int = 96,
    overlap: int = 2,
    data_range: int = 1,
    saturated: bool = False,
) -> EdgeTable:
    """What the banks of a network choose for patches, by edge score.

    Parameters
    ----------
    model : QuantizedModel
        Made with `CADyQ`.
    images : iterable
        Low-resolution images (N, C, H, W), cut by the rule of `sqlib.patches.Grid`; other batches run as they
        are.
    patch, overlap : int
        In pixels.
    data_range, saturated : int, bool
        As in `sqlib.quantizers.edge_scores`.

    Returns
    -------
    EdgeTable
        Its columns in the order of the call sites and their operands.

    Raises
    ------
    InputError
        No images, no banks, or a call site with a bank that a pass does not reach.
    """
    import torch

    from sqlib.engine.batches import arguments
    from sqlib.quantizers import EdgeTable, edge_scores
    from sqlib.quantizers.edges import picture

    operands = [(site, role) for site, role, _ in banks(model)]
    if not operands:
        raise InputError("the network has no bank of quantizers, so it chooses no bits; make it with CADyQ")
    scores, bits = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, len(operands), dtype=torch.int64)]
    with torch.no_grad(), model.passes() as passes:
        for batch in images:
            for piece in _pieces(batch, patch, overlap):
                args, kwargs = arguments(piece, model.network)
                model(*args, **kwargs)
                found = passes[-1].operands
                missing = [site for site, role in operands if (site, role) not in found]
                if missing:
                    raise InputError(
                        f"a pass does not reach the call site {missing[0]!r}, so its bits are not known"
                    )
                seen = picture(passes[-1])
                scores.append(edge_scores(seen, data_range=data_range, saturated=saturated).cpu())
                bits.append(torch.stack([found[operand] for operand in operands], 1))
                passes.clear()
    return EdgeTable(torch.cat(scores), torch.cat(bits))


def _pieces(batch: Any, patch: int, overlap: int) -> Iterator[Any]:
    from torch import Tensor

    from sqlib.patches import Grid, split

    if isinstance(batch, Tensor) and batch.ndim == 4:
        yield from split(batch, Grid(batch.shape[-2], batch.shape[-1], patch, overlap))
    else:
        yield batch
