r"""ELAN (Zhang et al., ECCV 2022): shift convolutions and attention over windows of several sizes.

Channels are split into as many groups as there are window sizes; within a window every pixel attends to every
other by

.. math:: \mathrm{softmax}(Q Q^{\mathsf T})\, V,

with no scaling, and with queries that are their own keys. The attention maps of a block's first half are
reused by its second half, so half of them are never computed. Each product is a plain ``@``, which
`sqlib.quantize_model` sees as a call site of its own (``body.0.attention1.windows.2.matmul``, then ``#1``).

The network computes in 0..255 with the mean of DIV2K subtracted. A batch normalization follows the projection
in front of the attention; in evaluation mode, which quantization always uses, it applies its running
statistics: a fixed affine map per channel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import lcm
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.models._common import RGBMean, SRNetwork, check_scale, rgb
from sqlib.models._layout import Layout, check_mean
from sqlib.models._spec import Spec, WeightsFile

# Fifths of the channels read the neighbour at (row, column) of the padded 3x3 neighbourhood: right, left,
# below, above, and the pixel itself.
_SHIFTS = ((1, 2), (1, 0), (2, 1), (0, 1), (1, 1))


def shift(x: Tensor) -> Tensor:
    """Move four fifths of the channels by one pixel, each in another direction, with zeros coming in.

    (N, C, H, W) to the same; a remainder of C / 5 stays where it is. ELAN's release writes it as a depth-wise
    convolution with fixed kernels of a single one (``mask``; 38,880 numbers in ELAN-light, not trained).
    """
    channels, height, width = x.shape[1:]
    fifth = channels // 5
    sizes = [fifth] * 4 + [channels - 4 * fifth]
    groups = F.pad(x, (1, 1, 1, 1)).split(sizes, dim=1)
    moved = [g[:, :, r : r + height, c : c + width] for g, (r, c) in zip(groups, _SHIFTS, strict=True)]
    return torch.cat(moved, dim=1)


class ShiftConv(nn.Module):
    """A 1x1 convolution over shifted channels: the reach of a 3x3 convolution for a ninth of the weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(shift(x)))


class LocalFeatures(nn.Module):
    """Local feature extraction (LFE): ``conv2(relu(conv1(x)))``, wider by ``expansion`` in between."""

    def __init__(self, features: int, expansion: int) -> None:
        super().__init__()
        self.conv1 = ShiftConv(features, features * expansion)
        self.relu = nn.ReLU()
        self.conv2 = ShiftConv(features * expansion, features)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv2(self.relu(self.conv1(x))))


