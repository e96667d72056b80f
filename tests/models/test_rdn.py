"""RDN: exact size of configuration B, dense connections, what is quantized."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import torch
from torch import Tensor, nn

import sqlib
from sqlib import models
from sqlib.models._state_dict import load_strict
from sqlib.models.rdn import RDN, official
from sqlib.recipes import BRECQ, DFSQ, CompensatedDFSQ, MinMax, QDrop


def small(scale: int = 2) -> RDN:
    """The same class with 2 blocks of 3 layers; growth and features differ, so that mixing them up fails."""
    torch.manual_seed(0)
    return RDN("rdn", scale, blocks=2, layers=3, growth=6, features=8).eval()


@pytest.mark.parametrize(("scale", "count"), [(2, 22_123_395), (3, 22_308_035), (4, 22_271_107)])
def test_parameter_counts_of_configuration_b(scale: int, count: int) -> None:
    with torch.device("meta"):
        model = models.create("rdn", scale=scale)
    assert models.count_parameters(model) == count


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_output_is_scale_times_larger(scale: int, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        out = small(scale)(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, size[0] * scale, size[1] * scale)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("scale", [3, 4])
def test_network_is_its_definition(scale: int) -> None:
    """The forward pass, written again with functions and the raw tensors; input 0..255, no mean."""
    model = small(scale)
    p = model.state_dict()

    def conv(x: Tensor, at: str) -> Tensor:
        weight = p[f"{at}.weight"]
        return torch.conv2d(x, weight, p[f"{at}.bias"], padding=weight.shape[-1] // 2)

    x = torch.rand(1, 3, 5, 6)
    first = conv(255 * x, "shallow1")
    deep = conv(first, "shallow2")
    outputs = []
    for i in range(2):
        maps = [deep]
        for j in range(3):
            maps.append(conv(torch.cat(maps, 1), f"blocks.{i}.convs.{j}").clamp(min=0))
        deep = deep + conv(torch.cat(maps, 1), f"blocks.{i}.fusion")
        outputs.append(deep)
    out = conv(conv(torch.cat(outputs, 1), "fusion1"), "fusion2") + first
    for i, step in {3: [(0, 3)], 4: [(0, 2), (2, 2)]}[scale]:
        out = torch.pixel_shuffle(conv(out, f"upsampler.{i}"), step)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), conv(out, "tail") / 255)


def official_state(model: nn.Module, scale: int) -> dict[str, Tensor]:
    """Our small RDN under the names of EDSR-PyTorch."""
    own = model.state_dict()
    state = {f"{name}_mean.{kind}": torch.zeros(3) for name in ("sub", "add") for kind in ("weight", "bias")}
    names = {"SFENet1": "shallow1", "SFENet2": "shallow2", "GFF.0": "fusion1", "GFF.1": "fusion2"}
    for i in range(2):
        for j in range(3):
            names[f"RDBs.{i}.convs.{j}.conv.0"] = f"blocks.{i}.convs.{j}"
        names[f"RDBs.{i}.LFF"] = f"blocks.{i}.fusion"
    if scale == 4:
        names |= {"UPNet.0": "upsampler.0", "UPNet.2": "upsampler.2", "UPNet.4": "tail"}
    else:
        names |= {"UPNet.0": "upsampler.0", "UPNet.2": "tail"}
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = own[f"{ours}.{kind}"]
    return state


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_official_layout_loads_and_computes_the_same(scale: int) -> None:
    model = small(scale)
    torch.manual_seed(1)
    loaded = RDN("rdn", scale, blocks=2, layers=3, growth=6, features=8).eval()
    state = official_state(model, scale)
    loaded.load_state_dict(official(state, loaded).translate(state), strict=True)
    x = torch.rand(1, 3, 6, 5)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model(x))


def test_default_skip_leaves_the_ends_of_configuration_b() -> None:
    with torch.device("meta"):
        model = models.create("rdn", scale=4)
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    skipped = {n for n in convolutions if any(fnmatch(n, p) for p in model.default_skip)}
    assert skipped == {"shallow1", "shallow2", "upsampler.0", "upsampler.2", "tail"}
    kept = convolutions.keys() - skipped
    dense = [n for n in kept if ".convs." in n]
    fusions = [n for n in kept if n.startswith("blocks") and n.endswith(".fusion")]
    assert (len(dense), len(fusions), len(kept)) == (128, 16, 146)
    assert {convolutions[n].kernel_size for n in dense} == {(3, 3)}
    assert {convolutions[n].kernel_size for n in fusions} == {(1, 1)}


def test_blocks_and_global_fusions_are_quantized() -> None:
    model = small()
    quantized = sqlib.quantize_model(model, MinMax(bits=8), [torch.rand(1, 3, 8, 8)])
    report = quantized.report().set_index("site")
    expected = {f"blocks.{i}.convs.{j}" for i in range(2) for j in range(3)}
    expected |= {"blocks.0.fusion", "blocks.1.fusion", "fusion1", "fusion2"}
    assert set(report.index[report.quantized]) == expected
    assert set(report.index[~report.quantized]) == {"shallow1", "shallow2", "upsampler.0", "tail"}
    # A dense layer sees everything before it at once, so its range only grows along the block.
    uppers = report.loc[[f"blocks.0.convs.{j}" for j in range(3)], "upper"]
    assert uppers.is_monotonic_increasing
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert 0 < float((quantized(x) - model(x)).abs().max()) < 1


_FEW = {"schedule": "laptop", "iterations": 5, "batch": 2}


@pytest.mark.parametrize(
    "recipe",
    [
        DFSQ(bits=4),
        DFSQ.variant("paper", 4),
        CompensatedDFSQ(bits=4),
        BRECQ(bits=4, activation_iterations=5, **_FEW),
        QDrop(bits=4, **_FEW),
    ],
    ids=lambda recipe: type(recipe).__name__,
)
def test_the_recipes_of_dfsq_s_tables(recipe) -> None:
    model, x = small(), torch.rand(2, 3, 12, 12)
    quantized = sqlib.quantize_model(model, recipe, [x])
    report = quantized.report().set_index("site")
    inside = report.index[report.index.str.startswith(("blocks", "fusion"))]
    assert len(inside) == 10 and (report.loc[inside, ["weight_bits", "activation_bits"]] == 4).all(axis=None)
    with torch.inference_mode():
        error, signal = (quantized(x) - model(x)).square().mean(), model(x).var()
    assert 0 < float(error) < float(signal)


def test_gradients_reach_every_parameter() -> None:
    model = small(4).train()
    model(torch.rand(2, 3, 6, 6)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_channels_last_and_low_precision() -> None:
    model, x = small(), torch.rand(2, 3, 7, 6)
    with torch.inference_mode():
        expected = model(x)
        last = small().to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, expected)
        for dtype in (torch.bfloat16, torch.float16):
            out = small().to(dtype)(x.to(dtype))
            assert out.dtype == dtype
            torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05 * float(expected.std()))


TORCHSR = {"sfe1": "shallow1", "sfe2": "shallow2", "gff.0": "fusion1", "gff.1": "fusion2", "output": "tail"}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_published_file_computes_in_another_range(scale: int) -> None:
    """torchSR's names (torchsr/models/rdn.py): its network takes and gives 0..1, ours multiplies by 255."""
    names = dict(TORCHSR)
    for i in range(2):
        names |= {f"rdbs.{i}.layers.{j}.conv": f"blocks.{i}.convs.{j}" for j in range(3)}
        names[f"rdbs.{i}.lff"] = f"blocks.{i}.fusion"
    names |= {f"upscale.{i}": f"upsampler.{i}" for i in (0, 2)[: 2 if scale == 4 else 1]}
    within = small(scale)  # its tensors, read as those of a network in 0..1
    own = within.state_dict()
    theirs = {f"{t}.{kind}": own[f"{o}.{kind}"] for t, o in names.items() for kind in ("weight", "bias")}
    loaded = RDN("rdn", scale, blocks=2, layers=3, growth=6, features=8).eval()
    layout = official(theirs, loaded)
    load_strict(loaded, theirs, "file", layout=layout)
    x = torch.rand(1, 3, 5, 6)
    with torch.inference_mode():
        expected = 255 * within(x / 255)  # the same tensors on x itself, and without the division at the end
        torch.testing.assert_close(loaded(x), expected, rtol=1e-4, atol=1e-5)
    translated = layout.translate(theirs)
    assert all(torch.equal(translated[key], value) for key, value in loaded.state_dict().items())


def test_addresses_are_fetched_on_demand_only() -> None:
    for scale in (2, 3, 4):
        known = models.spec("rdn").file("rdn", scale)
        assert known is not None and known.url is not None and known.sha256 is None
        assert known.url.endswith(f"/rdn_x{scale}.pt")
