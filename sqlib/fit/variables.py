"""What is trained, as one vector: cheap to step, to check and to save, however many bounds there are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.fit.loop import NotFinite, Task
from sqlib.quantizers import GatedQuantizer, QuantizerBank, UniformQuantizer

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

NARROWEST = 0.01
"""A pair of bounds keeps at least this share of the width it starts with."""

LARGEST = float(torch.finfo(torch.float32).max) / 2

PAIRED = (UniformQuantizer, GatedQuantizer)
"""Quantizers whose bounds are a lower and an upper one."""

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


class Variables:
    """The trained parameters p as p = start + unit * vector, elementwise, the vector in float64 from zero.

    A pair of bounds never crosses: where a step leaves less than `NARROWEST` of the starting width between
    lower and upper, both are moved apart to exactly that, by equal amounts. A pair without extent (a constant
    tensor or channel) is left alone.

    Parameters
    ----------
    model : QuantizedModel
        A quantized model; only quantizers of exactly the types in `PAIRED` have bounds to train, alone or in
        a bank.
    groups, relative, scale_gradients : iterable of str, bool, bool
        As in `sqlib.fit.distillation.Options`.

    Raises
    ------
    InputError
        Nothing to train.
    """

    def __init__(
        self, model: QuantizedModel, groups: Iterable[str], *, relative: bool, scale_gradients: bool
    ) -> None:
        groups = set(groups)
        self.pairs = uniform_pairs(model, groups)
        self.names, self.parameters = bias_and_norm_parameters(model.network, groups)
        if not self.pairs and not self.parameters:
            raise InputError(
                f"distillation: the model has nothing to train in {', '.join(sorted(groups))}; it needs "
                "uniform quantizers whose range has an extent (a side of 32 bits has none, and DFSQ's points "
                "are no bounds)"
            )
        self.scale_gradients = scale_gradients
        self.counts: dict[int, int] = {}
        # Lower and upper of every pair first, then the rest.
        tensors = [t for q in self.pairs for t in (q.lower, q.upper)]
        self.sizes = [t.numel() for t in (*tensors, *self.parameters)]
        device = tensors[0].device if tensors else self.parameters[0].device
        kind = torch.float32 if device.type == "mps" else torch.float64
        flat = [t.detach().to(device, kind).reshape(-1) for t in (*tensors, *self.parameters)]
        self.start = torch.cat(flat)
        self.bounds = sum(self.sizes[: len(tensors)])
        sides = [torch.cat(flat[side : len(tensors) : 2]) if tensors else flat[0][:0] for side in (0, 1)]
        self.lower, self.upper = self._places(0), self._places(1)
        self.width = sides[1] - sides[0]
        self.unit = torch.ones_like(self.start)
        if relative:
            self.unit[self.lower] = self.unit[self.upper] = torch.where(self.width > 0, self.width, 1.0)
            rms = [float(t.double().square().mean().sqrt()) or 1.0 for t in self.parameters]
            rest = [
                torch.full((t.numel(),), r, dtype=torch.float32)
                for r, t in zip(rms, self.parameters, strict=True)
            ]
            self.unit[self.bounds :] = torch.cat(rest).to(self.unit) if rest else 0.0
        self.vector = nn.Parameter(torch.zeros_like(self.start))

    def _places(self, side: int) -> Tensor:
        """Where the lower (0) or upper (1) bounds stand in the vector."""
        ends = torch.tensor([0, *self.sizes]).cumsum(0)
        spans = [range(int(ends[i]), int(ends[i + 1])) for i in range(side, 2 * len(self.pairs), 2)]
        return torch.tensor([i for span in spans for i in span], dtype=torch.long, device=self.start.device)

    def rescale(self, pair: int, lower: float, upper: float) -> None:
        """Multiply the units of a pair's bounds: a step of the vector moves them by that much more."""
        for place, factor in ((2 * pair, lower), (2 * pair + 1, upper)):
            first = sum(self.sizes[:place])
            self.unit[first : first + self.sizes[place]] *= factor

    def tensors(self) -> list[Tensor]:
        """The trained tensors themselves, in the vector's order."""
        return [*(t for q in self.pairs for t in (q.lower, q.upper)), *self.parameters]

    def gradient(self) -> Tensor:
        """Gradient to the vector; takes it from the tensors, which lose it."""
        parts = []
        for t in self.tensors():
            g = torch.zeros_like(t) if t.grad is None else t.grad
            parts.append(g.detach().to(self.start).reshape(-1))
            t.grad = None
        gradient = torch.cat(parts) * self.unit
        if self.scale_gradients:
            gradient[: self.bounds] *= self._factors()
        return gradient

    def _factors(self) -> Tensor:
        """LSQ's 1/sqrt(n (2^(b-1) - 1)) for every bound; n is the size of what was quantized last."""
        factors = []
        for q in self.pairs:
            n = max(self.counts.get(id(q), 1), 1)
            factor = 1 / math.sqrt(n * max((1 << (q.bits - 1)) - 1, 1))
            factors += [factor] * (2 * q.lower.numel())
        return torch.tensor(factors, dtype=torch.float32).to(self.start)

    def count(self) -> list[Any]:
        """Hooks that note how many values each quantizer sees, if that matters."""

        def note(module: nn.Module, args: Any) -> None:
            self.counts[id(module)] = args[0].numel()

        return [q.register_forward_pre_hook(note) for q in self.pairs] if self.scale_gradients else []

    @torch.no_grad()
    def write(self) -> None:
        """Keep the pairs apart, then give the tensors the vector's values."""
        v, low, up = self.vector, self.lower, self.upper
        lower, upper = (self.start[i] + self.unit[i] * v[i] for i in (low, up))
        short = (NARROWEST * self.width - (upper - lower)) / 2
        narrow, flat = (short > 0) & (self.width > 0), self.width == 0
        for i, moved in ((low, lower - short), (up, upper + short)):
            v[i] = torch.where(narrow, (moved - self.start[i]) / self.unit[i], v[i]).masked_fill(flat, 0)
        values = self.start + self.unit * v
        values[up] = torch.maximum(values[up], values[low])  # rounding, for widths of its own size
        for t, value in zip(self.tensors(), values.split(self.sizes), strict=True):
            t.copy_(value.reshape(t.shape))

    def representable(self) -> bool:
        """Whether float32, in which the network computes, can hold every value and every width."""
        return bool((torch.cat([t.detach().reshape(-1) for t in self.tensors()]).abs() < LARGEST).all())

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the start."""
        self.vector.zero_()
        self.write()


class BoundsTask(Task):
    """A task in which bounds of `model` move as the vectors `bounds`, and draws come from `generator`."""

    def __init__(self, model: QuantizedModel, bounds: list[Variables], seed: int) -> None:
        self.model, self.bounds = model, bounds
        self.generator = torch.Generator().manual_seed(seed)

    def backpropagated(self) -> None:
        """Move the gradients of bounds to their vectors."""
        for variables in self.bounds:
            variables.vector.grad = variables.gradient()

    def stepped(self) -> None:
        """Move the bounds to where their vectors are."""
        for variables in self.bounds:
            variables.write()
            if not variables.representable():
                raise NotFinite("a bound left the range of float32")

    def state(self) -> dict[str, Any]:
        """The vectors, and the source of the draws."""
        return {"bounds": [v.vector for v in self.bounds], "generator": self.generator.get_state()}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Back to saved vectors."""
        for variables, vector in zip(self.bounds, state["bounds"], strict=True):
            variables.vector.copy_(vector)
            variables.write()
        self.generator.set_state(state["generator"])


