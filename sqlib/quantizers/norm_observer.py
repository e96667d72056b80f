"""Activation ranges by L_p search, streamed: the range first, then a histogram over it."""

from __future__ import annotations

from torch import nn

from sqlib.codebook.norm_search import NORM, scan_bounds, shrink_bounds
from sqlib.errors import InputError
from sqlib.quantizers.observers import HistogramObserver
from sqlib.quantizers.uniform import UniformQuantizer

BINS = 2048


class NormObserver(HistogramObserver):
    """Two passes: minimum and maximum, then `BINS` counts, on which the range is searched.

    Parameters
    ----------
    bits : int
        Bit-width of the quantizer that `finish` returns.
    norm, steps : float, int
        As in `sqlib.codebook.norm_search`.
    scan : bool
        Whether zero points are searched as well (`scan_bounds`), or both ends shrink together
        (`shrink_bounds`).
    """

    def __init__(self, bits: int, *, norm: float = NORM, steps: int = 80, scan: bool = False) -> None:
        super().__init__(bits, percentile=100.0, bins=BINS)
        self.norm, self.steps, self.scan = norm, steps, scan

    def finish(self) -> nn.Module:
        """The fitted quantizer."""
        self._check_seen()
        if self.histogram is None:
            raise InputError("no values reached this call site in the second calibration pass")
        search = scan_bounds if self.scan else shrink_bounds
        return UniformQuantizer(search(self.histogram, self.bits, norm=self.norm, steps=self.steps))
