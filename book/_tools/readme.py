"""Write the measured figures into README.md, from the records that ship with the package (``make readme``).

Records in the reader's own store are not looked at: the README says what the project itself has measured.
"""

from __future__ import annotations

from typing import Any

from repository import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
#: how a network of ours is introduced to a reader who has not seen the book
NETWORKS = {
    "carn-m": "CARN-M (third-party weights)",
    "edsr-baseline": "EDSR-baseline (trained by this project)",
    "edsr-small": "EDSR-small (trained by this project)",
}
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
    """One network: full precision in dB, and below it what Min-Max takes away at each number of bits."""
    full = rows.get((network, scale, "FP", 32), {})
    sets = [name for name in SETS if name in full]
    lines = [
        "| "
        + " | ".join([f"{NETWORKS.get(network, network)}, x{scale}", *(SETS[name] for name in sets)])
        + " |",
        "| --- |" + " ---: |" * len(sets),
        "| full precision, PSNR in dB | " + " | ".join(f"{full[name]:.2f}" for name in sets) + " |",
    ]
    for row in sorted((r for r in rows if r[:3] == (network, scale, "MinMax")), key=lambda r: -r[3]):
        drops = [f"{rows[row][name] - full[name]:+.2f}" if name in rows[row] else "" for name in sets]
        lines.append(f"| Min-Max, {row[3]} bits: change | " + " | ".join(drops) + " |")
    return "\n".join(lines)


def measured() -> str:
    """The text between the markers."""
    from sqlib import experiments

    store = experiments.packaged_store()
    rows = scores(store)
    counts = experiments.scoreboard_counts(experiments.scoreboard_frame(store=store)).loc["total"]
    verdicts = ", ".join(f"{counts[name]} {name}" for name in counts.index if name != "values")
    networks = sorted({row[:2] for row in rows if row[2] == "FP"})
    parts = [network_table(rows, *network) for network in networks]
    parts.append(f"Of the {counts['values']:,} values that the three papers print: {verdicts}.")
    if networks:
        parts.append(
            "Protocol: 8-bit rounding, border of the scale cropped, BT.601 luma, mean over the images. "
            "Min-Max is the plainest recipe: weights per output channel, activations per tensor, the "
            "convolutions in the residual blocks."
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
