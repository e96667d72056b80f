"""Scoring networks: exact on a known answer, clear about bad input, and right on a published checkpoint."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sqlib import datasets, metrics
from sqlib.datasets import Dataset
from sqlib.errors import DataError, InputError
from sqlib.evaluate import evaluate, super_resolve
from sqlib.images import write_image


class Nearest(nn.Module):
    """Repeats pixels: an SR network whose output is known exactly."""

    def __init__(self, scale: int = 2, gain: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.gain = nn.Parameter(torch.tensor(gain))
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean.zero_()  # type: ignore[union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return self.gain * x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def small() -> Dataset:
    return datasets.load("builtin").subset(2).crop(64)


def test_super_resolve_is_in_gray_levels(photo: np.ndarray) -> None:
    out = super_resolve(Nearest(3), photo)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, photo.repeat(3, 0).repeat(3, 1), atol=1e-4)
    # neither clipped nor rounded: that is the protocol's business
    assert super_resolve(Nearest(3, gain=1.7), photo).max() > 256


def test_a_whole_set_with_other_pixels_is_named(tmp_path: Path, no_data: Path, photo: np.ndarray) -> None:
    (tmp_path / "Set5").mkdir()
    for number, name in enumerate(("baby", "bird", "butterfly", "head", "woman")):
        write_image(tmp_path / "Set5" / f"{name}.png", photo[number:])
    other = datasets.load("set5", data_dir=tmp_path)
    with pytest.warns(UserWarning, match="the pixels of set5 here are not those on record"):
        evaluate(Nearest(2), other, scale=2)


def test_scores_are_means_over_images() -> None:
    scores = evaluate(Nearest(2), small(), scale=2)
    expected = [(p.name, p.lr.repeat(2, 0).repeat(2, 1), p.hr) for p in small().pairs(2)]
    for image, (name, sr, hr) in zip(scores.images, expected):
        assert image["name"] == name
        assert image["psnr"] == pytest.approx(metrics.psnr(sr, hr, scale=2), abs=1e-6)
        assert image["ssim"] == pytest.approx(metrics.ssim(sr, hr, scale=2), abs=1e-6)
    assert scores.psnr == pytest.approx(np.mean([image["psnr"] for image in scores.images]))
    assert scores.ssim == pytest.approx(np.mean([image["ssim"] for image in scores.images]))
    assert (scores.n, scores.dataset, scores.scale) == (2, "builtin[2]@64", 2)
    assert scores.protocol == metrics.DEFAULT
    assert scores.seconds > 0
    record = json.loads(json.dumps(scores.to_dict()))
    assert record["protocol"] == metrics.DEFAULT.id


def test_protocol_by_name_or_object() -> None:
    by_name = evaluate(Nearest(2), small(), scale=2, protocol="edsr-div2k")
    by_object = evaluate(Nearest(2), small(), scale=2, protocol=metrics.PROTOCOLS["edsr-div2k"])
    assert by_name.psnr == by_object.psnr
    assert by_name.psnr != evaluate(Nearest(2), small(), scale=2).psnr


def test_modes_are_put_back() -> None:
    model = nn.Sequential(Nearest(2), nn.Dropout())
    model.train()
    model[0].norm.eval()  # type: ignore[union-attr]
    with pytest.raises(InputError, match="unknown protocol"):
        evaluate(model, small(), scale=2, protocol="none")
    evaluate(model, small(), scale=2)
    assert model.training
    assert model[0].training
    assert model[1].training
    assert not model[0].norm.training  # type: ignore[union-attr]


def test_modes_are_put_back_after_an_error() -> None:
    model = Nearest(2, gain=float("nan")).train()
    with pytest.raises(InputError):
        evaluate(model, small(), scale=2)
    assert model.training


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(Nearest(2), small(), scale=2, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/2" in captured.err


def test_wrong_scale() -> None:
    with pytest.raises(InputError, match="network upscales by 2, evaluation was asked at x4"):
        evaluate(Nearest(2), small(), scale=4)
    for scale in ("2", True, 2.0):
        with pytest.raises(InputError, match=f"scale={scale!r}: expected an integer"):
            evaluate(Nearest(2), small(), scale=scale)  # type: ignore[arg-type]
    nameless = nn.Upsample(scale_factor=2)  # tells no scale
    with pytest.raises(InputError, match=r"astronaut: the network made 32 x 32 of 16 x 16 pixels.* at x4"):
        evaluate(nameless, small(), scale=4)


@pytest.mark.parametrize("dataset", ["builtin", Path("images"), [1, 2], Nearest(2), None])
def test_what_is_no_set_of_images(dataset: Any) -> None:
    with pytest.raises(InputError, match=r"dataset is .*, expected a set of images such as sqlib\.datasets"):
        evaluate(Nearest(2), dataset, scale=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights(value: float) -> None:
    with pytest.raises(InputError, match=r"astronaut: the network returned .* NaN or infinite.*weights"):
        evaluate(Nearest(2, gain=value), small(), scale=2)
    with pytest.raises(InputError, match="NaN or infinite"):
        super_resolve(Nearest(2, gain=value), np.full((4, 4, 3), 9, np.uint8))


def test_images_smaller_than_crop_or_window_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "dot.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"dot: .*4 x 4 pixels is smaller than the crop of 2"):
        evaluate(Nearest(2), datasets.from_folder(tmp_path), scale=2)
    write_image(tmp_path / "dot.png", np.zeros((12, 40, 3), np.uint8))
    with pytest.raises(InputError, match="dot: SSIM needs at least 11 x 11"):
        evaluate(Nearest(2), datasets.from_folder(tmp_path), scale=2)


def test_one_pixel_can_be_upscaled() -> None:
    assert super_resolve(Nearest(2), np.full((1, 1, 3), 7, np.uint8)).shape == (2, 2, 3)


@pytest.mark.parametrize("says", [1, 3])
def test_a_set_that_gives_other_than_it_says(says: int) -> None:
    class Other(Dataset):
        def __len__(self) -> int:
            return says

        def pairs(self, scale: int) -> Any:
            return iter([small().pair(0, scale), small().pair(1, scale)])

    other = Other(**{f.name: getattr(small(), f.name) for f in fields(Dataset)})
    with pytest.raises(InputError, match=rf"is of {says} images, and its pairs\(\) gave 2"):
        evaluate(Nearest(), other, scale=2)


def test_empty_set() -> None:
    with pytest.raises(InputError, match="has no images"):
        evaluate(Nearest(2), Dataset("none", (), 0), scale=2)


def test_low_resolution_set(tmp_path: Path, no_data: Path) -> None:
    (tmp_path / "DIV2K_LRx4").mkdir()
    write_image(tmp_path / "DIV2K_LRx4" / "0901.png", np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(DataError, match="no high-resolution images"):
        evaluate(Nearest(4), datasets.load("div2k-lrx4", data_dir=tmp_path), scale=4)


@pytest.mark.parametrize("device", ["tpu9", "cuda:99"])
def test_unusable_device(device: str) -> None:
    with pytest.raises(InputError, match=f"device '{device}' cannot be used"):
        super_resolve(Nearest(2), np.zeros((4, 4, 3), np.uint8), device=device)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x[:, :1], r"returned \(1, 1, 5, 6\)"),
        (lambda x: (x, x), "returned tuple"),
        (lambda x: x, r"returned \(5, 6\) pixels for \(5, 6\); expected x2"),
    ],
)
def test_outputs_that_are_not_the_image(forward: object, message: str) -> None:
    class Odd(nn.Module):
        scale = 2

        def forward(self, x: torch.Tensor) -> object:
            assert callable(forward)
            return forward(x)

    with pytest.raises(InputError, match=message):
        super_resolve(Odd(), np.zeros((5, 6, 3), np.uint8))


def test_input_that_is_not_an_image() -> None:
    with pytest.raises(InputError, match=r"uint8 array \(H, W, 3\)"):
        super_resolve(Nearest(2), np.zeros((5, 6), np.uint8))


class Shuffled(nn.Module):
    """A small network of convolutions, so that number types matter."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return repeated + 0.05 * self.shuffle(self.last(torch.relu(self.first(x))))


