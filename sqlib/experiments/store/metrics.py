"""The metrics that a record may hold for an image: name, unit, and how they are printed and compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One score of one image; the score of a set is the mean over its images.

    Attributes
    ----------
    name : str
        In records.
    unit : str
        Empty where it has none.
    printed : str
        What the frames of printed values call it.
    close : float
        How far a drop from full precision may be from the printed one and still be close.
    decimals : int
        Shown in tables.
    drops : bool
        Whether it falls from full precision, so that falls are compared; else the values are.
    """

    name: str
    unit: str
    printed: str
    close: float
    decimals: int
    drops: bool = True


METRICS = {
    metric.name: metric
    for metric in (
        Metric("psnr", "dB", "psnr_y", 0.05, 3),
        # What 0.05 dB amounts to near 32 dB and 0.89, where one dB of PSNR is worth about 0.02.
        Metric("ssim", "", "ssim_y", 0.001, 4),
        # Of networks that choose bits by the image: what another one, trained alike, may differ by.
        Metric("fqr", "bits", "fqr", 0.1, 2, drops=False),
        Metric("bitops_g", "G", "bitops_g", 0.1, 2, drops=False),
    )
}
PRINTED = {metric.printed: metric for metric in METRICS.values()}
