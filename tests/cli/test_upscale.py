"""``sqlib upscale``: the right pixels in the right place, and nothing else touched."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sqlib import evaluate, models, quantize_model, recipes
from sqlib.cli import _tiles, main
from sqlib.images import read_image, to_uint8, write_image
from sqlib.models.edsr import EDSR
from sqlib.patches import Grid


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
    assert "is no folder, and 2 images are given" in fails(2, "upscale", "--scale", 4, picture, other, third)
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
    ],
)
def test_an_unusable_output_is_refused_before_anything_is_computed(
    picture: Path, fails, never, name: str, words: str
) -> None:
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
    assert error == ""
    assert Image.open(tmp_path / "out.png").mode == "RGBA"
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.jpg"), "--scale", "4"]) == 0
    error = capsys.readouterr().err
    assert error == f"sqlib: warning: {tmp_path / 'out.jpg'}: transparency dropped, .jpg has none\n"
    assert read_image(tmp_path / "out.jpg").shape == (96, 128, 3)


def test_transparency_and_colour_profile_go_along(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 255, (24, 32, 4), dtype=np.uint8)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgba).save(tmp_path / "in.png", icc_profile=icc)
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.webp"), *SMALL]) == 0
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), *SMALL]) == 0
    assert capsys.readouterr().err == ""
    network = models.pretrained("edsr-small", scale=4)
    colours = to_uint8(evaluate.super_resolve(network, rgba[:, :, :3].copy()))
    alpha = Image.fromarray(rgba[:, :, 3]).resize((128, 96), Image.Resampling.BICUBIC)
    for name in ("out.png", "out.webp"):
        with Image.open(tmp_path / name) as out:
            assert out.info["icc_profile"] == icc
            np.testing.assert_array_equal(np.asarray(out)[:, :, :3], colours)
            np.testing.assert_array_equal(np.asarray(out)[:, :, 3], np.asarray(alpha))
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.bmp"), *SMALL]) == 0
    assert "out.bmp: transparency, colour profile dropped, .bmp has none" in capsys.readouterr().err


def test_sixteen_bits_are_said_to_be_rounded(tmp_path: Path, capsys) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (24, 32, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", deep, photometric="rgb")
    assert main(["upscale", str(tmp_path / "in.tif"), str(tmp_path / "out.png"), *SMALL]) == 0
    error = capsys.readouterr().err
    assert error == f"sqlib: warning: {tmp_path / 'in.tif'}: 16 bits a sample rounded to 8\n"


@pytest.mark.parametrize("device", ["meta", "cuda:99", "hip", "warp", "mkldnn", "cpu:x"])
def test_devices_that_cannot_be_used(picture: Path, fails, never, device: str) -> None:
    args = ("upscale", picture, picture.with_name("out.png"), "--scale", 4, "--device", device)
    error = fails(2, *args)
    assert f"device '{device}' cannot be used" in error and len(error) < 300


SMALL = ("--scale", "4", "--model", "edsr-small")


@pytest.fixture
def photo_file(photo: np.ndarray, tmp_path: Path) -> Path:
    write_image(tmp_path / "photo.png", photo)
    return tmp_path / "photo.png"


def test_several_images_go_to_a_folder(picture: Path, photo_file: Path, fails, capsys) -> None:
    write_image(photo_file.with_suffix(".bmp"), read_image(photo_file))
    bmp, folder = photo_file.with_suffix(".bmp"), picture.parent / "out"
    assert "is no folder" in fails(2, "upscale", picture, bmp, folder, *SMALL)
    folder.mkdir()
    twice = fails(2, "upscale", picture, bmp, photo_file, folder, *SMALL)
    assert "two of the images would be" in twice and "photo.png" in twice
    (folder / "in.png").write_bytes(b"")
    (folder / "photo.png").symlink_to("in.png")
    assert "two of the images would be" in fails(2, "upscale", picture, bmp, folder, *SMALL, "--force")
    for file in folder.iterdir():
        file.unlink()
    assert "would overwrite the input" in fails(2, "upscale", picture, bmp, picture.parent, *SMALL)
    assert main(["upscale", str(picture), str(bmp), str(folder), *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(folder / n) for n in ("in.png", "photo.png")]
    network = models.pretrained("edsr-small", scale=4)
    for source in (picture, photo_file):
        expected = to_uint8(evaluate.super_resolve(network, read_image(source)))
        np.testing.assert_array_equal(read_image(folder / source.name), expected)
    before = contents(folder)
    assert "in.png' exists" in fails(2, "upscale", picture, bmp, folder, *SMALL)
    assert "in.png' exists" in fails(2, "upscale", picture, folder, *SMALL)
    assert contents(folder) == before
    (folder / "in.png").unlink()
    assert main(["upscale", str(picture), str(folder), *SMALL]) == 0  # one, as a pattern may find
    assert contents(folder) == before


def test_a_bad_image_is_found_before_any_is_enlarged(picture: Path, fails, never) -> None:
    bad, folder = picture.with_name("bad.png"), picture.parent / "out"
    folder.mkdir()
    bad.write_bytes(picture.read_bytes()[:100])
    assert "bad.png" in fails(1, "upscale", picture, bad, folder, *SMALL)
    assert contents(folder) == {}


def test_tiles_give_the_pixels_of_the_whole_image(photo_file: Path, capsys, monkeypatch) -> None:
    """20 pixels is how far edsr-small sees; float32 may round a gray level the other way."""
    whole = to_uint8(
        evaluate.super_resolve(models.pretrained("edsr-small", scale=4), read_image(photo_file))
    ).astype(int)
    out = photo_file.with_name("out.png")
    args = ["upscale", str(photo_file), str(out), *SMALL, "--force"]
    assert main([*args, "--tile", "60"]) == 0
    assert "480 x 384 from 120 x 96 by edsr-small, tiles of 60 sharing 40" in capsys.readouterr().out
    difference = np.abs(read_image(out) - whole)
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-4
    monkeypatch.setattr(_tiles, "WHOLE", 96 * 120 - 1)
    monkeypatch.setattr(_tiles, "_SIDE", 60)
    assert main(args) == 0
    assert "sharing 40" in capsys.readouterr().out
    difference = np.abs(read_image(out) - whole)
    assert difference.max() <= 1 and np.mean(difference > 0) < 1e-4
    monkeypatch.setattr(_tiles, "WHOLE", 96 * 120)
    assert main(args) == 0
    assert "tiles of" not in capsys.readouterr().out
    assert main([*args, "--tile", "60", "--overlap", "0"]) == 0
    assert np.abs(read_image(out) - whole).max() > 1  # seams
    assert "tiles of 60 sharing 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overlap", 4), "--overlap needs --tile"),
        (("--tile", 8, "--overlap", 8), "overlap=8 of patches of 8 pixels: expected less"),
        (("--tile", 0), "'0' is not an integer of 1 or more"),
        (("--tile", 8, "--overlap", -1), "--overlap"),
    ],
)
def test_bad_tiles(picture: Path, fails, never, options, words: str) -> None:
    assert words in fails(2, "upscale", picture, picture.with_name("out.png"), *SMALL, *options)


def test_tiles_that_cannot_give_the_pixels_of_the_whole_image(picture: Path, fails) -> None:
    args = ("upscale", picture, picture.with_name("out.png"))
    assert "--tile 40 is not larger than the overlap of 40" in fails(2, *args, *SMALL, "--tile", 40)
    windows = fails(2, *args, "--scale", 4, "--model", "swinir-small", "--tile", 40)
    assert "the network has windows, pooling" in windows and "say with --overlap" in windows
    measured = fails(2, *args, *SMALL, "--tile", 50, "--recipe", "cadyq", "--recipe-option", "steps=0")
    assert "CADyQ looks at every image anew" in measured
    assert sorted(contents(picture.parent)) == ["in.png"]


def test_a_large_image_that_cannot_be_cut_is_announced(picture: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(_tiles, "WHOLE", 10)
    args = ["upscale", str(picture), str(picture.with_name("out.png")), "--scale", "4"]
    assert main([*args, "--model", "swinir-small"]) == 0
    error = capsys.readouterr().err
    assert "enlarged in one piece, which may need much memory; --tile and --overlap" in error


def test_which_quantized_networks_can_be_cut(photo: np.ndarray) -> None:
    import torch

    torch.manual_seed(0)
    network = EDSR("tiny", 2, blocks=1, features=8).eval()
    x = [torch.from_numpy(photo[:32, :32]).permute(2, 0, 1)[None] / 255]
    radius = models.receptive_radius(network)
    assert radius == 1 + 2 + 1 + 1 + 1  # head, block, end of body, upsampler, tail
    overlaps = {
        name: _tiles.seamless_overlap(quantize_model(network, recipes.create(name, bits=4, **options), x))
        for name, options in (
            ("minmax", {}),
            ("mse", {}),
            ("dfsq", {}),
        )
    }
    assert overlaps == {"minmax": 2 * radius, "mse": 2 * radius, "dfsq": 2 * radius}


@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (512, 513), (4000, 70)])
@pytest.mark.parametrize("overlap", [2, 72, 340])
def test_the_automatic_cut(height: int, width: int, overlap: int) -> None:
    tiling = _tiles.automatic(height, width, overlap)
    assert tiling.overlap == overlap
    boxes = Grid(height, width, tiling.patch, overlap).boxes
    areas = [box.height * box.width for box in boxes]
    assert sum(areas) < (2 if overlap < 100 else 5) * height * width
    if overlap < 100:
        assert max(areas) <= 96_000