def uniform_pairs(model: QuantizedModel, groups: Iterable[str]) -> list[UniformQuantizer]:
    """The quantizers whose pairs of bounds can be trained: uniform ones whose range has an extent, each once.

    Those of a bank are among them.
    """
    groups = set(groups)
    homes = {"weight_bounds": model.weights, "activation_bounds": model.activations}
    found = [
        q
        for group, home in homes.items()
        if group in groups or "bounds" in groups
        for held in home.values()
        for q in (held.quantizers.values() if isinstance(held, QuantizerBank) else (held,))
        if isinstance(q, UniformQuantizer) and type(q) in PAIRED and bool((q.upper > q.lower).any())
    ]
    return list({id(q): q for q in found}.values())


def bias_and_norm_parameters(network: nn.Module, groups: set[str]) -> tuple[list[str], list[nn.Parameter]]:
    """Biases and norm parameters of the network that were asked for, each once."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for path, module in network.named_modules():
        if "biases" in groups and isinstance(module, _LAYERS):
            own = [("bias", module.bias)]
        elif "norms" in groups and isinstance(module, _NORMS):
            own = list(module._parameters.items())  # type: ignore[arg-type]
        else:
            continue
        for name, p in own:
            if isinstance(p, nn.Parameter):
                found.setdefault(id(p), (f"{path}.{name}".lstrip("."), p))
    return [name for name, _ in found.values()], [p for _, p in found.values()]
