"""`quantize_model` on transformers: timm's attention, self-made products, SwinIR at odd sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sqlib
from sqlib import models
from sqlib.errors import InputError
from sqlib.recipes import DOBI, MSE, Density, MinMax, Percentile


class TimmAttention(nn.Module):
    """Attention as timm's vision transformers write it: one linear layer for q, k and v.

    ``fused=True`` is timm's default.
    """

    def __init__(self, features: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.scale, self.fused = heads, (features // heads) ** -0.5, fused
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            q = q * self.scale
            attention = q @ k.transpose(-2, -1)
            out = attention.softmax(dim=-1) @ v
        return self.proj(out.transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, features: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attn = TimmAttention(features, heads, fused)
        self.mlp = nn.Sequential(
            nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def block(fused: bool) -> Block:
    torch.manual_seed(0)
    return Block(12, 3, fused).eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 16, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("fused", [False, True])
def test_timm_attention_has_four_operands_and_one_input_for_q_k_and_v(fused: bool, tokens: Tensor) -> None:
    report = sqlib.quantize_model(block(fused), MinMax(bits=4), [tokens]).report().set_index("site")
    assert report.quantized.all()
    linear = report[report.op == "linear"]
    assert list(linear.index) == ["attn.qkv", "attn.proj", "mlp.0", "mlp.2"]
    # One tensor goes into one fused layer, so there is one quantizer where 2DQuant has three.
    assert all(list(bounds) == ["input"] for bounds in linear.bounds)
    products = report[report.op != "linear"]
    found = list(products.bounds)
    if fused:
        assert [list(b) for b in found] == [["query", "key", "value", "attention"]]
        attention = found[0]["attention"]
    else:
        assert [list(b) for b in found] == [["left", "right"]] * 2
        attention = found[1]["left"]
    assert 0 <= attention[0] < attention[1] <= 1


def test_timm_attention_by_hand(tokens: Tensor) -> None:
    """Every operand, in the order of the calls, through the quantizer that the report names."""
    model = block(fused=False)
    q = sqlib.quantize_model(model, MinMax(bits=3), [tokens])

    def seen(name: str, role: str, x: Tensor) -> Tensor:
        quantizer = q.activation_quantizer(q.sites[name], role)
        assert quantizer is not None
        return quantizer(x)

    def linear(name: str, x: Tensor) -> Tensor:
        layer = model.get_submodule(name)
        weight = q.weight_quantizer(q.sites[name].weight_key)
        return F.linear(seen(name, "input", x), weight(layer.weight), layer.bias)

    with torch.no_grad():
        x = model.norm1(tokens)
        three = linear("attn.qkv", x).view(2, 16, 3, 3, 4).permute(2, 0, 3, 1, 4)
        scores = torch.matmul(
            seen("attn.matmul", "left", three[0] / 2), seen("attn.matmul", "right", three[1].mT)
        )
        out = torch.matmul(
            seen("attn.matmul#1", "left", scores.softmax(-1)), seen("attn.matmul#1", "right", three[2])
        )
        y = tokens + linear("attn.proj", out.transpose(1, 2).reshape(2, 16, 12))
        want = y + linear("mlp.2", F.gelu(linear("mlp.0", model.norm2(y))))
        torch.testing.assert_close(q(tokens), want)
        assert float((want - model(tokens)).abs().max()) > 0.05, "3 bits must be visible"


@pytest.mark.parametrize("recipe", [MinMax(bits=4), DOBI(bits=4), MSE(bits=4)], ids=lambda r: r.name)
def test_fused_attention_is_not_an_escape(recipe: sqlib.recipes.Recipe, tokens: Tensor) -> None:
    """timm's default, the fused function, gives the codes of the written-out products: the query is
    quantized before its scaling instead of after it, and the bounds scale with it."""
    open_, fused = (sqlib.quantize_model(block(f), recipe, [tokens]) for f in (False, True))
    left = open_.report().set_index("site").bounds["attn.matmul"]["left"]
    query = fused.report().set_index("site").bounds["attn.scaled_dot_product_attention"]["query"]
    assert query == pytest.approx([2 * bound for bound in left], rel=1e-6)
    with torch.no_grad():
        assert float((fused(tokens) - block(True)(tokens)).abs().max()) > 1e-3
        torch.testing.assert_close(fused(tokens), open_(tokens), rtol=1e-4, atol=1e-5)


class InPlace(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        out = torch.zeros(len(a), a.shape[1], b.shape[2])
        out.baddbmm_(a, b)
        out[0].addmm_(a[0], b[0])
        out[0].addbmm_(a, b)
        return out


def test_products_in_place(tokens: Tensor) -> None:
    data = (tokens, tokens.mT.contiguous())
    q = sqlib.quantize_model(InPlace(), MinMax(bits=3), [data])
    report = q.report()
    assert list(report.op) == ["baddbmm", "addmm", "addbmm"] and report.quantized.all()
    assert float((q(*data) - InPlace()(*data)).abs().max()) > 0.01


def test_products_of_vectors_are_reported(tokens: Tensor) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)[0]
            scores = torch.inner(y, y) + torch.linalg.vecdot(y, y) + torch.dot(y[0], y[1])
            return torch.addmv(y[0, 0] * torch.ones(16), scores, y[:, 0])

    report = sqlib.quantize_model(Net().eval(), MinMax(bits=4), [tokens], skip=[]).report()
    assert list(report.op) == ["linear", "inner", "vecdot", "dot", "addmv"]
    assert list(report.quantized) == [True, False, False, False, False]
    assert set(report.rule[1:]) == {"operation not quantized by sqlib"}


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch.compiler.set_stance is new")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_functions_that_compile_themselves_are_seen() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention").flex_attention
    product = torch.compile(lambda a, b: a @ b, backend="eager")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            return product(x, x.transpose(-2, -1)) if len(x) == 1 else flex(x, x, x)

    torch.manual_seed(0)
    x = torch.randn(2, 2, 128, 16)
    for data, op, supported in ((x[:1], "matmul", True), (x, "flex_attention", False)):
        report = sqlib.quantize_model(Net().eval(), MinMax(bits=4), [data], skip=[]).report()
        assert list(report.op) == ["linear", op] and list(report.quantized) == [True, supported]


# --- SwinIR on images that do not fit its windows ---


@pytest.fixture
def swin() -> nn.Module:
    torch.manual_seed(0)
    return models.swinir.SwinIR("swinir-tiny", 2, features=12, heads=2, depths=(2,)).eval()


RECIPES = [MinMax(4), Percentile(4), DOBI(4), MSE(4), Density(4)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
@pytest.mark.parametrize("size", [(1, 1), (9, 5)])
def test_calibration_size_does_not_tie_down_the_image_size(
    swin: nn.Module, recipe: sqlib.recipes.Recipe, size: tuple[int, int]
) -> None:
    """Images smaller than a window, exactly one, and no multiple of one; calibrated on one, run on others."""
    q = sqlib.quantize_model(swin, recipe, [torch.rand(1, 3, *size)])
    assert q.report().quantized.sum() == 2 * (6 + 2)
    for height, width in ((1, 1), (3, 5), (8, 8), (9, 17)):
        with torch.no_grad():
            out = q(torch.rand(2, 3, height, width))
        assert out.shape == (2, 3, 2 * height, 2 * width) and torch.isfinite(out).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_swinir(swin: nn.Module, kind: torch.dtype) -> None:
    data = torch.rand(1, 3, 9, 17)
    want = swin(data).detach()
    q = sqlib.quantize_model(swin.to(kind), MinMax(bits=8), [data])
    with torch.no_grad():
        out = q(data.to(kind))
    assert out.dtype == kind and float((out.float() - want).abs().max()) < 0.1
    assert all(m.lower.dtype == torch.float64 for m in [*q.activations.values(), *q.weights.values()])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "calibration is empty"),
        ([torch.full((1, 3, 8, 8), float("nan"))], r"batch 0: call site '.*attn\.q'.*NaN"),
        ([torch.rand(1, 3, 8, 8), torch.full((1, 3, 8, 8), float("inf"))], r"batch 1: call site '.*'.*NaN"),
        ([torch.rand(0, 3, 8, 8)], "no values: batch 0"),
        ([torch.rand(1, 3, 0, 8)], "no values: batch 0"),
    ],
    ids=["none", "nan", "infinite later", "no images", "no pixels"],
)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
def test_bad_calibration_of_swinir(
    swin: nn.Module, recipe: sqlib.recipes.Recipe, data: list[Tensor], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sqlib.quantize_model(swin, recipe, data)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
def test_constant_image(swin: nn.Module, recipe: sqlib.recipes.Recipe) -> None:
    """All pixels alike: every operand is nearly constant, and attention maps are flat but for the bias."""
    q = sqlib.quantize_model(swin, recipe, [torch.full((1, 3, 8, 8), 0.5)])
    with torch.no_grad():
        assert torch.isfinite(q(torch.rand(1, 3, 8, 8))).all()
