"""Figures, sliders and tables that a page can show with or without a running kernel.

The same notebook cell serves three readers. On the published site there is no kernel: with
``SQLIB_STATIC=1`` (set by the book's build) a slider becomes a set of pre-rendered frames that
``book/_static/sqlib.js`` switches. In Jupyter and Colab the same call gives live ipywidgets that call
the same render function. A screen reader gets the alternative text of the frame that is visible, in
every case.
"""

from __future__ import annotations

from sqlib.widgets._figures import display_html, figure_html, show_figure, static_mode
from sqlib.widgets._frames import frames, frames_html
from sqlib.widgets._tables import show_table, table_html

__all__ = [
    "display_html",
    "figure_html",
    "frames",
    "frames_html",
    "show_figure",
    "show_table",
    "static_mode",
    "table_html",
]
