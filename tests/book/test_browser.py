"""The rendered site in a browser: contrast, sliders, filters, a phone's width, scoreboard, toy, search.

Needs ``_build/html``, the Python package playwright and a Chromium of the system. Where one is missing the
tests are skipped; with ``SQLIB_REQUIRE_BROWSER`` set, as in continuous integration, that is a failure.
"""

from __future__ import annotations

import csv
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqlib.reference import clustering

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
CONTRAST, FILTER, PAPER, PHONE, SHOWN, STATE = (
    (Path(__file__).parent / "scripts" / f"{name}.js").read_text(encoding="utf8")
    for name in ("contrast", "filter", "paper", "phone", "shown", "toy")
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
PAGES = sorted(path.relative_to(HTML).as_posix() for path in [*HTML.glob("*/*.html"), *HTML.glob("*.html")])
PAGES = [name for name in PAGES if not name.startswith("_static") and name != "index.html"]
BOARD = "notebooks/19-scoreboard.html"
TOY = "notebooks/14-clustering-patches.html"


def missing() -> str:
    """What keeps these tests from running, apart from the site."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "needs the Python package playwright"
    return "" if CHROMIUM else f"needs a browser: none of {', '.join(BROWSERS)} was found"


for reason, required in (
    ("" if PAGES else "the site is not built: run make book", "SQLIB_REQUIRE_SITE"),
    (missing(), "SQLIB_REQUIRE_BROWSER"),
):
    if reason and os.environ.get(required):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason, allow_module_level=True)


class Site(http.server.SimpleHTTPRequestHandler):
    """The site as GitHub Pages serves it: a page that is not there is answered by 404.html."""

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""

    def send_error(self, code: int, *words: Any, **more: Any) -> None:
        if code != 404:
            return super().send_error(code, *words, **more)
        body = (HTML / "404.html").read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the site is served."""
    handler = functools.partial(Site, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


class Opened:
    """A page in the browser, and what it asked for and complained about."""

    def __init__(self, browser: Any, address: str, name: str, width: int = 1280) -> None:
        self.name, self.asked, self.wrong = name, [], []
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", lambda request: self.wrong.append(request.url))
        self.page.on("response", lambda r: self.wrong.append(r.url) if r.status >= 400 else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(address + name)
        if "404" not in name:
            self.page.wait_for_function("document.documentElement.dataset.sqlib === 'ready'")
        self.page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => 0)")
        still = "*, *::before, *::after { transition: none !important; animation: none !important; }"
        self.page.add_style_tag(content=still)


@pytest.fixture(scope="module", params=PAGES)
def opened(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Opened]:
    """Each page of the site once, for the tests below in their order."""
    found = Opened(browser, address, request.param)
    yield found
    found.page.close()


@pytest.fixture
def board(browser: Any, address: str) -> Iterator[Any]:
    """The scoreboard, fresh."""
    found = Opened(browser, address, BOARD)
    yield found.page
    assert found.wrong == []
    found.page.close()


@pytest.fixture
def toy(browser: Any, address: str) -> Iterator[Any]:
    """The page with the patches that can be dragged, fresh."""
    found = Opened(browser, address, TOY)
    found.page.locator(".sq-toy svg").scroll_into_view_if_needed()
    yield found.page
    assert found.wrong == []
    found.page.close()


# --- every page ---


def test_every_request_is_answered_from_the_site(opened: Opened, address: str) -> None:
    assert opened.wrong == []
    elsewhere = [url for url in opened.asked if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


def test_formulas_are_set(opened: Opened) -> None:
    count = "(selector) => document.querySelectorAll(selector).length"
    written, drawn = (opened.page.evaluate(count, name) for name in ("article .math", "mjx-container"))
    assert drawn >= written


def test_every_slider_and_list_shows_its_frame(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    for figure in opened.page.query_selector_all("figure.sq-frames"):
        for axis, field in enumerate(figure.query_selector_all("[data-axis]")):
            last = int(field.evaluate("(f) => f.options ? f.options.length - 1 : Number(f.max)"))
            for target, key in ((0, "Home"), (last, "End")):
                field.focus()
                field.press(key)
                at, right = figure.evaluate(SHOWN)
                assert right and at[axis] == target, (opened.name, axis, at)


def test_every_filter_keeps_the_rows_it_names(opened: Opened) -> None:
    for box in opened.page.query_selector_all("div.sq-table[data-filter]"):
        assert box.evaluate(FILTER) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read(opened: Opened, theme: str) -> None:
    """At least 4.5:1 against what lies under it, 3:1 for large text, whatever is folded opened."""
    opened.page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
    found = opened.page.evaluate(CONTRAST)
    assert found["texts"] > 5 and found["poor"] == []


def test_page_fits_a_sheet(opened: Opened) -> None:
    """A4 between its margins, with every folded part closed as a reader finds it."""
    fold = "(open) => document.querySelectorAll('details').forEach((node) => { node.open = open; })"
    opened.page.evaluate(fold, False)
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 718, "height": 1047})
    try:
        assert opened.page.evaluate(PAPER) == []
    finally:
        opened.page.evaluate(fold, True)
        opened.page.emulate_media(media="screen")


def test_page_fits_a_phone(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 390, "height": 844})
    opened.page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    assert opened.page.evaluate(PHONE) == []


# --- the scoreboard ---


def count(page: Any) -> int:
    return int(page.locator(".sq-board .sq-count").inner_text().split(" of ")[0].replace(",", ""))


def test_every_verdict_filters_and_its_number_is_true(board: Any) -> None:
    everything, total = count(board), 0
    for chip in board.locator(".sq-chips .sq-chip").all():
        chip.click()
        assert chip.get_attribute("aria-pressed") == "true"
        state, number = chip.get_attribute("data-state"), chip.locator("b").inner_text()
        assert count(board) == int(number.replace(",", "")) > 0
        assert set(board.locator(".sq-board tbody .sq-chip").all_inner_texts()) == {state}
        total += count(board)
        chip.click()
    assert total == count(board) == everything
    printed = sum(
        int(chip.locator("b").inner_text().replace(",", ""))
        for chip in board.locator(".sq-chips .sq-chip").all()
        if chip.get_attribute("data-state") != "ours only"
    )
    assert printed == 1966


def test_search_layout_and_order_are_in_the_address(board: Any, browser: Any, address: str) -> None:
    board.get_by_label("Search the scoreboard").fill("dfsq set5 4-bit edsr x4")
    board.locator(".sq-chips [data-state=shape]").click()
    board.get_by_role("button", name="difference").click()
    rows, found = board.locator(".sq-board tbody tr").all_inner_texts(), count(board)
    assert 0 < found < 100 and all("Set5" in row and "EDSR x4" in row for row in rows)
    again = Opened(browser, address, board.url.removeprefix(address)).page
    assert again.locator(".sq-board tbody tr").all_inner_texts() == rows and count(again) == found
    again.get_by_role("button", name="As in the paper").click()
    assert "view=table" in again.url and again.locator(".sq-grid td button").count() > 0
    third = Opened(browser, address, again.url.removeprefix(address)).page
    assert third.locator(".sq-grid").inner_text() == again.locator(".sq-grid").inner_text()
    again.close()
    third.close()


def test_reason_opens_and_closes_by_the_keyboard(board: Any) -> None:
    board.locator(".sq-chips [data-state=gap]").click()
    verdict = board.locator(".sq-board tbody .sq-chip").first
    verdict.focus()
    board.keyboard.press("Enter")
    reason = board.locator("tr.sq-why")
    assert verdict.get_attribute("aria-expanded") == "true" and len(reason.inner_text()) > 80
    assert reason.get_attribute("id") == verdict.get_attribute("aria-controls")
    board.keyboard.press("Enter")
    assert reason.count() == 0 and verdict.get_attribute("aria-expanded") == "false"


def test_paper_table_has_a_coloured_cell_for_every_printed_value(board: Any) -> None:
    board.get_by_label("Table", exact=True).select_option("dfsq-table3")
    board.get_by_role("button", name="As in the paper").click()
    cells = board.locator(".sq-grid td button")
    assert cells.count() == count(board) == 272
    assert "printed" in str(cells.first.get_attribute("aria-label"))
    cells.first.click()
    assert "Needs" in board.locator("tr.sq-why").inner_text()
    for theme in ("light", "dark"):
        board.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        assert board.evaluate(CONTRAST)["poor"] == []


def test_download_is_what_is_shown(board: Any, tmp_path: Path) -> None:
    board.get_by_label("Search the scoreboard").fill("refqsr table 4 elan")
    with board.expect_download() as started:
        board.get_by_role("button", name="Download CSV").click()
    started.value.save_as(tmp_path / "scoreboard.csv")
    with open(tmp_path / "scoreboard.csv", encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count(board) > 100
    assert {row["paper"] for row in rows} == {"RefQSR"}
    # rows of ours alone, such as those on a short schedule, have no printed value
    assert all(float(row["printed"] or row["ours"]) > 0 for row in rows)
    assert sum(row["printed"] != "" for row in rows) > 100


@pytest.mark.parametrize("view", ["list", "table"])
def test_values_can_be_seen_on_a_phone(browser: Any, address: str, view: str) -> None:
    found = Opened(browser, address, BOARD + f"#board&table=dfsq-table2&view={view}", width=390)
    values = found.page.locator(
        ".sq-board tbody .sq-number:not(:empty)" if view == "list" else ".sq-board td button"
    )
    for value in values.all()[:3]:
        rect = value.bounding_box()
        assert rect is not None and rect["x"] >= 0 and rect["x"] + rect["width"] <= 390
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 390
    found.page.close()


# --- the toy of the chapter on clustering ---


def assigned(v: np.ndarray, tau: float) -> str:
    """What the toy has to say."""
    found, names = clustering.assign(v, tau), "ABCDEF"
    links = [f"{names[i]} looks at {names[found.reference[i]]}" for i in np.flatnonzero(found.is_query)]
    alone = ", ".join(names[i] for i in found.references)
    return f"References: {alone}. {'; '.join(links) or 'No queries'}."


def checked(box: Any) -> tuple[np.ndarray, float, str]:
    """Scores (n, 2), threshold and text of a toy, all of which is as `sqlib.reference.clustering` has it."""
    shown = box.evaluate(STATE)
    v, tau = np.array(shown["scores"], float), shown["tau"]
    assert shown["says"] == assigned(v, tau), (v.tolist(), tau)
    found = clustering.assign(v, tau)
    assert shown["squares"] == (~found.is_query).tolist()
    apart = np.linalg.norm(v - v[found.reference], axis=1)  # markers that touch need no arrow
    assert (apart > 0.5).sum() <= shown["arrows"] <= found.is_query.sum()
    for name, values in shown["matrices"].items():
        assert np.abs(np.array(values) - getattr(clustering, name)(v)).max() < 0.00501
    m = clustering.affinity(v)
    assert np.allclose(m[np.arange(len(v)), shown["framed"]], m.max(axis=1), rtol=1e-9, atol=0)
    return v, tau, shown["says"]


def centre(part: Any) -> tuple[float, float]:
    box = part.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_patches_are_dragged_by_the_mouse(toy: Any) -> None:
    rng, box = np.random.default_rng(0), toy.locator(".sq-toy")
    first, plane, texts = checked(box), box.locator("svg").bounding_box(), set()
    assert first[2] == "References: A, E, F. B looks at A; C looks at F; D looks at F."
    for _ in range(12):
        box.locator("input[type=range]").fill(str(rng.integers(-20, 21) / 20))
        before, chosen = checked(box)[0], box.locator(".sq-point rect").nth(rng.integers(6))
        x, y = (plane[k] + plane[s] * rng.uniform(0.1, 0.9) for k, s in (("x", "width"), ("y", "height")))
        toy.mouse.move(*centre(chosen))
        toy.mouse.down()
        toy.mouse.move(x, y, steps=3)
        during = checked(box)
        toy.mouse.up()
        toy.mouse.move(x - 40, y)  # let go, it stays
        after = checked(box)
        (moved,) = np.flatnonzero((after[0] != before).any(axis=1))
        assert np.array_equal(during[0], after[0])
        assert np.allclose(centre(box.locator(".sq-point rect").nth(moved)), (x, y), atol=1)
        texts.add(after[2])
    assert len(texts) > 5
    box.get_by_role("button", name="Reset").click()
    again = checked(box)
    assert np.array_equal(again[0], first[0]) and again[1:] == first[1:]


def test_patches_are_moved_by_the_keyboard(toy: Any) -> None:
    box, scrolled = toy.locator(".sq-toy"), toy.evaluate("scrollY")
    before, _, text = checked(box)
    box.locator("[data-name=F]").focus()
    for key, step in {"ArrowRight": (0.1, 0), "Shift+ArrowUp": (0, 0.5), "ArrowDown": (0, -0.1)}.items():
        toy.keyboard.press(key)
        after = checked(box)[0]
        assert np.allclose(after[5] - before[5], step) and np.array_equal(after[:5], before[:5]), key
        before = after
    for _ in range(15):
        toy.keyboard.press("Shift+ArrowLeft")
        after, _, now = checked(box)
    assert after[5].tolist() == [-3, 3.3] and now != text  # the edge of the plane
    assert toy.evaluate("scrollY") == scrolled
    toy.keyboard.press("Shift+Tab")
    assert toy.evaluate("document.activeElement.dataset.name") == "E"


def test_patches_are_dragged_by_a_finger_on_a_phone(browser: Any, address: str) -> None:
    found = Opened(browser, address, TOY, width=390)
    page, box = found.page, found.page.locator(".sq-toy")
    box.locator("svg").scroll_into_view_if_needed()
    client, before, scrolled = page.context.new_cdp_session(page), checked(box)[0], page.evaluate("scrollY")
    x, y = centre(box.locator("[data-name=C] rect"))
    for kind, step in (("Start", 0), ("Move", 20), ("Move", 60)):
        at = {"type": f"touch{kind}", "touchPoints": [{"x": x - step, "y": y + step}]}
        client.send("Input.dispatchTouchEvent", at)
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    right, up = (checked(box)[0] - before)[2]
    assert right < -0.8 and abs(right - up) < 0.05
    assert page.evaluate("scrollY") == scrolled  # a finger on a patch does not scroll
    assert page.evaluate(PHONE) == []
    for part in box.locator("svg, table, button, input, p").all():
        rect = part.bounding_box()
        assert rect is not None and rect["x"] >= 0 and rect["x"] + rect["width"] <= 390
    found.page.close()


def test_toy_computes_what_the_library_does(toy: Any, browser: Any) -> None:
    """Random scores, on a coarse grid too, where some are equal or zero; and all that is peculiar."""
    data, rng = json.loads(toy.locator("script.sq-toy-data").inner_text()), np.random.default_rng(1)
    cases = [(rng.uniform(-4, 5, (6, 2)).round(2), rng.integers(-20, 21) / 20) for _ in range(40)]
    # Not at 0: of two directions at right angles the last bit of a product may say either.
    cases += [(rng.integers(-1, 2, (6, 2)) * 1.0, tau) for tau in (-1, -0.5, 0.25, 0.5, 1) for _ in range(2)]
    axes = np.array([[1.0, 0], [0, 1], [-1, 0], [0, 0], [0, -1], [2, 0]])
    cases += [(axes, tau) for tau in (-0.05, 0, 0.05)]
    cases += [(np.array([[1.0, 0], [5, 1], [1, 0]]), tau) for tau in (0.95, 1)]
    cases += [(np.full((6, 2), value), tau) for value in (0.0, 2.5) for tau in (-0.2, 0, 0.2)]
    parts = []
    for v, tau in cases:
        text = json.dumps({**data, "names": data["names"][: len(v)], "points": v.tolist(), "tau": tau})
        script = f'<script type="application/json" class="sq-toy-data">{text}</script>'
        parts.append(f'<div class="sq-toy"><div class="sq-scroll"></div>{script}</div>')
    page = browser.new_page()
    page.set_content("".join(parts))
    page.add_script_tag(path=HTML / "_static" / "toy.js")
    for box, (v, tau) in zip(page.locator(".sq-toy").all(), cases, strict=True):
        found = checked(box)
        assert found[0].tolist() == v.tolist() and found[1] == tau
    page.close()


# --- finding one's way ---


def test_search_finds_the_chapter_that_explains_psnr(browser: Any, address: str) -> None:
    found = Opened(browser, address, "search.html?q=PSNR")
    found.page.wait_for_selector("#search-results li a")
    found.page.wait_for_function("/finished|found/.test(document.querySelector('#search-results').innerText)")
    first = [link.get_attribute("href") for link in found.page.locator("ul.search > li > a").all()[:5]]
    assert any("01-super-resolution" in str(link) for link in first), first
    found.page.close()


def test_page_that_is_not_there_leads_back(browser: Any, address: str) -> None:
    page = browser.new_page()
    answer = page.goto(address + "notebooks/no-such-page.html")
    assert answer.status == 404
    page.get_by_role("link", name="Quantizing Super-Resolution Networks").click()
    assert page.url == address + "book/index.html"
    page.close()


def test_page_says_what_it_is_to_those_who_link_to_it(opened: Opened) -> None:
    if opened.name == "404.html":
        return
    said = opened.page.evaluate(
        "Object.fromEntries(Array.from(document.querySelectorAll('meta'), (tag) => "
        "[tag.getAttribute('property') || tag.name, tag.content]))"
    )
    assert 20 <= len(said["description"]) <= 201 and said["og:description"] == said["description"]
    assert said["og:image"].startswith("https://") and said["og:image"].endswith("_static/readme.png")
    assert (HTML / "_static" / "readme.png").is_file()
    assert opened.page.locator("link[rel=icon]").count() == 1
