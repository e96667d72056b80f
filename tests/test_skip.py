"""The default rule: which call sites of networks with every kind of upsampler stay in full precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sqlib
from sqlib import cost
from sqlib.recipes import MinMax

N = 8


def conv(i=N, o=N, k=3, **kw):
    return nn.Conv2d(i, o, k, padding=k // 2, **kw)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv(), conv()

    def forward(self, x):
        return x + self.b(F.relu(self.a(x)))


class Net(nn.Module):
    """Head, two blocks, a closing convolution around a long skip, and an end made by the subclass."""

    scale = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.blocks, self.close = conv(3), nn.Sequential(Block(), Block()), conv()
        self.build()

    def build(self):
        pass

    def features(self, x):
        x = self.head(x)
        return x + self.close(self.blocks(x))

    def forward(self, x):
        return self.end(self.features(x))


BODY = {f"blocks.{i}.{c}" for i in (0, 1) for c in "ab"} | {"close"}


class Direct(Net):
    """IMDN, RFDN, BSRN, SwinIR-light: one convolution makes the picture's pixels."""

    def build(self):
        self.up = nn.Sequential(conv(N, 12), nn.PixelShuffle(2))

    def end(self, x):
        return self.up(x)


class DirectWithBicubicSkip(Direct):
    def forward(self, x):
        return super().forward(x) + F.interpolate(x, scale_factor=2, mode="bicubic")


class SkipFirst(Direct):
    def forward(self, x):
        base = F.interpolate(x, scale_factor=2, mode="bilinear")
        return base + super().forward(x)


class ShuffledInputSkip(Direct):
    def forward(self, x):
        base = F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2)
        return base + super().forward(x)


class Staged(Net):
    """EDSR at x4: two shuffles."""

    scale = 4

    def build(self):
        self.up = nn.Sequential(conv(N, 4 * N), nn.PixelShuffle(2), conv(N, 4 * N), nn.PixelShuffle(2))
        self.tail = conv(N, 3)

    def end(self, x):
        return self.tail(F.leaky_relu(self.up(x)))


class Activated(Net):
    """Batch norm and an activation between convolution and shuffle."""

    def build(self):
        self.up, self.norm, self.tail = conv(N, 4 * N), nn.BatchNorm2d(4 * N), conv(N, 3)

    def end(self, x):
        return self.tail(F.pixel_shuffle(F.relu(self.norm(self.up(x)), inplace=True), 2))


class Gated(Net):
    """Squeeze and excitation between convolution and shuffle: the gate does not feed it."""

    def build(self):
        self.up = conv(N, 12)
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv(12, 4, 1), nn.ReLU(), conv(4, 12, 1), nn.Sigmoid()
        )

    def end(self, x):
        x = self.up(x)
        return F.pixel_shuffle(x * self.se(x), 2)


class PixelGated(Net):
    def build(self):
        self.up, self.gate = conv(N, 12), conv(12, 12, 1)

    def end(self, x):
        x = self.up(x)
        return F.pixel_shuffle(torch.sigmoid(self.gate(x)).mul(x), 2)


class Nearest(Net):
    """RRDBNet: interpolation, then convolutions; the closing convolution feeds it."""

    def build(self):
        self.up, self.tail = conv(), conv(N, 3)

    def end(self, x):
        return self.tail(F.relu(self.up(F.interpolate(x, scale_factor=2, mode="nearest"))))


class Transposed(Net):
    """FSRCNN: the upsampling is a layer itself."""

    def build(self):
        self.up, self.tail = nn.ConvTranspose2d(N, N, 4, stride=2, padding=1), conv(N, 3)

    def end(self, x):
        return self.tail(self.up(x))


class ByHand(Net):
    def build(self):
        self.up, self.tail = conv(N, 4 * N), conv(N, 3)

    def end(self, x):
        n, _, h, w = x.shape
        x = self.up(x).view(n, N, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, N, 2 * h, 2 * w)
        return self.tail(x)


class ByHandChannelsLast(Net):
    def build(self):
        self.up, self.tail = conv(N, 4 * N), conv(N, 3)

    def end(self, x):
        n, _, h, w = x.shape
        x = self.up(x).permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, N)
        return self.tail(x.transpose(2, 3).reshape(n, 2 * h, 2 * w, N).permute(0, 3, 1, 2))


class Repeated(Net):
    def build(self):
        self.up, self.tail = conv(), conv(N, 3)

    def end(self, x):
        x = self.up(x).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return self.tail(x)


class AtenShuffle(Direct):
    def end(self, x):
        return torch.ops.aten.pixel_shuffle(self.up[0](x), 2)


class Tokens(Net):
    """A linear layer makes the pixels."""

    def build(self):
        self.norm, self.up = nn.LayerNorm(N), nn.Linear(N, 12)

    def end(self, x):
        return F.pixel_shuffle(self.up(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2), 2)


class Unshuffled(Net):
    """Real-ESRGAN at x2: the input is folded into channels first, and enlarged twice in the end."""

    def build(self):
        self.head = conv(12)
        self.up1, self.up2, self.tail = conv(), conv(), conv(N, 3)

    def forward(self, x):
        x = self.features(F.pixel_unshuffle(x, 2))
        x = F.relu(self.up1(F.interpolate(x, scale_factor=2)))
        return self.tail(F.relu(self.up2(F.interpolate(x, scale_factor=2))))


class Wide(Net):
    """WDSR: a shuffled 5x5 convolution of the input is added, run first or last."""

    first = True

    def build(self):
        self.skip = nn.Sequential(conv(3, 12, 5), nn.PixelShuffle(2))
        self.up = nn.Sequential(conv(N, 12), nn.PixelShuffle(2))

    def forward(self, x):
        if self.first:
            return self.skip(x) + self.up(self.features(x))
        return self.up(self.features(x)) + self.skip(x)


