"""Numbers of figures and tables."""

from __future__ import annotations

import re
from pathlib import Path

from captions import number_captions, numbered

PAGE = """<h1><span class="section-number">7. </span>Title</h1>
<figure class="a"><script>{"x": "<figcaption>"}</script><table><caption><span>inner</span></caption></table>
<figcaption>one</figcaption></figure>
<table><caption><span>two</span></caption></table><figure><figcaption>three</figcaption></figure>"""


def test_figures_and_tables_count_apart_and_texts_of_sliders_stay() -> None:
    found = re.findall(r'<span class="sq-caption-number">([^<]*)</span> ([a-z]+)', numbered(PAGE, "7"))
    assert found == [("Figure 7.1", "one"), ("Table 7.1", "two"), ("Figure 7.2", "three")]
    assert '{"x": "<figcaption>"}' in numbered(PAGE, "7")


def test_pages_without_a_number_stay(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE.replace("7. ", ""), encoding="utf8")
    (tmp_path / "b.html").write_text(PAGE, encoding="utf8")
    number_captions(tmp_path)
    texts = [(tmp_path / name).read_text(encoding="utf8") for name in ("a.html", "b.html")]
    assert ["Figure 7.1" in text for text in texts] == [False, True]
