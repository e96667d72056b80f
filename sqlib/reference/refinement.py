"""RefER: errors of a query patch's features, refined with the features of its reference (RefQSR, section 3).

The paper has no public code. Decided here, where it is silent:

- The norm of equation 4 runs over the channels of each position; ``norm="map"`` takes that of all features
  of the patch. The order is the paper's: normalize, then pool. A pooled vector is then shorter than 1 where
  its positions disagree, and the arg-max prefers the long ones: chapter 15 shows that most positions of a
  shifted copy are not found. ``renormalize=True`` divides by the norm once more after pooling, and they are.
- "Adaptive average pooling with a 3x3 kernel" averages to ceil(h / 3) x ceil(w / 3) positions, by
  `adaptive_avg_pool2d`. Where 3 divides the side these are the windows of a 3x3 kernel of stride 3; elsewhere
  windows overlap. Sides of query and reference need not agree.
- The flow is a displacement in pixels. Interpolating it, instead of positions, gives the identity for a
  patch that is matched with itself.
- Equal largest entries of the cost volume: the first, in rows from the top left. Low-bit features have many.

In Table 5, `w/o pre-process` costs 6.29 G BitOPs instead of 3.86 G. With the real sizes of the eight patches
and 49 % of them queries, two cost volumes of every pixel give 4.46 G at 3 bits, 6.29 G at 6, 8.19 G at 8 and
73.3 G in full precision. So this variant leaves out the normalization and the pooling, and print counts its
products at 6 bits, which is b_medium of 8 and 3. Here they have b_high.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlib._checks import check_choice, check_flag, check_integer, check_number
from sqlib.errors import InputError

Size = tuple[int, int]

MODES = ("difference", "concat")
NORMS = {"position": (1,), "map": (1, 2, 3)}
"""Dimensions over which features are normalized before they are pooled."""


class CostVolume(nn.Module):
    r"""Every position of the query times every position of the reference (equation 5).

    .. math:: E(i, j) = \hat F^q(i)^\top \hat F^r(j)

    One ``torch.matmul``, so that a recipe finds one call site and quantizes both factors: this is the
    :math:`Q_{b_{low}}` of equation 4. The papers' FQR is over convolutions, without it.
    """

    in_fqr = False

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C, H, W) to (N, h w, H W); positions in rows from the top left."""
        return torch.matmul(query.flatten(2).transpose(1, 2), reference.flatten(2))


