"""A figure or a table with controls: pre-rendered frames on a page, live widgets in a notebook."""

from __future__ import annotations

import functools
import hashlib
import html
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlib.errors import InputError
from sqlib.widgets._figures import display_html, encode_figure, image_tag, require_alt, static_mode

MOST = 4
"""Controls of one figure."""

_counter = itertools.count(1)

Alt = str | Callable[..., str]
Frame = dict[str, Any]


@dataclass(frozen=True)
class _Control:
    """One parameter: its name, its values and the text shown for each."""

    label: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]

    @property
    def is_choice(self) -> bool:
        return any(isinstance(value, str) for value in self.values)


def _as_tuple(value: Any, count: int, what: str) -> tuple[Any, ...]:
    if count == 1:
        return (value,)
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise InputError(f"frames got {what}={value!r}; expected {count} entries, one per label")
    return tuple(value)


def _controls(values: Any, label: str | Sequence[str], unit: str | Sequence[str]) -> tuple[_Control, ...]:
    labels = (label,) if isinstance(label, str) else tuple(label)
    if not 1 <= len(labels) <= MOST:
        raise InputError(f"frames got {len(labels)} labels; expected one to {MOST} parameters")
    units = (unit,) * len(labels) if isinstance(unit, str) else tuple(unit)
    if len(units) != len(labels):
        raise InputError(f"frames got {len(units)} units for {len(labels)} labels; expected one each")
    out = []
    for name, options, suffix in zip(labels, _as_tuple(values, len(labels), "values"), units):
        options = tuple(options)
        if len(options) < 2:
            raise InputError(
                f"frames got {len(options)} value(s) for {name!r}; expected at least two to choose from"
            )
        texts = tuple(f"{option} {suffix}".strip() for option in options)
        if len(set(texts)) != len(texts):
            raise InputError(f"frames got repeated values for {name!r}: {options}; expected distinct ones")
        out.append(_Control(name, options, texts))
    return tuple(out)


def _start_index(controls: tuple[_Control, ...], start: Any) -> tuple[int, ...]:
    if start is None:
        return (0,) * len(controls)
    out = []
    for control, value in zip(controls, _as_tuple(start, len(controls), "start")):
        if value not in control.values:
            raise InputError(
                f"frames got start {value!r} for {control.label!r}; expected one of {control.values}"
            )
        out.append(control.values.index(value))
    return tuple(out)


class _Frames:
    """What ``render`` gives, ready for a page; over a background, transparent figures of its size."""

    def __init__(
        self, render: Callable[..., Any], alt: Alt | None, background: Callable[[], Any] | None
    ) -> None:
        self.render, self.alt = render, alt
        self.ground, self.size = "", (0, 0)
        if background is not None:
            self.ground, width, height = encode_figure(background())
            self.size = (width, height)

    def frame(self, chosen: tuple[Any, ...]) -> Frame:
        """``{"html": ...}``, or a picture: ``src``, ``alt``, ``width`` and ``height``."""
        drawn = self.render(*chosen)
        if isinstance(drawn, str):
            if self.alt is not None:
                raise InputError(
                    "frames got alt= and a render that returns text; text says itself what it shows"
                )
            return {"html": drawn}
        if self.alt is None:
            raise InputError("frames got figures and no alt=; expected a text that says what each shows")
        text = self.alt(*chosen) if callable(self.alt) else self.alt.format(*chosen)
        alt = require_alt(text, "frames")
        uri, width, height = encode_figure(drawn, transparent=bool(self.ground))
        if self.ground and self.size != (width, height):
            raise InputError(
                f"frames got a figure of {width} x {height} pixels on a background of {self.size[0]} x "
                f"{self.size[1]}; expected figures of one size"
            )
        return {"src": uri, "alt": alt, "width": width, "height": height}

    def tag(self, frame: Frame) -> str:
        """The HTML of one frame."""
        if "html" in frame:
            return f'<div class="sq-text" aria-live="polite">{frame["html"]}</div>'
        image = image_tag(frame["src"], frame["alt"], frame["width"], frame["height"], self.ground)
        return f'<div class="sq-scroll">{image}</div>'


def _control_html(control: _Control, ident: str, axis: int, index: int) -> str:
    name = html.escape(control.label)
    if control.is_choice:
        options = "".join(
            f'<option value="{i}"{" selected" if i == index else ""}>{html.escape(text)}</option>'
            for i, text in enumerate(control.texts)
        )
        field = f'<select id="{ident}-{axis}" data-axis="{axis}">{options}</select>'
    else:
        text = html.escape(control.texts[index], quote=True)
        last = len(control.values) - 1
        field = (
            f'<input type="range" id="{ident}-{axis}" data-axis="{axis}" min="0" max="{last}" step="1" '
            f'value="{index}" aria-valuetext="{text}"><output for="{ident}-{axis}">{text}</output>'
        )
    return f'<label for="{ident}-{axis}">{name}</label>{field}'


