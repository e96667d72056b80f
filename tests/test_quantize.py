"""`quantize_model` on networks it was not written for."""

from __future__ import annotations

import copy
import dataclasses
import math
import threading
import warnings
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sqlib
from sqlib.errors import InputError
from sqlib.quantizers import UniformQuantizer
from sqlib.recipes import MinMax, Percentile

torch.manual_seed(0)


def conv(i, o, k=3, **kw):
    return nn.Conv2d(i, o, k, padding=k // 2, **kw)


class Block(nn.Module):
    def __init__(self, n=8):
        super().__init__()
        self.a, self.b = conv(n, n), conv(n, n)

    def forward(self, x):
        return x + self.b(F.relu(self.a(x)))


class Plain(nn.Module):
    """An EDSR in miniature."""

    scale, name = 2, "plain"

    def __init__(self, n=8):
        super().__init__()
        self.head, self.body = conv(3, n), nn.ModuleList([Block(n), Block(n)])
        self.up, self.tail = nn.Sequential(conv(n, 4 * n), nn.PixelShuffle(2)), conv(n, 3)

    def forward(self, x):
        x = self.head(x)
        for block in self.body:
            x = block(x)
        return self.tail(self.up(x))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last = conv(3, 6), conv(6, 6), conv(6, 3)

    def forward(self, x):
        x = self.twice(self.first(x))
        return self.last(self.twice(3 * x))


class Functional(nn.Module):
    """A parameter and a buffer as convolution weights, operators, einsum: a mixture of call styles."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.register_buffer("blur", torch.full((6, 1, 3, 3), 1 / 9))

    def forward(self, x):
        x = F.conv2d(x, weight=self.kernel, padding=1)
        x = F.conv2d(x, self.blur, padding=1, groups=6)
        t = x.flatten(2).transpose(1, 2)
        y = t @ self.matrix
        gram = torch.bmm(y.transpose(1, 2), y)
        z = torch.einsum("bij,bjk->bik", y, gram)
        return torch.matmul(z, self.matrix.t()).sum((1, 2)) + y.matmul(gram).sum((1, 2))


class Attention(nn.Module):
    def __init__(self, **kw):
        super().__init__()
        self.embed = conv(3, 8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.kw = kw

    def forward(self, x):
        t = self.embed(x).flatten(2).transpose(1, 2)
        return self.attn(t, t, t, **self.kw)[0]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.mix, self.out = conv(3, 4), conv(1, 4), conv(8, 4), conv(4, 3)

    def forward(self, image, mask, gain=None):
        x = self.mix(torch.cat([self.a(image), self.b(mask)], 1))
        return self.out(x if gain is None else x * gain), x


IMAGES = [torch.rand(2, 3, 12, 12) for _ in range(2)]
EIGHT = MinMax(bits=8)


def rows(quantized):
    return quantized.report().set_index("site")


def error(quantized, model, *inputs):
    with torch.no_grad():
        return float((quantized(*inputs) - model(*inputs)).abs().max() / model(*inputs).abs().max())


def snapshot(model):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    return state, hooks, [p.requires_grad for p in model.parameters()]


def test_default_rule_and_never_touching_the_argument():
    model = Plain().train()
    before = snapshot(model)
    q = sqlib.quantize_model(model, EIGHT, IMAGES)
    after = snapshot(model)
    assert all(torch.equal(before[0][k], after[0][k]) for k in before[0]) and before[1:] == after[1:]
    r = rows(q)
    assert list(r.index) == ["head", "body.0.a", "body.0.b", "body.1.a", "body.1.b", "up.0", "tail"]
    assert list(r.index[~r.quantized]) == ["head", "up.0", "tail"]
    assert r.rule["head"] == "default: first convolution"
    assert r.rule["up.0"] == "default: feeds the first upsampling"
    assert r.rule["tail"] == "default: from the first upsampling on"
    assert (r.weight_bits["body.0.a"], r.activation_bits["body.0.a"], r.weight_bits["head"]) == (8, 8, 32)
    assert (
        r.lower["body.0.b"] == 0
        and r.weight_sqnr_db["body.0.a"] > 40
        and r.weight_per["body.1.a"] == "channel"
    )
    assert (q.scale, q.name) == (2, "plain")
    assert 0 < error(q, model, IMAGES[0]) < 0.02
    assert error(sqlib.quantize_model(model, MinMax(bits=2), IMAGES), model, IMAGES[0]) > 0.02


def test_equals_quantizing_by_hand():
    """Weights and activations go through exactly the quantizers that the report names."""
    model = nn.Sequential(conv(3, 5), nn.ReLU(), conv(5, 4), nn.ReLU(), conv(4, 3))
    q = sqlib.quantize_model(model, MinMax(bits=4, weight_per="tensor"), IMAGES)
    with torch.no_grad():
        seen = torch.cat([model[:2](x) for x in IMAGES])
        from sqlib.codebook import fit_bounds

        act = UniformQuantizer(fit_bounds(seen.numpy(), 4, method="minmax"))
        weight = UniformQuantizer(fit_bounds(model[2].weight.numpy(), 4, method="minmax"))
        x = IMAGES[1] * 1.3
        hidden = F.conv2d(act(model[:2](x)), weight(model[2].weight), model[2].bias, padding=1)
        assert torch.equal(q(x), model[3:](hidden))


def test_shared_module_has_two_activation_quantizers_and_one_weight_quantizer():
    q = sqlib.quantize_model(Shared(), EIGHT, IMAGES)
    r = rows(q)
    assert list(r.index) == ["first", "twice", "twice#1", "last"]
    assert list(r.quantized) == [False, True, True, False]
    assert r.rule["last"] == "default: last convolution"
    assert r.upper["twice"] != r.upper["twice#1"]
    assert len(q.weights) == 1 and len(q.activations) == 2
    one = rows(sqlib.quantize_model(Shared(), EIGHT, IMAGES, skip=["twice#1"]))
    assert list(one.quantized) == [True, True, False, True]
    both = rows(sqlib.quantize_model(Shared(), EIGHT, IMAGES, skip=["twice"]))
    assert list(both.quantized) == [True, False, False, True]


def test_functional_calls_operators_and_views():
    torch.manual_seed(0)
    model = Functional().eval()
    q = sqlib.quantize_model(model, EIGHT, IMAGES, skip=[])
    r = rows(q)
    assert list(r.op) == ["conv2d", "conv2d", "matmul", "bmm", "einsum", "matmul", "matmul"]
    assert list(r.weight[:3]) == ["kernel", "blur", "matrix"]
    assert list(r.weight_per[:3]) == ["channel"] * 3
    assert q.sites["matmul"].weight_axis == 1 and r.weight["matmul#1"].startswith("matrix[")
    assert set(r.bounds["bmm"]) == {"left", "right"} and set(r.bounds["matmul"]) == {"left"}
    assert r.quantized.all() and 0 < error(q, model, IMAGES[0]) < 0.05


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: a @ b,
        torch.matmul,
        torch.Tensor.matmul,
        torch.bmm,
        torch.Tensor.bmm,
        torch.linalg.matmul,
        lambda a, b: torch.matmul(input=a, other=b),
        lambda a, b: torch.baddbmm(torch.zeros(()), a, b),
        lambda a, b: torch.einsum("bij,bjk->bik", a, b),
        lambda a, b: torch.stack([torch.mm(a[0], b[0])]),
        lambda a, b: torch.stack([torch.addmm(torch.zeros(()), a[0], b[0])]),
    ],
)
def test_every_way_to_multiply_is_seen(call):
    class Net(nn.Module):
        def forward(self, a, b):
            return call(a, b)

    a, b = torch.randn(1, 4, 5), torch.randn(1, 5, 6)
    q = sqlib.quantize_model(Net(), MinMax(bits=3), [(a, b)])
    assert list(q.report().quantized) == [True]
    want = torch.matmul(
        *(
            next(m for k, m in q.activations.items() if k.endswith(s))(t)
            for s, t in (("left", a), ("right", b))
        )
    )
    torch.testing.assert_close(q(a, b), want)


def test_convolutions_of_all_kinds():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv1d(2, 3, 3), nn.ConvTranspose2d(4, 6, 2, groups=2)
            self.three, self.linear = nn.Conv3d(1, 2, 1), nn.Linear(5, 7)

        def forward(self, a, b, c, d):
            return self.one(a).sum() + self.two(b).sum() + self.three(c).sum() + self.linear(d).sum()

    inputs = torch.randn(1, 2, 9), torch.randn(1, 4, 3, 3), torch.randn(1, 1, 2, 2, 2), torch.randn(3, 5)
    q = sqlib.quantize_model(Net(), EIGHT, [inputs], skip=[])
    assert rows(q).quantized.all()
    assert q.sites["two"].weight_axis == 1
    assert q.weight_quantizer(q.sites["two"].weight_key).lower.shape == (3,)


@pytest.mark.parametrize("kw", [{}, {"need_weights": False}])
def test_multihead_attention_is_quantized_in_evaluation_mode(kw):
    model = Attention(**kw).eval()
    q = sqlib.quantize_model(model, EIGHT, IMAGES).eval()
    r = rows(q)
    weights = [w for w in r.weight[r.quantized] if isinstance(w, str)]
    assert {"attn.in_proj_weight", "attn.out_proj.weight"} <= set(weights)
    operands = sum(len(b) for b in r.bounds[r.op.isin(["bmm", "baddbmm", "scaled_dot_product_attention"])])
    assert operands == 4  # query, key, softmax map, value
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert 0 < float((q(IMAGES[0]) - model(IMAGES[0])).abs().max()) < 0.05
            coarse = sqlib.quantize_model(model, MinMax(bits=2), IMAGES)(IMAGES[0])
            assert float((coarse - model(IMAGES[0])).abs().max()) > 0.02


def test_attention_with_different_key_and_value_has_a_quantizer_per_projection():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, a, b):
            return self.attn(a, b, b + 1)[0]

    data = [(torch.randn(2, 5, 8), torch.randn(2, 7, 8))]
    model = Cross().eval()
    q = sqlib.quantize_model(model, EIGHT, data)
    projections = [w for w in q.report().weight.dropna() if w.startswith("attn.in_proj_weight[")]
    assert len(set(projections)) == 3
    assert 0 < error(q, model, *data[0]) < 0.1
    twin = copy.deepcopy(q)
    assert torch.equal(twin(*data[0]), q(*data[0]))


def test_transformer_encoder_layer_is_not_swallowed_by_its_fast_path():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        q = sqlib.quantize_model(model, MinMax(bits=3), [x])
        with torch.no_grad():
            assert float((q(x) - model(x)).abs().max()) > 0.01
    assert {"linear1", "linear2", "self_attn.linear"} <= set(rows(q).index[rows(q).quantized])


@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal", "gqa"])
def test_attention_decomposition_equals_torch(mask):
    from sqlib.engine.ops import attention

    q, k, v = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 7, 6), torch.randn(2, 4, 7, 3)
    kw = {}
    if mask == "bool":
        kw["attn_mask"] = torch.rand(5, 7) > 0.3
    elif mask == "float":
        kw["attn_mask"] = torch.randn(5, 7)
    elif mask == "causal":
        kw.update(is_causal=True, scale=0.3)
    elif mask == "gqa":
        k, v, kw = k[:, :2], v[:, :2], {"enable_gqa": True}
    try:
        want = F.scaled_dot_product_attention(q, k, v, **kw)
    except TypeError:
        pytest.skip("this torch has no enable_gqa")
    torch.testing.assert_close(attention(q, k, v, **kw, on_map=lambda w: w), want)


def test_several_inputs_keywords_and_tuple_outputs():
    model = TwoInputs()
    image, mask = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    for data in ([(image, mask)], [[image, mask]], [{"image": image, "mask": mask, "gain": torch.ones(())}]):
        q = sqlib.quantize_model(model, EIGHT, data)
        out, features = q(image, mask=mask)
        assert out.shape == (2, 3, 8, 8) and features.shape == (2, 4, 8, 8)
        assert list(rows(q).quantized) == [False, True, True, False]


def test_generator_single_tensor_and_reused_iterables():
    model = Plain()
    want = sqlib.quantize_model(model, Percentile(bits=4), IMAGES)
    from_generator = sqlib.quantize_model(model, Percentile(bits=4), (x for x in IMAGES))
    assert torch.equal(want(IMAGES[0]), from_generator(IMAGES[0]))
    whole = sqlib.quantize_model(model, EIGHT, torch.cat(IMAGES))
    assert torch.equal(whole(IMAGES[0]), sqlib.quantize_model(model, EIGHT, IMAGES)(IMAGES[0]))


def test_percentile_recipe_matches_numpy_on_the_recorded_activations():
    model = Plain()
    seen = []
    handle = model.body[1].a.register_forward_pre_hook(lambda m, a: seen.append(a[0].detach().clone()))
    with torch.no_grad():
        for x in IMAGES:
            model(x)
    handle.remove()
    x = torch.cat(seen).double()
    r = rows(sqlib.quantize_model(model, Percentile(bits=4, percentile=99.0), IMAGES))
    width = float(x.max() - x.min()) / 8192
    want = torch.quantile(x, torch.tensor([0.01, 0.99], dtype=torch.double))
    assert abs(r.lower["body.1.a"] - want[0]) <= width and abs(r.upper["body.1.a"] - want[1]) <= width


def weight_normed(make):
    model = nn.Sequential(conv(3, 4), conv(4, 4), conv(4, 3))
    model[1] = make(model[1])
    return model


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("make", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weights_that_are_computed(make):
    model = weight_normed(make)
    q = sqlib.quantize_model(model, EIGHT, IMAGES)
    r = rows(q)
    name = r.index[1]
    assert (r.weight[name], r.weight_bits[name], r.activation_bits[name]) == ("(computed)", 8, 8)
    assert 0 < error(q, model, IMAGES[0]) < 0.03
    q(IMAGES[0]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in q.network[1].parameters())


def test_weights_made_from_the_input_are_activations():
    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.make = nn.Linear(3, 9)

        def forward(self, x):
            w = self.make(x.mean((0, 2, 3))).reshape(3, 3, 1, 1)
            return F.conv2d(x, w)

    q = sqlib.quantize_model(Dynamic(), EIGHT, IMAGES, skip=[])
    r = rows(q)
    assert "depends on the input" in r.rule["conv2d"] and set(r.bounds["conv2d"]) == {"input", "weight"}
    assert q(IMAGES[1]).shape == (2, 3, 12, 12)


def test_batchnorm_statistics_constants_and_dead_channels():
    model = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4), conv(4, 3)).train()
    with torch.no_grad():
        model[3].weight[1] = 0
        model[3].weight[2] = 0.25
    mean = model[1].running_mean.clone()
    q = sqlib.quantize_model(model, MinMax(bits=4), IMAGES)
    assert torch.equal(model[1].running_mean, mean) and all(m.training for m in model.modules())
    assert not any(m.training for m in q.modules())
    quantizer = q.weight_quantizer(q.sites["3"].weight_key)
    assert torch.equal(quantizer(model[3].weight)[1:3], model[3].weight[1:3])
    assert torch.isfinite(q(IMAGES[0])).all()
    constant = sqlib.quantize_model(model, MinMax(bits=4), [torch.zeros(1, 3, 8, 8)])
    assert torch.isfinite(constant.eval()(IMAGES[0])).all()


def test_half_precision_network():
    model = Plain().to(torch.bfloat16)
    q = sqlib.quantize_model(model, EIGHT, IMAGES)
    assert q(IMAGES[0].bfloat16()).dtype == torch.bfloat16
    assert next(iter(q.activations.values())).lower.dtype == torch.float64


def test_a_network_whose_weights_are_buffers_gets_batches_in_their_dtype():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.randn(3, 3, 3, 3, dtype=torch.float64))

        def forward(self, x):
            return F.conv2d(x, self.weight, padding=1)

    x = torch.rand(2, 3, 8, 8)
    q = sqlib.quantize_model(Fixed(), MinMax(8), [x], skip=[])
    assert q(x.double()).dtype == torch.float64


def test_all_skipped_and_one_sided_recipes():
    model = Plain().eval()
    q = sqlib.quantize_model(model, EIGHT, IMAGES, skip="*")
    assert torch.equal(q(IMAGES[0]), model(IMAGES[0])) and not rows(q).quantized.any()
    weights = rows(sqlib.quantize_model(model, MinMax(bits=(4, 32)), IMAGES))
    assert (weights.weight_bits["body.0.a"], weights.activation_bits["body.0.a"]) == (4, 32)
    acts = sqlib.quantize_model(model, MinMax(bits=(32, 4)), IMAGES)
    assert (rows(acts).weight_bits["body.0.a"], len(acts.weights)) == (32, 0)


def test_network_default_patterns_and_rules_for_odd_topologies():
    model = Plain()
    model.default_skip = ("head", "up*", "tail")
    r = rows(sqlib.quantize_model(model, EIGHT, IMAGES))
    assert r.rule["up.0"] == "network default: up*" and list(r.index[r.quantized]) == [
        f"body.{i}.{c}" for i in (0, 1) for c in "ab"
    ]

    class Vdsr(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(conv(3, 4), conv(4, 4), conv(4, 3))

        def forward(self, x):
            x = F.interpolate(x, scale_factor=2, mode="bicubic")
            return x + self.layers(x)

    r = rows(sqlib.quantize_model(Vdsr(), EIGHT, IMAGES))
    assert list(r.quantized) == [False, True, False] and r.rule.iloc[2] == "default: last convolution"

    class Esa(Plain):
        """Attention that shrinks and restores its map inside every block."""

        def forward(self, x):
            x = self.head(x)
            for block in self.body:
                x = block(x) * F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)
            return self.tail(self.up(x))

    r = rows(sqlib.quantize_model(Esa(), EIGHT, IMAGES))
    assert list(r.quantized) == [False] + [True] * 4 + [False] * 2
    transposed = nn.Sequential(conv(3, 4), conv(4, 4), nn.ConvTranspose2d(4, 4, 2, stride=2), conv(4, 3))
    assert list(rows(sqlib.quantize_model(transposed, EIGHT, IMAGES)).quantized) == [
        False,
        True,
        False,
        False,
    ]
    espcn = nn.Sequential(conv(3, 4), nn.PixelShuffle(2))
    assert list(rows(sqlib.quantize_model(espcn, EIGHT, IMAGES)).quantized) == [True]
    assert list(rows(sqlib.quantize_model(conv(3, 3), EIGHT, IMAGES)).quantized) == [True]


def test_unsupported_products_are_reported():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.lstm = conv(3, 4), nn.LSTM(4, 4)

        def forward(self, x):
            x = self.a(x).mean((2, 3))
            x, _ = self.lstm(x[None])
            return torch.einsum("abc,abd,abe->cde", x, x, x)

    r = rows(sqlib.quantize_model(Net(), EIGHT, IMAGES, skip=[]))
    assert list(r.op) == ["conv2d", "lstm", "einsum"] and list(r.quantized) == [True, False, False]
    assert r.rule["lstm.lstm"] == "operation not quantized by sqlib"


def test_state_dict_copies_and_weight_changes():
    model = Plain()
    q = sqlib.quantize_model(model, MinMax(bits=4), IMAGES)
    other = sqlib.quantize_model(Plain(), MinMax(bits=4), [x * 2 for x in IMAGES])
    with torch.no_grad():
        want = q(IMAGES[0])
        assert not torch.equal(other(IMAGES[0]), want)
        other.load_state_dict(q.state_dict())
        assert torch.equal(other(IMAGES[0]), want)
        twin = copy.deepcopy(q)
        assert torch.equal(twin(IMAGES[0]), want)
        q.network.body[0].a.weight.mul_(0.5)
        assert not torch.equal(q(IMAGES[0]), want) and torch.equal(twin(IMAGES[0]), want)
        twin.network.body[0].a.weight.data.zero_()
        twin.refresh()
        assert not torch.equal(twin(IMAGES[0]), want)
        twin.network.body[0].a.weight = nn.Parameter(model.body[0].a.weight.detach().clone())
        assert torch.equal(twin(IMAGES[0]), want)


def test_quantized_weight_is_computed_once(monkeypatch):
    q = sqlib.quantize_model(Plain(), EIGHT, IMAGES)
    calls = []
    for module in q.weights.values():
        module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        q(IMAGES[0]), q(IMAGES[1])
        assert len(calls) == len(q.weights) == 4
        gradless = q(IMAGES[0])
    assert torch.equal(q(IMAGES[0]).detach(), gradless)  # the training path gives the same numbers


def test_gradients_reach_weights_and_input():
    q = sqlib.quantize_model(Plain(), MinMax(bits=4), IMAGES)
    x = IMAGES[0].clone().requires_grad_()
    q(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in q.network.parameters())


def test_two_threads_at_once():
    q = sqlib.quantize_model(Plain(), MinMax(bits=4), IMAGES).eval()
    with torch.no_grad():
        want = [q(x) for x in IMAGES]
    wrong = []

    def work(i):
        with torch.no_grad():
            for _ in range(10):
                if not torch.equal(q(IMAGES[i]), want[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


def test_nan_input_stays_nan_at_inference():
    q = sqlib.quantize_model(Plain(), EIGHT, IMAGES)
    assert q(torch.full((1, 3, 8, 8), math.nan)).isnan().all()


def test_call_sites_that_appear_late_or_never():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(3, 4), conv(4, 4), conv(4, 3)

        def forward(self, x):
            y = self.a(x)
            for _ in range(x.shape[-1] // 8):
                y = self.b(y)
            return self.c(y)

    small, large = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    q = sqlib.quantize_model(Loop(), EIGHT, [small])
    with pytest.raises(InputError, match=r"'b#1'.*never reached during calibration"):
        q(large)
    q = sqlib.quantize_model(Loop(), EIGHT, [small, large])
    assert rows(q).calls["b#1"] == 1 and rows(q).quantized["b#1"]
    q(large)
    assert sqlib.quantize_model(Loop(), EIGHT, [small], skip=["b"])(large).shape == (1, 3, 16, 16)


def bad_weights(value):
    model = Plain()
    with torch.no_grad():
        model.body[0].a.weight[0, 0, 0, 0] = value
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sqlib.quantize_model(bad_weights(math.nan), EIGHT, IMAGES), "body.0.a.weight.*1 of 576"),
        (lambda: sqlib.quantize_model(bad_weights(math.inf), EIGHT, IMAGES), "NaN or infinite"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, []), "calibration is empty"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, iter([])), "calibration is empty"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, None), "calibration is NoneType"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, "div2k"), "calibration is str"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, [3]), "batch is int"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, [IMAGES[0] * math.nan]), "batch 0.*'body.0.a'.*NaN"),
        (lambda: sqlib.quantize_model(Plain(), "minmax", IMAGES), "expected a recipe"),
        (lambda: sqlib.quantize_model("edsr", EIGHT, IMAGES), "torch.nn.Module"),
        (lambda: sqlib.quantize_model(nn.ReLU(), EIGHT, IMAGES), "no call that can be quantized"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, IMAGES, skip=["bod.0.a"]), "near matches: body.0.a"),
        (lambda: sqlib.quantize_model(Plain(), EIGHT, IMAGES, skip=3), "list of name patterns"),
        (lambda: sqlib.quantize_model(torch.jit.script(nn.ReLU()), EIGHT, IMAGES), "compiled"),
        (
            lambda: sqlib.quantize_model(sqlib.quantize_model(Plain(), EIGHT, IMAGES), EIGHT, IMAGES),
            "already",
        ),
        (lambda: sqlib.quantize_model(nn.Sequential(nn.LazyConv2d(3, 3)), EIGHT, IMAGES), "no shape yet"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


class Rounding(nn.Module):
    """A quantizer of somebody's own."""

    bits = 4

    def __init__(self, does=lambda x: (8 * x).round() / 8):
        super().__init__()
        self.does = does

    def forward(self, x):
        return self.does(x)


class Bare(nn.Module):
    """One that does not tell its bits."""

    def forward(self, x):
        return x


class Watching:
    passes = 1

    def __init__(self, found):
        self.found = found

    def update(self, x, number):
        pass

    def finish(self):
        return self.found


@dataclasses.dataclass(frozen=True)
class Mine(sqlib.recipes.Recipe):
    """A recipe of somebody's own, over what its class names."""

    observer: ClassVar[object] = None
    weight: ClassVar[object] = None

    def weight_quantizer(self, weight, site):
        return type(self).weight

    def activation_observer(self, site, operand):
        return type(self).observer


def test_a_quantizer_of_ones_own_is_counted_by_its_bits(monkeypatch):
    monkeypatch.setattr(Mine, "observer", Watching(Rounding()))
    model = sqlib.quantize_model(Plain(), Mine(4), [torch.rand(1, 3, 8, 8)])
    report = model.report()
    assert set(report[report["quantized"]]["activation_bits"]) == {4}
    assert sqlib.cost.cost(model, (16, 16)).fqr == 4.0


@pytest.mark.parametrize(
    ("observer", "weight", "message"),
    [
        ("no observer", None, r"input\): the recipe Mine cannot take it: AttributeError: 'str'"),
        (Watching(None), None, r"input\): the recipe gives NoneType, expected a torch\.nn\.Module"),
        (Watching(torch.round), None, r"input\): the recipe gives .*, expected a torch"),
        (Watching(Bare()), None, r"input\): the quantizer Bare has bits=None, expected an attribute"),
        (None, Bare(), r"weight\): the quantizer Bare has bits=None"),
        (None, torch.round, r"weight\): the recipe gives .*, expected a torch"),
    ],
)
def test_mistakes_of_a_recipe_name_the_call_site(observer, weight, message, monkeypatch):
    monkeypatch.setattr(Mine, "observer", observer)
    monkeypatch.setattr(Mine, "weight", weight)
    with pytest.raises(InputError, match=f"call site 'body.0.a' .conv2d, {message}"):
        sqlib.quantize_model(Plain(), Mine(4), [torch.rand(1, 3, 8, 8)])


@pytest.mark.parametrize("does", [torch.flatten, torch.Tensor.double, lambda x: None])
def test_a_quantizer_that_changes_more_than_values(does, monkeypatch):
    x = torch.rand(1, 3, 8, 8)
    monkeypatch.setattr(Mine, "observer", Watching(Rounding(does)))
    model = sqlib.quantize_model(Plain(), Mine(4), [x])
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode, pytest.raises(InputError, match=r"'body.0.a' .* Rounding made .*same shape and dtype"):
            model(x)


def test_calibration_without_values_is_named():
    """Beside other batches one without images is none, as a loader's last may be."""
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(InputError, match=r"no values: batch 0 is \(0, 3, 8, 8\) float32; give at least one"):
        sqlib.quantize_model(Plain(), MinMax(4), [x[:0], x[:, :, :0]])
    sqlib.quantize_model(Plain(), MinMax(4), [x, x[:0]])


class NamedLikeItsCall(nn.Module):
    """A layer whose name is that of a functional call beside it."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.add_module(name, nn.Linear(4, 4))
        self.w = nn.Parameter(torch.randn(4, 4) * 20)

    def forward(self, x):
        return F.linear(getattr(self, self.name)(x), self.w)


class Adapted(nn.Linear):
    """A layer with a product of another kind in its own forward (LoRA)."""

    def __init__(self):
        super().__init__(4, 4)
        self.low = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return super().forward(x) + x @ self.low


class Expert(nn.Module):
    """One call, whose weight depends on the input."""

    def __init__(self):
        super().__init__()
        self.w = nn.ParameterList(nn.Parameter(torch.randn(4, 4) * scale) for scale in (1, 30))

    def forward(self, x):
        return F.linear(x, self.w[int(x.std() > 0.5)])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            NamedLikeItsCall("linear"),
            "the name 'linear': linear in 'linear' and linear in the network",
        ),
        (nn.Sequential(NamedLikeItsCall("linear")), "'0.linear': linear in '0.linear' and linear in '0'"),
        (nn.Sequential(Adapted()), "two calls would have the name '0': linear in '0' and matmul in '0'"),
        (Expert(), "'linear'.*multiplies by 'w.0' in one pass and by 'w.1' in another"),
    ],
)
def test_calls_that_would_share_a_quantizer_of_another_weight_are_refused(network, message):
    calm, lively = torch.randn(8, 4) * 0.1, torch.randn(8, 4)
    with pytest.raises(InputError, match=message):
        sqlib.quantize_model(network.eval(), MinMax(8), [calm, lively], skip=[])


def test_the_same_network_with_names_of_its_own_is_quantized():
    x = torch.randn(8, 4)
    network = NamedLikeItsCall("first").eval()
    q = sqlib.quantize_model(network, MinMax(8), [x], skip=[])
    noise = (network(x) - q(x)).square().sum() / network(x).square().sum()
    assert noise < 1e-3


def test_a_quantized_network_inside_another_is_refused():
    inner = sqlib.quantize_model(Plain().eval(), MinMax(4), [torch.rand(1, 3, 16, 16)])
    with pytest.raises(InputError, match=r"module '0' is already quantized"):
        sqlib.quantize_model(nn.Sequential(inner), MinMax(8), [torch.rand(1, 3, 16, 16)])