@pytest.mark.parametrize(
    ("dtype", "levels"), [(torch.float16, 0.2), (torch.bfloat16, 1.6), (torch.float64, 1e-4)]
)
def test_networks_in_other_precisions(photo: np.ndarray, dtype: torch.dtype, levels: float) -> None:
    """They are fed in their own precision and score as float32 does, up to what that precision rounds."""
    model = Shuffled()
    expected, score = super_resolve(model, photo), evaluate(model, small(), scale=2)
    out = super_resolve(model.to(dtype), photo)
    assert out.dtype == np.float32
    assert 0 < np.abs(out - expected).max() < levels
    assert evaluate(model, small(), scale=2).psnr == pytest.approx(score.psnr, abs=0.02)
    assert next(model.parameters()).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_quantized_networks_in_half_precision(photo: np.ndarray, dtype: torch.dtype) -> None:
    from sqlib import quantize_model, recipes

    x = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    model = quantize_model(Shuffled().to(dtype), recipes.MinMax(bits=8), [x.to(dtype)], skip=[])
    single = quantize_model(Shuffled(), recipes.MinMax(bits=8), [x], skip=[])
    assert np.abs(super_resolve(model, photo) - super_resolve(single, photo)).max() < 3
    assert evaluate(model, small(), scale=2).psnr == pytest.approx(
        evaluate(single, small(), scale=2).psnr, abs=0.1
    )


