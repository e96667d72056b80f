"""The subset quantizer: two paths and the reference, one answer; layouts, bad input, gradients, observer."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlib.codebook import Codebook, fit_codebook, universal, universal_set
from sqlib.errors import InputError
from sqlib.quantizers import SubsetObserver, SubsetQuantizer
from sqlib.quantizers.planes import from_tiles, tile_slices, to_planes, to_tiles

NAN = np.array(np.nan)


def points(channels=None, levels=16, words=4, seed=0):
    rng = np.random.default_rng(seed)
    numerators = universal(words).numerators
    shape = (1 if channels is None else channels, levels)
    chosen = np.sort([rng.choice(numerators, levels, replace=False) for _ in range(shape[0])], axis=1)
    chosen = chosen[0] if channels is None else chosen
    d = universal(words).denominator
    return Codebook(chosen / d, NAN, NAN, "x", chosen, d, None if channels is None else 0)


def free_points(channels=None, levels=16, seed=0):
    shape = (levels,) if channels is None else (channels, levels)
    free = np.sort(np.random.default_rng(seed).uniform(-1, 1, shape), axis=-1)
    return Codebook(free, NAN, NAN, "x", axis=None if channels is None else 0)


def written_out(x, codebook, centre=True):
    """DFSQ's release, step by step, for images: normalize with a division, arg-min over all points."""
    dims = (-2, -1)
    mean = x.double().mean(dims, keepdim=True).to(x.dtype) if centre else torch.zeros(())
    y = x - mean
    spread = y.abs().amax(dims, keepdim=True) + 1e-8
    u = torch.from_numpy(np.atleast_2d(codebook.points)).to(x.dtype)
    u = u.expand(x.shape[1], -1).reshape(1, x.shape[1], 1, 1, -1)
    code = ((y / spread)[..., None] - u).abs().argmin(-1, keepdim=True)
    return torch.gather(u.expand(*x.shape, u.shape[-1]), -1, code)[..., 0] * spread + mean


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("channels", [None, 6])
def test_is_dfsqs_formula(channels, centre):
    torch.manual_seed(0)
    x = torch.randn(3, 6, 20, 17) * torch.tensor([1, 30, 1e-3, 5, 0, 200.0]).reshape(1, 6, 1, 1) + 4
    x[:, 4] = 2.5
    codebook = points(channels)
    got = SubsetQuantizer(codebook, centre=centre)(x)
    want = written_out(x, codebook, centre)
    # The release divides where the kernel multiplies by a reciprocal: a value next to a midpoint may differ.
    differs = ~torch.isclose(got, want, rtol=1e-5, atol=1e-5)
    assert int(differs.sum()) <= 3
    assert torch.allclose(got[:, 4], x[:, 4], atol=1e-7) or not centre


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_paths_agree(data):
    """Fused equals decode(encode(x)) bit for bit; torch may differ within 2 ulp of a midpoint only."""
    kind = data.draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    axis = data.draw(st.sampled_from([None, -1, -2, -3]))
    shape = data.draw(st.lists(st.integers(1, 6), min_size=max(1, -(axis or -1)), max_size=4))
    channels = None if axis is None else data.draw(st.sampled_from([None, shape[axis]]))
    words, levels = data.draw(st.sampled_from([2, 3, 4, 5])), data.draw(st.integers(1, 20))
    lattice = data.draw(st.booleans())
    codebook = points(channels, levels, words) if lattice else free_points(channels, levels)
    fixed = data.draw(st.booleans())
    options = {"centre": False, "scale": 0.7} if fixed else {"centre": data.draw(st.booleans())}
    q = SubsetQuantizer(codebook, axis=axis, channelwise=data.draw(st.booleans()), **options)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(size=shape) if data.draw(st.booleans()) else rng.integers(-64, 65, shape) / 64
    x = torch.from_numpy(values).to(kind)
    fused, plain = q.fake(x), q.fake_torch(x)
    assert fused.dtype == plain.dtype == kind and fused.shape == plain.shape == x.shape
    encoded = q.encode(x)
    assert encoded.codes.dtype == np.uint8 and encoded.codes.shape == x.shape
    assert torch.equal(q.decode(encoded, kind), fused)
    assert count_beyond_midpoints(q, x, fused, plain) == 0


