"""Table 3's column of what clustering costs."""

from __future__ import annotations

import pytest

from sqlib import cost
from sqlib.reference.clustering_cost import clustblock_bitops, resnet18_operations, scan_bitops
from sqlib.reference.extractor import FeatureExtractor


def test_multiplications_of_table_1() -> None:
    macs = [p.macs for p in cost.walk(FeatureExtractor(47), (72, 72)).products]
    assert macs == [24**2 * 27 * 64, 22**2 * 576 * 64, 20**2 * 576 * 32, 32 * 47]
    assert sum(macs) == pytest.approx(26.2e6, rel=0.001)


def test_clustblock() -> None:
    """0.026 G, printed as 0.03: eight patches of 72 x 72, although those at the borders are larger."""
    assert clustblock_bitops([(72, 72)] * 8) == pytest.approx(0.0262e9, rel=0.002)
    assert f"{clustblock_bitops([(72, 72)] * 8) / 1e9:.2f}" == "0.03"


def test_patches_of_the_border_cost_what_they_are() -> None:
    assert clustblock_bitops([(72, 90)]) > 1.25 * clustblock_bitops([(72, 72)])
    assert clustblock_bitops([(90, 72)]) == clustblock_bitops([(72, 90)])


def test_scan_and_secu() -> None:
    """Printed: 22.56. A multiplication of 32 bits counts once here, and twice in every other column."""
    assert resnet18_operations(32) == 556_651_520
    assert f"{scan_bitops() / 1e9:.2f}" == "22.56"
    assert f"{8 * resnet18_operations(72) / 1e9:.2f}" == "22.54"