class RefER(nn.Module):
    r"""Refine a query's features with those of its reference (equations 4 to 7).

    .. math:: F^q + \mathrm{conv}_2(\mathrm{ReLU}(\mathrm{conv}_1(F^q - F^{r \to q})))

    :math:`F^{r \to q}` is the reference, warped to the query. In training the flow is the soft-arg-max of the
    cost volume, in evaluation its arg-max. `conv2` starts at zero: a new block passes its query on.
    "Self-reference" in Table 5 is a call with the query as its own reference.

    Parameters
    ----------
    features : int
        Channels of the query, the reference and the result.
    pool : int
        Side of the pooling windows, in pixels.
    mode : {"difference", "concat"}
        What the first convolution sees: the query minus the warped reference, or both, with twice the
        channels ("w/ concat" in Table 5).
    norm : {"position", "map"}
        Whether the features of each position are divided by their norm, or all features of a patch by theirs.
    renormalize : bool
        Whether pooled features are divided by their norm at each position again, so that products are
        cosines.
    preprocess : bool
        False: no normalization and no pooling, whatever `pool` and `renormalize` say; features are matched
        as they are, at every pixel ("w/o pre-process" in Table 5).
    temperature : float
        Factor of the cost volume in the soft-arg-max; alpha in equation 6.
    dtype : torch.dtype
        Of the weights; None: the default.

    Notes
    -----
    The cost volume has :math:`N \lceil h/p \rceil \lceil w/p \rceil \lceil H/p \rceil \lceil W/p \rceil`
    entries of 4 bytes: 1.3 MB a pair of 72 x 72 patches at p = 3; 107 MB without pre-processing. Training
    holds a few times as much.
    """

    def __init__(
        self,
        features: int,
        *,
        pool: int = 3,
        mode: str = "difference",
        norm: str = "position",
        renormalize: bool = False,
        preprocess: bool = True,
        temperature: float = 1000.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_integer("features", features, 1, 10**6)
        check_integer("pool", pool, 1, 10**6)
        if mode not in MODES:
            raise InputError(f"mode={mode!r}: expected 'difference' or 'concat'")
        check_choice("norm", norm, NORMS)
        check_flag("renormalize", renormalize)
        check_flag("preprocess", preprocess)
        self.temperature = check_number("temperature", temperature, 0.0, math.inf, above=True)
        self.features, self.pool, self.mode = features, pool, mode
        self.norm, self.renormalize, self.preprocess = norm, renormalize, preprocess
        self.match = CostVolume()
        seen = features * (2 if mode == "concat" else 1)
        self.conv1 = nn.Conv2d(seen, features, 3, padding=1, dtype=dtype)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, dtype=dtype)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(cast(Tensor, self.conv2.bias))

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        """Features (N, C, h, w) of queries and (N, C, H, W) of their references to (N, C, h, w).

        Raises
        ------
        InputError
            Tensors of other shapes; no floating ones, or of another dtype than the weights.
        """
        warped = warp(reference, self.flow(query, reference))
        if query.dtype != self.conv1.weight.dtype and not _cast(query):
            raise InputError(
                f"the query is {query.dtype} and the weights {self.conv1.weight.dtype}: give features of "
                "their dtype"
            )
        seen = torch.cat((query, warped), 1) if self.mode == "concat" else query - warped
        return query + cast(Tensor, self.conv2(F.relu(self.conv1(seen))))

    def flow(self, query: Tensor, reference: Tensor) -> Tensor:
        """Where each pixel of the query is found in the reference, (N, 2, h, w); see the function `flow`."""
        self._check(query, reference)
        pool = self.pool if self.preprocess else 1
        volume = self.match(*(self._prepared(x) for x in (query, reference)))
        temperature = self.temperature if self.training else None
        return flow(volume, _size(query), _size(reference), pool=pool, temperature=temperature)

    def entries(self, query: Size, reference: Size) -> int:
        """Entries of the cost volume of a query and a reference of these sizes (height, width)."""
        pool = self.pool if self.preprocess else 1
        return math.prod(_pooled(query, pool)) * math.prod(_pooled(reference, pool))

    def _prepared(self, x: Tensor) -> Tensor:
        if not self.preprocess:
            return x
        return preprocess(x, self.pool, norm=self.norm, renormalize=self.renormalize)

    def _check(self, query: Tensor, reference: Tensor) -> None:
        for name, x in (("query", query), ("reference", reference)):
            _check_features(name, x)
            if x.shape[1] != self.features:
                raise InputError(
                    f"{name} has shape {tuple(x.shape)}: expected (N, {self.features}, height, width), the "
                    "features of this block"
                )
        if query.dtype != reference.dtype and not _cast(query):
            raise InputError(
                f"the query is {query.dtype} and its reference {reference.dtype}: give both in one dtype"
            )
        if len(query) != len(reference):
            raise InputError(
                f"{len(query)} queries and {len(reference)} references: expected one reference for each query"
            )


def preprocess(x: Tensor, pool: int, *, norm: str = "position", renormalize: bool = False) -> Tensor:
    r"""Normalized and pooled features (equation 4 without its quantizer, which is the recipe's).

    .. math:: \phi(F / \lVert F \rVert)

    Parameters
    ----------
    x : Tensor
        (N, C, h, w). Positions without any features stay zero.
    pool : int
        Side of the pooling windows; 1 pools nothing.
    norm : {"position", "map"}
        Of the channels of each position, or of all features of a patch.
    renormalize : bool
        Divide each position by its norm once more, after pooling.

    Returns
    -------
    Tensor
        (N, C, ceil(h / pool), ceil(w / pool)).
    """
    _check_features("x", x)
    check_choice("norm", norm, NORMS)
    pooled = F.adaptive_avg_pool2d(_unit(x, NORMS[norm]), _pooled(_size(x), pool))
    return _unit(pooled, (1,)) if renormalize else pooled


def _unit(x: Tensor, over: tuple[int, ...]) -> Tensor:
    """Divided by the norm; in float16 what keeps a norm of zero from dividing is zero, too."""
    wide = x.float() if x.dtype == torch.float16 else x
    return F.normalize(wide, dim=over).to(x.dtype)  # type: ignore[arg-type]  # torch takes several, too


