"""SwinIR: exact sizes, windows against a direct implementation, masks, padding, the official layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sqlib
from sqlib import models
from sqlib.errors import InputError
from sqlib.models import swinir
from sqlib.models.swinir import SwinIR, SwinLayer, merge, partition, shift_mask
from sqlib.recipes import MinMax


@pytest.mark.parametrize(("scale", "count"), [(2, 910_152), (3, 918_267), (4, 929_628)])
def test_parameter_counts_are_the_published_ones(scale: int, count: int) -> None:
    assert models.count_parameters(models.create("swinir-light", scale=scale)) == count


def test_small_is_four_layers_of_the_same_kind() -> None:
    small, light = (models.create(name, scale=4) for name in ("swinir-small", "swinir-light"))
    assert [len(g.layers) for g in small.groups] == [2, 2]
    assert [len(g.layers) for g in light.groups] == [6, 6, 6, 6]
    shapes = [{k: v.shape for k, v in m.groups[0].layers[0].state_dict().items()} for m in (small, light)]
    assert shapes[0] == shapes[1]


def test_partition_and_merge_are_inverse() -> None:
    x = torch.arange(2 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    windows = partition(x, 4)
    assert windows.shape == (2 * 6, 16, 3)
    assert torch.equal(windows[1], x[0, :4, 4:8].reshape(16, 3))
    assert torch.equal(merge(windows, 4, 8, 12), x)


def slow_attention(layer: SwinLayer, y: Tensor, shift: int) -> Tensor:
    """Windowed attention of (H, W, C) pixel by pixel: a pixel attends to those whose shifted position lies in
    the same window, without wrapping around the image's borders."""
    height, width, features = y.shape
    attn, window, heads = layer.attn, layer.window, layer.attn.heads
    size = features // heads
    q, k, v = (linear(y) for linear in (attn.q, attn.k, attn.v))
    out = torch.zeros_like(y)

    def home(r: int, c: int) -> tuple[int, int, bool, bool]:
        # The window after the shift, and on which side of the wrap the pixel came from.
        return (r - shift) % height // window, (c - shift) % width // window, r < shift, c < shift

    for r in range(height):
        for c in range(width):
            mates = [(i, j) for i in range(height) for j in range(width) if home(i, j) == home(r, c)]
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                scores = []
                for i, j in mates:
                    entry = (r - i + window - 1) * (2 * window - 1) + (c - j + window - 1)
                    bias = attn.relative_position_bias[entry, h]
                    scores.append(q[r, c, part] @ k[i, j, part] * size**-0.5 + bias)
                weights = torch.stack(scores).softmax(0)
                out[r, c, part] = sum(w * v[i, j, part] for w, (i, j) in zip(weights, mates, strict=True))
    return attn.proj(out)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 8), (12, 8), (4, 8)])
def test_layer_equals_attention_pixel_by_pixel(shift: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = SwinLayer(6, 2, 4, shift, 2).eval().double()
    torch.nn.init.normal_(layer.attn.relative_position_bias)
    x = torch.randn(1, *size, 6, dtype=torch.float64)
    real_shift = shift if min(size) > 4 else 0
    with torch.inference_mode():
        y = x + slow_attention(layer, layer.norm1(x)[0], real_shift)
        expected = y + layer.mlp(layer.norm2(y))
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


def test_mask_separates_exactly_what_the_shift_joined() -> None:
    mask = shift_mask(8, 12, 4, 2)
    assert mask.shape == (6, 16, 16) and set(mask.unique().tolist()) == {0.0, -100.0}
    assert not mask[0].any(), "the first window lies inside the image"
    corner = mask[5].reshape(4, 4, 4, 4)
    assert corner[0, 0, 1, 1] == 0 and corner[0, 0, 2, 0] == -100 and corner[0, 0, 0, 2] == -100


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (9, 17)])
@pytest.mark.parametrize("padding", ["if-needed", "always"])
def test_any_size_comes_out_scale_times_larger(size: tuple[int, int], padding: str) -> None:
    model = SwinIR("swinir-small", 3, features=12, heads=2, depths=(2,), padding=padding).eval()
    with torch.inference_mode():
        out = model(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, 3 * size[0], 3 * size[1]) and torch.isfinite(out).all()


def test_padding_mirrors_with_the_edge_repeated() -> None:
    row = torch.tensor([1.0, 2.0, 3.0]).expand(1, 3, 8, 3)
    needed, always = (SwinIR("s", 2, depths=(1,), padding=p) for p in ("if-needed", "always"))
    assert needed.pad(row)[0, 0, 0].tolist() == [1, 2, 3, 3, 2, 1, 1, 2]
    assert needed.pad(row).shape[-2] == 8 and always.pad(row).shape[-2] == 16


def test_official_layout_loads() -> None:
    model = models.create("swinir-small", scale=4)
    official: dict[str, Tensor] = {"mean": torch.zeros(1, 3, 1, 1)}
    for key, value in model.state_dict().items():
        part = key.split(".")
        if part[0] == "embed_norm":
            key = f"patch_embed.norm.{part[1]}"
        elif part[0] == "groups" and part[2] == "layers":
            key = ".".join(["layers", part[1], "residual_group", "blocks", *part[3:]])
        elif part[0] == "groups":
            key = ".".join(["layers", *part[1:]])
        else:
            first = {"head": "conv_first", "body_end": "conv_after_body", "upsampler": "upsample"}
            key = ".".join([first.get(part[0], part[0]), *part[1:]])
        if part[-2] in ("q", "k", "v") and "attn" in part:
            fused = key.replace(f"attn.{part[-2]}.", "attn.qkv.")
            official[fused] = torch.cat([official.get(fused, value[:0]), value])
        else:
            official[key.replace("relative_position_bias", "relative_position_bias_table")] = value
    official["layers.0.residual_group.blocks.0.attn.relative_position_index"] = torch.zeros(64, 64).long()
    official["layers.0.residual_group.blocks.1.attn_mask"] = torch.zeros(64, 64, 64)
    back = swinir.official(official, model).translate(official)
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[k], v) for k, v in model.state_dict().items())


def test_quantization_finds_every_operand_of_every_layer() -> None:
    """2DQuant's placement: per layer 6 linear layers (weight and input) and 4 operands of 2 products."""
    model = models.create("swinir-small", scale=4)
    report = sqlib.quantize_model(model, MinMax(bits=8), [torch.rand(1, 3, 16, 16)]).report()
    active = report[report.quantized]
    assert len(active[active.op == "linear"]) == 4 * 6 and len(active[active.op == "matmul"]) == 4 * 2
    operands = sum(len(bounds) for bounds in active.bounds)
    assert operands + (active.weight_bits == 8).sum() == 4 * 16
    assert not report[report.op == "conv2d"].quantized.any()


@pytest.mark.parametrize("options", [{"features": 10, "heads": 4}, {"padding": "reflect"}])
def test_bad_options(options: dict) -> None:
    with pytest.raises(InputError, match="SwinIR: "):
        SwinIR("s", 2, **options)