@pytest.mark.parametrize("device", ["meta", "mps:7", "hip", "xla", "mkldnn", "hpu", "", "CPU", None, 2.5])
def test_devices_that_compute_nothing_here(device: object) -> None:
    with pytest.raises(InputError, match="cannot be used") as refused:
        super_resolve(Nearest(2), np.zeros((4, 4, 3), np.uint8), device=device)  # type: ignore[arg-type]
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)


def test_network_without_values() -> None:
    with pytest.raises(InputError, match="on the device 'meta', without values"):
        super_resolve(Nearest(2).to("meta"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        super_resolve(lambda x: x, np.zeros((4, 4, 3), np.uint8))  # type: ignore[arg-type]


def test_a_network_in_gray_levels_is_named(photo: np.ndarray) -> None:
    with pytest.warns(UserWarning, match=r"values up to \d+ where white is 1\.0.*0\.\.255") as seen:
        super_resolve(Nearest(2, gain=255.0), photo)
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="white is 1.0"):
        evaluate(Nearest(2, gain=255.0), small(), scale=2)


def test_pairs_that_are_not_in_gray_levels(photo: np.ndarray) -> None:
    class Unit:
        name = "unit"

        def __len__(self) -> int:
            return 1

        def pairs(self, scale: int):
            yield datasets.Pair("a", photo[::2, ::2] / 255, photo / 255)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"unit, a: the low-resolution image: expected .*uint8.*to_uint8"):
        evaluate(Nearest(2), Unit(), scale=2)


def test_integer_outputs_are_refused() -> None:
    class Levels(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 255).to(torch.uint8)

    with pytest.raises(InputError, match=r"returned torch\.uint8; expected floating point"):
        super_resolve(Levels(), np.zeros((4, 4, 3), np.uint8))


CARN_M = {2: (37.678, 33.303), 3: (34.058, 30.102), 4: (31.883, 28.417)}


@pytest.mark.parametrize(("name", "scale"), [("set5", 2), ("set5", 3), ("set5", 4), ("set14", 4)])
def test_carn_m_scores(data_dir: Path, weights_dir: Path, name: str, scale: int) -> None:
    """Loader, resize, network and metric together: the published checkpoint to 0.002 dB."""
    from sqlib import models

    path = weights_dir / "carn_m.pth"
    if not path.is_file():
        pytest.skip(f"no carn_m.pth in {weights_dir}")
    try:
        dataset = datasets.load(name, data_dir=data_dir)
    except DataError as error:
        pytest.skip(str(error))
    scores = evaluate(models.load(path, "carn-m", scale=scale), dataset, scale=scale)
    assert scores.psnr == pytest.approx(CARN_M[scale][name == "set14"], abs=0.002)
    assert scores.n == {"set5": 5, "set14": 14}[name]
