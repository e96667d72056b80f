"""``sqlib quantize``, and ``--quantized`` of the commands that take its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from sqlib import datasets, load_quantized, models, quantize_model, recipes
from sqlib.cli import main
from sqlib.images import read_image
from sqlib.models._checkpoints import QUANTIZED

COMMAND = ("quantize", "edsr-small", "--scale", "4", "--recipe", "MinMax", "--bits", "4")
NETWORK = ("--scale", "4", "--model", "edsr-small")
EVALUATE = ("evaluate", "edsr-small", "--scale", "4", "--dataset", "builtin", "--first", "1", "--json")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "q.safetensors"
    assert main([*COMMAND, str(path)]) == 0
    return path


def test_the_file_is_what_save_writes(saved: Path, tmp_path: Path) -> None:
    crops = datasets.calibration("builtin", n=32, patch=48, scale=4, seed=0)
    network = models.pretrained("edsr-small", scale=4)
    quantize_model(network, recipes.MinMax(bits=4), crops).save(tmp_path / "q.safetensors")
    assert saved.read_bytes() == (tmp_path / "q.safetensors").read_bytes()


def test_the_summary(tmp_path: Path, capsys) -> None:
    path = tmp_path / "q.safetensors"
    options = ("--skip", "blocks.0.*", "--skip", "blocks.1.*", "--recipe-option", "per_channel=false")
    assert main([*COMMAND, str(path), *options[:4], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = load_quantized(path, models.create("edsr-small", scale=4))
    assert found == {
        "output": str(path),
        "model": "edsr-small",
        "scale": 4,
        "recipe": "minmax",
        "bits": 4,
        "licence": None,
        "recipe_options": {},
        "sites": 21,
        "quantized_sites": 17,
        "bytes": path.stat().st_size,
    }
    assert [name for name, site in model.sites.items() if not site.active] == [
        f"blocks.{block}.conv{conv}" for block in (0, 1) for conv in (1, 2)
    ]
    assert main([*COMMAND, str(path), "--force"]) == 0
    size = path.stat().st_size
    assert capsys.readouterr().out == (
        f"{path}: edsr-small x4 minmax 4 bit, 16 of 21 call sites quantized, {size / 1e6:.2f} MB\n"
    )


def test_scores_are_those_of_the_network_that_was_saved(saved: Path, capsys) -> None:
    assert main([*EVALUATE, "--quantized", str(saved)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main([*EVALUATE, "--recipe", "minmax", "--bits", "4"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert found["quantized"] == str(saved) and expected["quantized"] is None
    for name in ("recipe", "bits", "psnr", "ssim", "images", "protocol"):
        assert found[name] == expected[name] is not None


def test_pixels_are_those_of_the_network_that_was_saved(saved: Path, picture: Path) -> None:
    paths = [picture.with_name(name) for name in ("file.png", "anew.png")]
    assert main(["upscale", str(picture), str(paths[0]), *NETWORK, "--quantized", str(saved)]) == 0
    options = ("--recipe", "minmax", "--bits", "4")
    assert main(["upscale", str(picture), str(paths[1]), *NETWORK, *options]) == 0
    np.testing.assert_array_equal(*map(read_image, paths))


def test_nothing_is_overwritten_unasked(saved: Path, fails, monkeypatch) -> None:
    monkeypatch.setattr(models, "pretrained", None)  # what is wrong is found before
    monkeypatch.setattr(models, "load", None)
    before = saved.read_bytes()
    assert "--force" in fails(2, *COMMAND, saved)
    assert "would overwrite the input" in fails(2, *COMMAND, saved, "--weights", saved, "--force")
    assert "end it in .safetensors" in fails(2, *COMMAND, saved.with_name("q.pth"))
    assert "does not exist" in fails(2, *COMMAND, saved.parent / "gone" / "q.safetensors")
    assert "--recipe" in fails(2, "quantize", "edsr-small", "--scale", 4, saved.with_name("r.safetensors"))
    assert [path.name for path in saved.parent.iterdir()] == ["q.safetensors"]
    assert saved.read_bytes() == before


def damaged(saved: Path, folder: Path, how: str) -> Path:
    """A file that is no quantized edsr-small x4 of today."""
    path = folder / "bad.safetensors"
    if how == "truncated":
        path.write_bytes(saved.read_bytes()[:-1000])
    elif how == "checkpoint":
        save_file(models.create("edsr-small", scale=4).state_dict(), path)
    else:
        with safe_open(saved, framework="pt") as file:
            manifest = json.loads(file.metadata()[QUANTIZED])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(tensors, path, {QUANTIZED: json.dumps({**manifest, "format": 99})})
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "damaged or cut off"),
        ("checkpoint", "ordinary checkpoint"),
        ("newer", "has format 99, this version of sqlib reads formats up to 1"),
    ],
)
def test_files_that_are_no_quantized_network(saved: Path, picture: Path, fails, how: str, words: str) -> None:
    path = damaged(saved, picture.parent, how)
    assert words in fails(1, "upscale", picture, picture.with_name("out.png"), *NETWORK, "--quantized", path)
    assert words in fails(1, *EVALUATE, "--quantized", path)
    assert not picture.with_name("out.png").exists()


@pytest.mark.parametrize(("model", "scale"), [("edsr-small", 2), ("edsr-baseline", 4), ("carn-m", 4)])
def test_a_file_of_another_network(saved: Path, picture: Path, fails, model: str, scale: int) -> None:
    args = ("upscale", picture, picture.with_name("out.png"), "--quantized", saved)
    error = fails(1, *args, "--model", model, "--scale", scale)
    assert "in the file" in error and "in the network" in error and str(saved) in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*NETWORK, "--recipe", "minmax"), "--recipe with --quantized"),
        ((*NETWORK, "--weights", "w.pth"), "--weights with --quantized"),
        ((*NETWORK, "--bits", "4"), "--bits needs --recipe"),
        ((*NETWORK, "--skip", "tail"), "--skip needs --recipe"),
        ((*NETWORK, "--calibration", "set5"), "--calibration needs --recipe"),
        ((*NETWORK, "--seed", "0"), "--seed needs --recipe"),
        ((*NETWORK, "--pairs", "t91"), "--pairs needs --recipe"),
        ((*NETWORK, "--allow-unverified"), "--allow-unverified with --quantized: nothing is downloaded"),
        (("--scale", "4"), "--quantized needs --model"),
    ],
)
def test_options_that_the_file_answers(saved: Path, picture: Path, fails, options, words: str) -> None:
    args = ("upscale", picture, picture.with_name("out.png"), "--quantized", saved)
    assert words in fails(2, *args, *options)


def test_the_file_is_an_input(saved: Path, picture: Path, fails) -> None:
    args = ("upscale", picture, picture.with_name("q.png"), *NETWORK, "--force", "--quantized")
    picture.with_name("q.png").write_bytes(b"a file")
    assert "would overwrite the input" in fails(2, *args, picture.with_name("q.png"))
    assert "does not exist" in fails(1, *args, picture.with_name("gone.safetensors"))
