"""ELAN-light: exact size, shifts and windows against slow direct implementations, what is quantized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sqlib
from sqlib import models
from sqlib.errors import InputError
from sqlib.models.elan import ELAN, Block, GroupAttention, official, reflect_to_multiple, shift
from sqlib.recipes import MinMax

SHIFT_KERNEL = [(1, 2), (1, 0), (2, 1), (0, 1), (1, 1)]  # where each fifth of the channels has its one


def small(scale: int = 2) -> ELAN:
    torch.manual_seed(0)
    return with_statistics(ELAN("elan-light", scale, blocks=2, features=12, windows=(2, 4))).eval()


def with_statistics(model: ELAN) -> ELAN:
    """Give every batch normalization statistics and an affine map that are not the identity.

    Variances of the size that 0..255 images lead to: without them an unscaled softmax saturates.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 900, 3600)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize(("scale", "count"), [(2, 582_012), (3, 590_127), (4, 601_488)])
def test_parameter_counts(scale: int, count: int) -> None:
    with torch.device("meta"):
        model = models.create("elan-light", scale=scale)
    assert models.count_parameters(model) == count
    # The fixed kernels that the release adds to its count: nine per channel that is shifted.
    shifted = [m.conv.in_channels for m in model.modules() if type(m).__name__ == "ShiftConv"]
    assert 9 * sum(shifted) == 38_880


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 16), (17, 5)])
def test_any_input_size(scale: int, size: tuple[int, int]) -> None:
    """Also smaller than a window, where reflecting once does not reach."""
    torch.manual_seed(0)
    model = ELAN("elan-light", scale, blocks=2, features=12).eval()
    with torch.inference_mode():
        out = model(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, size[0] * scale, size[1] * scale)
    assert torch.isfinite(out).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 8, 16]))
def test_padding_reflects_as_often_as_needed(height: int, width: int, multiple: int) -> None:
    x = torch.arange(2.0 * height * width).view(1, 2, height, width)
    padded = reflect_to_multiple(x, multiple).numpy()
    expected = np.pad(
        x.numpy(), ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)), mode="reflect"
    )
    np.testing.assert_array_equal(padded, expected)


def test_a_graph_pads_images_of_any_size() -> None:
    class Padding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return reflect_to_multiple(x, 4)

    free = torch.export.Dim.DYNAMIC
    graph = torch.export.export(Padding(), (torch.rand(2, 1, 8, 12),), dynamic_shapes=({2: free, 3: free},))
    for size in ((8, 12), (7, 13), (3, 30)):
        x = torch.rand(2, 1, *size)
        assert torch.equal(graph.module()(x), reflect_to_multiple(x, 4))


def test_padding_is_cut_off_again() -> None:
    model, x = small(3), torch.rand(1, 3, 6, 7)
    with torch.inference_mode():
        whole = model(reflect_to_multiple(x, 4))
        torch.testing.assert_close(model(x), whole[:, :, : 3 * 6, : 3 * 7])