def flow(
    volume: Tensor, query_size: Size, reference_size: Size, *, pool: int = 3, temperature: float | None = None
) -> Tensor:
    r"""Displacement from each pixel of the query to its match in the reference (equations 6 and 7).

    .. math::

        \hat W(i) = \sum_j \hat E(i, j)\, j - i, \qquad
        \hat E(i, j) = \frac{\exp(\alpha E(i, j))}{\sum_k \exp(\alpha E(i, k))}

    with positions i and j in pixels, then enlarged to the size of the query by bilinear interpolation, pixel
    centres aligned.

    Parameters
    ----------
    volume : Tensor
        Cost volume (N, P_q, P_r) of the pooled positions, as from `CostVolume`.
    query_size, reference_size : tuple of int
        (height, width) of the features before pooling.
    pool : int
        Side of the pooling windows.
    temperature : float or None
        The alpha above; None for the limit, the position of the largest entry (the first of equal ones).

    Returns
    -------
    Tensor
        (N, 2, height, width) of the query, in pixels: first to the right, then down.
    """
    grid, reference_grid = _pooled(query_size, pool), _pooled(reference_size, pool)
    if volume.ndim != 3 or volume.shape[1:] != (math.prod(grid), math.prod(reference_grid)):
        raise InputError(
            f"volume has shape {tuple(volume.shape)}: expected (N, {math.prod(grid)}, "
            f"{math.prod(reference_grid)}): the positions of {query_size} and {reference_size} at pool {pool}"
        )
    volume = volume.to(torch.promote_types(volume.dtype, torch.float32))  # 16 bits are too few for positions
    down, right = (_centres(n, size, volume) for n, size in zip(reference_grid, reference_size, strict=True))
    if temperature is None:
        best = volume.argmax(-1)
        x, y = right[best % len(right)], down[best // len(right)]
    else:
        weights = torch.softmax(temperature * volume, dim=-1).unflatten(-1, reference_grid)
        x, y = (weights.sum(-2) * right).sum(-1), (weights.sum(-1) * down).sum(-1)
    found = torch.stack((x, y), 1).unflatten(-1, grid)
    return F.interpolate(found - _positions(grid, query_size, volume), query_size, mode="bilinear")


def warp(x: Tensor, flow: Tensor) -> Tensor:
    r"""Backward warping: :math:`F^{r \to q}(i) = F^r(i + W(i))`, bilinear between pixels.

    Parameters
    ----------
    x : Tensor
        Features of the reference, (N, C, H, W).
    flow : Tensor
        (N, 2, h, w), as from `flow`. Positions outside of the reference are moved to its border.

    Returns
    -------
    Tensor
        (N, C, h, w).
    """
    _check_features("x", x)
    _check_features("flow", flow)
    if flow.shape[1] != 2 or len(flow) != len(x):
        raise InputError(
            f"flow has shape {tuple(flow.shape)}: expected ({len(x)}, 2, height, width), a displacement for "
            f"each of {len(x)} samples"
        )
    size = _size(flow)
    positions = flow + _positions(size, size, flow)
    sides = positions.new_tensor([x.shape[-1], x.shape[-2]]).view(1, 2, 1, 1)
    # grid_sample's coordinates: -1 and 1 are the outer edges of the border pixels.
    grid = ((2 * positions + 1) / sides - 1).permute(0, 2, 3, 1)
    warped = F.grid_sample(
        x.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return warped.to(x.dtype)


def _check_features(name: str, x: Any) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} is {found}: expected a floating-point tensor (N, C, height, width)")
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise InputError(f"{name} has shape {tuple(x.shape)}: expected (N, C, height, width)")


def _cast(x: Tensor) -> bool:
    """Whether autocast brings dtypes together."""
    return torch.is_autocast_enabled(x.device.type)


def _size(x: Tensor) -> Size:
    return x.shape[-2], x.shape[-1]


def _pooled(size: Size, pool: int) -> Size:
    check_integer("pool", pool, 1, 10**6)
    return -(-size[0] // pool), -(-size[1] // pool)


def _centres(n: int, size: int, like: Tensor) -> Tensor:
    """Centres of n equal parts of a side, in pixels; pixel k is centred at k."""
    return (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) * (size / n) - 0.5


def _positions(grid: Size, size: Size, like: Tensor) -> Tensor:
    """(2, rows, columns): the centres of a grid of windows, to the right and down."""
    down, right = (_centres(n, side, like) for n, side in zip(grid, size, strict=True))
    return torch.stack(torch.meshgrid(right, down, indexing="xy"))
