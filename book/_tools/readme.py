"""Write the measured figures into README.md, from the records that ship with the package (``make readme``).

Records in the reader's own store are not looked at: the README says what the project itself has measured.
"""

from __future__ import annotations

from repository import ROOT

from sqlib import experiments
from sqlib.experiments.report.intervals import difference
from sqlib.experiments.store.layers import Layer
from sqlib.experiments.store.records import Record

README = ROOT / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
#: others are stand-ins and not shown
NETWORKS = {
    "edsr-baseline": "EDSR-baseline",
    "carn-m": "CARN-M",
}
METHODS = {
    "MinMax": "Min-Max",
    "DFSQ": "DFSQ",
    "Exact points, compensated weights (ours)": "ours",
}
BITS = (8, 6, 4, 3)
FULL, DATASET = ("FP", 32), "set5"

_Rows = dict[tuple[str, int], dict[tuple[str, int], Record]]


def found(store: Layer) -> _Rows:
    """Records of Set5 by (network, scale), then (method, bits).

    Of DFSQ's Table 2 alone: Min-Max is another recipe in other tables.
    """
    rows: _Rows = {}
    for cell, record in experiments.shown_cells(["dfsq-table2"], store=store):
        if record["dataset"] == DATASET and cell.place is not None:
            method = cell.place.method, int(cell.place.bits)
            rows.setdefault((cell.model, cell.scale), {})[method] = record
    return rows


def table(rows: _Rows) -> str:
    """A row per network and method: what it takes away at each number of bits, and how sure that is."""
    lines = [
        "| Set5: change of PSNR in dB | " + " | ".join(f"{bits} bits" for bits in BITS) + " |",
        "| --- |" + " ---: |" * len(BITS),
    ]
    for network, shown in NETWORKS.items():
        for scale in (4, 3, 2):
            records = rows.get((network, scale), {})
            for method, label in METHODS.items():
                changes = [_change(records, method, bits) for bits in BITS]
                if any(changes):
                    full = experiments.mean(records[FULL], "psnr")
                    name = f"{shown} x{scale} ({full:.2f} dB), {label}"
                    lines.append(f"| {name} | " + " | ".join(changes) + " |")
    return "\n".join(lines)


def _change(records: dict[tuple[str, int], Record], method: str, bits: int) -> str:
    if FULL not in records or (method, bits) not in records:
        return ""
    change = difference(records[method, bits], records[FULL])
    text = f"{change.mean:+.2f}"
    return f"{'0.00' if float(text) == 0 else text} ± {change.margin:.2f}"


def measured() -> str:
    """The text between the markers."""
    store = experiments.packaged_store()
    counts = experiments.scoreboard_counts(experiments.scoreboard_frame(store=store)).loc["total"]
    verdicts = ", ".join(f"{counts[name]:,} {name}" for name in counts.index if name != "values")
    return "\n\n".join(
        (
            table(found(store)),
            "In brackets: the network in full precision; EDSR-baseline was trained by this project, CARN-M "
            "by its authors. ± is half the 95% bootstrap interval over the images. Protocol: 8-bit "
            "rounding, border of the scale cropped, BT.601 luma, mean over the images. Min-Max is the "
            "plainest recipe: weights per output channel, activations per tensor, the convolutions in the "
            "residual blocks. *Ours* is the recipe of chapter 7: the best points for every channel, and "
            "weights rounded so that the outputs of a layer stay where they were; no training.",
            f"Of the {counts['values']:,} values that the three papers print: {verdicts}. The book's "
            "scoreboard lists them all.",
        )
    )


def with_measured(text: str) -> str:
    """The README with its measured part made anew."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{measured()}\n\n{END}{after}"


if __name__ == "__main__":
    old = README.read_text(encoding="utf8")
    new = with_measured(old)
    README.write_text(new, encoding="utf8")
    print("README.md", "is up to date" if new == old else "written")
