"""Folders of textures, whole and broken, and crops of odd images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sqlib.errors import DataError, InputError
from sqlib.reference.textures import Crops, load_textures


def write(folder: Path, name: str, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_any_number_of_classes(tmp_path: Path) -> None:
    for label in range(47):
        for number in range(5):
            write(tmp_path / f"class{label:02}", f"{number}.png", noise(8, 8, 3))
    (tmp_path / ".cache").mkdir()
    (tmp_path / "class00" / "notes.txt").write_text("no image")
    found = load_textures(tmp_path)
    assert len(found.classes) == 47
    train, test = found.split(0.2)
    assert (len(train), len(test)) == (4 * 47, 47)
    assert [path.name for path, label in test if label == 3] == ["4.png"]
    assert not {path for path, _ in train} & {path for path, _ in test}


def test_gray_small_and_large_images(tmp_path: Path) -> None:
    files = [
        (write(tmp_path, "gray.png", noise(100, 100)), 0),
        (write(tmp_path, "small.png", noise(20, 130, 3)), 1),
        (write(tmp_path, "large.png", noise(600, 400, 3)), 2),
        (write(tmp_path, "alpha.png", noise(90, 90, 4)), 3),
    ]
    crops = Crops(files, side=300)
    assert [image.shape for image in crops.images] == [
        (100, 100, 3),
        (20, 130, 3),
        (450, 300, 3),
        (90, 90, 3),
    ]
    x, label = crops.draw(40, 72, np.random.default_rng(0))
    assert x.shape == (40, 3, 72, 72)
    assert 0 <= x.min() < x.max() <= 1
    assert (x[label == 0, :1] == x[label == 0]).all()
    x, label = crops.fixed(72)
    assert label.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    small = noise(20, 130, 3)
    assert (x[4, :, :20].permute(1, 2, 0).mul(255).round().numpy() == small[:, 14:86]).all()  # (130 - 72) / 4
    assert (x[4, :, 20:40] == x[4, :, :20].flip(1)).all()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_textures(tmp_path / "absent")


def test_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a file"):
        load_textures(write(tmp_path, "one.png", noise(8, 8, 3)))


def test_one_class(tmp_path: Path) -> None:
    write(tmp_path / "banded", "1.png", noise(8, 8, 3))
    with pytest.raises(InputError, match="1 class folders"):
        load_textures(tmp_path)


def test_a_class_without_images(tmp_path: Path) -> None:
    write(tmp_path / "banded", "1.png", noise(8, 8, 3))
    (tmp_path / "dotted").mkdir()
    with pytest.raises(InputError, match="'dotted'"):
        load_textures(tmp_path)


def test_a_class_of_one_image(tmp_path: Path) -> None:
    for label in ("banded", "dotted"):
        write(tmp_path / label, "1.png", noise(8, 8, 3))
    with pytest.raises(InputError, match="1 image"):
        load_textures(tmp_path).split()


@pytest.mark.parametrize("held_out", [0, 1, 0.95, -0.5, "all", None, True])
def test_a_share_that_is_none(tmp_path: Path, held_out: float) -> None:
    for label in ("banded", "dotted"):
        for number in range(4):
            write(tmp_path / label, f"{number}.png", noise(8, 8, 3))
    with pytest.raises(InputError, match="held_out"):
        load_textures(tmp_path).split(held_out)


def split(folder: Path, number: int, held_out: float) -> tuple[int, int]:
    """Files per class to train on and to judge by."""
    for label in ("banded", "dotted"):
        for each in range(number):
            write(folder / label, f"{each}.png", noise(8, 8, 3))
    train, test = load_textures(folder).split(held_out)
    return len(train) // 2, len(test) // 2


@pytest.mark.parametrize(
    ("number", "held_out", "expected"),
    [
        (2, 0.9, (1, 1)),
        (3, 0.9, (1, 2)),
        (3, 0.01, (2, 1)),
        (10, 0.9, (1, 9)),
        (10, np.float32(0.2), (8, 2)),
    ],
)
def test_both_parts_have_a_file_of_each_class(
    tmp_path: Path, number: int, held_out: float, expected: tuple[int, int]
) -> None:
    assert split(tmp_path, number, held_out) == expected


@pytest.mark.parametrize("folder", [None, 5, ["textures"]])
def test_folders_that_are_no_paths(folder: object) -> None:
    with pytest.raises(InputError, match="folder="):
        load_textures(folder)  # type: ignore[arg-type]


def test_crops_that_are_none(tmp_path: Path) -> None:
    items = [(write(tmp_path, "one.png", noise(20, 20, 3)), 0)]
    with pytest.raises(InputError, match="no images"):
        Crops([])
    with pytest.raises(InputError, match="side="):
        Crops(items, side=8.0)  # type: ignore[arg-type]
    crops = Crops(items, side=np.int64(8))  # type: ignore[arg-type]
    for size in (0, 8.0, None, True):
        with pytest.raises(InputError, match="size="):
            crops.fixed(size)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="size="):
            crops.draw(1, size, np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="count="):
        crops.draw(0, 8, np.random.default_rng(0))
    assert crops.fixed(np.uint8(8))[0].shape == (4, 3, 8, 8)  # type: ignore[arg-type]
