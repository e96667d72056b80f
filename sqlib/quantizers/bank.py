r"""One quantizer for each bit-width, and a selector that gives every sample of a batch one of them.

With shares :math:`p_{nk}` of sample n and width k from the selector, forward and backward are (CADyQ)

.. math:: \hat x_n = Q_{\arg\max_k p_{nk}}(x_n), \qquad
          \mathrm{d}\hat x_n = \mathrm{d} \sum_k p_{nk}\, Q_k(x_n)
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sqlib._checks import check_bits
from sqlib.errors import InputError
from sqlib.quantizers._readable import readable, recorded
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers._workspace import apart, empty_like


class Choice(NamedTuple):
    """What a selector chose.

    Attributes
    ----------
    widths : int, tuple of int or Tensor
        One width for all samples, or one for each: as a tensor, int64 (samples,), where its values cannot be
        read at once (on another device than the CPU, and while a graph is recorded).
    shares : Tensor or None
        (samples, widths of the bank) where the backward pass needs them, else None.
    """

    widths: int | tuple[int, ...] | Tensor
    shares: Tensor | None = None


@saved_as("bank")
class QuantizerBank(QuantizerState):
    """Fake-quantizer with a bit-width for every sample; of a weight, one for every pass.

    Parameters
    ----------
    quantizers : mapping of int to nn.Module
        A fake-quantizer for each width, 1 to 16, or 32 (such as `torch.nn.Identity`). Those that say their
        ``bits`` have to say the same.
    selector : nn.Module
        Chooses; see `sqlib.quantizers.Selector`.

    Notes
    -----
    A batch of mixed widths runs as one batch, with results equal bit for bit to those of each sample alone,
    if the quantizers have no statistics across samples. One width for all costs nothing beyond its quantizer.

    In a quantized network the engine asks the selector, and tells the pass (`sqlib.engine.Context`) what was
    chosen. Called alone, ``bank(x)``, every entry of the first axis is a sample, and the selector is given
    None for site and context.
    """

    labels: ClassVar[tuple[str, ...]] = ()

    def __init__(self, quantizers: Mapping[int, nn.Module], selector: nn.Module) -> None:
        super().__init__()
        if not isinstance(quantizers, Mapping) or not quantizers:
            raise InputError(f"quantizers={quantizers!r}: expected fake-quantizers by bit-width")
        if not isinstance(selector, nn.Module):
            raise InputError(
                f"selector is {type(selector).__name__}, expected a torch.nn.Module such as StaticBits(8)"
            )
        for width, quantizer in quantizers.items():
            own = getattr(quantizer, "bits", width)
            if not isinstance(quantizer, nn.Module) or own != check_bits(width, full_precision=True):
                raise InputError(f"the quantizer for {width} bits is {quantizer!r}; give one of {width} bits")
        self.quantizers = nn.ModuleDict({str(width): quantizers[width] for width in sorted(quantizers)})
        self.selector = selector

    @property
    def widths(self) -> tuple[int, ...]:
        """All that can be chosen, ascending."""
        return tuple(map(int, self.quantizers))

    def at(self, width: int) -> nn.Module:
        """The quantizer of one width."""
        return self.quantizers[str(width)]

    @property
    def checked(self) -> tuple[str, ...]:  # type: ignore[override]
        """One entry for each width."""
        return tuple(f"width {i}" for i in range(len(self.quantizers)))

    def setting(self, name: str) -> int:
        """A width."""
        return self.widths[int(name.split()[1])]

    def options(self) -> dict[str, Any]:
        """None: everything is in the `parts`."""
        return {}

    def parts(self) -> dict[str, nn.Module]:
        """Quantizers and selector, by their names in the state dict."""
        found = {f"quantizers.{width}": quantizer for width, quantizer in self.quantizers.items()}
        return {**found, "selector": self.selector}

    @classmethod
    def rebuild(
        cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor], parts: Mapping[str, nn.Module]
    ) -> QuantizerBank:
        """From its `parts`."""
        by_width = {int(n.removeprefix("quantizers.")): q for n, q in parts.items() if n != "selector"}
        return cls(by_width, parts["selector"])

    def learnable(self) -> QuantizerBank:
        """Turn the bounds of all quantizers that have some into parameters, in place; returns self."""
        return self._each("learnable")

    def fixed(self) -> QuantizerBank:
        """Turn trained bounds back into buffers, in place; returns self."""
        return self._each("fixed")

    def _each(self, method: str) -> QuantizerBank:
        for quantizer in self.quantizers.values():
            getattr(quantizer, method, lambda: None)()
        return self

    def choose(self, x: Tensor, site: Any = None, context: Any = None, *, read: bool = False) -> Choice:
        """Ask the selector, and check what it says.

        Parameters
        ----------
        read : bool
            Read the widths wherever they are, because a single one is needed (of a weight).

        Raises
        ------
        InputError
            Widths that the bank does not have, another number of them than there are samples, or shares that
            are not finite.
        """
        samples = (len(x) if x.ndim else 1) if context is None else context.samples
        found: Any = self.selector(x, site, context)
        if isinstance(found, Tensor) and found.is_floating_point():
            return self._by_shares(found, samples, read)
        if isinstance(found, Tensor) and found.numel() in (1, samples) and not (read or readable(found)):
            return Choice(found.long().reshape(-1).expand(samples))
        values = found.tolist() if isinstance(found, Tensor) else found
        widths = list(values) if isinstance(values, (list, tuple)) else [values]
        if not all(type(w) is int for w in widths) or len(widths) not in (1, samples):
            raise InputError(
                f"the selector {type(self.selector).__name__} gave {_shown(found)}, expected an integer, or "
                f"one for each of {samples} samples"
            )
        unknown = sorted(set(widths) - set(self.widths))
        if unknown:
            raise InputError(
                f"the selector {type(self.selector).__name__} chose {', '.join(map(str, unknown))} bits, "
                f"expected some of {', '.join(map(str, self.widths))}, which the bank has quantizers for"
            )
        return self._choice(widths)

    def _by_shares(self, shares: Tensor, samples: int, read: bool) -> Choice:
        read = read or readable(shares)
        fits = shares.shape == (samples, len(self.widths))
        if not fits or (read and not bool(torch.isfinite(shares).all())):
            raise InputError(
                f"the selector {type(self.selector).__name__} gave shares {_shown(shares)}, expected finite "
                f"ones of shape {samples, len(self.widths)}: samples by widths"
            )
        learned = torch.is_grad_enabled() and shares.requires_grad
        if not read:
            largest = shares.argmax(1)
            chosen = torch.zeros_like(largest)
            for k, width in enumerate(self.widths):
                chosen = chosen.masked_fill(largest == k, width)
            return Choice(chosen, shares if learned and not recorded() else None)
        widths = [self.widths[k] for k in shares.argmax(1).tolist()]
        return self._choice(widths, shares if learned else None)

    def _choice(self, widths: list[int], shares: Tensor | None = None) -> Choice:
        if len(set(widths)) > 1:
            return Choice(tuple(widths), shares)
        return Choice(widths[0] if widths else self.widths[-1], shares)

    def forward(self, x: Tensor, choice: Choice | None = None) -> Tensor:
        widths, shares = self.choose(x) if choice is None else choice
        if shares is not None:
            return self._mixture(x, widths, shares)
        if isinstance(widths, int):
            return self.at(widths)(x)  # type: ignore[no-any-return]
        block = block_size(x, len(widths))
        if isinstance(widths, Tensor):
            return self._selected(x, widths[:, None].expand(-1, block).reshape(-1, *[1] * (x.ndim - 1)))
        runs = [(width, block * len(list(run))) for width, run in groupby(widths)]
        parts = zip(runs, x.split([size for _, size in runs]), strict=True)
        if torch.is_grad_enabled():
            return torch.cat([self.at(width)(part) for (width, _), part in parts])
        out = empty_like(x)
        targets = out.split([size for _, size in runs])
        with apart():
            for target, ((width, _), part) in zip(targets, parts, strict=True):
                target.copy_(self.at(width)(part))
        return out

    def _selected(self, x: Tensor, chosen: Tensor) -> Tensor:
        """By all quantizers, of which each sample keeps its own: the widths are not looked at."""
        out = self.at(self.widths[0])(x)
        for width in self.widths[1:]:
            out = torch.where(chosen == width, self.at(width)(x), out)
        return out  # type: ignore[no-any-return]

    def _mixture(self, x: Tensor, widths: int | tuple[int, ...] | Tensor, shares: Tensor) -> Tensor:
        """The quantizers that were chosen, exactly, with the gradient of the mixture."""
        block = block_size(x, len(shares))
        column = (-1, *[1] * (x.ndim - 1))
        chosen = torch.as_tensor(widths, device=x.device).expand(len(shares)).repeat_interleave(block)
        weights = shares.to(x.dtype).repeat_interleave(block, 0)
        hard, soft = torch.zeros_like(x), torch.zeros_like(x)
        for k, width in enumerate(self.widths):
            out = self.at(width)(x)
            hard = torch.where((chosen == width).view(column), out.detach(), hard)
            soft = soft + weights[:, k].view(column) * out
        return hard + (soft - soft.detach())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        errors = args[-1]
        before = len(errors)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if len(errors) > before:  # refused: nothing of it goes to the quantizers either
            for name in [name for name in state_dict if name.startswith(prefix)]:
                del state_dict[name]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # quantizers keep their dtype by themselves; a selector follows the network
        return nn.Module._apply(self, fn, recurse)

    def extra_repr(self) -> str:
        return f"widths={self.widths}"


def block_size(x: Tensor, samples: int) -> int:
    """How many entries of the first axis belong to one sample.

    Raises
    ------
    InputError
        No whole number.
    """
    if not x.ndim or x.shape[0] % samples:
        raise InputError(
            f"an operand of shape {tuple(x.shape)} in a pass over {samples} samples: they cannot be told "
            "apart, because its first axis is no multiple of them; run samples of different bits in passes "
            "of their own, or leave this call site out (skip=)"
        )
    return x.shape[0] // samples


def _shown(found: Any) -> str:
    if isinstance(found, Tensor) and found.numel() > 8:
        return f"a tensor {tuple(found.shape)} of {found.dtype}"
    return str(found.tolist() if isinstance(found, Tensor) else repr(found))
