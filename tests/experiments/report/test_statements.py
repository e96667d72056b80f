from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sqlib.errors import InputError
from sqlib.experiments.papers import statements, tables
from sqlib.experiments.papers.published import published_frame
from sqlib.experiments.report.statements import (
    statement_frame,
    statement_frames,
    statement_summary,
)

STATEMENTS = statements()


def test_the_printed_tables_bear_out_what_the_paper_says_of_min_max():
    found = statement_frame(STATEMENTS[0])
    printed = found[found["network"] == "EDSR (printed)"]
    # 2 scales, 2 bit-widths, 4 datasets
    assert len(printed) == 16 and printed["held"].all() and (printed["gain"] > 0).all()


def test_many_frames_are_those_of_one_each():
    some = STATEMENTS[:2]
    frames = statement_frames(some)
    assert list(frames) == [s.name for s in some]
    for statement in some:
        assert frames[statement.name].equals(statement_frame(statement))


def test_names_are_unique():
    assert len({s.name for s in STATEMENTS}) == len(STATEMENTS)


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
    assert summary["in print"].tolist() == ["no rows in print"]
    assert summary["on our networks"].tolist() == ["not run"]
    with pytest.raises(InputError, match="no statements"):
        statement_summary(())


def test_a_share_is_asked_of_the_better_row():
    base = replace(STATEMENTS[0], low=-math.inf)
    shares = statement_frame(base)["share"]
    middle = float(shares.median())
    held = statement_frame(replace(base, share=middle))["held"]
    assert held.sum() == (shares <= middle).sum() < len(held)
    words = statement_summary((replace(base, share=middle),))["in print"].item()
    assert words.endswith("of it)") and "dB" not in words


def test_a_share_is_undecided_where_the_images_do_not_tell():
    base = replace(STATEMENTS[0], low=-math.inf)
    found = statement_frame(base)
    assert not found["undecided"].any()  # nothing is claimed
    ours = found[~found["network"].str.endswith("(printed)")].dropna(subset=["share"]).iloc[0]
    same = ["network", "scale", "bits", "dataset"]
    for share, undecided in ((float(ours["share"]), True), (10.0, False)):
        rows = statement_frame(replace(base, share=share)).set_index(same)
        assert rows.loc[tuple(ours[same]), "undecided"] == undecided
    assert (
        "undecided"
        in statement_summary((replace(base, share=float(ours["share"])),))["on our networks"].item()
    )


def test_variants_stand_for_printed_rows_on_our_networks_only():
    found = next(s for s in STATEMENTS if s.name == "brecq-below-minmax")
    assert statement_frame(replace(found, ours={"BRECQ": "nobody"}))["network"].eq("EDSR (printed)").all()
    assert "BRECQ, 500 iterations" in statement_summary((found,))["claim"].item()


def test_of_several_variants_a_network_has_its_own():
    (found,) = (s for s in STATEMENTS if s.name == "two-bounds-2")
    rows = statement_frame(found)
    first = replace(found, ours={label: found.variants(label)[:1] for label in found.ours})
    assert set(rows["network"]) >= {"SRResNet (printed)", "edsr-small"}
    mine, all_rows = (
        frame.query("network == 'edsr-small'").reset_index(drop=True)
        for frame in (statement_frame(first), rows)
    )
    assert mine.equals(all_rows) and len(mine)
    other = replace(found, ours={label: ("nobody", *found.variants(label)) for label in found.ours})
    assert statement_frame(other).equals(rows)
    assert (
        "DDTB, 1,000 iterations of 8 crops or DDTB, short schedule"
        in statement_summary((found,))["claim"].item()
    )


def test_every_statement_names_rows_that_exist():
    printed = published_frame(blanks=False)
    for statement in STATEMENTS:
        table = tables()[statement.table]
        planned = {m.label for m in table.methods}
        rows = printed[printed["table"] == statement.table]
        for label in (statement.better, statement.worse):
            assert label in planned | set(rows["method"]), (statement.name, label)
        for label in statement.ours:
            assert planned.issuperset(statement.variants(label)), (statement.name, label)
        widths = {bits for m in table.methods for bits in m.bits}
        assert set(statement.bits) <= widths
        assert set(statement.networks) <= set(rows["model"])


def test_a_statement_about_one_network_is_not_asked_of_the_others():
    (found,) = (s for s in STATEMENTS if s.name == "refined-4-2-4")
    assert found.networks == ("CARN",)
    asked, everywhere = (set(statement_frame(s)["network"]) for s in (found, replace(found, networks=())))
    assert asked == {"CARN (printed)", "carn-single"}
    assert asked < everywhere and "ELAN (printed)" in everywhere


def test_full_precision_cancels_where_it_is_not_printed():
    found = next(s for s in STATEMENTS if s.name == "channel-wise-helps")
    printed = statement_frame(found).query("network == 'EDSR (printed)'").set_index("dataset")["gain"]
    assert printed["Set5"] == pytest.approx(31.689 - 31.543) and len(printed) == 4


def test_a_gain_printed_exactly_at_the_bound_holds():
    found = next(s for s in STATEMENTS if s.name == "refined-cadyq-4")
    frame = statement_frame(replace(found, networks=()))  # ELAN on Test2K: 27.60 to 27.55
    printed = frame[frame["network"].str.endswith("(printed)")]
    at = printed[abs(printed["gain"] - found.low) < 1e-6]
    assert len(at) and at["held"].all()
