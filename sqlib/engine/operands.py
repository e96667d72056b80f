"""What the quantizers of a network would see: a copy of every weight and every activation, by call site."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sqlib.engine.quantize import quantize_model
from sqlib.engine.recipe import Recipe

if TYPE_CHECKING:
    from sqlib.engine.site import Site

Operands = dict[tuple[str, str], list[Tensor]]


def record_operands(
    model: nn.Module, data: Iterable[Any], *, skip: Iterable[str] | str | None = None
) -> Operands:
    """Run a network in full precision and keep a copy of all that a recipe could quantize.

    Parameters
    ----------
    model : nn.Module
        Any network that `quantize_model` takes; not changed.
    data : iterable
        Batches, as `quantize_model` takes for calibration.
    skip : iterable of str, str or None
        Call sites to leave out, as in `quantize_model`: by default those that stay in full precision, with
        ``[]`` none.

    Returns
    -------
    dict
        (call site, operand) -> list of tensors on the CPU, detached, in the shape and dtype of the call. An
        activation ("input", or "left" and "right" of a product) has one for every call of its site, in the
        order of the batches. A parameter (mostly "weight") has one, under the first call site that uses it;
        a weight that is computed in the call (weight normalization) has one for every call.

    Raises
    ------
    InputError
        As `quantize_model`, but for activations that are not finite: they are recorded as they are, so that
        one can see where they begin.

    Notes
    -----
    One pass over the data and one more over its first batch; memory for every value seen, so a few small
    crops go a long way.

    Examples
    --------
    >>> seen = sqlib.record_operands(network, crops)                      # doctest: +SKIP
    >>> seen["blocks.0.conv1", "input"][0].shape                          # doctest: +SKIP
    torch.Size([4, 32, 48, 48])
    """
    recipe = _Record()
    quantize_model(model, recipe, data, skip=skip)
    return recipe.seen


@dataclass(frozen=True)
class _Record(Recipe):
    """A recipe that quantizes nothing."""

    seen: Operands = field(default_factory=dict)

    def quantize_weight(self, weight: Tensor, site: Site) -> None:
        # A weight that is computed in the call is watched as an activation, too, and is there already.
        self.seen.setdefault((site.name, site.weight_role or "weight"), [weight.detach().cpu().clone()])

    def observe(self, site: Site, operand: str) -> _Copy:
        return _Copy(self.seen.setdefault((site.name, operand), []))


class _Copy:
    """Observer that appends a copy of what it sees to a list."""

    passes = 1

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    def update(self, x: Tensor, number: int) -> None:
        self.tensors.append(x.cpu().clone())

    def finish(self) -> nn.Module:
        return nn.Identity()