@pytest.mark.parametrize("channels", [5, 12, 60])
def test_shift_is_the_fixed_depthwise_convolution(channels: int) -> None:
    kernels = torch.zeros(channels, 1, 3, 3)
    for c in range(channels):
        kernels[c, 0, *SHIFT_KERNEL[min(c // (channels // 5), 4)]] = 1
    x = torch.randn(2, channels, 4, 5)
    assert torch.equal(shift(x), torch.conv2d(x, kernels, padding=1, groups=channels))


def test_shift_brings_in_zeros() -> None:
    x = torch.arange(1.0, 10).view(1, 1, 3, 3).expand(1, 5, 3, 3)
    right = [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    left = [[0, 1, 2], [0, 4, 5], [0, 7, 8]]
    below = [[4, 5, 6], [7, 8, 9], [0, 0, 0]]
    above = [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert shift(x)[0, :4].tolist() == [right, left, below, above]
    assert torch.equal(shift(x)[0, 4], x[0, 4])


def direct_attention(queries: Tensor, values: Tensor, window: int, offset: int) -> Tensor:
    """Pixel by pixel: softmax over the products with all pixels of the same (shifted, cyclic) window."""
    n, _, h, w = values.shape
    out = torch.empty_like(values)
    pixels = [(y, x) for y in range(h) for x in range(w)]
    home = {(y, x): ((y - offset) % h // window, (x - offset) % w // window) for y, x in pixels}
    for b in range(n):
        for y, x in pixels:
            mates = [p for p in pixels if home[p] == home[y, x]]
            assert len(mates) == window * window
            scores = torch.stack([queries[b, :, y, x] @ queries[b, :, v, u] for v, u in mates])
            share = (scores - scores.max()).exp()
            share = share / share.sum()
            out[b, :, y, x] = sum(s * values[b, :, v, u] for s, (v, u) in zip(share, mates, strict=True))
    return out


def project(layer: GroupAttention, x: Tensor) -> Tensor:
    """1x1 convolution and batch normalization with running statistics, by hand."""
    y = torch.einsum("oi,nihw->nohw", layer.project_in.weight[:, :, 0, 0], x)
    y = y + layer.project_in.bias.view(1, -1, 1, 1)
    norm = layer.norm
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
    shifted = y - norm.running_mean.view(1, -1, 1, 1)  # type: ignore[union-attr]
    return shifted * scale.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


@pytest.mark.parametrize("shifted", [False, True])
def test_block_against_a_direct_implementation(shifted: bool) -> None:
    """Windows, half-window shift, unscaled products, queries as keys, and maps shared by both halves."""
    torch.manual_seed(2)
    features, windows = 12, (2, 4)
    block = Block(features, 2, windows, shifted).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.05, 0.2)  # type: ignore[arg-type]
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    x = torch.randn(2, features, 4, 8, dtype=torch.float64)

    def attend(layer: GroupAttention, x: Tensor, queries: list[Tensor]) -> Tensor:
        """`queries` is filled by the first half and read by the second."""
        projected = project(layer, x)
        each = projected.shape[1] // len(windows)
        mixed = []
        for i, window in enumerate(windows):
            group = projected[:, i * each : (i + 1) * each]
            if layer.own:
                queries.append(group[:, : each // 2])
                group = group[:, each // 2 :]
            mixed.append(direct_attention(queries[i], group, window, window // 2 if shifted else 0))
        weight, bias = layer.project_out.weight, layer.project_out.bias
        return torch.conv2d(torch.cat(mixed, 1), weight, bias)

    with torch.no_grad():
        queries: list[Tensor] = []
        y = x + block.local1(x)
        y = y + attend(block.attention1, y, queries)
        y = y + block.local2(y)
        y = y + attend(block.attention2, y, queries)
        torch.testing.assert_close(block(x), y)


def test_local_features_are_their_definition() -> None:
    block = Block(10, 2, (2,), False).eval()
    local, x = block.local1, torch.randn(1, 10, 4, 4)
    wide = torch.conv2d(shift(x), local.conv1.conv.weight, local.conv1.conv.bias).clamp(min=0)
    assert wide.shape[1] == 20
    expected = torch.conv2d(shift(wide), local.conv2.conv.weight, local.conv2.conv.bias)
    torch.testing.assert_close(local(x), expected)


def test_every_second_block_is_shifted() -> None:
    with torch.device("meta"):
        model = models.create("elan-light", scale=2)
    assert len(model.body) == 12
    for i, block in enumerate(model.body):
        for layer in (block.attention1, block.attention2):
            assert [w.window for w in layer.windows] == [4, 8, 16]
            assert [w.offset for w in layer.windows] == ([2, 4, 8] if i % 2 else [0, 0, 0])
        assert (block.attention1.own, block.attention2.own) == (True, False)


def test_computes_in_0_to_255_with_the_mean_removed() -> None:
    model = small()
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(torch.ones(1, 3, 4, 4))
    expected = 255 * (1 - torch.tensor([0.4488, 0.4371, 0.4040]))
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


def test_network_joins_its_parts() -> None:
    """Head, blocks in turn, the long residual connection, and a tail that shuffles pixels once."""
    model, x = small(3), torch.rand(1, 3, 4, 8)
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    with torch.inference_mode():
        shallow = torch.conv2d(255 * x - mean, model.head.weight, model.head.bias, padding=1)
        deep = model.body[1](model.body[0](shallow))
        colours = torch.conv2d(deep + shallow, model.tail[0].weight, model.tail[0].bias, padding=1)
        expected = (torch.pixel_shuffle(colours, 3) + mean) / 255
        torch.testing.assert_close(model(x), expected)


def test_features_must_fit_the_windows() -> None:
    with pytest.raises(InputError, match="64 features for 3 windows; expected a multiple of 3"):
        ELAN("elan", 2, features=64)


def official_state(model: nn.Module) -> dict[str, Tensor]:
    """Our ELAN-light under the names of the ELAN release, its fixed tensors included."""
    own = model.state_dict()
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040])
    state = {f"{name}_mean.weight": torch.eye(3).view(3, 3, 1, 1) for name in ("sub", "add")}
    state |= {"sub_mean.bias": -mean, "add_mean.bias": mean}
    names = {"head": "head", "tail.0": "tail.0"}
    norms = {}
    for i in range(12):
        for half in (0, 1):
            for conv, channels in ((0, 60), (2, 120)):
                theirs = f"body.{i}.modules_lfe.{half}.lfe.{conv}"
                names[theirs] = f"body.{i}.local{half + 1}.conv{conv // 2 + 1}.conv"
                kernels = torch.zeros(channels, 1, 3, 3)
                for fifth, (row, column) in enumerate(SHIFT_KERNEL):
                    kernels[fifth * channels // 5 : (fifth + 1) * channels // 5, 0, row, column] = 1
                state[f"{theirs}.mask"] = kernels
            theirs, ours = f"body.{i}.modules_gmsa.{half}", f"body.{i}.attention{half + 1}"
            names |= {
                f"{theirs}.project_inp.0": f"{ours}.project_in",
                f"{theirs}.project_out": f"{ours}.project_out",
            }
            norms[f"{theirs}.project_inp.1"] = f"{ours}.norm"
    for theirs, ours in (names | norms).items():
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = own[f"{ours}.{kind}"]
    for theirs, ours in norms.items():
        for kind in ("running_mean", "running_var", "num_batches_tracked"):
            state[f"{theirs}.{kind}"] = own[f"{ours}.{kind}"]
    return state


def test_official_layout_loads_and_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.create("elan-light", scale=4)
    assert isinstance(model, ELAN)
    state = official_state(with_statistics(model))
    kernels = sum(v.numel() for k, v in state.items() if k.endswith(".mask"))
    assert kernels == 38_880
    torch.save(state, tmp_path / "elan.pt")
    loaded = models.load(tmp_path / "elan.pt", "elan-light", scale=4)
    x = torch.rand(1, 3, 9, 16)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model(x))
    translated = official(state, model).translate(state)
    assert translated.keys() == model.state_dict().keys()
    assert all(torch.equal(translated[key], value) for key, value in model.state_dict().items())


def test_the_names_of_the_release_are_those_of_a_real_file(weights_dir: Path) -> None:
    real = torch.load(weights_dir / "elan_light_x4.pth", map_location="cpu", weights_only=True)["params"]
    expected = official_state(models.create("elan-light", scale=4))
    assert {k: v.shape for k, v in real.items()} == {k: v.shape for k, v in expected.items()}
    constants = [k for k in real if k.endswith(".mask") or k.startswith(("sub_mean", "add_mean"))]
    assert len(constants) == 48 + 4
    for key in constants:
        torch.testing.assert_close(real[key], expected[key])
    model = models.load(weights_dir / "elan_light_x4.pth", "elan-light", scale=4)
    assert models.count_parameters(model) == 601_488
    assert torch.equal(
        model.state_dict()["body.11.local2.conv1.conv.weight"], real["body.11.modules_lfe.1.lfe.0.weight"]
    )


def test_other_shift_kernels_are_refused(tmp_path: Path) -> None:
    """Weights trained with shifts in other directions would load and silently compute something else."""
    state = official_state(models.create("elan-light", scale=4))
    name = "body.3.modules_lfe.1.lfe.0.mask"
    for other in (state[name].flip(3), state[name][:, :, :, :2], torch.ones(60), torch.tensor(1.0)):
        torch.save({**state, name: other}, tmp_path / "elan.pt")
        with pytest.raises(InputError, match=r"body\.3\.modules_lfe\.1\.lfe\.0\.mask does not shift"):
            models.load(tmp_path / "elan.pt", "elan-light", scale=4)


@pytest.mark.parametrize("change", [lambda m: m / 255, lambda m: m + 3, torch.neg])
def test_another_shift_of_colours_is_refused(tmp_path: Path, change: Callable[[Tensor], Tensor]) -> None:
    """Trained in 0..1, or with another mean: the weights would load and give wrong images."""
    state = official_state(models.create("elan-light", scale=4))
    state["sub_mean.bias"] = change(state["sub_mean.bias"])
    torch.save({"module." + key: value for key, value in state.items()}, tmp_path / "elan.pt")
    message = (
        r"elan\.pt: module\.sub_mean shifts colours by \[.*\], expected \[-114\.444, -111\.4605, -103\.02\]"
    )
    with pytest.raises(InputError, match=message):
        models.load(tmp_path / "elan.pt", "elan-light", scale=4)


def test_body_layers_and_attention_products_are_quantized() -> None:
    torch.manual_seed(0)
    model = with_statistics(ELAN("elan-light", 2, blocks=2)).eval()
    quantized = sqlib.quantize_model(model, MinMax(bits=8), [torch.rand(1, 3, 16, 16)])
    report = quantized.report().set_index("site")
    expected = set()
    for block in ("body.0", "body.1"):
        expected |= {f"{block}.local{k}.conv{j}.conv" for k in (1, 2) for j in (1, 2)}
        expected |= {f"{block}.attention{k}.{p}" for k in (1, 2) for p in ("project_in", "project_out")}
        # Own attention: q q^T, then map times v, for each of three windows; shared: map times v alone.
        expected |= {f"{block}.attention1.windows.{i}.matmul{n}" for i in range(3) for n in ("", "#1")}
        expected |= {f"{block}.attention2.windows.{i}.matmul" for i in range(3)}
    assert set(report.index[report.quantized]) == expected
    assert set(report.index[~report.quantized]) == {"head", "tail.0"}
    products = report[report.op == "matmul"]
    assert len(products) == 18 and products.weight.isna().all()
    for site, bounds in products.bounds.items():
        own = "attention1" in str(site) and not str(site).endswith("#1")
        if own:  # queries are their own keys
            assert bounds["left"] == bounds["right"], site
        else:  # a map of shares
            assert 0 <= bounds["left"][0] < bounds["left"][1] <= 1, site
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        difference = (quantized(x) - model(x)).abs()
    assert 0 < float(difference.max()) < 1


def test_gradients_reach_every_parameter() -> None:
    model = small(4).train()
    model(torch.rand(2, 3, 8, 8)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_channels_last_and_low_precision() -> None:
    model, x = small(), torch.rand(2, 3, 7, 8)
    with torch.inference_mode():
        expected = model(x)
        last = small().to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
        for dtype in (torch.bfloat16, torch.float16):
            out = small().to(dtype)(x.to(dtype))
            assert out.dtype == dtype
            torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1 * float(expected.std()))
