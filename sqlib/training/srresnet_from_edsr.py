"""SRResNet that computes what EDSR computes: where its training begins.

Without this, hours on a CPU are not enough: a normalization begins with residuals of variance 1 beside
features in 0..255. Weights that compute the same function in another architecture are a start as good as
their source (Net2Net, Chen et al., ICLR 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.models import SRNetwork
from sqlib.models.edsr import EDSR
from sqlib.models.edsr import ResidualBlock as EDSRBlock
from sqlib.models.srresnet import ResidualBlock, SRResNet

# Low-resolution pixels of a side whose middle no border reaches: upsampler and tail of both see 4 at most.
_FAR = 13


def adopt_edsr(network: SRResNet, source: SRNetwork, images: Sequence[NDArray[np.uint8]]) -> bool:
    """Let ``network`` compute what ``source`` does, except along the border.

    EDSR has biases and subtracts a mean; SRResNet has neither, but normalizes and has PReLU slopes.

    - A PReLU of slope 0 is a ReLU. A slope of 1, behind the head and in the upsampler, does nothing.
    - EDSR's features are the head's without bias and mean, plus a constant per channel. A convolution makes
      of it another constant, which the normalization behind it adds.
    - Biases of upsampler and tail and the mean make 3 scale^2 constants of the output. Behind the body all is
      linear, so the last normalization adds the smallest vector that becomes these constants, or comes
      nearest to them where there are fewer channels.
    - A normalization multiplies by the deviation that it divides by, and adds the mean that it subtracts.

    Zeros beyond the border are black here and the mean colour in EDSR: the outermost pixels are wrong until
    the network has learned on.

    Parameters
    ----------
    network : changed in place, in evaluation mode afterwards
    source : EDSR of as many blocks and features, of the same scale, which does not scale its residuals
    images : uint8 (H, W, 3); statistics of the normalizations are those of their features

    Returns
    -------
    False, and nothing is changed, where ``source`` is another network.

    Raises
    ------
    InputError
        No images.
    """
    fits = (
        isinstance(source, EDSR)
        and source.scale == network.scale
        and len(source.blocks) == len(network.blocks)
        and all(cast(EDSRBlock, block).residual_scale == 1.0 for block in source.blocks)
        and source.head.out_channels == network.head.out_channels
    )
    if fits and not len(images):
        raise InputError("no images were given; normalizations need one at least for their statistics")
    if fits:
        with torch.no_grad():
            _compute_the_same(network.eval(), cast(EDSR, source).eval())
            _normalize(network, images)
    return fits


def _compute_the_same(network: SRResNet, source: EDSR) -> None:
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):  # the identity
            module.reset_running_stats()
            _variance(module).sub_(module.eps)
            nn.init.ones_(module.weight)
    mean = -source.rgb_mean.subtract(torch.zeros(1, 3, 1, 1)).flatten()
    constant = _bias(source.head) - _summed(source.head) @ mean

    _put(source.head, network.head)
    for their, our in zip(source.blocks, network.blocks, strict=True):
        theirs, ours = cast(EDSRBlock, their), cast(ResidualBlock, our)
        _put(theirs.conv1, ours.conv1)
        ours.norm1.bias.copy_(_bias(theirs.conv1) + _summed(theirs.conv1) @ constant)
        nn.init.zeros_(ours.prelu.weight)
        _put(theirs.conv2, ours.conv2)
        ours.norm2.bias.copy_(_bias(theirs.conv2))
    _put(source.body_end, network.body_end)
    for pair in zip(_convolutions(source.upsampler), _convolutions(network.upsampler), strict=True):
        _put(*pair)
    _put(source.tail, network.tail)

    body = _bias(source.body_end) + _summed(source.body_end) @ constant + constant
    network.body_end_norm.bias.copy_(body + _that_becomes(_output_constants(source, mean), network))


def _output_constants(source: EDSR, mean: Tensor) -> Tensor:
    """What biases and the mean make of features of zero, far from the border: (3, scale, scale)."""
    features = torch.zeros(1, source.head.out_channels, _FAR, _FAR)
    return _middle(source.tail(source.upsampler(features)), source.scale)[0] + mean[:, None, None]


def _that_becomes(constants: Tensor, network: SRResNet) -> Tensor:
    """Constant features (channels,) that upsampler and tail turn into constants of the output."""
    channels = network.head.out_channels
    each = torch.eye(channels)[:, :, None, None].expand(-1, -1, _FAR, _FAR)
    response = _middle(network.tail(network.upsampler(each)), network.scale).flatten(1).T
    # In float64: singular values lie a factor of a thousand apart.
    return (torch.linalg.pinv(response.double()) @ constants.flatten().double()).float()


def _normalize(network: SRResNet, images: Sequence[NDArray[np.uint8]]) -> None:
    """Normalizations get the statistics of what reaches them; what the network computes stays."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    sums: dict[nn.Module, list[Tensor]] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0].double()
        seen = [torch.tensor(float(x[:, 0].numel())), x.sum((0, 2, 3)), x.square().sum((0, 2, 3))]
        sums[norm] = [a + b for a, b in zip(sums[norm], seen, strict=True)] if norm in sums else seen

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    for image in images:
        network(torch.tensor(image).permute(2, 0, 1)[None].float() / 255)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        count, total, squares = sums[norm]
        average = total / count
        cast(Tensor, norm.running_mean).copy_(average)
        _variance(norm).copy_(squares / count - average.square())
        norm.weight.copy_((_variance(norm) + norm.eps).sqrt())
        norm.bias.add_(average)


def _put(source: nn.Conv2d, target: nn.Conv2d) -> None:
    """The same kernel, in the middle of one that may be larger."""
    nn.init.zeros_(target.weight)
    side, edge = source.kernel_size[0], (target.kernel_size[0] - source.kernel_size[0]) // 2
    target.weight[:, :, edge : edge + side, edge : edge + side] = source.weight


def _summed(conv: nn.Conv2d) -> Tensor:
    """The matrix by which a convolution multiplies constant features."""
    return conv.weight.sum((2, 3))


def _bias(conv: nn.Conv2d) -> Tensor:
    return cast(Tensor, conv.bias)


def _variance(norm: nn.BatchNorm2d) -> Tensor:
    return cast(Tensor, norm.running_var)


def _convolutions(upsampler: nn.Sequential) -> list[nn.Conv2d]:
    return [module for module in upsampler if isinstance(module, nn.Conv2d)]


def _middle(output: Tensor, scale: int) -> Tensor:
    start = _FAR // 2 * scale
    return output[..., start : start + scale, start : start + scale]
