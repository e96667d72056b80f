"""The rendered site in ``_build/html``, read as a browser would; test_browser.py opens it in one."""

from __future__ import annotations

import base64
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"

if not (HTML / "index.html").is_file():
    if os.environ.get("SQLIB_REQUIRE_SITE"):
        pytest.fail("there is no _build/html", pytrace=False)
    pytest.skip("the site is not built: run make book", allow_module_level=True)


def toc_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


PAGES = [f"{name}.html" for name in toc_pages()]
CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]
ALL_PAGES = sorted(
    path.relative_to(HTML).as_posix() for path in HTML.rglob("*.html") if "_static" not in path.parts
)


@functools.cache
def page(name: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / name).read_text(encoding="utf8"), "html.parser")


def article(name: str) -> Tag:
    found = page(name).select_one("article.bd-article")
    assert found is not None
    return found


def attribute(tag: Tag, name: str) -> str:
    return str(tag.get(name) or "")


# --- nothing is missing, nothing is left over ---


@pytest.mark.parametrize("name", PAGES)
def test_page_is_there_with_a_title(name: str) -> None:
    heading = article(name).find("h1")
    assert heading is not None and heading.text.strip("# \n")


def test_no_stale_page() -> None:
    generated = {"404.html", "index.html", "genindex.html", "py-modindex.html", "search.html"}
    assert set(ALL_PAGES) - set(PAGES) <= generated


def test_every_page_is_in_the_navigation() -> None:
    start = page(PAGES[0]).select("nav.bd-links a")
    names = {(HTML / "book" / unquote(attribute(a, "href"))).resolve() for a in start}
    for name in PAGES[1:]:
        assert (HTML / name).resolve() in names, name


# --- no request leaves the site ---

#: attributes by which HTML makes a browser fetch something at once; <a href> waits for a click
FETCHING = {
    "audio": ["src"],
    "embed": ["src"],
    "iframe": ["src"],
    "image": ["href", "xlink:href"],
    "img": ["src", "srcset"],
    "input": ["src"],
    "link": ["href"],
    "object": ["data"],
    "script": ["src"],
    "source": ["src", "srcset"],
    "track": ["src"],
    "use": ["href", "xlink:href"],
    "video": ["src", "poster"],
}
ELSEWHERE = re.compile(r"^\s*(?:[a-z]+:)?//", re.I)


@pytest.mark.parametrize("name", ALL_PAGES)
def test_page_fetches_nothing_from_elsewhere(name: str) -> None:
    for tag in page(name).find_all(list(FETCHING)):
        for key in FETCHING[tag.name]:
            for part in attribute(tag, key).split(","):
                assert not ELSEWHERE.match(part), str(tag)[:200]
    for style in page(name).find_all("style"):
        assert not re.search(r"(url\(|@import)\s*['\"]?\s*(https?:)?//", style.text)
    for script in page(name).find_all("script"):
        if script.get("type") not in ("application/json", "application/vnd.jupyter.widget-state+json"):
            assert not re.search(
                r"['\"](https?:)?//[\w.-]+\.[a-z]{2,}/[^'\"]*\.(js|mjs|css|woff2?)\b", script.text
            ), name


