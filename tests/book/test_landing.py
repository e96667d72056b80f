"""The landing page: its figures are those of the packaged records."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import cards
import pytest
import yaml
from PIL import Image

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
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}{unit}"


@pytest.mark.parametrize(("bits", "words"), [(4, "{} at 4 bits"), (3, "{} at 3")])
def test_what_min_max_loses(bits: int, words: str) -> None:
    found = drops("dfsq-table2", "MinMax", bits)
    assert len(found) >= 3
    assert words.format(span(list(found.values()), " dB")) in PAGE


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
    rows = rows[rows["own"].notna()]
    assert set(rows["dataset"]) == {"Set5", "Set14", "B100", "Urban100"}
    assert len(rows) == 12 and "its twelve printed PSNR values" in PAGE
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


def test_cards_of_the_chapters(tmp_path: Path) -> None:
    """Every numbered chapter that was executed, with its first picture in one size."""
    figure = io.BytesIO()
    Image.new("RGB", (300, 900), "red").save(figure, "webp")
    data = base64.b64encode(figure.getvalue()).decode()
    shown = {"data": {"text/html": [f'<img src="data:image/webp;base64,{data}">']}}
    cells = [
        {
            "cell_type": "markdown",
            "source": ["# A < B\n", "\n", "**It takes $2^b$ *levels*.\nNo more.** Then."],
        },
        {"cell_type": "code", "source": [], "outputs": [shown]},
    ]
    plain = [{"cell_type": "markdown", "source": ["# Plain\n\nText.\n\n## Part\n\n**bold**"]}]
    for name, content in (("01-a", cells), ("02-b", plain), ("22-c", cells)):
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": content}))
    toc = {
        "parts": [
            {
                "caption": "One",
                "numbered": 1,
                "chapters": [{"file": f"notebooks/{n}"} for n in ("01-a", "02-b")],
            },
            {"caption": "Rest", "chapters": [{"file": "x/22-c"}, {"file": "book/api"}]},
        ]
    }
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    cards.write(tmp_path / "_toc.yml", tmp_path, tmp_path)
    page = (tmp_path / "cards.html").read_text(encoding="utf8")
    assert page.count("<a ") == 2 and page.count("<img ") == 1 and "Rest" not in page
    assert "1 A &lt; B" in page and "<span>It takes 2^b levels. No more.</span>" in page
    assert "2 Plain" in page and "<span></span>" in page
    with Image.open(tmp_path / "cards" / "01-a.webp") as picture:
        assert picture.size == (2 * cards.SIZE[0], 2 * cards.SIZE[1])
        assert picture.getpixel((5, 5))[0] > 200 and picture.getpixel((5, 5))[1] < 60


def test_every_chapter_has_a_title_for_its_card() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title, finding = cards.opening(json.loads(path.read_text(encoding="utf8")))
        assert title and not set(finding) & set("$`*\\"), path.name
