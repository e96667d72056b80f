"""DFSQ where a plane has one value or two: squeeze-and-excite, rows of linear layers, matrices, attention."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import sqlib
from sqlib import cost
from sqlib.codebook import fit_codebook, universal_set
from sqlib.quantizers import SubsetObserver, SubsetQuantizer
from sqlib.recipes import DFSQ, CompensatedDFSQ


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fitted(x, bits=2, **options):
    observer = SubsetObserver(bits, selector="exact", **options)
    observer.update(x)
    return observer.finish()


def by_hand(x, points, dims, centre=True):
    """Eq. 1 with statistics over `dims`, one set of points, in float64."""
    x = x.double()
    mean = x.mean(dims, keepdim=True) if centre else torch.zeros(())
    most = (x - mean).abs().amax(dims, keepdim=True) + 1e-8
    t = (x - mean) / most
    nearest = (t[..., None] - points).abs().argmin(-1)
    return points[nearest] * most + mean


SHAPES = [
    # shape, axis, sample axis, over which axes a sample runs
    ((4, 16, 1, 1), -3, 0, (1, 2, 3)),  # squeeze-and-excite: 64 values
    ((4, 16, 1, 2), -3, 0, (1, 2, 3)),  # two values are as good as their mean and magnitude
    ((16, 1, 1), -3, 0, (0, 1, 2)),  # an image without the axis of samples
    ((4, 16, 1), -2, 0, (1, 2)),
    ((4, 16, 1, 1, 1), -4, 0, (1, 2, 3, 4)),
    ((4, 16), -1, 0, (1,)),  # rows of a linear layer
    ((16,), -1, 0, (0,)),
    ((4, 1, 16), -1, 0, (1, 2)),  # one token
    ((4, 2, 16), -1, 0, (1, 2)),
    ((4, 16), None, 0, (1,)),  # a matrix on the left
    ((16, 4), None, -1, (0,)),  # and on the right
]


@pytest.mark.parametrize(("shape", "axis", "sample_axis", "dims"), SHAPES)
@pytest.mark.parametrize("centre", [True, False])
def test_statistics_are_those_of_the_sample(shape, axis, sample_axis, dims, centre):
    x = values(*shape)
    if not centre and axis is not None and np.prod(shape[axis:][1:]) == 2:
        return  # of two values, a magnitude alone leaves one to quantize
    if not centre and axis == -1 and len(shape) == 3 and shape[1] == 2:
        return
    q = fitted(x, axis=axis, sample_axis=sample_axis, centre=centre)
    assert isinstance(q, SubsetQuantizer) and q.points.shape == (4,) and q.bits == 2
    assert q.channelwise is (axis is None)
    want = by_hand(x, q.points, dims, centre)
    for got in (q.fake(x), q.fake_torch(x), q.decode(q.encode(x))):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-6)
        assert got.shape == x.shape
    assert q.fake(x).stride() == q.fake_torch(x).stride() == x.stride()
    kept = int(torch.isclose(q(x), x, rtol=0, atol=1e-4).sum())
    assert kept <= 0.3 * x.numel()  # the largest of each sample, and what lies on a point


@pytest.mark.parametrize(("shape", "axis", "sample_axis", "dims"), SHAPES)
def test_nobody_else_in_the_batch_matters(shape, axis, sample_axis, dims):
    x = values(*shape)
    samples = 1 if len(dims) == len(shape) else 4
    q = fitted(x, axis=axis, sample_axis=sample_axis)
    along = 1 if sample_axis == -1 else 0
    if samples == 1:
        torch.testing.assert_close(q(torch.stack([x, 9 * x]))[0], q(x)) if axis != -1 else None
        return
    for i, part in enumerate(x.split(1, along)):
        alone = q(part)
        assert torch.equal(alone, q(x).split(1, along)[i])
        crowd = torch.cat([part, 100 * x], along)
        assert torch.equal(alone, q(crowd).split(1, along)[0])


def test_planes_of_more_values_keep_their_own_statistics():
    """And points per channel, also where a plane of one value comes later."""
    x = values(3, 8, 6, 5)
    q = fitted(x)
    assert q.channelwise and q.points.shape == (8, 4)
    small = values(3, 8, 1, 1, seed=1)
    want = torch.stack([by_hand(small, p, (1, 2, 3)) for p in q.points], 1)[:, range(8), range(8)]
    torch.testing.assert_close(q(small).double(), want, rtol=0, atol=1e-6)
    torch.testing.assert_close(q.fake_torch(small).double(), want, rtol=0, atol=1e-6)
    wide = values(3, 8, 1, 3, seed=2)
    own = torch.stack([by_hand(wide[:, c], q.points[c], (1, 2)) for c in range(8)], 1)
    torch.testing.assert_close(q(wide).double(), own, rtol=0, atol=1e-6)


def test_tiles_of_one_pixel_share_statistics_over_channels():
    x = values(2, 8, 5, 6)
    single = fitted(x, patch=1)
    torch.testing.assert_close(single(x).double(), by_hand(x, single.points, (1,)), rtol=0, atol=1e-6)
    q = fitted(values(2, 8, 8, 8), patch=4)
    corner = q(x)[..., 4:, 4:]  # 1 x 2 pixels left over at the edge have their own
    want = torch.stack([by_hand(x[:, c, 4:, 4:], q.points[c], (1, 2)) for c in range(8)], 1)
    torch.testing.assert_close(corner.double(), want, rtol=0, atol=1e-6)
    x = values(2, 8, 5, 5)
    pixel = x[..., 4:, 4:]
    want = torch.stack([by_hand(pixel, p, (1, 2, 3)) for p in q.points], 1)[:, range(8), range(8)]
    torch.testing.assert_close(q(x)[..., 4:, 4:].double(), want, rtol=0, atol=1e-6)
    torch.testing.assert_close(q(x)[..., :4, :4], q(x[..., :4, :4]))


@pytest.mark.parametrize(("shape", "axis"), [((5, 1, 1, 1), -3), ((5, 1), -1), ((5, 2), -1), ((5, 2), None)])
def test_samples_of_too_few_values_stay_as_they_are(shape, axis):
    q = fitted(values(*shape), axis=axis)
    assert isinstance(q, nn.Identity)
    assert isinstance(fitted(values(shape[0], 3, *shape[2:]), axis=axis), SubsetQuantizer)


def test_fixed_scales_have_no_such_limit():
    x = values(6, 4, 1, 1)
    observer = SubsetObserver(2, selector="exact", normalize="static")
    for number in range(observer.passes):
        observer.update(x, number)
    q = observer.finish()
    scale = x.abs().amax((0, 2, 3)).double()
    for c in range(4):
        t = x[:, c].double() / scale[c]
        want = q.points[c][(t[..., None] - q.points[c]).abs().argmin(-1)] * scale[c]
        torch.testing.assert_close(q(x)[:, c].double(), want, rtol=0, atol=1e-6)


class Excited(nn.Module):
    """A residual block with squeeze-and-excite, and a gate made from one number."""

    scale, name, default_skip = 1, "excited", ("first", "last")

    def __init__(self, features=16):
        super().__init__()
        self.first = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.Conv2d(features, features, 3, padding=1)
        self.down, self.up = nn.Conv2d(features, 8, 1), nn.Conv2d(8, features, 1)
        self.gate = nn.Linear(features, features)
        self.level = nn.Linear(1, features)
        self.last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        y = self.body(x)
        pooled = y.mean((2, 3), keepdim=True)
        y = y * torch.sigmoid(self.up(torch.relu(self.down(pooled))))
        rows = pooled.flatten(1)
        gate = torch.tanh(self.gate(rows) + self.level(rows.mean(1, keepdim=True)))
        return self.last(x + y * gate[:, :, None, None])


@pytest.fixture(scope="module")
def excited():
    torch.manual_seed(0)
    return Excited().eval()


@pytest.mark.parametrize("recipe", [DFSQ(2, selector="exact"), DFSQ(3), CompensatedDFSQ(2)])
def test_report_and_cost_say_what_was_done(excited, recipe):
    data = [torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    quantized = sqlib.quantize_model(excited, recipe, data)
    rows = quantized.report().set_index("site")
    bits = recipe.activation_bits
    assert rows.activation_bits.to_dict() == {
        "first": 32, "body": bits, "down": bits, "up": bits, "gate": bits, "level": 32, "last": 32
    }  # fmt: skip
    assert rows.rule["level"].endswith("; input in full precision: too few values in a sample")
    for site in ("down", "up", "gate"):
        assert rows.rule[site].endswith("; input normalized per sample: too few values in a plane")
    assert "input" not in rows.rule["body"]
    assert cost.cost(quantized, (12, 12)).fqr == (4 * bits + 32) / 5
    seen = {}
    for name in ("down", "up", "gate"):
        quantizer = quantized.activations[f"{name}:input"]
        quantizer.register_forward_hook(
            lambda _, inputs, out, n=name: seen.update({n: (inputs[0].clone(), out.clone())})
        )
    with torch.no_grad():
        out = quantized(data[0])
        for x, y in seen.values():
            for row in range(len(x)):
                assert len(y[row].unique()) <= 2**bits  # as many values a sample as there are codes
            assert int((x == y).sum()) < 0.4 * x.numel()
        torch.testing.assert_close(quantized(data[0][:1]), out[:1], rtol=0, atol=1e-5)
    twin = copy.deepcopy(quantized)
    with torch.no_grad():
        assert torch.equal(twin(data[0]), out)


class Mixed(nn.Module):
    """Products of matrices, and attention on sequences."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(12, 12))
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        y = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        rows = y.mean(1)
        return rows @ self.matrix + (self.matrix @ rows.t()).t()


def test_matrices_and_attention_do_not_look_across_the_batch():
    torch.manual_seed(0)
    x = torch.randn(5, 12, 3, 4)
    quantized = sqlib.quantize_model(Mixed(), DFSQ(4, selector="exact"), [x], skip=[])
    rows = quantized.report()
    assert rows.quantized.all() and (rows.activation_bits == 4).all()
    with torch.no_grad():
        together = quantized(x)
        for i in range(5):
            torch.testing.assert_close(quantized(x[i : i + 1]), together[i : i + 1], rtol=0, atol=1e-5)


def test_ordinary_maps_have_points_per_channel_and_statistics_per_plane():
    x = values(2, 3, 7, 9)
    q = fitted(x, bits=3)
    universe = universal_set(4)
    t = (x - x.mean((2, 3), keepdim=True)).double()
    t = t / t.abs().amax((2, 3), keepdim=True)
    for c in range(3):
        best = fit_codebook(t[:, c].reshape(-1).numpy(), universe, 8)
        error = ((t[:, c][..., None] - q.points[c]).abs().amin(-1) ** 2).sum()
        assert float(error) == pytest.approx(float(best.error), rel=1e-4)
