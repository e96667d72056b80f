"""What of a pass counts: all that runs, or what the papers' tables hold of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from torch import nn

from sqlib.cost._walk import Product, Walk
from sqlib.engine.skip import first_match
from sqlib.models import Spec, SRNetwork

#: (product, multiply-accumulates of it that count)
Counted = Iterator[tuple[Product, Fraction]]


def spec_of(network: nn.Module) -> Spec | None:
    """What sqlib knows about a network, or None."""
    found = getattr(network, "spec", None)
    return found if isinstance(found, Spec) else None


def unquantized(network: nn.Module) -> tuple[str, ...]:
    """Call sites, and operands as ``"call site:operand"``, that the papers leave in full precision."""
    spec = spec_of(network)
    return () if spec is None else spec.unquantized.get(str(getattr(network, "name", "")), ())


def as_run(found: Walk) -> Counted:
    """Every product as the network computes it."""
    return ((product, Fraction(product.macs)) for product in found.products)


def as_printed(found: Walk, network: nn.Module, size: tuple[int, int]) -> Counted:
    """Products without what a network adds to its input, and the fixed convolutions of its release.

    Everything that the networks of the papers compute grows with the pixels, so that pixels of the padding
    are a share of the products.

    Parameters
    ----------
    size : tuple of int
        Width and height of the input of the pass.
    """
    width, height = size
    high, wide = network.padded_size(height, width) if isinstance(network, SRNetwork) else (height, width)
    share = Fraction(width * height, wide * high)
    spec, sites = spec_of(network), {site.name: site for site in found.sites}
    for product in found.products:
        yield product, share * product.macs
        site = sites.get(product.site)
        known = None if spec is None or site is None else first_match(site, spec.fixed)
        if spec is not None and site is not None and site.weight_shape is not None and known is not None:
            inputs = Fraction(product.macs, site.weight_shape[0])  # values that the weight is applied to
            yield replace(product, op="fixed"), share * inputs * spec.fixed[known]
