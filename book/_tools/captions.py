"""Figures and tables are numbered by chapter once the site is rendered: "Figure 3.1", "Table 3.2"."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

_CHAPTER = re.compile(r'<h1>\s*<span class="section-number">\s*(\d+)\.?\s*</span>')
# Scripts hold the texts that a slider shows; a table within a figure goes by the figure's caption.
_TOKEN = re.compile(r"<script\b.*?</script>|<figure\b|</figure>|<figcaption>|<caption><span>", re.DOTALL)


def number_captions(folder: Path) -> None:
    """Put a number before every caption of every numbered page in `folder`."""
    for path in sorted(folder.rglob("*.html")):
        page = path.read_text(encoding="utf8")
        chapter = _CHAPTER.search(page)
        if chapter is not None:
            path.write_text(numbered(page, chapter[1]), encoding="utf8")


def numbered(page: str, chapter: str) -> str:
    """A page with its captions numbered, figures and tables each from 1 on."""
    count: Counter[str] = Counter()

    def number(match: re.Match[str]) -> str:
        token = match[0]
        count["depth"] += {"<figure": 1, "</figure>": -1}.get(token, 0)
        if token == "<figcaption>":
            kind = "Figure"
        elif token.startswith("<caption>") and not count["depth"]:
            kind = "Table"
        else:
            return token
        count[kind] += 1
        return f'{token}<span class="sq-caption-number">{kind} {chapter}.{count[kind]}</span> '

    return _TOKEN.sub(number, page)
