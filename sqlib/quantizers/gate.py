r"""DDTB's gate: two factors for every sample, from the means of its channels (Zhong et al., ECCV 2022).

.. math:: (\beta_l, \beta_u) = 2\,\sigma\bigl(W_2\, Q(\operatorname{relu}(\operatorname{BN}(
          W_1\, Q(\operatorname{mean}_{hw} x)))) + b_2\bigr)

with 32 hidden channels; both weights and both inputs Q of them have 2 bits. A 1x1 convolution of one pixel
is a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.quantizers._computed import ComputedBounds
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._workspace import unlent
from sqlib.quantizers.following import FollowingQuantizer

HIDDEN = 32
BITS = 2


@saved_as("gate")
class Gate(nn.Module):
    """Factors (N, 2) for lower and upper bound, between 0 and 2, from samples (N, ...).

    Parameters
    ----------
    channels : int
        Number of channels, C.
    axis : int
        Where the channels of a sample stand, from the end: -3 in images, -1 in sequences.
    seed : int
        Of the first weights, which have torch's distribution.

    Attributes
    ----------
    first, second
        The linear layers.
    gain, shift, mean, variance
        Of the batch normalization between them, (32,): in training over the samples of a batch if there are
        several, else with the running mean and variance.
    lower, upper
        Bounds of the inputs of both layers, (2,), learned with the rest; see `start`.

    Notes
    -----
    Works wherever its own tensors are and in their dtype; the factors come back there. In evaluation mode
    samples are computed one by one, because torch's products and activation functions give other last bits
    for other batch sizes.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, axis: int = -3, *, seed: int = 0) -> None:
        super().__init__()
        self.channels, self.axis = channels, axis
        kind: Any = {"dtype": torch.float32}  # whatever the default is
        self.first = nn.utils.skip_init(nn.Linear, channels, HIDDEN, bias=False, **kind)
        self.gain = nn.Parameter(torch.ones(HIDDEN, **kind))
        self.shift = nn.Parameter(torch.zeros(HIDDEN, **kind))
        self.register_buffer("mean", torch.zeros(HIDDEN, **kind))
        self.register_buffer("variance", torch.ones(HIDDEN, **kind))
        self.second = nn.utils.skip_init(nn.Linear, HIDDEN, 2, **kind)
        self.weights = FollowingQuantizer(BITS, percentile=99.0)
        self.lower = nn.Parameter(torch.zeros(2, **kind))
        self.upper = nn.Parameter(torch.ones(2, **kind))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in (self.first.weight, self.second.weight, self.second.bias):
                bound = p.shape[-1] ** -0.5 if p.ndim > 1 else HIDDEN**-0.5
                p.uniform_(-bound, bound, generator=generator)

    def options(self) -> dict[str, Any]:
        """Channels and their axis."""
        return {"channels": self.channels, "axis": self.axis}

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Gate:
        """From `options` and the tensors of the state dict."""
        gate = cls(options["channels"], options["axis"])
        gate.load_state_dict(dict(tensors))
        return gate

    def samples(self, x: Tensor) -> Tensor:
        """With an axis of samples, which a single one may lack."""
        return x[None] if x.ndim == -self.axis else x

    def pool(self, x: Tensor) -> Tensor:
        """Means over everything but samples and channels, (N, C).

        Raises
        ------
        InputError
            Another number of channels.
        """
        x = self.samples(x)
        if x.ndim <= -self.axis or x.shape[self.axis] != self.channels:
            raise InputError(
                f"gate: a tensor of shape {tuple(x.shape)}, expected samples with {self.channels} "
                f"channels on axis {self.axis}"
            )
        others = [d for d in range(1, x.ndim) if d != x.ndim + self.axis]
        return (x.mean(others) if others else x).to(self.first.weight)

    @torch.no_grad()
    def start(self, pooled: Tensor, percentile: float) -> None:
        """Put the bounds of both layers' inputs at percentiles of what pooled samples (N, C) give."""
        values = pooled.to(self.first.weight)
        self._start(0, values, percentile)
        products = F.linear(self._narrow(values, 0), self.weights(self.first.weight))
        mean, variance = self.mean, self.variance
        if len(products) > 1:
            mean, variance = products.mean(0), products.var(0, correction=0)
        hidden = F.batch_norm(products, mean, variance, self.gain, self.shift)
        self._start(1, torch.relu(hidden), percentile)

    def _start(self, i: int, values: Tensor, percentile: float) -> None:
        found = np.percentile(values.double().cpu().numpy(), (100 - percentile, percentile))
        low, high = (float(v) for v in found)
        self.lower[i], self.upper[i] = low, high if high > low else low + 1

    def logits(self, x: Tensor) -> Tensor:
        """What goes into the sigmoid, (N, 2)."""
        with unlent():
            first, second = self.weights(self.first.weight), self.weights(self.second.weight)
            pooled = self._narrow(self._each(self.pool, self.samples(x)), 0)
            hidden = self._narrow(self._each(lambda part: self._hidden(part, first), pooled), 1)
            return self._each(lambda part: F.linear(part, second, self.second.bias), hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self._each(lambda part: 2 * torch.sigmoid(part), self.logits(x))

    def _each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The function of all samples at once in training, of one after the other in evaluation mode."""
        return function(x) if self.training else torch.cat([function(part) for part in x.split(1)])

    def _hidden(self, pooled: Tensor, weight: Tensor) -> Tensor:
        """The hidden channels (N, 32)."""
        several = self.training and len(pooled) > 1
        products = F.linear(pooled, weight)
        normal = F.batch_norm(products, self.mean, self.variance, self.gain, self.shift, several)
        return torch.relu(normal)

    def _narrow(self, x: Tensor, i: int) -> Tensor:
        """The input of a layer at 2 bits; bounds that training has crossed change places."""
        lower, upper = self.lower[i], self.upper[i]
        ordered = torch.minimum(lower, upper), torch.maximum(lower, upper)
        return ComputedBounds(*ordered, BITS)(x)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"channels={self.channels}, axis={self.axis}"
