"""One forward pass over shapes: which products a network computes at which call sites, and how many.

The pass runs on torch's meta device, where tensors have shapes and no values, so that a 4K image costs
milliseconds and no memory. What cannot run there is run for real: on any image if it only needs memory (a
constant on another device), on a real one if it looks at values of its input (a branch on an activation),
because what it computes may then depend on them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlib.cost import _macs
from sqlib.cost._live_bytes import LiveBytes
from sqlib.cost._reads import ESCAPES, Reads
from sqlib.engine.calibration import Discovery
from sqlib.engine.flow import Flow, Upsampler
from sqlib.engine.ops import Op
from sqlib.engine.running import running
from sqlib.engine.site import Site
from sqlib.engine.tracing import Tracer, _argument, add_hooks
from sqlib.engine.weights import Names
from sqlib.errors import InputError

NORMS = {
    F.layer_norm: "layer_norm",
    F.group_norm: "group_norm",
    F.instance_norm: "instance_norm",
    F.batch_norm: "batch_norm",
    F.rms_norm: "rms_norm",
}


@dataclass(frozen=True)
class Product:
    """What one call site multiplies in one pass.

    Attributes
    ----------
    site : str
        Name of the call site, as in `QuantizedModel.report`.
    op : str
        ``"conv2d"``, ``"linear"``, ``"matmul"``, ... or, inside fused attention, ``"query @ key"`` and
        ``"attention @ value"``.
    kind : str
        ``"conv"``, ``"linear"``, ``"matmul"`` or ``"norm"``.
    macs : int
        Multiply-accumulates (of a norm: elements).
    left, right : str
        Roles of the two factors at the call site.
    """

    site: str
    op: str
    kind: str
    macs: int
    left: str = ""
    right: str = ""


@dataclass(frozen=True)
class Walk:
    """What one pass showed: products and call sites in the order of the calls, and the peak of memory.

    ``upsampler`` is where that begins, as `sqlib.engine.skip` wants it; ``live_bytes`` counts input,
    output and everything between at the most crowded moment.
    """

    products: tuple[Product, ...]
    sites: tuple[Site, ...]
    upsampler: Upsampler | None
    live_bytes: int


class NeedsImage(InputError):
    """The network looks at values of its input, and there is no image."""


def walk(
    network: nn.Module, size: tuple[int, int], channels: int = 3, *, image: Tensor | None = None
) -> Walk:
    """Count what ``network`` computes for one image (1, ``channels``, height, width).

    Parameters
    ----------
    network : nn.Module
        Any network of one image input; neither changed nor kept. Runs in evaluation mode.
    size : tuple of int
        Width and height of its input in pixels.
    image : Tensor or None
        An input of this size, (1, channels, height, width), for networks that look at its values.

    Raises
    ------
    InputError
        The network does not run on such an input, or looks at values of an input that is not given.
    """
    shape = (1, channels, size[1], size[0])
    if image is not None and (image.shape[0], image.shape[2:]) != (1, shape[2:]):
        raise InputError(f"image has shape {tuple(image.shape)}, expected (1, C, {size[1]}, {size[0]})")
    try:
        empty = torch.zeros(shape if image is None else image.shape, device="meta")
        return _pass(network, empty, Reads(empty))
    except Exception:
        # It needs values, or it cannot run at all: the real pass tells.
        device = next((p.device.type for p in network.parameters()), "cpu")
    given = torch.zeros(shape, device=device) if image is None else image.to(device)
    reads = Reads(given)
    try:
        found = _pass(network, given, reads)
    except Exception as error:
        if not reads.found or image is not None:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{type(network).__name__} does not run on an input of shape {tuple(given.shape)}: {reason}; "
                "give an image size and channels= that fit it"
            ) from error
    if reads.found and image is None:
        raise NeedsImage(
            f"{type(network).__name__} looks at values of its input, so that what it computes may depend on "
            "the image: give real low-resolution ones (images= of cost, image= of walk)"
        )
    return found


def _pass(network: nn.Module, image: Tensor, reads: Reads) -> Walk:
    """What happened on the device of the image; `reads` follows it."""
    device = image.device.type
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    copied = _copy(network, device).eval()
    add_hooks(copied)
    names = _Names(copied)
    handler = _Handler({}, names)
    memory = LiveBytes([*copied.parameters(), *copied.buffers()], device)
    with torch.no_grad():
        with reads:
            image = image.to(dtype).clone()
        memory.add(image)
        tracer = _Counter(copied, handler, reads)
        flow = Flow(tracer, handler.sites)
        with memory, reads, flow, tracer.running():
            upsampler = flow.upsampler(copied(image))
    return Walk(tuple(tracer.products), tuple(handler.sites.values()), upsampler, memory.peak)


def _copy(network: nn.Module, device: str) -> nn.Module:
    """Deep copy; on the meta device without copying a single value."""
    if device != "meta":
        return copy.deepcopy(network)
    memo: dict[int, Any] = {}
    tensors = [*network.parameters(), *network.buffers()]
    # A tensor that is neither, such as the product of old weight_norm, is recomputed by the network's hooks.
    tensors += [v for m in network.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    for tensor in tensors:
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=False)
        memo[id(tensor)] = empty
    return copy.deepcopy(network, memo)


class _Names(Names):
    """Names on the meta device, where a view has no address and is known by the tensor it is a view of."""

    def find(self, t: Tensor) -> str | None:
        name = super().find(t)
        if name is None and t._base is not None:
            name = super().find(t._base)
            shape = "x".join(map(str, t.shape))
            name = None if name is None else f"{name}[{t.storage_offset()},{shape}]"
        return name


class _Handler(Discovery):
    """Discovery that remembers which site was entered last."""

    entered: Site

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        """The site, new or known."""
        self.entered = super().enter(name, make)
        return self.entered


class _Counter(Tracer):
    """A tracer that counts each product it sees."""

    def __init__(self, network: nn.Module, handler: _Handler, reads: Reads) -> None:
        super().__init__(network, handler)
        self.discovery, self.reads = handler, reads
        self.products: list[Product] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.reads.found |= func in ESCAPES and self.reads.look(args)
        out = super().__torch_function__(func, types, args, kwargs)
        if func in NORMS and isinstance(out, Tensor):
            path = (running.stack or [self.root])[-1][0]
            self.products.append(Product(path, NORMS[func], "norm", out.numel()))
        return out

    def _product(self, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = [_argument(args, kwargs, operand) for operand in op.operands]
        out = super()._product(op, func, args, kwargs)
        site = self.discovery.entered
        if site.supported:
            kind = site.op if site.op == "linear" else "conv" if site.op.startswith("conv") else "matmul"
            for label, macs, left, right in _macs.count(op, values, args, out):
                self.products.append(Product(site.name, label, kind, macs, left, right))
        return out
