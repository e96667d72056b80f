from __future__ import annotations

from sqlib.experiments.papers.published import context_frame, published_frame


def test_counts_of_printed_values_and_blanks():
    frame = published_frame()
    assert len(frame) == 1966 + 17
    assert frame["value"].isna().sum() == 17
    assert len(published_frame(blanks=False)) == 1966
    assert frame["table"].nunique() == 13


def test_counts_per_table():
    counts = published_frame(blanks=False)["table"].value_counts().to_dict()
    assert counts["dfsq-table1"] == 32 - 16
    assert counts["dfsq-table2"] == counts["dfsq-table3"] == 272
    assert counts["2dquant-table3"] == 526
    assert counts["refqsr-table4"] == 504
    assert counts["refqsr-table3"] == 16 - 1


def test_ids_are_unique_and_spell_out_the_value():
    frame = published_frame().set_index("id")
    assert frame.index.is_unique
    row = frame.loc["dfsq-table2/EDSR/x2/FP/32/Set5/psnr_y"]
    assert (row["value"], row["printed"], row["decimals"], row["scale"]) == (37.931, "37.931", 3, 2)
    assert frame.loc["refqsr-table4/CARN/x4/FP/32/Urban100/fqr", "decimals"] == 2  # "32.00"


def test_context_is_not_counted_and_frames_are_copies():
    assert set(context_frame()["paper"]) == {"ddtb", "granular-dq", "compsrt"}
    frame = published_frame()
    frame["value"] = 0.0
    assert published_frame()["value"].max() > 1
