"""What clustering costs beside the network (Table 3 of RefQSR)."""

from __future__ import annotations

from collections.abc import Iterable

from sqlib import cost
from sqlib.reference.extractor import FeatureExtractor


def clustblock_bitops(sizes: Iterable[tuple[int, int]], *, classes: int = 47, bits: int = 8) -> float:
    """BitOPs of the extractor: two operations per multiplication, weighted by ``bits * bits / 32**2``.

    Parameters
    ----------
    sizes : height and width of every patch of the image
    classes, bits : of the extractor

    Notes
    -----
    A, A', M and the cosine similarities, below 10,000 multiplications for eight patches, are left out.
    """
    network = FeatureExtractor(classes)
    macs = sum(p.macs for height, width in sizes for p in cost.walk(network, (width, height)).products)
    return 2 * macs * bits**2 / 32**2


def scan_bitops(patches: int = 8, side: int = 72) -> float:
    """Operations of SCAN and SeCu as Table 3 counts them: 32-bit multiplications *without* the factor 2.

    Both cluster with a ResNet-18 in the form for images of 32 x 32. Its 0.557 G for such an image, three
    digits, times the area is what is printed: 22.56 G. Counted at 72 x 72 it is 22.54 G.
    """
    return patches * round(resnet18_operations(32) / 1e9, 3) * 1e9 * (side / 32) ** 2


def resnet18_operations(side: int, classes: int = 10) -> int:
    """Multiplications of that ResNet-18 for an image of ``side * side`` pixels, and two per normalized value.

    A 3x3 convolution at full resolution, then four stages of two blocks with 64 to 512 channels, each but the
    first at half the resolution of the one before.
    """
    count, channels = 0, 64
    for stage, out in enumerate((64, 128, 256, 512)):
        if stage:
            side = -(-side // 2)
        pixels = side**2
        first = 9 * 3 * 64 if stage == 0 else channels * out  # of the network; of a shortcut, 1x1
        count += pixels * (first + 9 * out * (channels + 3 * out))
        count += 2 * pixels * 5 * out  # batch normalization: as many as convolutions
        channels = out
    return count + channels * classes
