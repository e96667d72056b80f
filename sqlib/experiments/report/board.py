"""The scoreboard as an interactive part of a page: what ``book/_static/scoreboard.js`` shows and filters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlib.errors import InputError
from sqlib.experiments.papers import papers, tables
from sqlib.experiments.report import verdicts
from sqlib.experiments.store.cells import spelled
from sqlib.experiments.store.metrics import PRINTED

if TYPE_CHECKING:
    import pandas as pd

STAND_IN = "stand-in"
"""State of a printed value that was not run, but whose row we ran on a network of our own."""

OURS = "ours only"
"""State of a score of ours that no paper prints."""

STATES = (*verdicts.NAMES[:-1], STAND_IN, verdicts.NAMES[-1], OURS)

_COLUMNS = ("table", "network", "method", "bits", "dataset", "metric")
_METRICS = {
    "psnr_y": "PSNR (dB)",
    "ssim_y": "SSIM",
    "fqr": "FQR (bits)",
    "bitops_g": "BitOPs (G)",
    "clustering_bitops_g": "BitOPs of clustering (G)",
    "ops_g": "operations (G)",
    "ops_percent": "operations (%)",
    "params_m": "parameters (M)",
    "params_mb": "parameters (MB)",
    "latency_ms": "latency (ms)",
    "peak_memory_mb": "peak memory (MB)",
}


def board_rows(board: pd.DataFrame, own: pd.DataFrame) -> list[dict[str, Any]]:
    """What the scoreboard shows, one dictionary a row: every printed value, then the scores of ours alone.

    Parameters
    ----------
    board : DataFrame
        A `scoreboard_frame`.
    own : DataFrame
        A `stand_ins_frame`.

    Returns
    -------
    list of dict
        ``table``, ``network``, ``method``, ``bits``, ``dataset``, ``metric`` (as texts for a reader),
        ``printed``, ``printed_drop``, ``ours``, ``our_drop``, ``our_margin`` (of the drop, else of the
        score), ``difference`` (texts with the digits that print gives, empty where there is none),
        ``state`` (one of `STATES`), ``reason`` and ``others``: the scores of stand-ins beside it, as
        ``(network, ours, our drop, our margin)``.
    """
    titles = {name.lower(): name for name in board["dataset"]}
    stand_ins: dict[str, list[dict[Any, Any]]] = {}
    alone = []
    for row in own.to_dict("records"):
        name, bracket, part = row["dataset"].partition("[")
        row["dataset"] = titles.get(name, name) + bracket + part
        for answered in row["answers"]:
            stand_ins.setdefault(answered, []).append(row)
        if not row["answers"]:
            alone.append(row)
    part = {name: paper.part for name, paper in papers().items()}
    printed = sorted(board.to_dict("records"), key=lambda row: part[row["paper"]])  # the book's order
    rows = [_printed_row(row, stand_ins.get(row["id"], [])) for row in printed]
    return rows + [_own_row(row) for row in alone]


def board_data(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`board_rows` in the compact form of the page: texts once, rows as lists of positions and texts."""
    texts: dict[str, list[str]] = {name: [] for name in (*_COLUMNS, "reason")}
    positions: dict[str, dict[str, int]] = {name: {} for name in texts}

    def position(name: str, text: str) -> int:
        if text not in positions[name]:
            positions[name][text] = len(texts[name])
            texts[name].append(text)
        return positions[name][text]

    short = [
        [
            *(position(name, row[name]) for name in _COLUMNS),
            *(
                row[name]
                for name in ("printed", "printed_drop", "ours", "our_drop", "our_margin", "difference")
            ),
            STATES.index(row["state"]),
            position("reason", row["reason"]),
            row["others"],
        ]
        for row in rows
    ]
    known = tables()
    titles = {name: known[name].title for name in texts["table"] if name in known}
    return {"states": STATES, "texts": texts, "titles": titles, "rows": short}


