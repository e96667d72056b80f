"""SRResNet: exact size, conventions, batch normalization, what is quantized."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sqlib
from sqlib import models
from sqlib.errors import InputError
from sqlib.models.srresnet import SRResNet
from sqlib.recipes import MinMax


def small(scale: int = 2) -> SRResNet:
    torch.manual_seed(0)
    return SRResNet("srresnet", scale, blocks=2, features=8).eval()


def with_statistics(model: nn.Module) -> nn.Module:
    """Give every batch normalization statistics and an affine map that are not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2.0)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize(("scale", "count"), [(2, 1_399_314), (3, 1_583_634), (4, 1_546_771)])
def test_parameter_counts(scale: int, count: int) -> None:
    with torch.device("meta"):
        model = models.create("srresnet", scale=scale)
    assert models.count_parameters(model) == count


def test_the_count_of_the_papers_leaves_out_the_body_slopes() -> None:
    """1,546,754 at x4 holds the two slopes of the upsampler; head and blocks add 17, one each."""
    with torch.device("meta"):
        model = models.create("srresnet", scale=4)
    slopes = {n: m.num_parameters for n, m in model.named_modules() if isinstance(m, nn.PReLU)}
    assert set(slopes.values()) == {1}
    body = [n for n in slopes if not n.startswith("upsampler")]
    assert (len(body), len(slopes)) == (17, 19)
    assert models.count_parameters(model) - len(body) == 1_546_754


def test_only_the_normalizations_have_biases() -> None:
    model = small()
    owners = {n.rpartition(".")[0] for n, _ in model.named_parameters() if n.endswith("bias")}
    assert owners == {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_output_is_scale_times_larger(scale: int, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        out = small(scale)(torch.rand(2, 3, *size))
    assert out.shape == (2, 3, size[0] * scale, size[1] * scale)
    assert torch.isfinite(out).all()


def test_computes_in_0_to_255_without_a_mean() -> None:
    model = small()
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model.tail.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    x = torch.rand(1, 3, 4, 4)
    with torch.inference_mode():
        out = model(x)
    torch.testing.assert_close(seen[0], 255 * x)
    torch.testing.assert_close(out, seen[1] / 255)


def test_network_is_its_definition() -> None:
    """The forward pass, written again with functions and the raw tensors."""
    model = with_statistics(small(4))
    p = model.state_dict()
    f = torch.nn.functional

    def norm(x: Tensor, at: str) -> Tensor:
        scale = p[f"{at}.weight"] / (p[f"{at}.running_var"] + 1e-5).sqrt()
        shape = (1, -1, 1, 1)
        return (x - p[f"{at}.running_mean"].view(shape)) * scale.view(shape) + p[f"{at}.bias"].view(shape)

    def prelu(x: Tensor, at: str) -> Tensor:
        return torch.where(x >= 0, x, p[f"{at}.weight"] * x)

    x = torch.rand(1, 3, 5, 6)
    shallow = prelu(f.conv2d(255 * x, p["head.weight"], padding=4), "head_prelu")
    deep = shallow
    for i in range(2):
        at = f"blocks.{i}"
        y = prelu(norm(f.conv2d(deep, p[f"{at}.conv1.weight"], padding=1), f"{at}.norm1"), f"{at}.prelu")
        deep = deep + norm(f.conv2d(y, p[f"{at}.conv2.weight"], padding=1), f"{at}.norm2")
    out = norm(f.conv2d(deep, p["body_end.weight"], padding=1), "body_end_norm") + shallow
    for i in (0, 3):
        out = f.pixel_shuffle(f.conv2d(out, p[f"upsampler.{i}.weight"], padding=1), 2)
        out = prelu(out, f"upsampler.{i + 2}")
    out = f.conv2d(out, p["tail.weight"], padding=4) / 255
    with torch.inference_mode():
        torch.testing.assert_close(model(x), out, rtol=1e-4, atol=1e-4)


def test_evaluation_uses_running_statistics() -> None:
    """An image's output does not depend on the other images of the batch, unlike in training mode."""
    model = with_statistics(small())
    x = torch.rand(2, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[:1], model(x[:1]))
        model.train()
        assert not torch.allclose(model(x)[:1], model(x[:1]))


def official_state(model: nn.Module) -> dict[str, Tensor]:
    """Our SRResNet under the names of pytorch-SRResNet."""
    own = model.state_dict()
    tensors = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    state = {
        "conv_input.weight": own["head.weight"],
        "relu.weight": own["head_prelu.weight"],
        "conv_mid.weight": own["body_end.weight"],
        "conv_output.weight": own["tail.weight"],
    }
    for kind in tensors:
        state[f"bn_mid.{kind}"] = own[f"body_end_norm.{kind}"]
    for i in range(16):
        for k in (1, 2):
            state[f"residual.{i}.conv{k}.weight"] = own[f"blocks.{i}.conv{k}.weight"]
            for kind in tensors:
                state[f"residual.{i}.bn{k}.{kind}"] = own[f"blocks.{i}.norm{k}.{kind}"]
        state[f"residual.{i}.relu.weight"] = own[f"blocks.{i}.prelu.weight"]
    for i in (0, 2, 3, 5):
        state[f"upscale4x.{i}.weight"] = own[f"upsampler.{i}.weight"]
    return state


def test_third_party_layout_loads_and_computes_the_same(tmp_path: Path) -> None:
    model = with_statistics(models.create("srresnet", scale=4))
    state = official_state(model)
    torch.save({"state_dict": state}, tmp_path / "srresnet.pth")
    loaded = models.load(tmp_path / "srresnet.pth", "srresnet", scale=4)
    x = torch.rand(1, 3, 6, 5)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model(x))
    # A release with fixed leaky slopes has none to load: refused, since nothing says which slope it used.
    torch.save({k: v for k, v in state.items() if v.numel() != 1 or "tracked" in k}, tmp_path / "leaky.pth")
    with pytest.raises(InputError, match="19 missing"):
        models.load(tmp_path / "leaky.pth", "srresnet", scale=4)


def test_block_convolutions_are_quantized_and_nothing_else() -> None:
    model = models.create("srresnet", scale=4)
    quantized = sqlib.quantize_model(model, MinMax(bits=8), [torch.rand(1, 3, 8, 8)])
    report = quantized.report().set_index("site")
    blocks = {f"blocks.{i}.conv{k}" for i in range(16) for k in (1, 2)}
    assert set(report.index[report.quantized]) == blocks
    kept = {"head", "body_end", "upsampler.0", "upsampler.3", "tail"}
    assert set(report.index[~report.quantized]) == kept
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        assert quantized(x).shape == (1, 3, 32, 32)
        assert 0 < float((quantized(x) - model(x)).abs().max()) < 1


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
