"""Where the upsampler begins: what every tensor of a pass was made from, followed to the first upsampling.

It is followed below all names, where torch dispatches its operations: pixel shuffles and interpolations,
transposed convolutions, and shuffles written by hand as reshapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sqlib.engine.site import Site
from sqlib.engine.tracing import Tracer

_UPSAMPLING = {"pixel_shuffle", "grid_sampler_2d", "grid_sampler_3d", "_adaptive_avg_pool2d", "col2im"}
_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "view_copy"}
_SQUASHES = {"sigmoid", "hardsigmoid", "tanh", "_softmax", "softmax"}
_FACTORS = {"mul", "div"}


class Made(NamedTuple):
    """What a tensor was made from.

    Attributes
    ----------
    sources : frozenset of int
        The last layers on the way to it, as orders of call sites.
    depth : int
        Most layers on one way to it.
    grown : frozenset of int
        The upsamplings on the way to it, by number.
    squashed : bool
        Whether it comes out of a sigmoid or the like, with no layer since: as a factor it is a gate, and what
        a gate was made from does not count as source of the product.
    """

    sources: frozenset[int]
    depth: int
    grown: frozenset[int]
    squashed: bool = False


class Upsampling(NamedTuple):
    """One upsampling: order of the next call site, what is enlarged, and whether it outgrows the network's
    first features."""

    order: int
    made: Made
    beyond: bool


class Upsampler(NamedTuple):
    """Order of the first call site of the upsampler, and whether that is the layer that feeds it."""

    start: int
    feeds: bool


class Flow(TorchDispatchMode):
    """Follows one pass.

    Parameters
    ----------
    tracer : Tracer
        Of the same pass.
    sites : dict of str to Site
        Its call sites, in the order of their first calls.
    """

    supports_higher_order_operators = True

    def __init__(self, tracer: Tracer, sites: dict[str, Site]) -> None:
        super().__init__()
        self.tracer, self.sites = tracer, sites
        self._made: dict[int, Made] = {}
        self._depths: dict[int, int] = {}
        self._upsamplings: list[Upsampling] = []
        self._first: Site | None = None
        self._size: tuple[int, ...] = ()

    def upsampler(self, output: Any) -> Upsampler | None:
        """The upsampler of the network, which returned `output`.

        The first upsampling, of what two layers or more have made, beyond the size of the first convolution's
        output; if there is none, the first on the way to the output. Attention that shrinks and restores its
        map is neither, and enlarged inputs that are added at the end have fewer layers.
        """
        returned = [m.grown for m in map(self._of, tree_leaves(output)) if m is not None]
        through = frozenset[int]().union(*returned)
        numbered = list(enumerate(self._upsamplings))
        for group in ([(i, u) for i, u in numbered if u.made.depth > 1], numbered):
            found = [u for _, u in group if u.beyond] or [u for i, u in group if i in through]
            if found:
                return self._start(found[0])
        return None

    def _start(self, upsampling: Upsampling) -> Upsampler:
        """The last convolution that is enlarged, or a linear layer if that alone is."""
        ordered = list(self.sites.values())
        sources = [ordered[i] for i in upsampling.made.sources if ordered[i] is not self._first]
        layers = [s.order for s in sources if s.supported and s.op.startswith("conv")]
        if not layers and len(sources) == 1 and sources[0].op == "linear":
            layers = [sources[0].order]
        if layers:
            return Upsampler(max(layers), feeds=True)
        return Upsampler(upsampling.order, feeds=False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        name = getattr(func, "overloadpacket", func).__name__
        site = self.tracer.site
        for t in tree_leaves(out):
            if not isinstance(t, Tensor) or t.layout != torch.strided:
                continue
            if site is None:
                self._outside(name, given, t)
            else:
                self._inside(site, name, args, given, t)
        return out

    def _inside(self, site: Site, name: str, args: tuple[Any, ...], given: list[Tensor], out: Tensor) -> None:
        """An operation of a product: its result was made by the product alone."""
        if self._first is None and site.supported and site.op.startswith("conv"):
            image = given[0] if "transpose" in site.op else out
            self._first, self._size = site, tuple(image.shape[image.ndim - _dimensions(site) :])
        if _is_view(name, given, out):
            return
        own = frozenset({site.order})
        made = [m for m in map(self._of, given) if m is not None]
        before = max((m.depth for m in made if m.sources != own), default=0)
        depth = self._depths[site.order] = max(self._depths.get(site.order, 1), before + 1)
        grown = frozenset[int]().union(*(m.grown for m in made))
        if name == "convolution" and args[6] and max(args[3]) > 1 and out.shape[-1] > given[0].shape[-1]:
            grown = self._note(site.order, Made(frozenset(), depth, grown), out.shape[2:])
        self._made[_key(out)] = Made(own, depth, grown)

    def _outside(self, name: str, given: list[Tensor], out: Tensor) -> None:
        """An operation between products: its result was made from what its arguments were made from."""
        tensors = {_key(t): t for t in given if self._of(t) is not None}
        if not tensors:
            self._made.pop(_key(out), None)
            return
        every = [self._made[key] for key in tensors]
        made = every[0]
        if not _is_view(name, given, out):
            carried = [self._made[k] for k in self._carriers(name, tensors)]
            made = Made(
                frozenset[int]().union(*(m.sources for m in carried)),
                max(m.depth for m in every),
                frozenset[int]().union(*(m.grown for m in carried)),
                name.rstrip("_") in _SQUASHES or all(m.squashed for m in carried),
            )
        size = self._enlarged(name, given[0], out)
        if size is not None:
            made = made._replace(grown=self._note(len(self.sites), made, size))
        self._made[_key(out)] = made

    def _carriers(self, name: str, tensors: dict[int, Tensor]) -> Iterable[int]:
        """Of two factors the one that is no gate: not squashed, or larger."""
        if name.rstrip("_") in _FACTORS and len(tensors) == 2:
            a, b = tensors
            for rank in (lambda k: not self._made[k].squashed, lambda k: tensors[k].numel()):
                if rank(a) != rank(b):
                    return [max(a, b, key=rank)]
        return tensors

    def _note(self, order: int, made: Made, size: Iterable[int]) -> frozenset[int]:
        """Remember an upsampling; returns all upsamplings on the way to its result."""
        beyond = bool(self._size) and tuple(size)[-1] > self._size[-1]
        self._upsamplings.append(Upsampling(order, made, beyond))
        return made.grown | {len(self._upsamplings) - 1}

    def _enlarged(self, name: str, before: Tensor, out: Tensor) -> tuple[int, ...] | None:
        """The spatial size that an operation has enlarged an image to, if it has."""
        if name in _UPSAMPLING or name.lstrip("_").startswith("upsample_"):
            grown = out.ndim > before.ndim or out.shape[-1] > before.shape[-1]
            return tuple(out.shape[2:]) if grown else None
        d = len(self._size)
        if name not in _RESHAPES or d < 2 or before.ndim <= out.ndim or out.ndim < d + 1:
            return None
        # By hand: (..., h, r, w, r) to (..., h r, w r), with the channels before or after.
        for after in (0, 1):
            size = tuple(out.shape[out.ndim - d - after : out.ndim - after])
            ratio = size[0] // self._size[0]
            if (
                ratio > 1
                and size == tuple(ratio * s for s in self._size)
                and before.shape[-1 - after] == ratio
            ):
                return size
        return None

    def _of(self, t: Any) -> Made | None:
        known = isinstance(t, Tensor) and t.layout == torch.strided
        return self._made.get(_key(t)) if known else None


def _key(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def _is_view(name: str, given: list[Tensor], out: Tensor) -> bool:
    """Whether nothing was computed: `out` is an argument in another shape."""
    in_place = name.endswith("_") and not name.endswith("__")
    strided = (t for t in given if t.layout == torch.strided)
    return not in_place and any(_key(t) == _key(out) for t in strided)


def _dimensions(site: Site) -> int:
    """Spatial dimensions of a convolution: 1 to 3."""
    return int(site.op[-2])
