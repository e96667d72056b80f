"""The README: its figures are generated, its example runs, its figure is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).resolve().parents[2]


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf8"), re.M | re.S)


def test_measured_figures_are_what_the_records_say() -> None:
    text = readme.README.read_text(encoding="utf8")
    assert text == readme.with_measured(text), "run make readme"


def test_table_is_computed_from_records() -> None:
    def record(
        method: str, bits: str, psnr: float, time: str, table: str = "dfsq-table2"
    ) -> dict[str, object]:
        cell = {
            "table": table, "model": "net", "scale": 4, "method": method, "bits": bits, "dataset": "set5"
        }  # fmt: skip
        return {"cell": cell, "psnr": psnr, "time": time}

    rows = readme.scores(
        [
            record("MinMax", "4", 29.5, "2"),
            record("FP", "32", 30.25, "1"),
            record("MinMax", "4", 29.0, "1"),
            record("MinMax", "4", 20.0, "3", table="2dquant-table3"),  # another Min-Max
        ]
    )
    table = readme.network_table(rows, "net", 4)
    assert "| full precision, PSNR in dB | 30.25 |" in table
    assert "| Min-Max, 4 bits: change | -0.75 |" in table  # the later record, not the first in the list


def test_example_is_the_same_in_readme_and_book() -> None:
    (block,) = python_blocks(ROOT / "README.md")
    assert block in python_blocks(ROOT / "book" / "index.md")
    assert len([line for line in block.splitlines() if line]) == 5


def test_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = python_blocks(ROOT / "README.md")
    exec(block, {})
    assert "conv" in capsys.readouterr().out


def test_figure_is_there_and_described() -> None:
    alt, path = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", (ROOT / "README.md").read_text(encoding="utf8"))[0]
    assert len(alt) > 40
    assert (ROOT / path).stat().st_size > 10_000