def scoreboard_html(board: pd.DataFrame, own: pd.DataFrame) -> str:
    """The HTML of :func:`show_scoreboard` on a page."""
    payload = json.dumps(board_data(board_rows(board, own)), separators=(",", ":")).replace("</", "<\\/")
    return (
        '<div class="sq-board" id="board"><noscript><p class="sq-note">The scoreboard needs '
        "JavaScript. The same values as a data frame: <code>sqlib.experiments.scoreboard_frame()</code>.</p>"
        f'</noscript><script type="application/json" class="sq-board-data">{payload}</script></div>'
    )


def show_scoreboard(board: pd.DataFrame, own: pd.DataFrame) -> None:
    """Show every printed value and every score of ours; a reader searches, filters, sorts and downloads.

    On a page (``SQLIB_STATIC=1``) it is the interactive scoreboard, which needs no kernel; in a notebook a
    table that can be filtered.

    Parameters
    ----------
    board : DataFrame
        A `scoreboard_frame`.
    own : DataFrame
        A `stand_ins_frame`.

    Raises
    ------
    InputError
        A frame without the columns of these.
    """
    import pandas as pd

    from sqlib import widgets

    for frame, name, column in ((board, "scoreboard_frame", "verdict"), (own, "stand_ins_frame", "answers")):
        if column not in frame.columns:
            raise InputError(f"show_scoreboard got columns {list(frame.columns)}; expected a {name}")
    if widgets.static_mode():
        widgets.display_html(scoreboard_html(board, own))
        return
    shown = pd.DataFrame(board_rows(board, own)).drop(columns="others")
    caption = "Every printed value, and our scores that answer none"
    widgets.show_table(shown, caption=caption, filterable=True, mark="state")


def _number(value: float, decimals: int) -> str:
    """A value with so many decimals, no minus zero, and nothing for a missing one."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}" if value == value else ""


def _margin(row: dict[Any, Any], decimals: int) -> str:
    """How sure a score is: of PSNR and SSIM alone, since fixed bits and their costs do not vary."""
    known = PRINTED.get(row["metric"])
    return _number(row["own_margin"], decimals) if known is not None and known.drops else ""


def _place(row: dict[Any, Any], network: str) -> dict[str, str]:
    bits = f"{row['bits']}-bit" if row["bits"].isdecimal() else f"{row['bits']} bits"
    return {
        "table": row["table"],
        "network": f"{'no network' if network == 'none' else network} x{row['scale']}",
        "method": spelled(row["method"]),
        "bits": "full precision" if row["bits"] == "32" else bits,
        "dataset": row["dataset"],
        "metric": _METRICS.get(row["metric"], row["metric"]),
    }


def _printed_row(row: dict[Any, Any], stand_ins: list[dict[Any, Any]]) -> dict[str, Any]:
    decimals, state = row["decimals"], row["verdict"]
    others = [
        (
            f"{other['network']} x{other['scale']}"
            + (f", {other['dataset']}" if "[" in other["dataset"] else ""),
            _number(other["own"], decimals),
            _number(other["own_drop"], decimals),
            _margin(other, decimals),
        )
        for other in sorted(stand_ins, key=lambda other: "[" in other["dataset"])  # whole datasets first
    ]
    ours, our_drop = _number(row["own"], decimals), _number(row["own_drop"], decimals)
    our_margin = _margin(row, decimals)
    if state == "not run" and others:
        state = STAND_IN
        ours, our_drop, our_margin = others[0][1:]
    return {
        **_place(row, row["model"]),
        "printed": row["printed"],
        "printed_drop": _number(row["published_drop"], decimals),
        "ours": ours,
        "our_drop": our_drop,
        "our_margin": our_margin,
        "difference": _number(row["difference"], decimals),
        "state": state,
        "reason": row["reason"],
        "others": others,
    }


def _own_row(row: dict[Any, Any]) -> dict[str, Any]:
    decimals = PRINTED[row["metric"]].decimals
    return {
        **_place(row, row["network"]),
        "printed": "",
        "printed_drop": "",
        "ours": _number(row["own"], decimals),
        "our_drop": _number(row["own_drop"], decimals),
        "our_margin": _margin(row, decimals),
        "difference": "",
        "state": OURS,
        "reason": "",
        "others": [],
    }
