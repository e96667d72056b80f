r"""CABM's table (Tian et al., CVPR 2023): from the edge score of a patch to the bits of the whole network.

A row is a score and one configuration: the width of every bank of the network, as a trained CADyQ chose
them for some patch of that score. With the score e of a patch and the cheapest mean width
:math:`\bar b(s)` of each score s in the table, the patch gets the configuration of

.. math:: \max \{ s \le e : \bar b(s) < \mathrm{limit} \}, \quad\text{or, if there is none, of}\quad
          \min \{ s > e : \bar b(s) < \mathrm{limit} \}

which is where decreasing e by 0.01, reflected at 0, first hits. The paper describes a table for each layer;
its release has this one, of configurations that occurred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sqlib._checks import check_flag, check_integer, check_number
from sqlib.errors import InputError
from sqlib.quantizers._readable import readable
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers.edges import edge_scores, picture


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """Distinct rows of what was observed, sorted by score, then mean width, then widths in order.

    Parameters
    ----------
    scores : Tensor
        Of M patches, in hundredths (`sqlib.quantizers.edge_scores`); integers (M,).
    bits : Tensor
        What each bank chose for each patch; integers (M, banks), 2 to 16.

    Attributes
    ----------
    scores, bits, means : Tensor
        Sorted, int64 (rows,), int64 (rows, banks) and mean widths, float64 (rows,).

    Raises
    ------
    InputError
        No patches, no banks, negative scores, widths that no quantizer has, or shapes that do not fit.
    """

    scores: Tensor
    bits: Tensor

    def __post_init__(self) -> None:
        scores, bits = torch.as_tensor(self.scores).cpu(), torch.as_tensor(self.bits).cpu()
        fits = scores.ndim == 1 and bits.ndim == 2 and len(scores) == len(bits) and bits.numel()
        whole = not any(t.is_floating_point() or t.dtype == torch.bool for t in (scores, bits))
        if not fits or not whole:
            raise InputError(
                f"a table of scores {tuple(scores.shape)} and bits {tuple(bits.shape)}: expected integers, a "
                "score and the bits of at least one bank for each of one or more patches"
            )
        if int(scores.min()) < 0 or not 2 <= int(bits.min()) <= int(bits.max()) <= 16:
            raise InputError(
                f"a table with scores from {int(scores.min())} and {int(bits.min())} to {int(bits.max())} "
                "bits: expected scores of at least 0 and bits from 2 to 16"
            )
        rows = torch.cat([scores[:, None], bits.sum(1, keepdim=True), bits], 1).long()
        rows = torch.unique(rows, dim=0)  # sorted; equal sums are equal means
        object.__setattr__(self, "scores", rows[:, 0].contiguous())
        object.__setattr__(self, "bits", rows[:, 2:].contiguous())

    @property
    def means(self) -> Tensor:
        """Mean width of each row."""
        return self.bits.double().mean(1)

    def cheapest(self) -> EdgeTable:
        """The first row of each score, the only ones that are ever looked up."""
        first = torch.ones_like(self.scores, dtype=torch.bool)
        first[1:] = self.scores[1:] != self.scores[:-1]
        return EdgeTable(self.scores[first], self.bits[first])

    def find(self, scores: Tensor, limit: float = 100.0) -> Tensor:
        """The widths of patches with these scores, (patches, banks); see the rule above."""
        cheapest = self.cheapest()
        return cheapest.bits[look_up(cheapest.scores, cheapest.means, torch.as_tensor(scores), limit)]

    def __len__(self) -> int:
        return len(self.scores)


def look_up(scores: Tensor, means: Tensor, asked: Tensor, limit: float | Tensor) -> Tensor:
    """Row of each score that is asked for, in a table with one row for each of its sorted scores.

    Raises
    ------
    InputError
        No row has a mean below the limit.
    """
    allowed = means < limit
    if readable(allowed) and not bool(allowed.any()):
        raise InputError(
            f"no configuration of the table has a mean below limit={float(limit):g} bits, the cheapest has "
            f"{float(means.min()):.2f}; give a higher limit (100: none), or train CADyQ longer, or with a "
            "larger bit_weight"
        )
    rows = torch.arange(len(scores), device=scores.device)
    last = rows.masked_fill(~allowed, -1).cummax(0).values  # of the allowed rows up to each
    last = torch.cat([torch.full_like(last[:1], -1), last])
    below = last[torch.searchsorted(scores, asked, right=True)]
    return torch.where(below < 0, rows.masked_fill(~allowed, len(rows)).amin(), below)


@saved_as("table-bits")
class TableBits(QuantizerState):
    """Selector that looks the width of its bank up, by the edge score of each patch.

    Parameters
    ----------
    table : EdgeTable
        Of the whole network.
    bank : int
        The column of this selector's bank.
    limit : Tensor
        Configurations of this mean width and more are passed over; 100: none are. The selectors of one
        network have one.
    data_range : int
        Value of white in the images that the network is given, an integer.
    saturated : bool
        Scores as the release computes them, see `sqlib.quantizers.edge_scores`.

    Attributes
    ----------
    scores, bits, means, limit : Tensor
        Buffers: scores and mean widths of the cheapest configuration of each score, and the width of this
        bank in it. Each selector keeps the scores beside its own column, some kilobytes, so that it can be
        saved, copied and loaded alone.
    """

    checked: ClassVar[tuple[str, ...]] = ("data_range", "saturated")
    labels: ClassVar[tuple[str, ...]] = ()

    scores: Tensor
    bits: Tensor
    means: Tensor
    limit: Tensor

    def __init__(
        self,
        table: EdgeTable,
        bank: int,
        *,
        limit: float = 6.0,
        data_range: int = 1,
        saturated: bool = False,
    ) -> None:
        super().__init__()
        check_integer("bank", bank, 0, table.bits.shape[1] - 1)
        check_flag("saturated", saturated)
        limit = check_number("limit", limit, 0, 100, above=True)
        self.data_range, self.saturated = check_integer("data_range", data_range, 1, 2**31), saturated
        cheapest = table.cheapest()
        self.register_buffer("scores", cheapest.scores)
        self.register_buffer("bits", cheapest.bits[:, bank].contiguous())
        self.register_buffer("means", cheapest.means)
        self.register_buffer("limit", torch.tensor(limit, dtype=torch.float64))
        look_up(self.scores, self.means, self.scores[:1], limit)  # refuses a limit below all

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TableBits:
        """From `options` and the tensors of the state dict."""
        made = cls(EdgeTable(tensors["scores"], tensors["bits"][:, None]), 0, limit=100, **options)
        for name, known in (("scores", made.scores), ("bits", made.bits)):
            if not torch.equal(known, tensors[name]):
                raise InputError(f"the {name} of a table are not sorted, or not distinct")
        made.load_state_dict(dict(tensors))
        return made

    def forward(self, x: Tensor, site: Any, context: Any) -> Tensor:
        """Widths, int64 (samples,)."""
        image = picture(context)  # refuses a call without a pass
        key = f"edge scores, white {self.data_range}, saturated {self.saturated}"
        if key not in context.data:
            context.data[key] = edge_scores(image, data_range=self.data_range, saturated=self.saturated)
        return self.bits[look_up(self.scores, self.means, context.data[key], self.limit)]

    def extra_repr(self) -> str:
        return f"{len(self.scores)} scores, limit={float(self.limit):g}"
