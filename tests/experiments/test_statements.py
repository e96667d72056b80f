from __future__ import annotations

from dataclasses import replace

import pytest

from sqlib.errors import InputError
from sqlib.experiments.statements import STATEMENTS, statement_frame, statement_summary


def test_the_printed_tables_bear_out_what_the_paper_says_of_min_max():
    found = statement_frame(STATEMENTS[0])
    printed = found[found["network"] == "EDSR (printed)"]
    # 2 scales, 2 bit-widths, 4 datasets
    assert len(printed) == 16 and printed["held"].all() and (printed["gain"] > 0).all()


def test_bounds_decide_what_holds():
    base = STATEMENTS[0]
    gains = statement_frame(base)["gain"]
    middle = float(gains.median())
    half = statement_frame(replace(base, low=middle))
    assert half["held"].sum() == (gains >= middle).sum() < len(half)
    assert not statement_frame(replace(base, low=-1.0, high=-0.5))["held"].any()


def test_rows_that_do_not_exist_are_left_out_and_said():
    unknown = replace(STATEMENTS[0], better="nobody")
    assert statement_frame(unknown).empty
    summary = statement_summary((unknown,))
    assert summary["in print"].tolist() == ["not run"] == summary["on our networks"].tolist()
    with pytest.raises(InputError, match="no statements"):
        statement_summary(())
