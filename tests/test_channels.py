"""The channel axis of a module's output, whatever the layout and whichever sizes coincide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sqlib import models
from sqlib.engine.channels import channel_axis
from sqlib.models.swinir import SwinIR


class Then(nn.Module):
    def __init__(self, layer, after):
        super().__init__()
        self.layer, self.after = layer, after

    def forward(self, x):
        return self.after(x, self.layer(x))


def conv(*a, **kw):
    return nn.Conv2d(*a, 3, padding=1, **kw)


X = torch.rand(1, 6, 6, 6)
CASES = {
    "convolution": (conv(6, 6), X, 1),
    "one channel": (conv(6, 1), X, 1),
    "one pixel": (conv(6, 6), X[..., :1, :1], 1),
    "channels last memory": (conv(6, 6), X.to(memory_format=torch.channels_last), 1),
    "residual": (Then(conv(6, 6), lambda x, y: F.relu(x + y)), X, 1),
    "permuted": (Then(conv(6, 6), lambda x, y: (x + y).permute(0, 2, 3, 1)), X, 3),
    "permuted sideways": (Then(conv(6, 6), lambda x, y: y.permute(0, 3, 1, 2)), X, 2),
    "shuffled": (Then(conv(6, 24), lambda x, y: F.pixel_shuffle(y, 2)), X, 1),
    "pooled": (Then(conv(6, 6), lambda x, y: F.max_pool2d(y, 2)), X, 1),
    "gated": (
        Then(nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(6, 6), nn.Sigmoid()), lambda x, y: x * y),
        X,
        1,
    ),
    "linear on maps": (nn.Linear(6, 6), X, 3),
    "linear on maps with a skip": (Then(nn.Linear(6, 6), lambda x, y: x + y), X, 3),
    "norm after linear": (nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), X, 3),
    "norm after convolution": (
        Then(conv(6, 6), lambda x, y: F.layer_norm(y.permute(0, 2, 3, 1), (6,))),
        X,
        3,
    ),
    "linear to an image": (Then(nn.Linear(6, 6), lambda x, y: y.permute(0, 3, 1, 2)), X, 1),
    "tokens": (nn.Linear(6, 6), X[0], 2),
    "tokens first": (Then(nn.Linear(6, 6), lambda x, y: y.transpose(1, 2)), X[0], 1),
    "rows": (nn.Linear(6, 6), X[0, 0], 1),
    "sequence": (nn.Conv1d(6, 6, 3, padding=1), X[0], 1),
    "volume": (nn.Conv3d(6, 6, 3, padding=1), torch.rand(1, 6, 6, 6, 6), 1),
    "transposed": (nn.ConvTranspose2d(6, 6, 2, stride=2), X, 1),
    "attention": (Then(nn.Identity(), lambda x, y: x.flatten(2).mT @ x.flatten(2)), X, 2),
    "no layer": (nn.ReLU(), X, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_layouts(case):
    torch.manual_seed(0)
    module, x, axis = CASES[case]
    assert channel_axis(lambda: module.eval()(x[:1])) == axis


def test_multihead_attention():
    layer = nn.TransformerEncoderLayer(6, 2, 6, batch_first=True).eval()
    assert channel_axis(lambda: layer(X[0][:1])) == 2


@pytest.mark.parametrize("size", [8, 16, 24])
def test_swin_layers(size):
    """Windows of 8, 16 channels: sizes below, at and above."""
    torch.manual_seed(0)
    swin = SwinIR("small", 2, features=16, depths=(2,), heads=2)
    x = torch.rand(1, size, size, 16)
    assert channel_axis(lambda: swin.groups[0].layers[1](x)) == 3
    assert channel_axis(lambda: swin.groups[0](x)) == 3
    assert channel_axis(lambda: swin(torch.rand(1, 3, size, size))) == 1


@pytest.mark.parametrize("name", ["edsr-small", "carn-m", "srresnet", "elan-light"])
def test_convolutional_networks(name):
    net = models.create(name, scale=2)
    assert channel_axis(lambda: net(torch.rand(1, 3, 8, 8))) == 1