class WideLast(Wide):
    first = False


class WideBetween(Wide):
    def forward(self, x):
        shallow = self.head(x)
        base = self.skip(x)
        return base + self.up(shallow + self.close(self.blocks(shallow)))


class Attentive(Direct):
    """ESA: attention that shrinks its map and restores it, in every block."""

    def build(self):
        super().build()
        self.down, self.gate = conv(N, N, stride=2), conv(N, N, 1)

    def attention(self, x):
        y = F.max_pool2d(self.down(x), 2)
        return x * torch.sigmoid(self.gate(F.interpolate(y, size=x.shape[-2:], mode="bilinear")))

    def features(self, x):
        x = self.head(x)
        for block in self.blocks:
            x = self.attention(block(x))
        return self.close(x)


class AttentiveWithoutUpsampler(Attentive):
    scale = 1

    def build(self):
        super().build()
        self.up = conv(N, 3)


class Denoiser(Net):
    """FFDNet: folded first, shuffled last, no enlargement."""

    scale = 1

    def build(self):
        self.head, self.up = conv(12), nn.Sequential(conv(N, 12), nn.PixelShuffle(2))

    def forward(self, x):
        return x - self.up(self.features(F.pixel_unshuffle(x, 2)))


class Restorer(Net):
    scale = 1

    def build(self):
        self.tail = conv(N, 3)

    def forward(self, x):
        return x + self.tail(self.features(x))


ATTENTION = {"down", "gate", "down#1", "gate#1"}
CASES = [
    (Direct, {"up.0"}, set()),
    (DirectWithBicubicSkip, {"up.0"}, set()),
    (SkipFirst, {"up.0"}, set()),
    (ShuffledInputSkip, {"up.0"}, set()),
    (AtenShuffle, {"up.0"}, set()),
    (Staged, {"up.0"}, {"up.2", "tail"}),
    (Activated, {"up"}, {"tail"}),
    (Gated, {"up"}, {"se.1", "se.3"}),
    (PixelGated, {"up"}, {"gate"}),
    (Nearest, {"close"}, {"up", "tail"}),
    (Transposed, set(), {"up", "tail"}),
    (ByHand, {"up"}, {"tail"}),
    (ByHandChannelsLast, {"up"}, {"tail"}),
    (Repeated, {"up"}, {"tail"}),
    (Tokens, {"up"}, set()),
    (Unshuffled, {"close"}, {"up1", "up2", "tail"}),
    (Wide, {"up.0"}, set()),
    (WideLast, {"up.0"}, {"skip.0"}),
    (WideBetween, {"up.0"}, set()),
    (Attentive, {"up.0"}, set()),
    (Denoiser, {"up.0"}, set()),
]


@pytest.mark.parametrize("size", [(12, 12), (8, 16)])
@pytest.mark.parametrize(("make", "feeds", "later"), CASES, ids=lambda c: getattr(c, "__name__", None))
def test_the_upsampler_begins_with_the_convolution_that_feeds_it(make, feeds, later, size):
    r = sqlib.quantize_model(make(), MinMax(4), [torch.rand(2, 3, *size)]).report().set_index("site")
    first = {"skip.0"} if make is Wide else {"head"}
    reasons = {
        "default: first convolution": first,
        "default: feeds the first upsampling": feeds,
        "default: from the first upsampling on": later,
    }
    assert {rule: set(r.index[r.rule == rule]) for rule in reasons} == reasons
    assert set(r.index[r.quantized]) == set(r.index) - first - feeds - later
    assert r.quantized[r.rule == "quantized"].all() and (r.weight_bits[~r.quantized] == 32).all()


@pytest.mark.parametrize("make", [Restorer, AttentiveWithoutUpsampler])
def test_without_an_upsampler_the_last_convolution(make):
    r = sqlib.quantize_model(make(), MinMax(4), [torch.rand(2, 3, 12, 12)]).report().set_index("site")
    last = "tail" if make is Restorer else "up"
    assert r.rule[last] == "default: last convolution" and list(r.index[~r.quantized]) == ["head", last]


@pytest.mark.parametrize("make", [case[0] for case in CASES], ids=lambda c: c.__name__)
def test_cost_skips_what_quantization_skips(make):
    """Found without values, on the meta device."""
    net = make()
    r = sqlib.quantize_model(net, MinMax(4), [torch.rand(1, 3, 12, 12)]).report().set_index("site")
    layers = cost.cost(net, (12 * net.scale, 12 * net.scale), bits=4).layers
    assert {p.site for p in layers if p.quantized} == set(r.index[r.quantized])


def test_a_picture_made_in_full_precision_is_better():
    """What the rule is for: the quantized last layer of a direct upsampler loses more than all the rest."""
    net, images = Direct().eval(), [torch.rand(4, 3, 16, 16)]
    rest = ["head"]
    ours = sqlib.quantize_model(net, MinMax(4), images)
    everything = sqlib.quantize_model(net, MinMax(4), images, skip=rest)
    with torch.no_grad():
        want = net(images[0])
        lost, more = (float((q(images[0]) - want).square().mean()) for q in (ours, everything))
    assert lost < 0.9 * more


def test_networks_of_our_own_have_rules_of_their_own():
    net = sqlib.models.create("elan-light", scale=2)
    r = sqlib.quantize_model(net, MinMax(8), [torch.rand(1, 3, 16, 16)]).report()
    assert set(r.rule[~r.quantized]) == {"network default: head", "network default: tail.*"}