def count_beyond_midpoints(q, x, fused, plain):
    """How many values differ, by more than rounding, though further than 2 ulp from every midpoint.

    An ulp of the normalized position counts, whose error comes from the mean and the scale as well.
    """
    wide = x.double() if x.dtype == torch.float64 else x.float()
    eps = torch.finfo(wide.dtype).eps
    size = float(wide.abs().max()) if wide.numel() else 0.0
    tolerance = torch.finfo(x.dtype).eps * 4 * max(size, 1e-30)
    differs = (fused.double() - plain.double()).abs() > tolerance
    if not bool(differs.any()):
        return 0
    planes = to_planes(wide, q.axis).double()
    mean, maximum = (torch.from_numpy(v).double()[:, :, None] for v in q.encode(x).statistics)
    spread = maximum + q._epsilon
    middle = torch.from_numpy(np.atleast_2d(q.codebook().midpoints()))
    if len(middle) == 1:
        middle = middle.expand(planes.shape[1], -1)
    distance = ((planes - mean) / spread)[..., None] - middle[None, :, None, :]
    near = distance.abs().amin(-1) <= 2 * eps * (1 + (mean.abs() / spread))
    return int((to_planes(differs, q.axis) & ~near).sum())


def test_paths_differ_rarely_on_a_million_values():
    torch.manual_seed(1)
    x = torch.randn(2, 16, 180, 180).mul_(40)
    q = SubsetQuantizer(points(16))
    fused, plain = q.fake(x), q.fake_torch(x)
    assert int((fused != plain).sum()) <= 2
    assert count_beyond_midpoints(q, x, fused, plain) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32_and_cast_back(dtype):
    x = torch.randn(2, 4, 9, 9).to(dtype)
    q = SubsetQuantizer(points(4))
    assert q(x).dtype == dtype
    assert torch.equal(q(x), q(x.float()).to(dtype))


def test_layouts():
    torch.manual_seed(2)
    x = torch.randn(2, 4, 6, 5)
    q = SubsetQuantizer(points(4))
    want = q(x)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(q(last), want) and q(last).stride() == last.stride()
    wide = torch.zeros(2, 8, 6, 10)
    wide[:, ::2, :, ::2] = x
    assert torch.equal(q(wide[:, ::2, :, ::2]), want)
    assert torch.equal(q(x[:1].expand(3, 4, 6, 5)), want[:1].expand(3, 4, 6, 5))
    assert torch.equal(q(x.transpose(2, 3)), want.transpose(2, 3))
    assert torch.equal(q(x[0]), want[0])  # an image without a batch axis
    locked = x.numpy().copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it cannot keep the array read-only
        assert torch.equal(q(torch.from_numpy(locked)), want)
    assert torch.equal(torch.from_numpy(locked), x)
    for empty in (torch.empty(0, 4, 6, 5), torch.empty(2, 4, 0, 5)):
        assert q(empty).shape == empty.shape
    features = SubsetQuantizer(points(4), axis=-1)
    assert torch.equal(features(x.permute(0, 2, 3, 1)), want.permute(0, 2, 3, 1))
    flat = x[0].permute(1, 2, 0).reshape(-1, 4)  # each row is a sample, whatever the others are
    for row in range(len(flat)):
        assert torch.equal(features(flat)[row], features(flat[row]))


def test_constant_and_single_pixel_planes():
    for q in (SubsetQuantizer(points(3, seed=3)), SubsetQuantizer(free_points(3))):
        for x in (torch.full((2, 3, 8, 8), 1.5), torch.zeros(1, 3, 4, 4), torch.full((2, 3, 1, 1), 0.3)):
            for got in (q.fake(x), q.fake_torch(x), q.decode(q.encode(x))):
                torch.testing.assert_close(got, x, rtol=0, atol=1e-7)


def test_one_level_and_256():
    x = torch.randn(1, 2, 30, 30)
    for levels in (1, 256):
        q = SubsetQuantizer(points(2, levels))
        assert torch.equal(q.fake(x), q.fake_torch(x))
        assert q.bits == {1: 1, 256: 8}[levels]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("options", [{}, {"centre": False}, {"patch": 3}, {"centre": False, "scale": 1.0}])
def test_one_bad_value_raises(value, options):
    q = SubsetQuantizer(points(3), **options)
    for dtype in (torch.float32, torch.float16):
        x = torch.randn(2, 3, 7, 7).to(dtype)
        x[1, 2, 6, 6] = value
        for run in (q, q.fake_torch, lambda x: q(x.clone().requires_grad_())):
            with pytest.raises(InputError, match="NaN"):
                run(x)
        if "patch" not in options:
            with pytest.raises(InputError, match="NaN"):
                q.encode(x)


