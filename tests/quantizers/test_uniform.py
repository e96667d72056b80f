"""The torch quantizer: three paths, one answer; straight-through gradients."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sqlib import codebook
from sqlib.codebook import Bounds, fit_bounds
from sqlib.errors import InputError
from sqlib.quantizers import HistogramObserver, RangeObserver, UniformQuantizer, dequantize, quantize


def bits_of(x):
    """Raw bits, so that 0.0 and -0.0 differ and NaN equals itself."""
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


def all_paths_agree(x, bounds):
    q = UniformQuantizer(bounds)
    t = torch.from_numpy(np.array(x))
    fused, plain = q.fake(t), q.fake_torch(t)
    restored = codebook.dequantize(codebook.quantize(x, bounds), bounds, x.dtype)
    np.testing.assert_array_equal(bits_of(fused.numpy()), bits_of(plain.numpy()))
    np.testing.assert_array_equal(bits_of(fused.numpy()), bits_of(restored))
    np.testing.assert_array_equal(bits_of(dequantize(quantize(t, q), q, t.dtype).numpy()), bits_of(restored))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_paths_agree_bit_for_bit(data):
    dtype, width = data.draw(st.sampled_from([(np.float16, 16), (np.float32, 32), (np.float64, 64)]))
    limit = 6e4 if width == 16 else 2.0**100
    numbers = st.floats(-limit, limit, width=width)
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=4, max_side=5))
    x = data.draw(hnp.arrays(dtype, shape, elements=numbers))
    axis = data.draw(st.sampled_from([None, 0, 1, -1]))
    bits = data.draw(st.integers(1, 16))
    integer_zero = data.draw(st.booleans())
    fitted = fit_bounds(x, bits, axis=axis, integer_zero=integer_zero, method="minmax")
    all_paths_agree(x, fitted)
    factor = data.draw(st.sampled_from([0.5, 1.7]))  # bounds that clip, and bounds with room
    shifted = Bounds(fitted.lower * factor, fitted.upper * factor, bits, np.nan, "x", axis, integer_zero)
    all_paths_agree(x, shifted)


def test_midpoints_and_tiny_ranges_agree():
    b = Bounds(0.0, 15.0, 4, np.nan, "x")
    all_paths_agree(np.arange(-1, 16, 0.5, dtype=np.float32), b)
    for span in (1e-45, 1e-40, 1e-30):
        all_paths_agree(np.array([0, span / 3, span, 1], np.float32), Bounds(0.0, span, 8, np.nan, "x"))


def test_layouts_keep_values_and_strides():
    x = torch.randn(2, 8, 6, 5)
    q = UniformQuantizer(fit_bounds(x.numpy(), 4, method="minmax"))
    want = q(x)
    for view in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(1, 2),
        x[:, ::2],
        x.expand(3, 2, 8, 6, 5),
    ):
        got = q(view)
        assert torch.equal(got, q.fake_torch(view))
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(q(last), want) and q(last).stride() == last.stride()
    per = UniformQuantizer(fit_bounds(x.numpy(), 4, axis=1, method="minmax"))
    assert torch.equal(per(last), per(x))
    assert q(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32_and_cast_back(dtype):
    x = torch.randn(300).to(dtype)
    q = UniformQuantizer(fit_bounds(x.float().numpy(), 6, method="minmax"))
    assert q(x).dtype == dtype
    assert torch.equal(q(x), q(x.float()).to(dtype))


def test_nan_in_nan_out_and_no_code_for_it():
    x = torch.tensor([0.1, float("nan"), float("inf"), float("-inf")])
    q = UniformQuantizer(Bounds(-1.0, 1.0, 4, np.nan, "x"))
    for got in (q.fake(x), q.fake_torch(x), q(x.clone().requires_grad_()).detach()):
        assert got.isnan().tolist() == [False, True, False, False]
        assert got[2] == got[~got.isnan()].max() and got[3] == got[~got.isnan()].min()
    flat = UniformQuantizer(Bounds(2.0, 2.0, 4, np.nan, "x"))
    assert flat.fake(x).isnan().tolist() == flat.fake_torch(x).isnan().tolist() == [False, True, False, False]
    for value in (x, x.numpy()):
        with pytest.raises(InputError, match="NaN"):
            quantize(value, q)


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("integer_zero", [False, True])
def test_straight_through_gradients(axis, integer_zero):
    """Against automatic differentiation of the formula of 2DQuant with the rounding detached."""
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    shape = () if axis is None else (3,)
    low, high = np.full(shape, -0.8), np.full(shape, 1.1)
    q = UniformQuantizer(Bounds(low, high, 3, np.full(shape, np.nan), "x", axis, integer_zero)).learnable()
    weight = torch.randn_like(x)
    (q(x) * weight).sum().backward()

    view = (1, -1, 1) if axis is not None else ()
    # The grid that is really used: integer_zero moves both ends by the same detached shift.
    used = float(q.grid(x)[0].reshape(-1)[0])
    x2 = x.detach().clone().requires_grad_()
    lower = torch.tensor(low).requires_grad_()
    upper = torch.tensor(high).requires_grad_()
    shift = used - low.reshape(-1)[0]
    lo, up = (lower + shift).reshape(view), (upper + shift).reshape(view)
    clipped = torch.where(x2 < lo, lo, torch.where(x2 > up, up, x2))
    t = (clipped - lo) / (up - lo) * 7
    t = t + (torch.round(t) - t).detach()
    (((up - lo) / 7 * t + lo) * weight).sum().backward()
    torch.testing.assert_close(x.grad, x2.grad)
    torch.testing.assert_close(q.lower.grad, lower.grad)
    torch.testing.assert_close(q.upper.grad, upper.grad)


def test_bound_gradients_match_differences_of_the_clipped_part():
    """Far outside, moving a bound by h moves the output by h: an independent check of the two indicators."""
    q = UniformQuantizer(Bounds(-1.0, 1.0, 4, np.nan, "x", None, False)).learnable()
    q(torch.tensor([5.0, 6.0, -7.0])).sum().backward()
    assert (q.upper.grad, q.lower.grad) == (2.0, 1.0)


def test_training_moves_bounds_and_the_forward_follows():
    q = UniformQuantizer(Bounds(-1.0, 1.0, 4, np.nan, "x", None, False)).learnable()
    x = torch.full((4,), 9.0)
    with torch.no_grad():
        assert q(x).max() == 1
    step = torch.optim.SGD(q.parameters(), lr=1.0)
    q(x).sum().neg().backward()
    step.step()
    with torch.no_grad():
        assert float(q(x).max()) == pytest.approx(5.0)


def test_module_moves_copies_and_loads_without_rounding_its_bounds():
    q = UniformQuantizer(Bounds(-1 / 3, 2 / 3, 5, np.nan, "x"))
    x = torch.randn(64)
    want = q(x)
    assert q.half().lower.dtype == torch.float64
    assert float(q.lower) == -1 / 3
    other = UniformQuantizer(Bounds(-9.0, 9.0, 5, np.nan, "x"))
    assert not torch.equal(other(x), want)
    other.load_state_dict(q.state_dict())
    assert torch.equal(other(x), want)
    twin = copy.deepcopy(other)
    with torch.no_grad():
        other.upper.mul_(2)
    assert torch.equal(twin(x), want) and not torch.equal(other(x), want)
    with torch.inference_mode():
        assert torch.equal(twin(torch.clone(x)), want)


def test_wrong_input():
    q = UniformQuantizer(fit_bounds(np.ones((2, 3)), 4, axis=1, method="minmax"))
    with pytest.raises(InputError, match="3 channels"):
        q(torch.ones(2, 4))
    with pytest.raises(InputError, match="dtype"):
        UniformQuantizer(fit_bounds(np.ones(3), 4, method="minmax"))(torch.ones(3, dtype=torch.int64))


def test_observers():
    torch.manual_seed(0)
    batches = [torch.randn(3, 50) for _ in range(5)]
    everything = torch.cat(batches).double().numpy()
    seen = RangeObserver(4)
    for b in batches:
        seen.update(b)
    q = seen.finish()
    assert (float(q.lower), float(q.upper)) == (everything.min(), everything.max())
    h = HistogramObserver(4, percentile=95.0)
    for number in range(h.passes):
        for b in batches:
            h.update(b, number)
    q = h.finish()
    width = h.histogram.width
    np.testing.assert_allclose([q.lower, q.upper], np.percentile(everything, [5, 95]), atol=width)
    for observer in (RangeObserver(4), HistogramObserver(4, percentile=99.0)):
        with pytest.raises(InputError, match="no values"):
            observer.finish()
        with pytest.raises(InputError, match="NaN"):
            observer.update(torch.tensor([float("nan")]), 0)
