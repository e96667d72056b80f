from __future__ import annotations

import math

import pytest

from sqlib.experiments.report.verdicts import Evidence, difference, judge, not_run

# Printed: full precision 32.000, method 31.755, so a drop of 0.245 dB.
PRINTED = {"published": 31.755, "published_fp": 32.000, "decimals": 3, "close": 0.05}


@pytest.mark.parametrize(
    ("own_drop", "name"),
    [
        (0.245, "match"),
        (0.2459, "match"),  # two rounded values: a whole unit
        (0.2441, "match"),
        (0.2465, "close"),
        (0.295, "close"),
        (0.195, "close"),
        (0.2961, "gap"),
        (0.10, "gap"),  # better than the paper is a difference, too
    ],
)
def test_verdict_by_the_drop(own_drop, name):
    verdict = judge(Evidence(own=30.0 - own_drop, own_fp=30.0, **PRINTED))
    assert verdict.name == name
    assert verdict.difference == pytest.approx(own_drop - 0.245)


def test_full_precision_is_compared_as_printed():
    assert judge(Evidence(published=32.0, own=32.0004, decimals=3, close=0.05)).name == "match"
    assert judge(Evidence(published=32.0, own=31.96, decimals=3, close=0.05)).name == "close"
    assert judge(Evidence(published=32.0, own=31.9, decimals=3, close=0.05)).name == "gap"


def test_counts_match_as_printed_or_are_a_gap():
    assert judge(Evidence(published=148.32, own=148.324, decimals=2)).name == "match"
    assert judge(Evidence(published=148.32, own=148.33, decimals=2)).name == "gap"


@pytest.mark.parametrize(
    ("own", "name"),
    [(16.74, "match"), (16.7451, "match"), (16.7499, "match"), (16.7351, "match")]
    + [(16.75, "gap"), (16.7349, "gap"), (17.5, "gap")],
)
def test_a_count_may_be_cut_off_in_print(own, name):
    verdict = judge(Evidence(published=16.74, own=own, decimals=2, counted=True, reason="how"))
    assert verdict.name == name and verdict.reason == "how"
    assert judge(Evidence(published=16.74, own=16.7451, decimals=2)).name == "gap"  # of a score only rounding


def test_order_of_methods_makes_shape():
    far = {"own": 29.0, "own_fp": 30.0, **PRINTED}
    assert judge(Evidence(rivals=((31.5, 28.0), (31.9, 29.5)), **far)).name == "shape"
    assert judge(Evidence(rivals=((31.5, 29.5),), **far)).name == "gap"
    assert judge(Evidence(rivals=((31.755, 29.5),), **far)).name == "shape"  # tied in print


def test_partial_set_is_at_most_shape():
    exact = {"own": 29.755, "own_fp": 30.0, "partial": True, **PRINTED}
    assert judge(Evidence(**exact)).name == "gap"
    assert judge(Evidence(rivals=((31.0, 29.0),), **exact)).name == "shape"


def test_gap_carries_a_reason_and_nan_is_a_gap():
    assert judge(Evidence(own=20.0, own_fp=30.0, reason="other data", **PRINTED)).reason == "other data"
    assert "no explanation" in judge(Evidence(own=20.0, own_fp=30.0, **PRINTED)).reason
    verdict = judge(Evidence(own=math.nan, own_fp=30.0, **PRINTED))
    assert verdict.name == "gap" and math.isnan(verdict.difference)


def test_not_run_says_what_it_needs():
    assert not_run("weights").reason == "weights" and math.isnan(not_run("weights").difference)


def test_sign_of_the_difference_is_ours_minus_theirs():
    assert difference(Evidence(own=29.0, own_fp=30.0, **PRINTED)) == pytest.approx(1.0 - 0.245)
