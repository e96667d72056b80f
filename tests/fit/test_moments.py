"""Columns and moments of layers, against torch's own convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sqlib.fit.compensation.moments import Layer, Moments, conv2d_layer, sample

CALLS = [
    dict(weight=(6, 4, 3, 3), padding=1),
    dict(weight=(6, 4, 1, 1)),
    dict(weight=(6, 2, 3, 3), padding=1, groups=2),
    dict(weight=(4, 1, 3, 3), padding=(1, 1), groups=4),
    dict(weight=(5, 4, 3, 2), padding=(2, 0), stride=(2, 1), dilation=(1, 3)),
    dict(weight=(5, 4, 3, 4), padding="same", dilation=(2, 1)),
    dict(weight=(5, 4, 3, 3), padding="valid"),
]


def _call(options, x):
    options = dict(options)
    weight = torch.randn(options.pop("weight"), dtype=x.dtype)
    return weight, conv2d_layer(x, weight, None, **options), F.conv2d(x, weight, None, **options)


@pytest.mark.parametrize("options", CALLS, ids=str)
@pytest.mark.parametrize("limit", [10**6, 37])
def test_columns_times_weights_are_the_outputs(options, limit):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    weight, layer, out = _call(options, x)
    columns, wanted = layer.columns(x, limit), layer.outputs(out, limit)
    rows = layer.rows(weight).reshape(layer.groups, -1, columns.shape[2])
    product = (columns @ rows.mT).transpose(0, 1).reshape(wanted.shape)
    assert len(wanted) == min(limit, out.numel() // out.shape[1])
    assert torch.allclose(product, wanted)
    assert torch.equal(layer.weight(layer.rows(weight), weight), weight)


def test_linear_layers():
    x, weight = torch.randn(2, 7, 5), torch.randn(3, 5)
    layer = Layer()
    columns, wanted = layer.columns(x, 6), layer.outputs(F.linear(x, weight), 6)
    assert torch.allclose(columns[0] @ layer.rows(weight).T, wanted, atol=1e-6)


def test_samples_are_always_the_same_and_distinct():
    assert sample(10, 10) is None
    chosen = sample(1000, 100)
    assert torch.equal(chosen, sample(1000, 100))
    assert len(chosen.unique()) == 100 and bool((chosen.diff() > 0).all())


def _direct(x, y, groups):
    centred = x - x.mean(dim=1, keepdim=True)
    gram = centred.mT @ centred
    goal = (y - y.mean(dim=0)).reshape(len(y), groups, -1).transpose(0, 1)
    return gram, (goal.mT @ centred).flatten(0, 1)


def test_moments_of_parts_add_up():
    torch.manual_seed(0)
    x, y = torch.randn(2, 9000, 3, dtype=torch.float64) + 5, torch.randn(9000, 4, dtype=torch.float64) - 2
    parts = Moments.of(x[:, :5000], y[:5000]) + Moments.of(x[:, 5000:], y[5000:])
    for moments in (parts, Moments.of(x, y)):
        gram, cross = _direct(x, y, 2)
        assert torch.allclose(moments.gram, gram) and torch.allclose(moments.cross, cross)
        assert torch.allclose(moments.inputs, x.mean(dim=1)) and torch.allclose(
            moments.outputs, y.mean(dim=0)
        )
        assert moments.count == 9000


def test_moments_about_a_fixed_bias():
    torch.manual_seed(0)
    x, y = torch.randn(1, 500, 3, dtype=torch.float64) + 5, torch.randn(500, 4, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    moments = Moments.of(x, y).about(bias)
    assert torch.allclose(moments.gram[0], x[0].T @ x[0])
    assert torch.allclose(moments.cross, (y - bias).T @ x[0])


def test_constant_inputs_have_no_variance_left():
    x = torch.full((1, 10000, 5), 0.1)
    moments = Moments.of(x, torch.full((10000, 2), 0.3))
    assert float(moments.gram.abs().max()) <= 1e-12 * float(x.square().sum())