def test_bad_input():
    q = SubsetQuantizer(points(3))
    for run in (q, q.fake_torch, q.encode):
        with pytest.raises(InputError, match="3 channels"):
            run(torch.ones(1, 4, 5, 5))
        with pytest.raises(InputError, match="dtype"):
            run(torch.ones(1, 3, 5, 5, dtype=torch.int64))
        with pytest.raises(InputError, match="no axis -3"):
            run(torch.ones(3, 5))
    for options, message in (
        ({"axis": 1}, "axis=1"),
        ({"axis": None}, "need a channel axis"),
        ({"patch": 4, "axis": -1}, "patch"),
        ({"patch": 0}, "patch"),
        ({"scale": 1.0}, "centre=False"),
        ({"scale": 0.0, "centre": False}, "positive"),
    ):
        with pytest.raises(InputError, match=message):
            SubsetQuantizer(points(3), **options)
    with pytest.raises(InputError, match="at most 256"):
        SubsetQuantizer(free_points(None, 257))
    with pytest.raises(InputError, match="tiles"):
        SubsetQuantizer(points(3), patch=4).encode(torch.ones(1, 3, 5, 5))


def test_gradient_is_the_identity():
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    weight = torch.randn(2, 4, 5, 5)
    q = SubsetQuantizer(points(4))
    out = q(x)
    assert torch.equal(out.detach(), q.fake(x))
    (out * weight).sum().backward()
    assert torch.equal(x.grad, weight)
    with torch.inference_mode():
        assert torch.equal(q(x.detach().clone()), out)


def test_patch_statistics_are_those_of_each_tile():
    torch.manual_seed(4)
    x = torch.randn(2, 3, 11, 9) * torch.linspace(1, 9, 9)
    whole, tiled = SubsetQuantizer(points(3)), SubsetQuantizer(points(3), patch=4)
    want = torch.empty_like(x)
    for top in range(0, 11, 4):
        for left in range(0, 9, 4):
            tile = x[..., top : top + 4, left : left + 4]
            want[..., top : top + 4, left : left + 4] = whole(tile)
    assert torch.equal(tiled(x), want) and not torch.equal(whole(x), want)
    assert torch.equal(tiled(x[0]), want[0])
    assert torch.equal(SubsetQuantizer(points(3), patch=64)(x), whole(x))
    seen = torch.zeros(11, 9)
    for rows, columns, height, width in tile_slices(11, 9, 4):
        seen[rows, columns] += 1
        region = x[..., rows, columns]
        assert torch.equal(from_tiles(to_tiles(region, height, width), region), region)
    assert torch.equal(seen, torch.ones(11, 9))


def test_fixed_scale_clips():
    q = SubsetQuantizer(points(), centre=False, scale=[2.0, 4.0])
    x = torch.tensor([-9.0, 0.1, 9.0]).expand(1, 2, 1, 3).clone()
    ends = q.points[[0, -1]].float()
    got = q(x)
    torch.testing.assert_close(got[0, :, 0, ::2], torch.stack([2 * ends, 4 * ends]))
    assert torch.equal(got, q.fake_torch(x)) and torch.equal(got, q.decode(q.encode(x)))


def test_module_moves_copies_and_loads_without_rounding_its_points():
    x = torch.randn(1, 4, 8, 8)
    q = SubsetQuantizer(points(4, words=3))
    want = q(x)
    assert q.half().points.dtype == torch.float64 and q.double().points.dtype == torch.float64
    other = SubsetQuantizer(points(4, words=3, seed=9))
    assert not torch.equal(other(x), want)
    other.load_state_dict(q.state_dict())
    assert torch.equal(other(x), want)
    twin = copy.deepcopy(other)
    with torch.no_grad():
        other.points.mul_(0.5)  # no longer on the lattice
    assert torch.equal(twin(x), want)
    assert torch.equal(other(x), other.fake_torch(x)) and not torch.equal(other(x), want)
    strange = SubsetQuantizer(free_points(4))
    strange.load_state_dict(q.state_dict())
    torch.testing.assert_close(strange(x), want)


