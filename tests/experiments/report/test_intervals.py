"""Bootstrap intervals of means over images, and of paired differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sqlib import experiments
from sqlib.errors import InputError
from sqlib.experiments.report.intervals import bootstrap, difference, weighted_sum


def record(scores: list[float], names: str = "abcdefgh", metric: str = "psnr") -> dict:
    return {"images": [{"name": n, "metrics": {metric: s}} for n, s in zip(names, scores)]}


def test_as_scipy_and_as_the_normal_distribution_says() -> None:
    x = np.random.default_rng(1).normal(30, 4, 100)
    found = bootstrap(x)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=0)
    assert found.mean == pytest.approx(x.mean())
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.06)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.06)
    assert found.high - found.low == pytest.approx(2 * 1.96 * x.std() / 10, rel=0.1)
    assert found == bootstrap(list(x))  # the same draws


def test_a_paired_difference_sees_what_the_spread_of_the_images_hides() -> None:
    base = np.random.default_rng(0).normal(28, 5, 8)
    better, worse = record(list(base + 0.1)), record(list(base))
    assert difference(better, worse).decided and difference(worse, better).high < 0
    assert difference(better, worse).mean == pytest.approx(0.1)
    assert bootstrap(base + 0.1).low < base.mean()
    noise = record(list(base + np.array([1, -1, 1, -1, 1, -1, 1, -1]) * 0.1))
    assert not difference(noise, worse).decided


def test_a_weighted_sum_is_taken_image_by_image() -> None:
    base = np.random.default_rng(0).normal(28, 5, 8)
    full, worse, better = (record(list(base - drop)) for drop in (0.0, 1.0, 0.4))
    found = weighted_sum(((0.5 - 1, full), (-0.5, worse), (1.0, better)))  # half of 1 dB less 0.4 dB
    assert found.mean == pytest.approx(0.1) and found.margin == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.inf, 2.0]])
def test_a_collapsed_network_has_no_interval(values: list) -> None:
    found = bootstrap(values)
    assert not math.isfinite(found.mean) and math.isnan(found.margin) and not found.decided


@pytest.mark.parametrize("values", [[], [[1.0]]])
def test_no_number_from_bad_values(values: list) -> None:
    with pytest.raises(InputError, match="one value per image"):
        bootstrap(values)


def test_other_images_or_no_such_metric() -> None:
    with pytest.raises(InputError, match="other images"):
        difference(record([1, 2]), record([1, 2], "xy"))
    with pytest.raises(InputError, match="psnr_y"):
        difference(record([1, 2], metric="ssim"), record([1, 2]))


def test_every_score_of_ours_in_a_table_carries_its_interval() -> None:
    frame = experiments.table_frame("dfsq-table2").xs("edsr-baseline", level="network")
    for dataset in frame.columns.get_level_values("dataset").unique():
        found = frame[dataset].dropna(subset=["value"])
        middle = found["drop"].fillna(found["value"])
        assert (found["low"] <= middle).all() and (middle <= found["high"]).all()
    spread = frame["Set5", "high"] - frame["Set5", "low"]
    of_images, of_drops = spread.xs("FP", level="method"), spread.drop("FP", level="method")
    assert of_drops.max() < of_images.min()  # image by image


def test_every_score_of_ours_on_the_scoreboard_carries_its_interval() -> None:
    for frame in (experiments.scoreboard_frame(), experiments.stand_ins_frame()):
        measured = frame["metric"].isin(["psnr_y", "ssim_y"]) & frame["own"].notna()
        if "origin" in frame:
            measured &= frame["origin"] != "computed"
        assert measured.any() and (frame.loc[measured, "own_margin"] >= 0).all()
