"""Shipping: half precision where no score minds, the card beside it, refusal of what does not belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sqlib import models
from sqlib.errors import DataError, InputError
from sqlib.training import CropPool, TrainConfig, cards, train


@pytest.fixture
def trained(tmp_path: Path, pool: CropPool, tiny: TrainConfig, photos: list[tuple[str, np.ndarray]]) -> Path:
    train(tiny, pool, tmp_path / "run", log=lambda _line: None)
    (tmp_path / "Set5" / "HR").mkdir(parents=True)
    for (_, image), name in zip(photos, ("baby", "bird", "butterfly", "head", "woman"), strict=True):
        Image.fromarray(image).save(tmp_path / "Set5" / "HR" / f"{name}.png")
    return tmp_path / "run" / "edsr-small-x2.safetensors"


@pytest.mark.parametrize(("tolerance", "dtype"), [(0.005, "float16"), (-1.0, "float32")])
def test_half_precision_ships_only_where_no_score_minds(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tolerance: float, dtype: str
) -> None:
    monkeypatch.setattr(cards, "HALF_TOLERANCE_DB", tolerance)
    card = cards.ship(trained, tmp_path / "out", ["set5"], data_dir=str(tmp_path))
    shipped = tmp_path / "out" / trained.name
    state, _ = models.read_state(shipped)
    assert card["dtype"] == dtype and all(str(v.dtype) == f"torch.{dtype}" for v in state.values())
    assert models.load(shipped, scale=2).weights_id == card["weights_id"]
    assert card["scores"]["set5"]["n"] == 5 and abs(card["half_change_db"]["set5"]) < 0.005
    assert shipped.with_suffix(".json").is_file()
    assert sorted(p.name for p in trained.parent.iterdir()) == [
        ".lock",
        "checkpoint.pt",
        "edsr-small-x2.json",
        "edsr-small-x2.safetensors",
    ]


def test_nothing_ships_when_it_is_too_large_or_not_the_cards(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "LARGEST_FILE", 1000)
    with pytest.raises(InputError, match="larger networks are recipes"):
        cards.ship(trained, tmp_path / "out", ["set5"], data_dir=str(tmp_path))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    card = trained.with_suffix(".json")
    card.write_text(card.read_text().replace(models.load(trained, scale=2).weights_id, "0" * 64))
    with pytest.raises(InputError, match="is not what"):
        cards.ship(trained, tmp_path / "out", ["set5"], data_dir=str(tmp_path))
    card.unlink()
    with pytest.raises(DataError, match="is missing"):
        cards.ship(trained, tmp_path / "out", ["set5"], data_dir=str(tmp_path))


def test_a_full_disk_leaves_no_weights_behind(
    pool: CropPool, tiny: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    """Exported or shipped; a limit on the size of files stands in for the disk."""
    resource = pytest.importorskip("resource")
    size = trained.stat().st_size
    trained.rename(tmp_path / trained.name)
    trained.with_suffix(".json").rename(tmp_path / trained.with_suffix(".json").name)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write, limit in (
        (lambda: train(tiny, pool, trained.parent, log=lambda _line: None), size - 1),
        (lambda: cards.ship(tmp_path / trained.name, tmp_path, ["set5"], data_dir=str(tmp_path)), size // 4),
    ):
        before = sorted(tmp_path.rglob("*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(DataError, match=r"cannot write .*safetensors: File too large"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert sorted(tmp_path.rglob("*")) == before
    assert train(tiny, pool, trained.parent, log=lambda _line: None) and trained.is_file()
