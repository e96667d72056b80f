"""Figures, sliders and tables, with and without a kernel."""

from __future__ import annotations

import base64
import io
import itertools
import json
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from sqlib import plots, widgets
from sqlib.errors import InputError
from sqlib.widgets import _frames


@pytest.fixture(autouse=True)
def agg() -> Any:
    """Draw without a screen, and leave no figure or setting behind."""
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    with mpl.rc_context():
        yield
    plt.close("all")
    plt.switch_backend(backend)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was handed to the front end."""
    out: list[Any] = []
    monkeypatch.setattr("IPython.display.display", out.append)
    return out


def draw(bits: int, kind: str = "line") -> Any:
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, bits], [0, 1], label=kind)
    axes.legend()
    return figure


def soup(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def static(values: Any, **options: Any) -> BeautifulSoup:
    return soup(widgets.frames_html(draw, values, **{"label": "bits", "alt": "A line up to {0}", **options}))


# --- figures ---


def test_figure_has_alt_text_size_and_caption(shown: list[Any]) -> None:
    widgets.show_figure(draw(2), alt='A "line" <rising>', caption="Up & away")
    page = soup(shown[0].data)
    image = page.img
    assert image is not None
    assert image["alt"] == 'A "line" <rising>'
    assert (image["width"], image["height"]) == ("200", "100")
    assert page.figcaption is not None and page.figcaption.text == "Up & away"
    assert plt.get_fignums() == []


@pytest.mark.parametrize("alt", ["", "   ", "image", None])
def test_figure_without_alt_text_is_refused(alt: Any) -> None:
    with pytest.raises(InputError, match="says what the picture shows"):
        widgets.figure_html(draw(2), alt=alt)


def test_axes_instead_of_figure_is_refused() -> None:
    with pytest.raises(InputError, match="return the Figure"):
        widgets.figure_html(draw(2).axes[0], alt="A rising line")


def test_line_drawing_and_photograph_are_lossless() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)
    figure = plt.figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(noise, interpolation="nearest")
    image = soup(widgets.figure_html(figure, alt="Coloured noise")).img
    assert image is not None
    kind, data = str(image["src"]).split(",", 1)
    assert kind == "data:image/webp;base64"  # an SVG would hold the same pixels as PNG
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert np.array_equal(pixels[::2, ::2], noise)


def test_same_figure_gives_same_bytes() -> None:
    assert widgets.figure_html(draw(2), alt="A rising line") == widgets.figure_html(
        draw(2), alt="A rising line"
    )


# --- sliders on a page ---


def test_static_frames_hold_every_picture_once() -> None:
    page = static(range(2, 6), unit="bit")
    script = page.find("script")
    assert script is not None and script.string is not None
    data = json.loads(script.string)
    assert [frame["alt"] for frame in data["frames"]] == [f"A line up to {bits}" for bits in range(2, 6)]
    assert len({frame["src"] for frame in data["frames"]}) == 4
    assert data["texts"] == [["2 bit", "3 bit", "4 bit", "5 bit"]]
    slider = page.select_one("input[type=range]")
    assert slider is not None and (slider["min"], slider["max"], slider["value"]) == ("0", "3", "0")
    assert slider["aria-valuetext"] == "2 bit"
    label = page.find("label")
    assert label is not None and label["for"] == slider["id"] and label.text == "bits"


def test_static_frames_without_javascript_show_the_start_frame() -> None:
    page = static([2, 4, 8], start=4)
    image, controls, note = page.img, page.select_one(".sq-controls"), page.find("noscript")
    assert image is not None and image["alt"] == "A line up to 4"
    assert controls is not None and controls.has_attr("hidden")
    assert note is not None and "bits: 4" in note.text


def test_two_parameters_run_over_all_pairs() -> None:
    page = static(
        ([2, 3], ["line", "dots"]), label=("bits", "kind"), alt="A {1} up to {0}", start=(3, "dots")
    )
    script = page.find("script")
    assert script is not None and script.string is not None
    alts = [frame["alt"] for frame in json.loads(script.string)["frames"]]
    assert alts == ["A line up to 2", "A dots up to 2", "A line up to 3", "A dots up to 3"]
    assert page.img is not None and page.img["alt"] == "A dots up to 3"
    assert len(page.select("input[type=range]")) == 1 and len(page.select("select option")) == 2
    chosen = page.select_one("option[selected]")
    assert chosen is not None and chosen.text == "dots"


def test_equal_sliders_in_one_page_have_different_ids() -> None:
    first, second = static([1, 2]), static([1, 2])
    assert first.figure is not None and second.figure is not None
    assert first.figure["id"] != second.figure["id"]


def test_text_cannot_close_the_script() -> None:
    page = static([1, 2], alt="A line </script><b>{0}</b>")
    assert page.find("b") is None


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1], {}, "at least two"),
        ([1, 1], {}, "repeated values"),
        ([1, 2], {"alt": "Always the same"}, "same alt text"),
        ([1, 2], {"alt": "{0}"}, "says what the picture shows"),
        ([1, 2], {"start": 3}, "expected one of"),
        ([1, 2], {"label": ("a", "b", "c")}, "expected 3 entries"),
        ([1, 2], {"label": tuple("abcde")}, "one to 4 parameters"),
        ([1, 2], {"alt": None}, "no alt="),
        (([1, 2],), {"label": ("a", "b")}, "one per label"),
        ([1, 2], {"unit": ("a", "b")}, "expected one each"),
    ],
)
def test_bad_sliders_are_refused(values: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        static(values, **options)


# --- sliders in a notebook ---


def test_mode_follows_the_environment(monkeypatch: pytest.MonkeyPatch, shown: list[Any]) -> None:
    monkeypatch.setenv("SQLIB_STATIC", "1")
    widgets.frames(draw, [1, 2], label="bits", alt="A line up to {0}")
    assert "sq-frames" in shown[0].data
    monkeypatch.setenv("SQLIB_STATIC", "0")
    widgets.frames(draw, [1, 2], label="bits", alt="A line up to {0}")
    assert type(shown[1]).__name__ == "VBox"


def test_live_slider_renders_on_demand_and_remembers(
    monkeypatch: pytest.MonkeyPatch, shown: list[Any]
) -> None:
    monkeypatch.delenv("SQLIB_STATIC", raising=False)
    calls: list[int] = []

    def counted(bits: int) -> Any:
        calls.append(bits)
        return draw(bits)

    widgets.frames(counted, [2, 4, 8], label="bits", unit="bit", alt="A line up to {0}", start=4)
    slider, view = shown[0].children
    assert calls == [4] and "A line up to 4" in view.value
    slider.value = 2
    assert calls == [4, 8] and "A line up to 8" in view.value
    slider.value = 1
    assert calls == [4, 8] and "A line up to 4" in view.value
    assert [text for text, _ in slider.options] == ["2 bit", "4 bit", "8 bit"]


def test_live_picture_is_the_static_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    page = static([2, 4], start=4)
    live = _frames._live(draw, _frames._controls([2, 4], "bits", ""), "A line up to {0}", (1,), None)
    image = soup(live.children[1].value).img
    assert image is not None and page.img is not None and image["src"] == page.img["src"]


# --- frames of text ---

FOUR = (["a", "b"], ["c", "d", "e"], ["f", "g"], [1, 2])
LABELS = ("one", "two", "three", "four")


def words(*chosen: Any) -> str:
    return f"<table><tr><td>{'-'.join(map(str, chosen))}</td></tr></table>"


def test_text_runs_over_all_combinations_of_four_parameters() -> None:
    start = ("b", "d", "f", 2)
    page = soup(widgets.frames_html(words, FOUR, label=LABELS, start=start, caption="All of them"))
    script, box = page.find("script"), page.select_one(".sq-text")
    assert script is not None and script.string is not None and box is not None and page.img is None
    found = [frame["html"] for frame in json.loads(script.string)["frames"]]
    assert found == [words(*chosen) for chosen in itertools.product(*FOUR)]
    assert box.text == "b-d-f-2" and box["aria-live"] == "polite"
    assert [option.text for option in page.select("option[selected]")] == ["b", "d", "f"]


def test_text_needs_no_alternative() -> None:
    with pytest.raises(InputError, match="text says itself"):
        widgets.frames_html(words, [1, 2], label="x", alt="The number {0}")


def test_live_text_is_the_static_text(monkeypatch: pytest.MonkeyPatch, shown: list[Any]) -> None:
    monkeypatch.delenv("SQLIB_STATIC", raising=False)
    widgets.frames(words, FOUR, label=LABELS, start=("b", "d", "f", 2))
    *fields, view = shown[0].children
    assert soup(view.value).text == "b-d-f-2"
    fields[1].value, fields[3].value = 2, 0
    assert soup(view.value).text == "b-e-f-1"


# --- frames over a background ---


def ground() -> Any:
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.set_facecolor("red")
    axes.set_position((0, 0, 1, 1))
    return figure


def dot(bits: int) -> Any:
    """A black pixel of a raster, and nothing else."""
    figure = plt.figure(figsize=(2, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    pixels = np.zeros((100, 200, 4))
    pixels[50, 20 * bits, 3] = 1
    axes.imshow(pixels, interpolation="nearest")
    return figure


def stroke(bits: int) -> Any:
    figure = plt.figure(figsize=(2, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.plot([0, 1], [0, bits])
    return figure


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGBA"))


def test_background_is_stored_once_and_shows_through() -> None:
    drawn: list[int] = []

    def counted() -> Any:
        drawn.append(1)
        return ground()

    text = widgets.frames_html(dot, range(3, 7), label="x", alt="A dot at {0}", background=counted)
    page = soup(text)
    assert page.img is not None and drawn == [1]
    style = str(page.img["style"])
    under = style.partition("url(")[2].partition(")")[0]
    assert text.count(under) == 1
    assert (pixels_of(under)[100, 200] == (255, 0, 0, 255)).all()
    script = page.find("script")
    assert script is not None and script.string is not None
    for position, frame in enumerate(json.loads(script.string)["frames"], 3):
        over = pixels_of(frame["src"])
        assert over[101, 40 * position + 1].tolist() == [0, 0, 0, 255]
        assert over[0, 0, 3] == 0 and np.mean(over[..., 3] > 0) < 0.001


def test_drawing_over_a_background_is_a_vector_without_a_ground() -> None:
    page = soup(widgets.frames_html(stroke, [3, 4], label="x", alt="A line to {0}", background=ground))
    assert page.img is not None
    kind, data = str(page.img["src"]).split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    drawing = base64.b64decode(data).decode()
    assert "stroke: #1f77b4" in drawing and "#ffffff" not in drawing


def test_frames_without_background_have_none() -> None:
    page = static([1, 2])
    assert page.img is not None and "url(" not in str(page.img["style"])


def test_live_frames_have_the_background_of_the_page(
    monkeypatch: pytest.MonkeyPatch, shown: list[Any]
) -> None:
    page = soup(widgets.frames_html(dot, [3, 4], label="x", alt="A dot at {0}", background=ground))
    monkeypatch.delenv("SQLIB_STATIC", raising=False)
    widgets.frames(dot, [3, 4], label="x", alt="A dot at {0}", background=ground)
    slider, view = shown[0].children
    first = soup(view.value).img
    slider.value = 1
    second = soup(view.value).img
    assert page.img is not None and first is not None and second is not None
    assert page.img["style"] == first["style"] == second["style"] and "url(" in str(first["style"])
    assert page.img["src"] == first["src"] != second["src"]


def test_frames_of_another_size_than_the_background_are_refused() -> None:
    with pytest.raises(InputError, match="200 x 100 pixels on a background of 300 x 100"):
        widgets.frames_html(
            dot, [3, 4], label="x", alt="A dot at {0}", background=lambda: plt.figure(figsize=(3, 1))
        )


# --- tables ---


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"method": ["FP", "<Min-Max>", None], "bits": [32, 4, 3], "psnr": [32.094, 31.3641, np.nan]},
        index=pd.Index(["a", "b", "c"], name="row"),
    )


def test_table_is_a_real_table() -> None:
    page = soup(widgets.table_html(frame(), caption="Scores in dB", formats={"psnr": ".2f"}))
    assert page.caption is not None and page.caption.text == "Scores in dB"
    assert [cell.text for cell in page.select("thead th")] == ["row", "method", "bits", "psnr"]
    rows = [[cell.text for cell in row.find_all(["th", "td"])] for row in page.select("tbody tr")]
    assert rows == [["a", "FP", "32", "32.09"], ["b", "<Min-Max>", "4", "31.36"], ["c", "–", "3", "–"]]
    assert all(cell["scope"] == "row" for cell in page.select("tbody th"))
    box = page.select_one(".sq-scroll")
    assert box is not None and box["tabindex"] == "0" and box["aria-label"] == "Scores in dB"


def test_all_cells_of_a_column_are_aligned_alike():
    nan = float("nan")
    frame = pd.DataFrame({"dB": [1.5, nan], "text": ["0.1 ± 0.2", nan], "mixed": [2.0, "not run"]})
    page = BeautifulSoup(widgets.table_html(frame, caption="c"), "html.parser")
    for row in page.find_all("tr"):
        cells = row.find_all(["td", "th"])
        assert [cell.get("class") for cell in cells] == [["sq-number"], None, ["sq-number"]]


def test_index_of_plain_numbers_is_left_out() -> None:
    page = soup(widgets.table_html(frame().reset_index(drop=True), caption="Scores"))
    assert page.select("tbody th") == []


def test_columns_of_several_levels_are_merged() -> None:
    columns = pd.MultiIndex.from_product([["Set5", "Set14"], ["value", "drop"]])
    page = soup(widgets.table_html(pd.DataFrame([[1, 2, 3, 4]], columns=columns), caption="Scores"))
    merged = page.select("th[scope=colgroup]")
    assert [(cell.text, cell["colspan"]) for cell in merged] == [("Set5", "2"), ("Set14", "2")]


def test_filter_marks_columns_of_few_values() -> None:
    many = pd.DataFrame({"kind": ["a", "b"] * 20, "number": range(40)})
    box = soup(widgets.table_html(many, caption="Many", filterable=True, mark="kind")).div
    assert box is not None and box["data-filter"] == "10"
    assert {row["data-mark"] for row in box.select("tbody tr")} == {"a", "b"}


def test_live_filter_narrows_the_table(monkeypatch: pytest.MonkeyPatch, shown: list[Any]) -> None:
    monkeypatch.delenv("SQLIB_STATIC", raising=False)
    many = pd.DataFrame({"kind": ["a", "b"] * 20, "number": range(40)})
    widgets.show_table(many, caption="Many", filterable=True)
    controls, view = shown[0].children
    choice, search = controls.children
    assert "40 of 40 rows" in view.value
    choice.value = "a"
    assert "20 of 40 rows" in view.value
    search.value = "38"
    assert "1 of 40 rows" in view.value and len(soup(view.value).select("tbody tr")) == 1


def test_empty_table_keeps_its_header() -> None:
    page = soup(widgets.table_html(frame().head(0), caption="Nothing"))
    assert len(page.select("thead th")) == 4 and page.select("tbody tr") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caption": " "}, "empty caption"),
        ({"caption": "c", "formats": {"x": ".2f"}}, "unknown columns"),
        ({"caption": "c", "mark": "x"}, "unknown columns"),
    ],
)
def test_bad_tables_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        widgets.table_html(frame(), **options)


def test_table_of_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="DataFrame"):
        widgets.table_html([[1]], caption="c")  # type: ignore[arg-type]


# --- style ---


def test_style_keeps_text_readable() -> None:
    plots.use_style()
    sizes = [mpl.rcParams[f"{name}.labelsize"] for name in ("axes", "xtick", "ytick")]
    sizes += [mpl.rcParams["font.size"], mpl.rcParams["legend.fontsize"]]
    assert min(sizes) * 100 / 72 >= 10  # screen pixels at 100 pixels per inch
    assert mpl.rcParams["figure.figsize"][0] == 7 and mpl.rcParams["figure.constrained_layout.use"]
    colours = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert colours == list(plots.OKABE_ITO.values()) and len(set(colours)) == 8


def test_image_grid_shows_pixels_as_they_are() -> None:
    images = [np.full((4, 6, 3), value, np.uint8) for value in (0, 128, 255)]
    figure = plots.image_grid(images, ["a", "b", "c"], columns=2)
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", ""]
    assert figure.axes[0].images[0].get_interpolation() == "nearest"


def test_image_grid_needs_one_title_each() -> None:
    with pytest.raises(InputError, match="one title each"):
        plots.image_grid([np.zeros((2, 2, 3), np.uint8)], [])
