"""The errata page: its numbers are those of the printed tables, and every chapter that it names is there."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from sqlib import codebook
from sqlib.experiments import published_frame

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "errata.md").read_text(encoding="utf8")
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("| ") and "---" not in line and "in print" not in line
]


def printed(place: str) -> str:
    """A printed value by its id, with the digits of the print."""
    found = published_frame(blanks=False).set_index("id").loc[place, "printed"]
    return str(found)


def row(*words: str) -> str:
    """The one line of the page that has all of some words."""
    found = [line for line in ROWS if all(word in line for word in words)]
    assert len(found) == 1, (words, found)
    return found[0]


def test_count_in_the_first_sentence_is_that_of_the_tables() -> None:
    assert len(ROWS) == 19 and "**Nineteen places" in PAGE


def test_every_row_names_a_chapter_that_is_there() -> None:
    for line in ROWS:
        names = re.findall(r"\{doc\}`\.\./(notebooks/[\w-]+)`", line)
        assert names and all((ROOT / f"{name}.ipynb").is_file() for name in names), line


@pytest.mark.parametrize(
    "place",
    [
        "dfsq-table3/RDN/x2/DFSQ/8/B100/psnr_y",
        "dfsq-table1/EDSR/x4/channel-wise + normalization (DFSQ)/4/Set5/psnr_y",
        "dfsq-table1/EDSR/x4/channel-wise + normalization (DFSQ)/4/Urban100/psnr_y",
        "dfsq-table2/EDSR/x4/DFSQ/4/Set5/psnr_y",
        "dfsq-table2/EDSR/x4/DFSQ/4/Urban100/psnr_y",
        "2dquant-table1/SwinIR-light/x4/FP/32/Urban100/psnr_y",
        "2dquant-table3/SwinIR-light/x4/FP/32/Urban100/psnr_y",
        "2dquant-table1/SwinIR-light/x4/FP/32/-/params_mb",
        "2dquant-table3/SwinIR-light/x4/2DQuant/2/Set5/psnr_y",
        "2dquant-table3/SwinIR-light/x4/DBDC+Pac/2/Set5/psnr_y",
        "refqsr-table6/SRResNet/x4/DDTB+RefQSR RefER(x2) only/8-4/Test4K(4096x2160)/bitops_g",
    ],
)
def test_number_is_the_printed_one(place: str) -> None:
    assert re.search(rf"(?<![\d.]){re.escape(printed(place))}(?!\d)", PAGE), place


def test_gains_of_dfsq_on_urban100() -> None:
    """Over the best other method of the table, at 8, 6, 4 and 3 bits."""
    said = {2: ("0.009", "0.056", "0.242", "0.532"), 4: ("0.007", "0.023", "0.181", "0.427")}
    wrong = {}
    for scale, gains in said.items():
        for bits, gain in zip((8, 6, 4, 3), gains, strict=True):
            place = f"dfsq-table2/EDSR/x{scale}/{{}}/{bits}/Urban100/psnr_y"
            best = max(float(printed(place.format(method))) for method in ("MinMax", "BRECQ", "QDROP"))
            found = f"{float(printed(place.format('DFSQ'))) - best:.3f}"
            if found != gain:
                wrong[scale, bits] = gain, found
    assert wrong == {(2, 3): ("0.532", "0.577")}
    assert all(number in row("text on Table 2") for number in wrong[2, 3])


def test_headline_of_2dquant_belongs_to_x4() -> None:
    line = row("abstract")
    for scale, gain in ((4, "4.52"), (2, "1.45")):
        place = f"2dquant-table3/SwinIR-light/x{scale}/{{}}/2/Set5/psnr_y"
        ours, theirs = (float(printed(place.format(method))) for method in ("2DQuant", "DBDC+Pac"))
        assert f"{ours - theirs:.2f}" == gain and gain in line


def test_sizes_of_universal_sets() -> None:
    sizes = {words: len(codebook.universal_set(words=words)) for words in (3, 4)}
    assert sizes == {3: 107, 4: 377} and all(str(size) in row("universal set") for size in sizes.values())


def test_worked_example_needs_all_four_words() -> None:
    assert (1 + 1 / 4 + 1 + 1) / 4 == 0.8125
    words = [0, 1, *(2.0**-k for k in range(1, 10))]
    largest = max(sum(chosen) / 4 for chosen in itertools.combinations_with_replacement(words, 3))
    assert largest == 0.75 and np.isclose(codebook.universal_set(words=4), 0.8125).any()
    assert "0.75" in row("worked example")
