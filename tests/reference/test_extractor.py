"""The extractor: Table 1, its cost, its training and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sqlib.errors import DataError, InputError
from sqlib.reference.extractor import SMALLEST, FeatureExtractor, card, extractor, features
from sqlib.reference.textures import Crops, load_textures
from sqlib.reference.training import quantized_extractor, train_extractor


def test_table_1() -> None:
    network = FeatureExtractor(np.uint8(47))  # type: ignore[arg-type]
    convolutions = [network.conv1, network.conv2, network.conv3]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions] == [
        (3, 64, (3, 3), (3, 3), (0, 0)),
        (64, 64, (3, 3), (1, 1), (0, 0)),
        (64, 32, (3, 3), (1, 1), (0, 0)),
    ]
    assert (network.head.in_features, network.head.out_features) == (32, 47)
    assert network(torch.rand(2, 3, 72, 96)).shape == (2, 47)


def test_smallest_patch() -> None:
    network = FeatureExtractor(5)
    assert network(torch.rand(1, 3, SMALLEST, SMALLEST)).isfinite().all()
    for shape in [(1, 3, SMALLEST - 1, 72), (1, 1, 72, 72), (3, 72, 72)]:
        with pytest.raises(InputError, match="expected"):
            network(torch.rand(shape))
    with pytest.raises(InputError, match="floating point"):
        network(torch.zeros(1, 3, 72, 72, dtype=torch.uint8))


def test_features_of_small_patches_are_those_with_repeated_borders() -> None:
    extract = extractor()
    small = torch.rand(1, 3, 13, 40, dtype=torch.float64)
    rows = torch.tensor([0, *range(13), 12])
    found = features(extract, [small, small[:, :, rows]])
    assert found.dtype == torch.float32
    assert torch.equal(found[0], found[1])


def test_many_patches_go_in_batches_of_a_stated_size(monkeypatch) -> None:
    sizes, extract = [], extractor("textures")
    extract.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    patches = [torch.rand(3, 15 + (i % 2), 16) for i in range(11)]
    whole = features(extract, patches)
    monkeypatch.setattr("sqlib.reference.extractor.AT_ONCE", 2)
    assert torch.allclose(features(extract, patches), whole, atol=1e-5)
    assert sizes == [6, 5, 2, 2, 2, 2, 2, 1]


def test_features_of_patches_in_several_dtypes_are_those_of_one() -> None:
    coarse = [torch.rand(3, 24, 24).bfloat16() for _ in range(3)]
    mixed = [coarse[0].double(), coarse[1], coarse[2].float().requires_grad_()]
    extract = FeatureExtractor(5).double()
    found = features(extract, mixed)
    assert torch.equal(found, features(extract, [p.float() for p in coarse])) and not found.requires_grad


@pytest.mark.parametrize("x", [None, np.zeros((1, 3, 24, 24), np.float32), [torch.rand(3, 24, 24)]])
def test_what_is_no_tensor(x: object) -> None:
    with pytest.raises(InputError, match="expected a tensor"):
        FeatureExtractor(5)(x)


@pytest.mark.parametrize("weights", [None, 5, ["textures"]])
def test_weights_that_are_no_path(weights: object) -> None:
    with pytest.raises(InputError, match="extractor="):
        extractor(weights)  # type: ignore[arg-type]


def test_constant_patches_have_finite_features() -> None:
    x = torch.stack([torch.full((3, 72, 72), v) for v in (0.0, 0.5, 1.0)])
    assert extractor()(x).isfinite().all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes that colour alone tells apart."""
    rng = np.random.default_rng(0)
    for name, colour in (("bluish", (40, 60, 200)), ("reddish", (200, 60, 40))):
        (tmp_path / "textures" / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.clip(rng.normal(colour, 30, (100, 110, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "textures" / name / f"{number}.png")
    return tmp_path / "textures"


def test_training_quantizing_and_files(folder: Path, tmp_path: Path) -> None:
    trained, card = train_extractor(folder, steps=np.int64(12), seed=np.int64(1))  # type: ignore[arg-type]
    json.dumps(card)
    assert card["classes"] == ["bluish", "reddish"]
    assert (card["images"], card["held_out"]) == (8, 2)
    assert card["accuracy"]["float"] == 1
    assert card["accuracy"]["bits8"] == 1
    report = trained.report()
    assert len(report) == 4
    assert set(report["weight_bits"]) == set(report["activation_bits"]) == {8}
    trained.save(tmp_path / "own.safetensors")
    x = torch.rand(3, 3, 72, 72)
    assert torch.equal(extractor(tmp_path / "own.safetensors", classes=2)(x), trained(x))
    with pytest.raises(InputError, match="tells 2 classes of texture apart, not 47"):
        extractor(tmp_path / "own.safetensors", classes=47)


def test_bounds_are_the_extremes_of_calibration() -> None:
    torch.manual_seed(0)
    network, x = FeatureExtractor(3).eval(), torch.rand(4, 3, 24, 24)
    quantized = quantized_extractor(network, [x[:2], x[2:]])
    seen = {"conv1": 4 * x - 2}
    for name, before in (("conv2", "conv1"), ("conv3", "conv2")):
        seen[name] = torch.relu(network.get_submodule(before)(seen[before]))
    for name, values in seen.items():
        bounds = quantized.activations[f"{name}:input"]
        assert bounds.upper == pytest.approx(float(values.max().detach()), rel=0.02)
        assert bounds.lower == pytest.approx(min(0.0, float(values.min().detach())), abs=0.02)
        weight = quantized.weight_quantizer(f"{name}.weight|0")
        assert weight.upper - weight.lower >= 0.99 * np.ptp(network.state_dict()[f"{name}.weight"].numpy())


@pytest.mark.parametrize("module", [torch.nn.Identity(), torch.nn.Flatten(0)])
def test_an_extractor_without_a_row_of_scores_for_each_patch(module: torch.nn.Module) -> None:
    patches = [torch.rand(3, 24, 24), torch.rand(3, 24, 30)]
    with pytest.raises(InputError, match=r"extractor gives \(.*\) for patches .*expected \(N, classes\)"):
        features(module, patches)


def test_the_seed_decides(folder: Path) -> None:
    x = torch.rand(2, 3, 72, 72)
    one, again, other = (train_extractor(folder, steps=2, seed=seed)[0](x) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        extractor(tmp_path / "absent.safetensors")


def test_another_quantized_network(tmp_path: Path) -> None:
    import sqlib

    other = sqlib.quantize_model(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)),
        sqlib.recipes.MinMax(bits=8),
        [torch.rand(1, 3, 9, 9)],
        skip=[],
    )
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no extractor"):
        extractor(tmp_path / "other.safetensors")


def test_the_shipped_one_is_what_its_card_says(data_dir: Path) -> None:
    known = card()
    textures = load_textures(data_dir / "textures" / "DTD")
    assert known["classes"] == list(textures.classes)
    x, label = Crops(textures.split()[1]).fixed(72)
    right = (extractor(classes=10)(x).argmax(1) == label).double().mean()
    assert len(x) == 4 * known["held_out"]
    assert float(right) == pytest.approx(known["accuracy"]["bits8"], abs=0.005)
    assert known["accuracy"]["bits8"] > 0.4  # chance: 0.1
