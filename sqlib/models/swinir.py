"""SwinIR (Liang et al., ICCV Workshops 2021): residual groups of shifted-window transformer layers.

Self-attention runs inside windows of 8 x 8 pixels; every second layer shifts the windows by half their side,
so that information crosses their borders. Query, key and value are three linear layers, as 2DQuant has them
(it gives each its own quantizers); official checkpoints, which fuse them, are split on loading.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.models._common import DISTILLED, RGBMean, SRNetwork, check_scale
from sqlib.models._layout import Layout
from sqlib.models._spec import Spec, WeightsFile

PADDINGS = ("if-needed", "always")


def partition(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) to (N * windows, window^2, C), windows in row order; H, W are multiples of ``window``."""
    n, h, w, c = x.shape
    x = x.view(n, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, c)


def merge(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Inverse of :func:`partition`: (N * windows, window^2, C) to (N, height, width, C)."""
    c = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, c)


def relative_position_index(window: int) -> Tensor:
    """int64 (window^2, window^2): the entry of the bias table for each (query, key) pair of pixels."""
    row, column = (t.reshape(-1) for t in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
    down = row[:, None] - row[None, :] + window - 1
    right = column[:, None] - column[None, :] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(
    height: int, width: int, window: int, shift: int, device: torch.device | str = "cpu"
) -> Tensor:
    """float (windows, window^2, window^2): 0 within a region, -100 between pixels that only the shift joined.

    A cyclic shift puts the image's last rows beside its first ones in the last window; they must not attend
    to each other. -100 (not minus infinity) is Swin's constant: after the softmax the weight is below 1e-43.
    """

    def strip(size: int) -> Tensor:
        index = torch.arange(size, device=device)
        return (index >= size - window).long() + (index >= size - shift).long()

    region = strip(height)[:, None] * 3 + strip(width)[None, :]
    ids = partition(region[None, :, :, None], window)[:, :, 0]
    apart = ids[:, None, :] != ids[:, :, None]
    return torch.zeros_like(apart, dtype=torch.float32).masked_fill(apart, -100.0)


_known_mask = lru_cache(maxsize=64)(shift_mask)


class WindowAttention(nn.Module):
    """Multi-head self-attention within a window, with a learned bias per relative position and head."""

    def __init__(self, features: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.factor = heads, (features // heads) ** -0.5
        self.q = nn.Linear(features, features)
        self.k = nn.Linear(features, features)
        self.v = nn.Linear(features, features)
        self.proj = nn.Linear(features, features)
        self.relative_position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias, std=0.02)
        self.register_buffer("index", relative_position_index(window), persistent=False)
        self.index: Tensor

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        count, tokens, features = x.shape

        def split(t: Tensor) -> Tensor:
            return t.view(count, tokens, self.heads, -1).transpose(1, 2)

        q, k, v = split(self.q(x)) * self.factor, split(self.k(x)), split(self.v(x))
        scores = torch.matmul(q, k.transpose(-2, -1))
        # In place: the scores are the network's largest tensor, and fresh memory costs more than the sum.
        scores += self.relative_position_bias[self.index].permute(2, 0, 1)
        if mask is not None:
            by_image = scores.view(-1, mask.shape[0], self.heads, tokens, tokens)
            by_image += mask[:, None]
        out = torch.matmul(scores.softmax(-1), v)
        return self.proj(out.transpose(1, 2).reshape(count, tokens, features))


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class SwinLayer(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``; x is (N, H, W, C)."""

    def __init__(self, features: int, heads: int, window: int, shift: int, mlp_ratio: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(features)
        self.attn = WindowAttention(features, heads, window)
        self.norm2 = nn.LayerNorm(features)
        self.mlp = MLP(features, features * mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        y = self.norm1(x)
        # One window in a direction: nothing to shift to (Swin's rule looks at the smaller side).
        shift = self.shift if min(height, width) > self.window else 0
        mask = None
        if shift:
            y = y.roll((-shift, -shift), (1, 2))
            # In a graph the sizes may be symbols, and a mask that is part of it is no tensor to keep.
            make = shift_mask if torch.compiler.is_compiling() else _known_mask
            mask = make(height, width, self.window, shift, x.device).to(x.dtype)
        y = merge(self.attn(partition(y, self.window), mask), self.window, height, width)
        x = x + (y.roll((shift, shift), (1, 2)) if shift else y)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class ResidualGroup(nn.Module):
    """RSTB: several Swin layers, alternately unshifted and shifted, and a convolution, around a skip."""

    def __init__(self, features: int, depth: int, heads: int, window: int, mlp_ratio: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(SwinLayer(features, heads, window, (i % 2) * (window // 2), mlp_ratio) for i in range(depth))
        )
        self.conv = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.layers(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class SwinIR(SRNetwork):
    """SwinIR for lightweight super-resolution at one scale ("pixelshuffledirect").

    Parameters
    ----------
    name : str
    scale : 2, 3 or 4
    features, heads, window, mlp_ratio : int
        60, 6, 8 and 2 for SwinIR-light.
    depths : layers of each residual group; (6, 6, 6, 6) for SwinIR-light.
    padding : "if-needed" or "always"
        Any input is mirrored up to whole windows and the output cut back. "if-needed" (2DQuant's test
        code): only where a side is not a multiple of the window. "always" (SwinIR's): to the next larger
        multiple even then, which moves scores by about 0.01 dB.
    """

    def __init__(
        self,
        name: str,
        scale: int,
        *,
        features: int = 60,
        depths: Sequence[int] = (6, 6, 6, 6),
        heads: int = 6,
        window: int = 8,
        mlp_ratio: int = 2,
        padding: str = "if-needed",
    ) -> None:
        super().__init__()
        if features % heads:
            raise InputError(f"SwinIR: features={features} is not a multiple of heads={heads}")
        if padding not in PADDINGS:
            raise InputError(f"SwinIR: padding={padding!r}, expected one of {', '.join(PADDINGS)}")
        self.name, self.scale = name, check_scale(name, scale)
        self.window, self.padding = window, padding
        self.rgb_mean = RGBMean()
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.embed_norm = nn.LayerNorm(features)
        self.groups = nn.ModuleList(
            ResidualGroup(features, depth, heads, window, mlp_ratio) for depth in depths
        )
        self.norm = nn.LayerNorm(features)
        self.body_end = nn.Conv2d(features, features, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(features, 3 * scale * scale, 3, padding=1), nn.PixelShuffle(scale)
        )
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = self.pad(x)
        shallow = self.head(self.rgb_mean.subtract(padded))
        deep = self.embed_norm(shallow.permute(0, 2, 3, 1))
        for group in self.groups:
            deep = group(deep)
        deep = self.body_end(self.norm(deep).permute(0, 3, 1, 2))
        out = self.rgb_mean.add(self.upsampler(shallow + deep))
        return out[..., : height * self.scale, : width * self.scale]

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        least = 1 if self.padding == "always" else 0
        rows, columns = (size + least + -(size + least) % self.window for size in (height, width))
        return rows, columns

    def pad(self, x: Tensor) -> Tensor:
        """Mirror (edge pixel repeated) below and to the right, up to whole windows."""
        for axis, padded in zip((-2, -1), self.padded_size(*x.shape[-2:]), strict=True):
            size = x.shape[axis]
            if padded > size:
                # Period 2 * size, so that images smaller than the padding are mirrored more than once.
                index = torch.arange(padded, device=x.device) % (2 * size)
                x = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
        return x


def _initialize(module: nn.Module) -> None:
    """Swin's initialization: linear weights from a normal of deviation 0.02 cut at 2, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def official(names: Collection[str], network: SwinIR) -> Layout:
    """The names of the SwinIR release, which stacks queries, keys and values in one tensor (``attn.qkv``).

    Index tables and masks stored in its files are recomputed, not read.
    """
    layers = "layers.*.residual_group.blocks.*", "groups.*.layers.*"
    return Layout(
        {
            "conv_first": "head",
            "patch_embed.norm": "embed_norm",
            f"{layers[0]}.attn.qkv": tuple(f"{layers[1]}.attn.{kind}" for kind in "qkv"),
            f"{layers[0]}.attn.relative_position_bias_table": f"{layers[1]}.attn.relative_position_bias",
            layers[0]: layers[1],
            "layers": "groups",
            "conv_after_body": "body_end",
            "upsample": "upsampler",
        },
        ("*.relative_position_index", "*.attn_mask", "mean"),
    )


def _released(scale: int) -> WeightsFile:
    # main_test_swinir.py of the release fetches its models from here.
    source, file = (
        "https://github.com/JingyunLiang/SwinIR",
        f"002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{scale}.pth",
    )
    url = f"{source}/releases/download/v0.0/{file}"
    return WeightsFile("swinir-light", (scale,), file, "Apache-2.0", source, url)


# A patch of whole windows of 8 pixels.
_SHARED = dict(DISTILLED, batch=8, learning_rate=1e-3, warmup=500)

SPEC = Spec(
    network=SwinIR,
    names={"swinir-light": {}, "swinir-small": dict(depths=(2, 2))},
    # 2DQuant quantizes the linear layers and matrix products only.
    skip=("head", "groups.*.conv", "body_end", "upsampler.*"),
    blocks="groups.*",
    # The layers of a residual group without its convolution, as 2DQuant has it; channels come last.
    features="groups.*.layers",
    channel_axis=-1,
    official=official,
    files=(_released(2), _released(3), _released(4)),
    training={
        # 2e-3: ahead of 1e-3 on the held-out images after 600 steps; 5e-4 with patches of 32 was behind both.
        ("swinir-small", 4): dict(steps=4500, batch=8, patch=24, learning_rate=2e-3),
        ("swinir-small", 2): dict(steps=4500, batch=8, patch=24, learning_rate=2e-3),
        ("swinir-light", 4): dict(_SHARED, steps=19_000, restarts=(11_000,), start="swinir-small-x4"),
        # A third of x4's steps: the body, which hardly depends on the scale, has learned already.
        ("swinir-light", 2): dict(_SHARED, steps=6_000, start="swinir-light-x4"),
        ("swinir-light", 3): dict(_SHARED, steps=6_000, start="swinir-light-x4"),
    },
)