def test_tracing_takes_the_torch_path():
    q = SubsetQuantizer(points(4))
    x = torch.randn(1, 4, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shapes become constants
        traced = torch.jit.trace(q, x, check_trace=False)
    torch.testing.assert_close(traced(x), q(x))


def stream(observer, batches):
    for number in range(observer.passes):
        for batch in batches:
            observer.update(batch, number)
    return observer.finish()


def batches(seed=0, shift=3.0):
    torch.manual_seed(seed)
    return [
        torch.randn(2, 4, 12, 12) * torch.tensor([1, 5, 0.2, 30.0]).reshape(4, 1, 1) + shift for _ in range(3)
    ]


@pytest.mark.parametrize("per_channel", [True, False])
def test_observer_fits_the_normalized_values(per_channel):
    data = batches()
    q = stream(SubsetObserver(4, selector="exact", per_channel=per_channel), data)
    x = torch.cat(data)
    y = x - x.mean((2, 3), keepdim=True)
    y = (y / y.abs().amax((2, 3), keepdim=True)).transpose(0, 1).reshape(4, -1).double().numpy()
    want = fit_codebook(y if per_channel else y.reshape(-1), universal_set(4), 16)
    got = q.codebook()
    assert got.points.shape == want.points.shape
    rows, mine = y if per_channel else y.reshape(1, -1), np.atleast_2d(got.points)
    error = [(np.abs(r[:, None] - p).min(axis=1) ** 2).sum() for r, p in zip(rows, mine)]
    np.testing.assert_allclose(error, np.atleast_1d(want.error), rtol=1e-4)
    assert q.centre and q.bits == 4


def test_observer_decides_whether_to_centre():
    positive, mixed = [b.abs() for b in batches()], batches()
    assert not stream(SubsetObserver(4, centre=None), positive).centre
    assert stream(SubsetObserver(4, centre=None), positive + mixed).centre
    assert stream(SubsetObserver(4), positive).centre
    late = stream(SubsetObserver(4, centre=None, selector="exact"), positive + mixed).codebook()
    known = stream(SubsetObserver(4, centre=True, selector="exact"), positive + mixed).codebook()
    np.testing.assert_array_equal(late.points, known.points)


def test_observer_with_a_fixed_scale():
    data = batches()
    x = torch.cat(data)
    q = stream(SubsetObserver(4, normalize="static"), data)
    np.testing.assert_allclose(q.scale, x.abs().amax((0, 2, 3)).double())
    q = stream(SubsetObserver(4, normalize="static", channelwise=False, per_channel=False), data)
    np.testing.assert_allclose(q.scale, x.abs().max().double())
    q = stream(SubsetObserver(4, normalize="none"), data)
    assert float(q.scale) == 1 and float(q(x).abs().max()) <= 1
    q = stream(SubsetObserver(4, normalize="static"), [torch.zeros(1, 2, 3, 3)])
    assert not q(torch.zeros(1, 2, 3, 3)).any()


def test_observer_patches_equal_cropped_calibration():
    data = batches()
    crops = [b[..., i : i + 6, j : j + 6] for b in data for i in (0, 6) for j in (0, 6)]
    tiled = stream(SubsetObserver(4, patch=6, selector="exact"), data).codebook()
    np.testing.assert_array_equal(
        tiled.points, stream(SubsetObserver(4, selector="exact"), crops).codebook().points
    )


@pytest.mark.parametrize("words", [4, 5])
def test_observer_chooses_within_its_reach(words):
    """Reach 1/2: the same as fitting half the normalized values, and multiplying the points by 2."""
    data = batches()
    q = stream(SubsetObserver(6, words=words, selector="exact", reach=0.5), data)
    x = torch.cat(data)
    y = x - x.mean((2, 3), keepdim=True)
    y = (y / y.abs().amax((2, 3), keepdim=True)).transpose(0, 1).reshape(4, -1).double().numpy()
    universe = universal(words)
    got = q.codebook()
    assert got.denominator == universe.denominator // 2 and np.abs(got.points).max() <= 1
    assert np.isin(got.numerators, universe.numerators).all()  # a product costs what it did
    want = fit_codebook(y / 2, universe.values[np.abs(universe.values) <= 0.5], 64)
    error = [(np.abs(r[:, None] - p).min(axis=1) ** 2).sum() for r, p in zip(y, got.points)]
    np.testing.assert_allclose(error, 4 * want.error, rtol=1e-4)
    full = stream(SubsetObserver(6, words=words, selector="exact"), data)
    assert (q(x) - x).square().sum() < (full(x) - x).square().sum()
    torch.testing.assert_close(q(x), q.fake_torch(x))
    torch.testing.assert_close(q.decode(q.encode(x)), q(x), rtol=0, atol=0)


def test_observer_bad_input():
    with pytest.raises(InputError, match="reach=2"):
        SubsetObserver(4, reach=2)
    with pytest.raises(InputError, match="needs normalize"):
        SubsetObserver(4, reach=0.5, normalize="static")
    with pytest.raises(InputError, match="no values"):
        SubsetObserver(4).finish()
    with pytest.raises(InputError, match="normalize"):
        SubsetObserver(4, normalize="sometimes")
    for normalize in ("dynamic", "static", "none"):
        observer = SubsetObserver(4, normalize=normalize)
        observer.update(torch.empty(0, 4, 2, 2))
        with pytest.raises(InputError, match="NaN"):
            observer.update(torch.full((1, 4, 2, 2), float("nan")))
    observer = SubsetObserver(4)
    observer.update(torch.randn(1, 4, 5, 5))
    with pytest.raises(InputError, match="4 channels"):
        observer.update(torch.randn(1, 5, 5, 5))
