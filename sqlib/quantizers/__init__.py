"""Fake-quantizers as torch modules, and the pure functions they must agree with."""

from __future__ import annotations

from sqlib.quantizers._saved import saved_as
from sqlib.quantizers.bank import QuantizerBank
from sqlib.quantizers.bounds_observer import BoundsObserver, DensityObserver
from sqlib.quantizers.following import FollowingQuantizer
from sqlib.quantizers.gate import Gate
from sqlib.quantizers.gated import GatedQuantizer
from sqlib.quantizers.gated_observer import GatedObserver
from sqlib.quantizers.max_observer import MaxObserver
from sqlib.quantizers.observers import HistogramObserver, RangeObserver
from sqlib.quantizers.rounded import RoundedWeight
from sqlib.quantizers.selectors import ByRole, Selector, StaticBits
from sqlib.quantizers.subset import SubsetQuantizer
from sqlib.quantizers.subset_observer import SubsetObserver
from sqlib.quantizers.symmetric import SymmetricQuantizer
from sqlib.quantizers.uniform import UniformQuantizer, dequantize, quantize

__all__ = [
    "BoundsObserver",
    "ByRole",
    "DensityObserver",
    "FollowingQuantizer",
    "Gate",
    "GatedObserver",
    "GatedQuantizer",
    "HistogramObserver",
    "MaxObserver",
    "QuantizerBank",
    "RangeObserver",
    "RoundedWeight",
    "Selector",
    "StaticBits",
    "SubsetObserver",
    "SubsetQuantizer",
    "SymmetricQuantizer",
    "UniformQuantizer",
    "dequantize",
    "quantize",
    "saved_as",
]
