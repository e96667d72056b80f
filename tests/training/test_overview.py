"""Tables about trained networks agree with the files and cards that ship."""

from __future__ import annotations

import json

import pytest

from sqlib import models
from sqlib.training import CONFIGS, TrainConfig, overview


def test_every_shipped_network_has_a_whole_card() -> None:
    table = overview.shipped()
    assert len(table) == sum(len(scales) for scales in models.available().values()) >= 2
    for name, scales in models.available().items():
        for scale in scales:
            card = models.card(name, scale=scale)
            network = models.pretrained(name, scale=scale)
            assert card["weights_id"] == network.weights_id
            assert card["parameters"] == models.count_parameters(network)
            # The configuration that trained it is the one that trains it again.
            assert TrainConfig(**card["config"]) == CONFIGS[f"{name}-x{scale}"]
            assert card["curve"][-1]["step"] == card["config"]["steps"] == card["bursts"][-1]["to_step"]
            assert set(card["scores"]) == set(card["half_change_db"])
            if card["dtype"] == "float16":
                assert all(abs(change) < 0.005 for change in card["half_change_db"].values())


def test_what_ships_is_small() -> None:
    sizes = [path.stat().st_size for path in models.WEIGHTS_FOLDER.glob("*.safetensors")]
    assert max(sizes) < 4_000_000 and sum(sizes) < 40_000_000


def test_scores_and_curves_come_from_the_cards() -> None:
    scores, curves = overview.scores(), overview.curves()
    card = json.loads((models.WEIGHTS_FOLDER / "edsr-small-x4.json").read_text())
    row = scores[(scores["network"] == "edsr-small x4") & (scores["dataset"] == "set5")].iloc[0]
    assert row["PSNR (dB)"] == card["scores"]["set5"]["psnr"] and row["images"] == 5
    assert len(curves[curves["network"] == "edsr-small x4"]) == len(card["curve"])


def test_missing_lists_exactly_the_configurations_without_weights() -> None:
    missing = overview.missing()
    done = {f"{name}-x{scale}" for name, scales in models.available().items() for scale in scales}
    assert set(missing["configuration"]) == set(CONFIGS) - done
    assert (missing["PFLOP"] > 0).all() and set(overview.AIMS) <= set(CONFIGS)


def test_operations_of_a_step_are_six_per_weight_and_pixel() -> None:
    """2 forward, 4 backward; a weight behind the upsampler meets more pixels. By hand for EDSR-small x2."""
    config = TrainConfig("edsr-small", 2, steps=1, batch=3, patch=5)
    network = models.create("edsr-small", scale=2)
    weights = {
        name: module.weight.numel() * (4 if name == "tail" else 1)
        for name, module in network.named_modules()
        if hasattr(module, "weight")
    }
    # The first layer passes no gradient on to the image: 4 instead of 6.
    expected = 3 * 25 * (6 * sum(weights.values()) - 2 * weights["head"])
    assert overview.step_flops(config) == pytest.approx(expected, rel=0)