class WindowAttention(nn.Module):
    """Attention inside non-overlapping windows, for one group of channels; it has no weights.

    Parameters
    ----------
    window : int
        Side in pixels; divides the height and width of the input.
    shifted : bool
        Roll the image by half a window first and back afterwards. The roll is cyclic: pixels of opposite
        borders meet in one window, and nothing is masked.
    """

    def __init__(self, window: int, shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.offset = window // 2 if shifted else 0

    def forward(
        self, values: Tensor, queries: Tensor | None, attention: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Mix ``values`` by ``attention`` or, where it is None, by the maps that ``queries`` give.

        Values and queries are (N, c, H, W), maps (N * windows, window**2, window**2). Returns the mixed
        values and the maps.
        """
        if attention is None:
            q = self._split(cast(Tensor, queries))
            attention = torch.softmax(q @ q.transpose(-2, -1), dim=-1)
        return self._join(attention @ self._split(values), values.shape), attention

    def _split(self, x: Tensor) -> Tensor:
        """(N, c, H, W) to (N * windows, window**2, c), one row of pixels per window."""
        if self.offset:
            x = x.roll((-self.offset, -self.offset), dims=(2, 3))
        n, c, h, w = x.shape
        side = self.window
        x = x.reshape(n, c, h // side, side, w // side, side)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, c)

    def _join(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Inverse of `_split`."""
        n, c, h, w = shape
        side = self.window
        x = rows.reshape(n, h // side, w // side, side, side, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)
        return x.roll((self.offset, self.offset), dims=(2, 3)) if self.offset else x


class GroupAttention(nn.Module):
    """Group-wise multi-scale self-attention (GMSA): one `WindowAttention` per group of channels.

    Parameters
    ----------
    features : int
    windows : tuple of int
    shifted : bool
    own : bool
        Compute attention maps, so project to queries and values; otherwise to values alone.
    """

    def __init__(self, features: int, windows: tuple[int, ...], shifted: bool, own: bool) -> None:
        super().__init__()
        self.own = own
        projected = 2 * features if own else features
        self.project_in = nn.Conv2d(features, projected, 1)
        self.norm = nn.BatchNorm2d(projected)
        self.windows = nn.ModuleList(WindowAttention(window, shifted) for window in windows)
        self.project_out = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, attention: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """(N, C, H, W) to the same, and the attention maps, which are those given where not ``own``."""
        projected = self.norm(self.project_in(x)).chunk(len(self.windows), dim=1)
        mixed, maps = [], []
        for i, (window, group) in enumerate(zip(self.windows, projected, strict=True)):
            # The release's order: in every group the queries come first, then the values.
            queries, values = group.chunk(2, dim=1) if self.own else (None, group)
            out, used = window(values, queries, None if attention is None else attention[i])
            mixed.append(out)
            maps.append(used)
        return cast(Tensor, self.project_out(torch.cat(mixed, dim=1))), maps


class Block(nn.Module):
    """Efficient long-range attention block (ELAB): local, attention, local, the same attention again.

    All four parts are residual. The second attention has its own projections but the first one's maps.
    """

    def __init__(self, features: int, expansion: int, windows: tuple[int, ...], shifted: bool) -> None:
        super().__init__()
        self.local1 = LocalFeatures(features, expansion)
        self.attention1 = GroupAttention(features, windows, shifted, own=True)
        self.local2 = LocalFeatures(features, expansion)
        self.attention2 = GroupAttention(features, windows, shifted, own=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.local1(x)
        mixed, maps = self.attention1(x)
        x = x + mixed
        x = x + self.local2(x)
        mixed, _ = self.attention2(x, maps)
        return cast(Tensor, x + mixed)


class ELAN(SRNetwork):
    """ELAN at one scale; the defaults are ELAN-light.

    Parameters
    ----------
    name : str
    scale : 2, 3 or 4
        582,012, 590,127 and 601,488 parameters in ELAN-light.
    blocks : int
        Half the paper's m = 24, which counts every attention. The second, fourth, ... block is shifted.
    features : int
        A multiple of the number of windows (c = 60 in the paper).
    expansion : int
    windows : tuple of int
        The input is padded by reflection to a multiple of all of them.

    Raises
    ------
    InputError
        ``features`` cannot be split among the windows.
    """

    def __init__(
        self,
        name: str,
        scale: int,
        *,
        blocks: int = 12,
        features: int = 60,
        expansion: int = 2,
        windows: tuple[int, ...] = (4, 8, 16),
    ) -> None:
        super().__init__()
        self.name, self.scale = name, check_scale(name, scale)
        if features % len(windows):
            raise InputError(
                f"{name} got {features} features for {len(windows)} windows; expected a multiple of "
                f"{len(windows)}: every window size works on its own share of the channels"
            )
        self.multiple = lcm(*windows)
        self.rgb_mean = RGBMean(rgb_range=255.0)
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.body = nn.ModuleList(Block(features, expansion, windows, i % 2 == 1) for i in range(blocks))
        self.tail = nn.Sequential(
            nn.Conv2d(features, 3 * scale * scale, 3, padding=1), nn.PixelShuffle(scale)
        )

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        return height + -height % self.multiple, width + -width % self.multiple

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        shallow = self.head(self.rgb_mean.subtract(reflect_to_multiple(rgb(x), self.multiple)))
        deep = shallow
        for block in self.body:
            deep = block(deep)
        out = self.rgb_mean.add(self.tail(deep + shallow))
        return out[:, :, : height * self.scale, : width * self.scale]


def reflect_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) below and to the right by reflection, to a multiple of ``multiple`` pixels.

    Unlike ``F.pad`` it reflects as often as needed, so an image may be smaller than its padding.
    """
    for dim in (2, 3):
        size = x.shape[dim]
        missing = -size % multiple
        if torch.compiler.is_compiling() or missing:  # a graph is of images of any size
            # 0 1 2 3 2 1 0 1 ...: a triangle wave that turns at the first and the last pixel.
            position = torch.arange(size + missing, device=x.device)
            position = torch.remainder(position, torch.full_like(position, max(1, 2 * (size - 1))))
            x = x.index_select(dim, torch.minimum(position, 2 * (size - 1) - position))
    return x


def official(names: Collection[str], network: ELAN) -> Layout:
    """The names of the ELAN release (``body.0.modules_lfe.0.lfe.0.weight``).

    It keeps the fixed kernels of every shift as ``mask``; they are compared with `shift` and dropped.
    """
    table: dict[str, str | tuple[str, ...]] = {}
    for half in (0, 1):
        local, attention = f"body.*.modules_lfe.{half}", f"body.*.modules_gmsa.{half}"
        table |= {
            f"{local}.lfe.0": f"body.*.local{half + 1}.conv1.conv",
            f"{local}.lfe.2": f"body.*.local{half + 1}.conv2.conv",
            f"{attention}.project_inp.0": f"body.*.attention{half + 1}.project_in",
            f"{attention}.project_inp.1": f"body.*.attention{half + 1}.norm",
            f"{attention}.project_out": f"body.*.attention{half + 1}.project_out",
        }
    return Layout(table, ("sub_mean.*", "add_mean.*", "body.*.mask"), _check_constants)


def _check_constants(state: Mapping[str, Tensor]) -> None:
    """Raise InputError unless the fixed tensors of a release's file do what this network does."""
    check_mean(state, rgb_range=255.0)
    for key, kernels in state.items():
        if key.startswith("body.") and key.endswith(".mask") and not _shifts(kernels):
            raise InputError(
                f"{key} does not shift fifths of its channels right, left, below, above and not at all; "
                "expected the fixed kernels of the ELAN release"
            )


def _shifts(kernels: Tensor) -> bool:
    """Whether the depth-wise ``kernels`` (C, 1, 3, 3) do what `shift` does."""
    if kernels.dim() != 4 or kernels.shape[1:] != (1, 3, 3):
        return False
    channels = kernels.shape[0]
    # Images with a single one, at every position, tell this linear map from any other.
    ones = torch.eye(9).reshape(9, 1, 3, 3).expand(9, channels, 3, 3)
    return torch.equal(F.conv2d(ones, kernels.float(), padding=1, groups=channels), shift(ones))


_SOURCE = "https://github.com/Fried-Rice-Lab/FriedRiceLab"
_COMMIT = "a82cfd7ac2f07cedf870ea7f3bc293c8b21d1f60"

SPEC = Spec(
    network=ELAN,
    names={"elan-light": {}},
    skip=("head", "tail.*"),
    blocks="body.*",
    # RefQSR: the maps after the softmax, here the left factors of the products with the values. All else in
    # the body is quantized, the product of queries and keys included.
    unquantized={
        "elan-light": (
            "body.*.attention1.windows.*.matmul#1:left",
            "body.*.attention2.windows.*.matmul:left",
        )
    },
    # The release shifts by a depth-wise 3x3 convolution. RefQSR's totals hold the larger of the two in each
    # local extraction (120 channels), and no more.
    fixed={"body.*.local*.conv2.conv": 9},
    replaced=2,
    refined="body.*.local?",
    official=official,
    files=(
        # Trained by that lab, not by ELAN's authors.
        WeightsFile(
            "elan-light",
            (4,),
            "elan_light_x4.pth",
            "MIT",
            _SOURCE,
            f"{_SOURCE}/raw/{_COMMIT}/modelzoo/ELAN/ELAN-demo.pth",
            "433400f0b3182d1c0e363edd122a070d04215283621b968367d2caac2de10493",
        ),
    ),
)
