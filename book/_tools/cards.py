"""The cards of the start page: each numbered chapter with its first figure, its title and its finding."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

SIZE = (320, 200)
"""Pixels of a thumbnail: what is higher is cut off below."""


def write(toc: Path, notebooks: Path, static: Path) -> None:
    """Write ``cards.html`` and the thumbnails of ``cards/``.

    Parameters
    ----------
    toc
        The table of contents, ``_toc.yml``.
    notebooks
        Folder of the executed chapters; of one that is not there the card is left out.
    static
        Where both go.
    """
    (static / "cards").mkdir(exist_ok=True)
    parts = []
    for part in yaml.safe_load(toc.read_text(encoding="utf8"))["parts"]:
        cards = []
        for file in (entry["file"] for entry in part["chapters"] if part.get("numbered")):
            path = notebooks / f"{Path(file).name}.ipynb"
            if path.is_file():
                cards.append(_card(path.stem, json.loads(path.read_text(encoding="utf8")), static))
        if cards:
            parts.append(f"<h3>{html.escape(part['caption'])}</h3><div>{''.join(cards)}</div>")
    (static / "cards.html").write_text(f'<div class="sq-cards">{"".join(parts)}</div>\n', encoding="utf8")


def _card(stem: str, notebook: dict[str, Any], static: Path) -> str:
    picture = _first_figure(notebook)
    number, (title, finding) = int(stem.partition("-")[0]), opening(notebook)
    image = ""
    if picture is not None:
        _thumbnail(picture).save(static / "cards" / f"{stem}.webp", quality=80, method=6)
        image = (
            f'<img src="../_static/cards/{stem}.webp" alt="The first figure of chapter {number}" '
            f'loading="lazy" width="{SIZE[0]}" height="{SIZE[1]}">'
        )
    return (
        f'<a href="../notebooks/{stem}.html">{image}<strong>{number} {html.escape(title)}</strong>'
        f"<span>{html.escape(finding)}</span></a>"
    )


def opening(notebook: dict[str, Any]) -> tuple[str, str]:
    """Title of a chapter, and the finding in bold that it opens with, if it does."""
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    title = re.search(r"^# (.+)$", text, re.M)
    if title is None:
        raise SystemExit(f"a chapter without a title: {text[:80]!r}")
    finding = re.search(r"\*\*(.+?)\*\*(?!\*)", text[title.end() :].partition("\n## ")[0], re.S)
    return title[1], re.sub(r"[$`*]|\\[a-z]+", "", " ".join(finding[1].split())) if finding else ""


def _first_figure(notebook: dict[str, Any]) -> Image.Image | None:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = "".join(output.get("data", {}).get("text/html", ""))
            found = re.search(r"data:image/(?:webp|png);base64,([\w+/=]+)", text)
            if found:
                return Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
    return None


def _thumbnail(image: Image.Image) -> Image.Image:
    """Twice as fine as it is shown, from the top."""
    width, height = (2 * side for side in SIZE)
    scaled = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(scaled, (0, max(0, (height - scaled.height) // 2)))
    return canvas
