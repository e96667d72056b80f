"""Scoring networks: exact on a known answer, clear about bad input, and right on a published checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

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


CARN_M = {2: (37.678, 33.303), 3: (34.058, 30.102), 4: (31.883, 28.417)}


@pytest.mark.parametrize("scale", CARN_M)
@pytest.mark.parametrize("name", ["set5", "set14"])
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
