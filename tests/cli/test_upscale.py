"""``sqlib upscale``: the right pixels in the right place, and nothing else touched."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sqlib import evaluate, models
from sqlib.cli import main
from sqlib.images import read_image, to_uint8


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong is found before anything is loaded or computed."""

    def computes(*args: object, **options: object) -> None:
        raise AssertionError("this was to be refused before")

    monkeypatch.setattr(models, "pretrained", computes)
    monkeypatch.setattr(models, "load", computes)
    monkeypatch.setattr(evaluate, "super_resolve", computes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_input_is_never_overwritten(picture: Path, fails, never, force: tuple[str, ...]) -> None:
    folder = picture.parent
    (folder / "soft.png").symlink_to("in.png")
    os.link(picture, folder / "hard.png")
    before = contents(folder)
    for name in ("in.png", "./in.png", f"../{folder.name}/in.png", "soft.png", "hard.png"):
        error = fails(2, "upscale", picture, folder / name, "--scale", 4, *force)
        assert "would overwrite the input" in error
    assert "would overwrite" in fails(2, "upscale", folder / "soft.png", picture, "--scale", 4, *force)
    weights = folder / "w.png"
    weights.write_bytes(b"weights")
    args = ("upscale", picture, weights, "--scale", 4, "--weights", weights, *force)
    assert "would overwrite the input" in fails(2, *args)
    assert contents(folder) == {**before, "w.png": b"weights"}


def test_a_pattern_that_means_two_pictures(picture: Path, fails, never) -> None:
    other = picture.with_name("photo.png")
    other.write_bytes(b"another photo")
    assert "exists" in fails(2, "upscale", "--scale", 4, picture, other)
    third = picture.with_name("x.png")
    third.write_bytes(b"a third")
    assert "unrecognized" in fails(2, "upscale", "--scale", 4, picture, other, third)
    assert (other.read_bytes(), third.read_bytes()) == (b"another photo", b"a third")


def test_force_replaces_what_exists(picture: Path, fails, capsys) -> None:
    out = picture.with_name("out.png")
    out.write_bytes(b"old")
    assert "--force" in fails(2, "upscale", picture, out, "--scale", 4)
    assert out.read_bytes() == b"old"
    assert main(["upscale", str(picture), str(out), "--scale", "4", "--force"]) == 0
    # Without --model the best network that ships is used.
    best = models.pretrained(models.best(4), scale=4)
    scores = {
        name: models.card(name, scale=4)["scores"]["set5"]["psnr"]
        for name, scales in models.available().items()
        if 4 in scales
    }
    assert best.name == max(scores, key=scores.__getitem__) and len(scores) > 1
    expected = evaluate.super_resolve(best, read_image(picture))
    assert np.array_equal(read_image(out), to_uint8(expected))
    assert sorted(contents(picture.parent)) == ["in.png", "out.png"]


def test_force_follows_links_and_keeps_write_protected_files(picture: Path, fails, capsys) -> None:
    folder = picture.parent
    (folder / "real.png").write_bytes(b"old")
    (folder / "link.png").symlink_to("real.png")
    assert "exists" in fails(2, "upscale", picture, folder / "link.png", "--scale", 4)
    assert main(["upscale", str(picture), str(folder / "link.png"), "--scale", "4", "--force"]) == 0
    capsys.readouterr()
    assert (folder / "link.png").is_symlink() and read_image(folder / "real.png").shape == (96, 128, 3)
    (folder / "locked.png").write_bytes(b"old")
    (folder / "locked.png").chmod(0o444)
    args = ("upscale", picture, folder / "locked.png", "--scale", 4, "--force")
    assert "write-protected" in fails(2, *args)
    assert (folder / "locked.png").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.tif", "extension '.tif', expected one of .png"),
        ("out", "extension ''"),
        ("gone/out.png", "does not exist"),
        ("folder.png", "is a folder"),
    ],
)
def test_an_unusable_output_is_refused_before_anything_is_computed(
    picture: Path, fails, never, name: str, words: str
) -> None:
    (picture.parent / "folder.png").mkdir()
    assert words in fails(2, "upscale", picture, picture.parent / name, "--scale", 4)
    assert sorted(contents(picture.parent)) == ["in.png"]


def test_an_output_too_large_for_its_format_is_refused_before(tmp_path: Path, fails, never) -> None:
    Image.new("RGB", (5000, 2)).save(tmp_path / "in.png")
    args = ("upscale", tmp_path / "in.png", tmp_path / "out.webp", "--scale", 4)
    assert "cannot encode 20000 x 8 pixels as .webp" in fails(1, *args)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_stays_behind(picture: Path, fails, monkeypatch, error) -> None:
    def stops(self: Path, target: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", stops)
    words = fails(1, "upscale", picture, picture.with_name("out.png"), "--scale", 4)
    assert ("interrupted" in words) == (error is KeyboardInterrupt)
    assert sorted(contents(picture.parent)) == ["in.png"]


def test_what_an_image_loses_is_said_in_one_line(tmp_path: Path, capsys) -> None:
    rgba = np.random.default_rng(0).integers(0, 255, (24, 32, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "in.png")
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--scale", "4"]) == 0
    error = capsys.readouterr().err
    assert error == f"sqlib: warning: {tmp_path / 'in.png'}: transparency dropped\n"
    assert read_image(tmp_path / "out.png").shape == (96, 128, 3)


@pytest.mark.parametrize("device", ["meta", "cuda:99", "hip", "warp", "mkldnn", "cpu:x"])
def test_devices_that_cannot_be_used(picture: Path, fails, never, device: str) -> None:
    args = ("upscale", picture, picture.with_name("out.png"), "--scale", 4, "--device", device)
    error = fails(2, *args)
    assert f"device '{device}' cannot be used" in error and len(error) < 300
