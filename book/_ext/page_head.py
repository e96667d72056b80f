"""Sphinx extension: the book's name beside its logo, and what a search engine or a shared link says.

The description of a page is its first sentence.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

LONGEST = 200
"""Characters of a description; more is cut off by those who show it."""


def site_address(repository: str) -> str:
    """Where GitHub Pages publishes a repository: ``https://OWNER.github.io/NAME/``."""
    owner, name = repository.rstrip("/").split("/")[-2:]
    return f"https://{owner.lower()}.github.io/{name}/"


def shortened(text: str, longest: int = LONGEST) -> str:
    """Text on one line, cut after a whole word."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    return text[: longest - 1].rsplit(" ", 1)[0].rstrip(" ,;:") + "…"


def description(doctree: nodes.document | None, title: str) -> str:
    """The first paragraph of a page that says something; of a page without one, the title."""
    paragraphs = doctree.findall(nodes.paragraph) if doctree is not None else ()
    texts = (paragraph.astext() for paragraph in paragraphs)
    return shortened(next((text for text in texts if len(text) >= 40), title))


def name_the_logo(app: Sphinx, config: Config) -> None:
    """Jupyter Book takes a picture for the logo and drops the name; put it beside the picture."""
    config.html_theme_options["logo"] = {
        "text": config.html_title,
        "alt_text": "A curve and its quantized staircase",
    }


def add_tags(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the description, and what a shared link shows, into the head of a page."""
    site = site_address(app.config.html_theme_options["repository_url"])
    title = re.sub(r"<[^>]+>", "", context.get("title") or app.config.html_title)
    words = description(doctree, f"{html.unescape(title)}: {app.config.html_title}")
    tags = {
        "name": {"description": words},
        "property": {
            "og:title": html.unescape(title),
            "og:type": "article",
            "og:description": words,
            "og:url": f"{site}{pagename}.html",
            "og:image": f"{site}_static/readme.png",
            "og:image:alt": "A photograph enlarged by one network at several bit-widths",
        },
    }
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<meta {kind}="{name}" content="{html.escape(text)}">'
        for kind, found in tags.items()
        for name, text in found.items()
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", name_the_logo)
    app.connect("html-page-context", add_tags)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
