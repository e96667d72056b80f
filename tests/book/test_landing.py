"""The landing page: its figures are those of the packaged records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sqlib import codebook, experiments

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "index.md").read_text(encoding="utf8")


def drops(table: str, method: str, bits: int) -> dict[str, float]:
    """Network to its drop on Set5 at x4 in dB, our own networks only."""
    frame = experiments.drops_frame(table)
    rows = frame[(frame["method"] == method) & (frame["bits"] == bits) & (frame["scale"] == 4)]
    rows = rows[(rows["dataset"] == "Set5") & rows["drop"].notna()]
    rows = rows[~rows["network"].str.endswith("(printed)")]
    return dict(zip(rows["network"], rows["drop"], strict=True))


def span(values: list[float], unit: str, digits: int = 1) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f} {unit}"


@pytest.mark.parametrize(("bits", "words"), [(4, "{} at 4 bits"), (3, "{} at 3")])
def test_what_min_max_loses(bits: int, words: str) -> None:
    found = drops("dfsq-table2", "MinMax", bits)
    assert len(found) >= 3
    assert words.format(span(list(found.values()), "dB")) in PAGE


def test_min_max_loses_nothing_to_speak_of_at_8_bits() -> None:
    assert max(drops("dfsq-table2", "MinMax", 8).values()) < 0.02


def test_what_is_left_of_the_loss_of_dfsq() -> None:
    before = drops("dfsq-beyond", "DFSQ", 4)
    weights = drops("dfsq-beyond", "DFSQ's points, compensated weights", 4)
    whole = drops("dfsq-beyond", "Exact points, compensated weights (ours)", 4)
    assert set(before) == set(weights) == set(whole) and len(before) == 3
    for after, words in ((weights, "leaves {} of the loss"), (whole, "our whole recipe {}")):
        shares = [100 * after[network] / before[network] for network in before]
        assert words.format(span(shares, "%", 0)) in PAGE
    assert f"On CARN-M, {before['carn-m']:.2f} dB become {whole['carn-m']:.2f} dB" in PAGE


def test_sizes_of_the_universal_sets() -> None:
    assert f"four word sets form {len(codebook.universal_set(4))} values" in PAGE
    assert f"{len(codebook.universal_set(3))} is the count for three sets" in PAGE


def test_bilinear_row() -> None:
    board = experiments.scoreboard_frame()
    rows = board[(board["method"] == "Bicubic") & (board["metric"] == "psnr_y")]
    rows = rows[rows["dataset"].isin(["Set5", "Set14", "B100"])]
    assert len(rows) == 9 and "its nine printed PSNR values" in PAGE
    assert f"bilinear interpolation to {rows['difference'].abs().max():.3f} dB" in PAGE


def test_citation_is_that_of_the_citation_file() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    (author,) = (person["name"] for person in cited["authors"])
    assert f"{author}, *{cited['title']}*, version {cited['version']}." in PAGE


def test_five_findings_each_with_a_number_and_a_link() -> None:
    section = PAGE.split("## Five findings")[1].split("\n## ")[0]
    findings = re.findall(r"^- \*\*.+", section, re.M)
    assert len(findings) == 5
    assert all(re.search(r"\d", text) and "{doc}`../notebooks/" in text for text in findings)