def frames_html(
    render: Callable[..., Any],
    values: Any,
    *,
    label: str | Sequence[str],
    alt: Alt | None = None,
    unit: str | Sequence[str] = "",
    caption: str | None = None,
    start: Any = None,
    background: Callable[[], Any] | None = None,
) -> str:
    """The HTML of :func:`frames` for a page without a kernel; every frame is rendered once, in order."""
    controls = _controls(values, label, unit)
    index = _start_index(controls, start)
    drawing = _Frames(render, alt, background)
    every = list(itertools.product(*(control.values for control in controls)))
    drawn = [drawing.frame(chosen) for chosen in every]
    if len({frame.get("alt", i) for i, frame in enumerate(drawn)}) != len(drawn):
        raise InputError(
            "frames got the same alt text for several frames; expected one that names what changed"
        )
    first = drawn[every.index(tuple(control.values[i] for control, i in zip(controls, index)))]
    data = {"texts": [control.texts for control in controls], "frames": drawn}
    payload = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    # The id must not depend on the run (pages are compared), yet two equal widgets in one page must differ.
    ident = f"sq-{hashlib.sha256(payload.encode()).hexdigest()[:10]}-{next(_counter)}"
    fields = "".join(
        f'<div class="sq-control">{_control_html(control, ident, axis, index[axis])}</div>'
        for axis, control in enumerate(controls)
    )
    shown = ", ".join(f"{control.label}: {control.texts[i]}" for control, i in zip(controls, index))
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="sq-figure sq-frames" id="{ident}"><div class="sq-controls" hidden>{fields}</div>'
        f"{drawing.tag(first)}"
        f'<noscript><p class="sq-note">This figure has controls that need JavaScript; shown here: '
        f"{html.escape(shown)}.</p></noscript>"
        f'<script type="application/json" class="sq-data">{payload}</script>{below}</figure>'
    )


def _live(
    render: Callable[..., Any],
    controls: tuple[_Control, ...],
    alt: Alt | None,
    index: tuple[int, ...],
    caption: str | None,
    background: Callable[[], Any] | None = None,
) -> Any:
    """ipywidgets that show the same frames; each is rendered when first asked for, then remembered."""
    import ipywidgets

    drawing = _Frames(render, alt, background)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""

    @functools.cache
    def shown(*position: int) -> str:
        chosen = tuple(control.values[i] for control, i in zip(controls, position))
        return f'<figure class="sq-figure">{drawing.tag(drawing.frame(chosen))}{below}</figure>'

    fields = []
    for control, at in zip(controls, index):
        kind = ipywidgets.Dropdown if control.is_choice else ipywidgets.SelectionSlider
        options = [(text, i) for i, text in enumerate(control.texts)]
        extra = {} if control.is_choice else {"continuous_update": False}
        fields.append(
            kind(
                options=options,
                value=at,
                description=control.label,
                style={"description_width": "initial"},
                layout={"width": "min(100%, 420px)"},
                **extra,
            )
        )
    view = ipywidgets.HTML(value=shown(*index))

    def update(_change: Any) -> None:
        view.value = shown(*(field.value for field in fields))

    for field in fields:
        field.observe(update, names="value")
    return ipywidgets.VBox([*fields, view])


def frames(
    render: Callable[..., Any],
    values: Any,
    *,
    label: str | Sequence[str],
    alt: Alt | None = None,
    unit: str | Sequence[str] = "",
    caption: str | None = None,
    start: Any = None,
    background: Callable[[], Any] | None = None,
) -> None:
    """Show ``render(value)`` with a control over ``values``, live or pre-rendered.

    Parameters
    ----------
    render : callable
        Called with one value (or one of each, for several parameters); returns a matplotlib figure, or the
        text of some HTML (of :func:`table_html`, say). All figures should have the same size. It must not
        depend on global state: on a page every combination is rendered once.
    values : sequence, or tuple of sequences
        The positions. Strings give a drop-down list, anything else a slider.
    label : str or tuple of str
        Name of each control; a tuple of up to four means as many parameters and sequences in ``values``.
    alt : str or callable, optional
        Alternative text of figures, which need it: a template such as ``"EDSR at {0} bits: ..."`` or a
        function of the values. It must differ from frame to frame.
    unit : str or tuple of str
        Shown after the value, e.g. ``"bit"``.
    caption : str, optional
        Text under the figure.
    start : value or tuple of values, optional
        Position shown first; the first value otherwise.
    background : callable, optional
        Called once, with no value; returns a figure that lies under all frames. What never changes is drawn
        and stored once, and ``render`` draws only what moves, on axes in the same places.

    Raises
    ------
    InputError
        For fewer than two values, repeated values, more than four parameters, an unknown ``start``,
        alternative texts that are missing, empty or (on a page) the same for two frames, or a figure that is
        not as large as the background.

    Notes
    -----
    A page holds ``len(values)`` frames, for several parameters the product; about twenty figures of 40 kB are
    a sensible limit, a hundred sparse ones of 8 kB over a background, or two hundred small tables.
    """
    if static_mode():
        display_html(
            frames_html(
                render,
                values,
                label=label,
                alt=alt,
                unit=unit,
                caption=caption,
                start=start,
                background=background,
            )
        )
        return
    from IPython.display import display

    controls = _controls(values, label, unit)
    box = _live(render, controls, alt, _start_index(controls, start), caption, background)
    show: Callable[..., Any] = display
    show(box)
