"""One figure as an ``<img>`` with alternative text, in the smallest lossless encoding."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from sqlib.errors import InputError

CSS_DPI = 100
"""Screen pixels per inch of figure: a figure 7 in wide is 700 px wide in the page."""

SMALL = 48_000
"""Bytes below which a raster picture is small enough not to try a vector form."""


OVERLAY = 16_000
"""Bytes below which a transparent drawing stays a vector: faster to make than a raster, and always sharp."""


def static_mode() -> bool:
    """Whether widgets are rendered for a page without a kernel (environment variable ``SQLIB_STATIC``)."""
    return os.environ.get("SQLIB_STATIC", "") not in ("", "0")


def require_alt(alt: str, what: str) -> str:
    """Return ``alt`` stripped; refuse a text that says nothing to somebody who cannot see the picture."""
    if not isinstance(alt, str) or len(alt.strip()) < 8:
        raise InputError(
            f"{what} got alt={alt!r}; expected a sentence (at least 8 characters) "
            "that says what the picture shows"
        )
    return " ".join(alt.split())


def _svg(figure: Any, transparent: bool) -> bytes:
    import matplotlib as mpl

    out = io.StringIO()
    # Fixed ids and no date: the same figure gives the same bytes, so that a rebuilt page can be compared.
    with mpl.rc_context({"svg.hashsalt": "sqlib", "svg.fonttype": "path", "path.simplify": True}):
        metadata = {"Date": None, "Creator": None}
        figure.savefig(out, format="svg", metadata=metadata, transparent=transparent)
    return out.getvalue().encode()


def _raster(figure: Any, transparent: bool) -> tuple[str, bytes]:
    """The figure at two image pixels per screen pixel: PNG (palette where exact) or lossless WebP."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=2 * CSS_DPI, metadata={"Software": None}, transparent=transparent)
    image = Image.open(out).convert("RGBA" if transparent else "RGB")
    candidates = [("image/png", out.getvalue())]
    if not transparent and image.getcolors(256) is not None:
        small = io.BytesIO()
        image.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        exact = np.array_equal(np.asarray(Image.open(small).convert("RGB")), np.asarray(image))
        if exact:
            candidates.append(("image/png", small.getvalue()))
    webp = io.BytesIO()
    image.save(webp, "WEBP", lossless=True, quality=60, method=4)
    candidates.append(("image/webp", webp.getvalue()))
    return min(candidates, key=lambda item: len(item[1]))


def encode_figure(figure: Any, *, transparent: bool = False) -> tuple[str, int, int]:
    """Encode a matplotlib figure and close it.

    The raster form is lossless, so a difference of one grey level in an experiment is still there on the
    page. A drawing without pictures that is large as a raster is also tried as a vector, and the smaller
    is kept; making both for every frame would double the time of a page.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    transparent : bool
        Leave the figure's and the axes' ground transparent, to lie on another picture.

    Returns
    -------
    uri : str
        ``data:`` address of the picture.
    width, height : int
        Size on screen in CSS pixels (100 per inch of the figure).
    """
    import matplotlib.pyplot as plt

    if not hasattr(figure, "savefig"):
        raise InputError(
            f"expected a matplotlib figure, got {type(figure).__name__}: return the Figure, not the Axes"
        )
    width, height = (round(float(side) * CSS_DPI) for side in figure.get_size_inches())
    drawing = not any(axes.images for axes in figure.axes)
    vector = _svg(figure, transparent) if transparent and drawing else b""
    if vector and len(vector) <= OVERLAY:
        kind, data = "image/svg+xml", vector
    else:
        kind, data = _raster(figure, transparent)
        if len(data) > SMALL and drawing:
            vector = vector or _svg(figure, transparent)
            if len(vector) < len(data):
                kind, data = "image/svg+xml", vector
    plt.close(figure)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}", width, height


def image_tag(uri: str, alt: str, width: int, height: int, background: str = "") -> str:
    """An ``<img>`` that keeps its proportions while it loads and when the page is narrow.

    ``background`` is the address of a picture to show through its transparent parts, also in print.
    """
    style = "max-width:100%;height:auto"
    if background:
        style += f";background:#fff url({background}) 0 0/100% 100%;print-color-adjust:exact"
    return (
        f'<img class="sq-image" src="{uri}" alt="{html.escape(alt, quote=True)}" '
        f'width="{width}" height="{height}" style="{style}">'
    )


def figure_html(figure: Any, *, alt: str, caption: str | None = None) -> str:
    """The HTML of :func:`show_figure`."""
    alt = require_alt(alt, "show_figure")
    uri, width, height = encode_figure(figure)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    image = image_tag(uri, alt, width, height)
    return f'<figure class="sq-figure"><div class="sq-scroll">{image}</div>{below}</figure>'


def display_html(text: str) -> None:
    """Hand HTML to the notebook front end."""
    from IPython.display import HTML, display

    show: Callable[..., Any] = display
    show(HTML(text))


def show_figure(figure: Any, *, alt: str, caption: str | None = None) -> None:
    """Show a matplotlib figure with alternative text, and close it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        What the picture shows, in a sentence, for somebody who cannot see it.
    caption : str, optional
        Text under the figure.

    Raises
    ------
    InputError
        If ``alt`` is empty or too short to say anything.
    """
    display_html(figure_html(figure, alt=alt, caption=caption))
