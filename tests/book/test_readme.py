"""The README: its figures are generated, its example runs, its figure is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import readme

from sqlib.cli import parser
from sqlib.experiments import plan
from sqlib.experiments.store import layers

ROOT = Path(__file__).resolve().parents[2]


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf8"), re.M | re.S)


def test_measured_figures_are_what_the_records_say() -> None:
    text = readme.README.read_text(encoding="utf8")
    assert text == readme.with_measured(text), "run make readme"


class Records:
    """A store with these records."""

    def __init__(self, *records: dict[str, Any]) -> None:
        self.found = list(records)

    def survey(self) -> tuple[list[dict[str, Any]], list[Any]]:
        return self.found, []

    def records(self) -> list[dict[str, Any]]:
        return self.found


def test_table_is_computed_from_records(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {
        (c.place.table, c.place.method, c.place.bits): c
        for table in ("dfsq-table2", "2dquant-cnn")
        for c in plan(table, "laptop")
        if (c.model, c.scale, c.dataset) == ("carn-m", 4, "set5") and c.place
    }

    def record(scores: tuple[float, float], time: str, *place: str) -> dict[str, Any]:
        images = [{"name": n, "metrics": {"psnr": v}} for n, v in zip("ab", scores, strict=True)]
        return {"cell": cells[place].to_dict(), "dataset": "set5", "images": images, "time": time}

    monkeypatch.setattr(layers, "packaged_store", Records)
    rows = readme.found(
        Records(
            record((29.0, 30.0), "2", "dfsq-table2", "MinMax", "4"),
            record((30.0, 30.5), "1", "dfsq-table2", "FP", "32"),
            record((29.0, 29.0), "1", "dfsq-table2", "MinMax", "4"),
            record((20.0, 20.0), "3", "2dquant-cnn", "MinMax", "4"),  # another Min-Max
        )
    )
    # The later record, not the first in the list; the interval of -1 and -0.5 reaches from one to the other.
    assert "| CARN-M x4 (30.25 dB), Min-Max |  |  | -0.75 ± 0.25 |  |" in readme.table(rows)


def test_example_is_the_same_in_readme_and_book() -> None:
    (block,) = python_blocks(ROOT / "README.md")
    assert block in python_blocks(ROOT / "book" / "index.md")
    assert len([line for line in block.splitlines() if line]) == 5


def test_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = python_blocks(ROOT / "README.md")
    exec(block, {})
    assert "conv" in capsys.readouterr().out


def test_commands_are_understood_and_none_writes_what_another_wrote() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf8")
    lines = re.findall(r"^python -m sqlib (.*)$", text, re.M)
    found = [parser().parse_args(shlex.split(line, comments=True)) for line in lines]
    assert len(found) >= 6
    written = [args.output for args in found if getattr(args, "output", None)]
    assert len(written) == len(set(written)) >= 4


def test_figure_is_there_and_described() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf8")
    ((alt, path),) = re.findall(r"!\[([^\]]*)\]\((?!https)([^)]*)\)", text)  # badges apart
    assert len(alt) > 40
    assert (ROOT / path).stat().st_size > 10_000
