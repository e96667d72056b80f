"""Page records: what is packaged can be read, and is made by code that is here."""

from __future__ import annotations

import copy
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sqlib import models
from sqlib.__main__ import main
from sqlib.errors import InputError
from sqlib.experiments import pages
from sqlib.experiments.pages import refqsr_crops, refqsr_latency
from sqlib.models.edsr import EDSR


@pytest.mark.parametrize("name", pages.PAGES)
def test_packaged_records_say_where_they_come_from(name: str) -> None:
    record = pages.read(name)
    assert len(record["code"]) == 64 and record["cpu"] and record["threads"] >= 1 and record["time"]
    assert "torch" in record["versions"]
    assert pages._module(name).difference(record["data"], record["data"]) == ""


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="refqsr-crops"):
        pages.read("crops")


def test_crops_are_pictures_and_scores_fall_with_the_bits() -> None:
    for row in pages.read("refqsr-crops")["data"].values():
        assert set(row["crops"]) == {"original", *row["psnr"]} and set(row["psnr"]) == set(row["fqr"])
        for text in row["crops"].values():
            image = refqsr_crops.crop(text)
            assert image.shape == (refqsr_crops.SIDE, refqsr_crops.SIDE, 3) and image.dtype == np.uint8
        assert row["psnr"]["DDTB 4"] < row["psnr"]["DDTB 8"] < row["psnr"]["full precision"]
        assert row["fqr"]["DDTB+RefQSR 4-3"] < row["fqr"]["DDTB 4"] == 4


def test_another_score_or_picture_is_a_difference() -> None:
    old = pages.read("refqsr-crops")["data"]
    new = copy.deepcopy(old)
    new["china"]["psnr"]["DDTB 4"] += 0.03
    assert "china, DDTB 4" in refqsr_crops.difference(old, new)
    new = copy.deepcopy(old)
    new["china"]["crops"]["DDTB 4"] = new["china"]["crops"]["original"]
    assert "another crop" in refqsr_crops.difference(old, new)


def test_seconds_and_memory_of_a_small_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    small = EDSR("edsr-small", 4, blocks=4, features=8)
    monkeypatch.setattr(models, "create", lambda name, scale: small)
    here = partial(refqsr_latency._peak, threads=1)  # another process would take the large network
    monkeypatch.setattr(refqsr_latency, "_in_a_process", here)
    found = refqsr_latency.make((20, 18), repeats=1)
    alone = found[refqsr_latency.ALONE]
    assert set(found) == {"DDTB 8", "DDTB 4", refqsr_latency.REFINED, refqsr_latency.ALONE}
    for row in found.values():
        assert len(row["seconds"]) == 1 and row["seconds"][0] > 0
        assert row is alone or row["peak_mb"] is None or row["peak_mb"] >= 0
    assert alone["difference"] < 0.1
    changed = copy.deepcopy(found)
    changed[refqsr_latency.REFINED]["queries"] += 1
    assert "query patches" in refqsr_latency.difference(found, changed)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """One page record whose module says what `difference` is set to."""
    module = SimpleNamespace(make=dict, difference=lambda old, new: module.found, found="")
    monkeypatch.setattr(pages, "PAGES", {"refqsr-crops": "x"})
    monkeypatch.setattr(pages, "_module", lambda name: module)
    return module


def test_verify_pages(fake: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--pages"]) == 0
    assert "verified 1 of 1" in capsys.readouterr().out
    fake.found = "other pixels"
    assert main(["verify", "--pages", "--json"]) == 1
    out: Any = json.loads(capsys.readouterr().out)
    assert out["differ"] == {"refqsr-crops": "other pixels"} and out["verified"] == []
    assert main(["verify", "--pages", "--sample", "2"]) == 2
    assert main(["verify", "--pages", "--store", "x"]) == 2
