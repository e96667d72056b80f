"""Data frames as real tables that scroll inside their own box, with filters per column."""

from __future__ import annotations

import html
import itertools
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from sqlib.errors import InputError
from sqlib.widgets._figures import display_html, static_mode

MAX_CHOICES = 16
"""A column with at most this many distinct texts is filtered by a list, any other by typing."""

Formatter = str | Callable[[Any], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def _text(value: Any, formatter: Formatter | None, missing: str) -> str:
    if value is None or (_is_number(value) and value != value) or value is pd.NA or value is pd.NaT:
        return missing
    if callable(formatter):
        return formatter(value)
    if formatter is not None:
        return format(value, formatter)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_meaningful(index: pd.Index) -> bool:
    return not isinstance(index, pd.RangeIndex) and (index.nlevels > 1 or index.inferred_type == "string")


def _runs(labels: list[Any]) -> list[tuple[Any, int]]:
    return [(label, len(list(group))) for label, group in itertools.groupby(labels)]


def _head(frame: pd.DataFrame, index: bool, numeric: list[bool]) -> str:
    """Header rows; equal neighbours of a several-level header are merged, numbers stand below theirs."""
    names = [str(name) if name is not None else "" for name in frame.index.names] if index else []
    levels = frame.columns.nlevels
    rows = []
    for level in range(levels):
        last = level == levels - 1
        corner = "".join(
            f'<th scope="col">{html.escape(name)}</th>' if last and name else "<td></td>" for name in names
        )
        labels = list(frame.columns.get_level_values(level))
        if last:
            kinds = [' class="sq-number"' if number else "" for number in numeric]
            cells = " ".join(
                f'<th scope="col"{kind}>{html.escape(str(label))}</th>' for kind, label in zip(kinds, labels)
            )
        else:
            cells = "".join(
                f'<th scope="colgroup" colspan="{count}">{html.escape(str(label))}</th>'
                for label, count in _runs(labels)
            )
        rows.append(f"<tr>{corner} {cells} </tr>")
    return f"<thead>{''.join(rows)}</thead>"


def table_html(
    frame: pd.DataFrame,
    *,
    caption: str,
    index: bool | None = None,
    formats: Mapping[Any, Formatter] | None = None,
    filterable: bool = False,
    mark: Any = None,
    missing: str = "–",
) -> str:
    """The HTML of :func:`show_table`."""
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"show_table got {type(frame).__name__}; expected a pandas DataFrame")
    if not caption.strip():
        raise InputError(
            "show_table got an empty caption; expected a sentence that says what the table holds"
        )
    unknown = [
        name for name in [*(formats or {}), *([] if mark is None else [mark])] if name not in frame.columns
    ]
    if unknown:
        raise InputError(f"show_table got unknown columns {unknown}; expected some of {list(frame.columns)}")
    if filterable and frame.columns.nlevels > 1:
        raise InputError(
            "show_table cannot filter a table with several header rows; flatten the columns first"
        )
    index = _is_meaningful(frame.index) if index is None else index
    columns = list(frame.columns)
    data: list[list[str]] = []
    numeric = []
    for position, name in enumerate(columns):
        formatter = (formats or {}).get(name)
        series = frame.iloc[:, position]
        numeric.append(any(_is_number(value) and value == value for value in series))
        tag = '<td class="sq-number">' if numeric[-1] else "<td>"
        data.append(
            [f"{tag}{html.escape(_text(value, formatter, missing), quote=False)}</td>" for value in series]
        )
    heads = [""] * len(frame)
    if index:
        keys = [key if isinstance(key, tuple) else (key,) for key in frame.index]
        heads = [
            " ".join(f'<th scope="row">{html.escape(_text(part, None, missing))}</th>' for part in key)
            for key in keys
        ]
    marks = [""] * len(frame)
    if mark is not None:
        marks = [f' data-mark="{html.escape(_text(value, None, missing))}"' for value in frame[mark]]
    cells = zip(*data) if data else ((),) * len(frame)
    # The blanks keep the words of neighbouring cells apart in the site's search index.
    body = "".join(f"<tr{m}>{head} {' '.join(row)} </tr>" for m, head, row in zip(marks, heads, cells))
    filters = ""
    if filterable:
        choices = [
            "1" if frame.iloc[:, i].map(str).nunique() <= MAX_CHOICES else "" for i in range(len(columns))
        ]
        filters = f' data-filter="{"".join(flag or "0" for flag in choices)}"'
    title = html.escape(caption)
    return (
        f'<div class="sq-table"{filters}><div class="sq-scroll" role="region" tabindex="0" '
        f'aria-label="{html.escape(caption, quote=True)}"><table><caption><span>{title}</span></caption>'
        f"{_head(frame, index, numeric)}<tbody>{body}</tbody></table></div></div>"
    )


def _live_filter(frame: pd.DataFrame, options: dict[str, Any]) -> Any:
    """Drop-down lists and one search box above the table; the table is rendered again at each change."""
    import ipywidgets

    texts = frame.map(str)
    lists = {}
    for name in frame.columns:
        distinct = sorted(texts[name].unique())
        if 2 <= len(distinct) <= MAX_CHOICES:
            lists[name] = ipywidgets.Dropdown(
                options=["(all)", *distinct], value="(all)", description=str(name)
            )
    search = ipywidgets.Text(description="contains", continuous_update=False)
    view = ipywidgets.HTML()

    def update(_change: Any = None) -> None:
        keep = pd.Series(True, index=frame.index)
        for name, field in lists.items():
            if field.value != "(all)":
                keep &= texts[name] == field.value
        if search.value.strip():
            joined = texts.agg(" ".join, axis=1)
            keep &= joined.str.contains(search.value.strip(), case=False, regex=False)
        note = f'<p class="sq-note">{int(keep.sum()):,} of {len(frame):,} rows</p>'
        view.value = note + (
            f'<div style="max-height:32em;overflow:auto">{table_html(frame[keep], **options)}</div>'
        )

    for field in [*lists.values(), search]:
        field.observe(update, names="value")
    update()
    controls = ipywidgets.Box([*lists.values(), search], layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([controls, view])


def show_table(
    frame: pd.DataFrame,
    *,
    caption: str,
    index: bool | None = None,
    formats: Mapping[Any, Formatter] | None = None,
    filterable: bool = False,
    mark: Any = None,
    missing: str = "–",
) -> None:
    """Show a data frame as a real table; on a narrow screen it scrolls inside its own box.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns may have several levels; equal neighbours are merged in the header.
    caption : str
        What the table holds.
    index : bool, optional
        Whether the index is shown, as row headers; by default if it is more than a plain count of rows.
    formats : mapping from column to format, optional
        A format specification (``".2f"``) or a function from value to text.
    filterable : bool
        Filters per column: a list for columns of up to 16 distinct values, a search box for others.
    mark : column, optional
        Rows are coloured by this column's text (``match``, ``close``, ``shape``, ``gap``, ``not run``).
    missing : str
        Text for missing values.

    Raises
    ------
    InputError
        For something that is not a data frame, an empty caption or unknown columns.

    Notes
    -----
    O(cells); 1,966 rows of 12 columns take about 50 ms.
    """
    options: dict[str, Any] = {
        "caption": caption,
        "index": index,
        "formats": formats,
        "mark": mark,
        "missing": missing,
    }
    if filterable and not static_mode():
        from IPython.display import display

        table_html(frame.head(0), filterable=True, **options)  # the same checks as on a page
        show: Callable[..., Any] = display
        show(_live_filter(frame, options))
        return
    display_html(table_html(frame, filterable=filterable, **options))