@pytest.mark.parametrize("path", sorted(HTML.rglob("*.css")), ids=lambda path: path.name[:40])
def test_style_sheet_fetches_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    assert not re.search(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//", text)


@pytest.mark.parametrize(
    "path", sorted(set(HTML.rglob("*.js")) | set(HTML.rglob("*.mjs"))), ids=lambda path: path.name[:40]
)
def test_script_loads_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    loading = r"(?:import\s*\(|importScripts\(|fetch\(|\.src\s*=|\bfrom\s)\s*['\"`](?:https?:)?//"
    assert not re.search(loading, text)
    assert "unpkg.com" not in text and "cdnjs.cloudflare.com" not in text and "googleapis.com" not in text


# --- every file that is asked for is there ---


def asked(name: str) -> Iterator[str]:
    """What a page makes a browser fetch, and where its links lead, as written."""
    for tag in page(name).find_all([*FETCHING, "a"]):
        for key in ("src", "href", "xlink:href", "data", "poster"):
            if tag.has_attr(key):
                yield attribute(tag, key)
        if tag.has_attr("srcset"):
            yield from (part.split()[0] for part in attribute(tag, "srcset").split(",") if part.strip())
    for style in page(name).find_all("style"):
        yield from STYLE_URL.findall(style.text)


STYLE_URL = re.compile(r"url\(\s*['\"]?([^'\")]+?)['\"]?\s*\)")


def absent(urls: Iterable[str], folder: Path) -> list[str]:
    """Those of some addresses that stay inside the site and are no file there."""
    found = []
    for url in urls:
        parts = urlsplit(url.strip())
        if parts.scheme or parts.netloc or not parts.path:
            continue
        path = HTML / unquote(parts.path[1:]) if parts.path.startswith("/") else folder / unquote(parts.path)
        if not (path / "index.html" if path.is_dir() else path).is_file():
            found.append(url)
    return found


@pytest.mark.parametrize("name", ALL_PAGES)
def test_every_file_of_this_site_that_a_page_asks_for_exists(name: str) -> None:
    urls = list(asked(name))
    if name not in ("index.html", "404.html"):  # these only lead on
        files = [urlsplit(url).path for url in urls]
        assert any(f.endswith(".css") for f in files) and any(f.endswith(".js") for f in files)
    assert absent(urls, (HTML / name).parent) == []


@pytest.mark.parametrize("path", sorted(HTML.rglob("*.css")), ids=lambda path: path.name[:40])
def test_every_file_that_a_style_sheet_asks_for_exists(path: Path) -> None:
    assert absent(STYLE_URL.findall(path.read_text(encoding="utf8")), path.parent) == []


def test_a_file_that_is_not_there_is_found() -> None:
    start = HTML / PAGES[0]
    urls = ["../_static/sphinx-thebe.css", "gone.html#part", "/nowhere.png", "", "#here", "https://a.b/c.js"]
    assert absent([*urls, start.name, "data:image/png;base64,AA"], start.parent) == urls[:3]


def test_no_page_knows_of_code_that_runs_elsewhere() -> None:
    for name in ALL_PAGES:
        for tag in page(name).find_all(["script", "link", "button"]):
            words = re.sub(
                "[A-Za-z0-9+/=]{200,}", "", str(tag)
            )  # pictures, in which it may come up by chance
            assert "thebe" not in words.lower(), name
    assert not list(HTML.rglob("*thebe*"))


# --- images, tables, output ---


@pytest.mark.parametrize("name", PAGES)
def test_images_say_what_they_show(name: str) -> None:
    for image in article(name).find_all("img"):
        alt = attribute(image, "alt").strip()
        assert len(alt) >= 8 and not re.search(r"\.(png|svg|jpe?g|webp)$|^_?images?/", alt), str(image)[:200]
        source = attribute(image, "src")
        if not source.startswith("data:"):
            assert (HTML / name).parent.joinpath(unquote(source)).is_file(), source
    for data in article(name).select("script.sq-data"):
        frames = json.loads(data.text)["frames"]
        assert len(frames) >= 2
        pictures = [frame for frame in frames if "html" not in frame]
        assert len({frame["alt"] for frame in pictures}) == len(pictures)
        assert all(len(base64.b64decode(frame["src"].split(",", 1)[1])) > 200 for frame in pictures)
        assert all("<img" not in frame["html"] for frame in frames if "html" in frame)


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_real_tables(name: str) -> None:
    for table in article(name).find_all("table"):
        head = table.select("thead th, tr th")
        assert head, "a table without header cells"
        rows = table.select("tbody tr")
        assert rows, "a table without rows"
        if table.find_parent(class_="sq-table"):
            assert table.caption is not None and table.caption.text.strip()
            box = table.find_parent(class_="sq-scroll")
            assert box is not None and attribute(box, "tabindex") == "0"


@pytest.mark.parametrize("name", PAGES)
def test_methods_have_one_spelling(name: str) -> None:
    """Min-Max and DBDC+Pac, in text, tables, captions and alternative texts; code has its own names."""
    parts = [attribute(image, "alt") for image in article(name).find_all("img")]
    for piece in article(name).find_all(string=True):
        if not piece.find_parent(["pre", "code", "dt", "script", "style"]):
            parts.append(str(piece))
    wrong = re.compile(
        r"\b[Mm]in-max\b|DBDC\+PaC|DBDC \+ Pa|DBDC_P" + ("" if "api" in name else r"|\bMinMax\b")
    )
    assert [part.strip()[:120] for part in parts if wrong.search(part)] == []


@pytest.mark.parametrize("name", PAGES)
def test_no_formula_is_left_raw(name: str) -> None:
    """Text that a cell computes is Markdown without formulas: dollars would stay dollars."""
    for piece in article(name).find_all(string=re.compile(r"\$[^$\s][^$]{0,40}\$")):
        assert piece.find_parent(["pre", "code", "script"]) or piece.find_parent(class_="math"), str(piece)


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_shows_no_error_and_no_bare_object(name: str) -> None:
    outputs = article(name).select(".cell_output")
    assert outputs, "a chapter without any output"
    text = "\n".join(output.get_text() for output in outputs)
    assert "Traceback (most recent call last)" not in text
    assert not re.search(r"<[\w.]+ (object )?at 0x[0-9a-f]+>", text)
    assert not re.search(r"<Figure size|VBox\(|HTML\(value", text)
    assert not article(name).select(".output.stderr, .output.traceback")


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_uses_no_kernel_widget(name: str) -> None:
    assert not page(name).select("script[type*='jupyter.widget']")


@pytest.mark.parametrize("name", PAGES)
def test_page_is_not_too_heavy(name: str) -> None:
    assert (HTML / name).stat().st_size < 3_500_000


# --- links ---


def targets(name: str) -> Iterator[tuple[str, Path, str]]:
    """Every link of a page that stays inside the site: (as written, file, fragment)."""
    for anchor in page(name).find_all("a", href=True):
        href = attribute(anchor, "href")
        parts = urlsplit(href)
        if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
            continue
        target = (HTML / name).parent / unquote(parts.path) if parts.path else HTML / name
        yield href, target.resolve(), unquote(parts.fragment)


@pytest.mark.parametrize("name", PAGES)
def test_links_inside_the_site_lead_somewhere(name: str) -> None:
    for href, path, fragment in targets(name):
        if path.is_dir():
            path /= "index.html"
        assert path.is_file(), href
        if fragment and path.suffix == ".html":
            there = page(path.relative_to(HTML.resolve()).as_posix())
            assert there.find(id=fragment) or there.find(attrs={"name": fragment}), href


def test_start_page_leads_to_the_book() -> None:
    text = (HTML / "index.html").read_text(encoding="utf8")
    assert "book/index.html" in text


@pytest.mark.parametrize("name", CHAPTERS)
def test_launch_button_opens_this_notebook_in_colab(name: str) -> None:
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["repository"]["url"]
    wanted = (
        f"https://colab.research.google.com/github/{url.split('/', 3)[3]}/blob/colab/{Path(name).stem}.ipynb"
    )
    assert wanted in {attribute(a, "href") for a in page(name).find_all("a")}


# --- interactive parts ---


def test_there_are_two_interactive_parts_without_a_kernel() -> None:
    sliders = sum(len(article(name).select("figure.sq-frames")) for name in CHAPTERS)
    assert sliders >= 2
