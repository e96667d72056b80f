"""RefQSR: its printed values, and which recipes its rows need."""

from __future__ import annotations

from sqlib.experiments.papers.schema import Paper, printed

PAPER = Paper(
    name="refqsr",
    part=4,
    printed=printed("refqsr"),
    labels={"PAMS": "pams", "DDTB": "ddtb", "CADyQ": "cadyq", "CABM": "cabm"},
)
