"""The recorded shares are those that the shipped extractor gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sqlib import datasets
from sqlib.reference.clustering import CHAINS
from sqlib.reference.comparators import ScanHead, train_head
from sqlib.reference.extractor import FeatureExtractor
from sqlib.reference.measure import SETS, TAUS, compare, detail, images_of, patches_of, record, shares


def test_record_is_what_the_shipped_photographs_give() -> None:
    found, kept = shares(images_of("builtin")[:2], *SETS["builtin"]), record()["sets"]["builtin"]
    assert found["patches"] == kept["patches"][:2]
    for chains in CHAINS:
        assert found["queries"][chains] == kept["queries"][chains][:2]


def test_record_of_urban100(data_dir: Path) -> None:
    data = datasets.load("urban100", data_dir=data_dir)
    found, kept = shares([data.lr(0, 4)], *SETS["urban100"]), record()["sets"]["urban100"]
    assert found["patches"] == kept["patches"][:1]
    assert {c: q[0] for c, q in kept["queries"].items()} == {c: q[0] for c, q in found["queries"].items()}


@pytest.mark.parametrize("name", list(SETS))
def test_record_is_complete(name: str) -> None:
    kept = record()
    assert kept["taus"] == list(TAUS)
    found = kept["sets"][name]
    half = TAUS.index(0.5)
    for chains in CHAINS:
        assert len(found["queries"][chains]) == len(found["patches"])
        share = sum(found["queries"][chains]) / sum(found["patches"])
        assert found["tau"][chains][half] == pytest.approx(share, abs=1e-4)
        assert found["tau"][chains] == sorted(found["tau"][chains], reverse=True) or chains == "isolate"
    assert {"share", "similarity", "unmatched"} == set(kept["methods"]["ClustBlock"])


def lacking(query: torch.Tensor, reference: torch.Tensor) -> float:
    found, whole = detail(query, reference)
    return found / whole


def test_detail_that_a_reference_lacks() -> None:
    rng = torch.Generator().manual_seed(0)
    patch = torch.rand(3, 72, 72, generator=rng)
    assert lacking(patch, patch) == pytest.approx(0, abs=1e-5)
    assert lacking(patch, torch.roll(patch, (2, 4), (1, 2))) < 0.5 < lacking(patch, patch.flip(2))
    assert lacking(patch, torch.full((3, 80, 60), 0.5)) == pytest.approx(1, abs=1e-5)
    assert lacking(patch + 0.3, patch) == pytest.approx(0, abs=1e-5)
    assert detail(torch.full((3, 72, 72), 0.5), patch)[1] == pytest.approx(0, abs=1e-5)


def test_methods_have_as_many_references(photo: np.ndarray) -> None:
    head = ScanHead(train_head(torch.rand(8, 3, 48, 48), FeatureExtractor(10), steps=2)[0])
    found = compare([photo], 24, 6, head)
    own = found["ClustBlock"]
    assert {found[name]["share"] for name in found if name != "SCAN-like head"} == {own["share"]}
    assert own["share"] > 0.2
    assert found["its references, the best for each query"]["unmatched"] <= own["unmatched"]
    assert own["unmatched"] < 1
    assert len(patches_of(photo, 24, 6)) > 8
