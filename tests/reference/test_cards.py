"""Weights that ship with RefQSR's parts say what they were made of."""

from __future__ import annotations

import json
from importlib import resources

from safetensors.numpy import load


def test_every_file_of_weights_has_a_card() -> None:
    folder = resources.files("sqlib.reference") / "weights"
    files = [item for item in folder.iterdir() if item.name.endswith(".safetensors")]
    assert len(files) == 2
    for file in files:
        name = file.name.removesuffix(".safetensors")
        card = json.loads((folder / f"{name}.json").read_text("utf-8"))
        assert card["name"] == name and card["seed"] == 0 and card["steps"] > 0
        assert all(card[key] for key in ("network", "data", "torch", "licence"))
        assert sum(value.size for value in load(file.read_bytes()).values()) >= card["parameters"] > 0
