"""Fake-quantizers as torch modules, and the pure functions they must agree with."""

from __future__ import annotations

from sqlib.quantizers._saved import saved_as
from sqlib.quantizers.bank import QuantizerBank
from sqlib.quantizers.bounds_observer import BoundsObserver, DensityObserver
from sqlib.quantizers.content_bits import ContentBits
from sqlib.quantizers.edge_table import EdgeTable, TableBits
from sqlib.quantizers.edges import edge_scores, image_gradients
from sqlib.quantizers.following import FollowingQuantizer
from sqlib.quantizers.gate import Gate
from sqlib.quantizers.gated import GatedQuantizer
from sqlib.quantizers.gated_observer import GatedObserver
from sqlib.quantizers.max_observer import MaxObserver
from sqlib.quantizers.observers import HistogramObserver, RangeObserver
from sqlib.quantizers.rounded import RoundedWeight
from sqlib.quantizers.selectors import ByPath, ByRole, Selector, StaticBits
from sqlib.quantizers.subset import SubsetQuantizer
from sqlib.quantizers.subset_observer import SubsetObserver
from sqlib.quantizers.symmetric import SymmetricQuantizer
from sqlib.quantizers.uniform import UniformQuantizer, dequantize, quantize

__all__ = [
    "BoundsObserver",
    "ByPath",
    "ByRole",
    "ContentBits",
    "DensityObserver",
    "EdgeTable",
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
    "TableBits",
    "UniformQuantizer",
    "dequantize",
    "edge_scores",
    "image_gradients",
    "quantize",
    "saved_as",
]
