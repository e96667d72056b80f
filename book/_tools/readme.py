"""Write the measured figures into README.md, from the records that ship with the package (``make readme``).

Records in the reader's own store are not looked at: the README says what the project itself has measured.
"""

from __future__ import annotations

from typing import Any

from repository import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
#: how a network is introduced to a reader who has not seen the book; others are stand-ins and not shown
NETWORKS = {
    "edsr-baseline": "EDSR-baseline (trained by this project)",
    "carn-m": "CARN-M (third-party weights)",
}
METHODS = {
    "MinMax": "Min-Max",
    "DFSQ": "DFSQ",
    "Exact points, compensated weights (ours)": "ours",
}
BITS = (8, 6, 4, 3)
SETS = {"set5": "Set5", "set14": "Set14", "b100": "B100"}


def scores(store: Any) -> dict[tuple[str, int, str, int], dict[str, float]]:
    """Mean PSNR by (network, scale, method, bits) and dataset.

    Of DFSQ's Table 2 alone: Min-Max is another recipe in other tables.
    """
    from sqlib import experiments

    out: dict[tuple[str, int, str, int], dict[str, float]] = {}
    for cell, record in experiments.shown_cells(["dfsq-table2"], store=store):
        row = (cell.model, cell.scale, cell.place.method, int(cell.place.bits))
        out.setdefault(row, {})[record["dataset"]] = experiments.mean(record, "psnr")
    return out


def network_table(rows: dict[tuple[str, int, str, int], dict[str, float]], network: str, scale: int) -> str:
    """One network: full precision in dB, and below it what each method takes away at each number of bits."""
    full = rows.get((network, scale, "FP", 32), {})
    sets = [name for name in SETS if name in full]
    lines = [
        "| " + " | ".join([f"{NETWORKS[network]}, x{scale}", *(SETS[name] for name in sets)]) + " |",
        "| --- |" + " ---: |" * len(sets),
        "| full precision, PSNR in dB | " + " | ".join(f"{full[name]:.2f}" for name in sets) + " |",
    ]
    for bits in BITS:
        for method, label in METHODS.items():
            found = rows.get((network, scale, method, bits), {})
            drops = [_change(found[name] - full[name]) if name in found else "" for name in sets]
            if any(drops):
                lines.append(f"| {bits} bits, {label}: change | " + " | ".join(drops) + " |")
    return "\n".join(lines)


def _change(value: float) -> str:
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text


def measured() -> str:
    """The text between the markers."""
    from sqlib import experiments

    store = experiments.packaged_store()
    rows = scores(store)
    counts = experiments.scoreboard_counts(experiments.scoreboard_frame(store=store)).loc["total"]
    verdicts = ", ".join(f"{counts[name]} {name}" for name in counts.index if name != "values")
    known = {row[:2] for row in rows if row[2] == "FP"}
    networks = [(name, scale) for name in NETWORKS for scale in (4, 3, 2) if (name, scale) in known]
    parts = [network_table(rows, *network) for network in networks]
    parts.append(f"Of the {counts['values']:,} values that the three papers print: {verdicts}.")
    if networks:
        parts.append(
            "Protocol: 8-bit rounding, border of the scale cropped, BT.601 luma, mean over the images. "
            "Min-Max is the plainest recipe: weights per output channel, activations per tensor, the "
            "convolutions in the residual blocks. *Ours* is the recipe of chapter 7: the best points for "
            "every channel, and weights rounded so that the outputs of a layer stay where they were; no "
            "training."
        )
    return "\n\n".join(parts)


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
