"""The fused gradients of the uniform fake-quantizer against plain torch operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlib.codebook import Bounds
from sqlib.kernels._threads import VALUES_PER_THREAD
from sqlib.kernels.uniform_backward import RUN, Grid, backward
from sqlib.quantizers import UniformQuantizer, _straight_through, uniform


def quantizer(axis, channels, bits=3, integer_zero=False):
    shape = () if axis is None else (channels,)
    low, high = np.linspace(-0.9, -0.4, channels), np.linspace(0.5, 1.3, channels)
    low, high = (v[0] if axis is None else v for v in (low, high))
    return UniformQuantizer(
        Bounds(low, high, bits, np.full(shape, np.nan), "x", axis, integer_zero)
    ).learnable()


def gradients(q, x, incoming, fused, monkeypatch):
    with monkeypatch.context() as patch:
        if not fused:
            for module in (uniform, _straight_through):
                patch.setattr(module, "kernel_takes", lambda x: False)
        source = x.detach().requires_grad_()
        q(source).backward(incoming)
        found = source.grad, q.lower.grad.clone(), q.upper.grad.clone()
    q.zero_grad()
    return found


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (5, 3), (2, 3, 1100), (3, RUN), (7, 11, 13)])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_same_as_torch(kind, shape, axis, monkeypatch):
    if axis is not None and not shape:
        pytest.skip("a number has no channels")
    generator = torch.Generator().manual_seed(sum(shape))
    x, incoming = (torch.randn(shape, generator=generator).to(kind) for _ in range(2))
    q = quantizer(axis, 1 if axis is None else shape[axis], integer_zero=axis is None)
    if axis is None or shape[axis]:
        fused, plain = (gradients(q, x, incoming, way, monkeypatch) for way in (True, False))
        assert torch.equal(fused[0], plain[0]) and fused[0].dtype == kind
        tolerance = dict(rtol=1e-12, atol=1e-12) if kind == torch.float64 else dict(rtol=1e-5, atol=1e-4)
        for a, b in zip(fused[1:], plain[1:], strict=True):
            assert a.shape == b.shape and a.dtype == torch.float64
            torch.testing.assert_close(a, b, **tolerance)


def test_any_layout_of_values_and_gradient(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, 5, 3, generator=generator)
    incoming = torch.randn(4, 6, 5, 3, generator=generator)
    q = quantizer(None, 1)
    layouts = [
        base.to(memory_format=torch.channels_last),
        base.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2),
        base[:, ::2],  # not dense: the plain path
    ]
    for x in layouts:
        for g in (
            incoming,
            incoming.contiguous(memory_format=torch.channels_last),
            torch.ones(()).expand(base.shape),
        ):
            g = g[:, : x.shape[1]]
            fused, plain = (gradients(q, x, g, way, monkeypatch) for way in (True, False))
            assert torch.equal(fused[0], plain[0])
            torch.testing.assert_close(fused[1:], plain[1:], rtol=1e-5, atol=1e-5)


def test_values_at_the_edges_and_ranges_without_extent(monkeypatch):
    x = torch.tensor([-1.0, 1.0, -1.0000001, 1.0000001, 0.0, 1e30, -torch.inf, torch.inf])
    for low, high in ((-1.0, 1.0), (0.0, 0.0), (0.5, 0.5)):
        q = UniformQuantizer(Bounds(low, high, 2, np.nan, "x", None, False)).learnable()
        incoming = torch.arange(1.0, 9.0)
        fused, plain = (gradients(q, x, incoming, way, monkeypatch) for way in (True, False))
        assert torch.equal(fused[0], plain[0])
        torch.testing.assert_close(fused[1:], plain[1:], rtol=1e-6, atol=1e-6)
    q = quantizer(None, 1)
    fused, plain = (
        gradients(q, torch.tensor([torch.nan, 9.0]), torch.ones(2), w, monkeypatch) for w in (True, False)
    )
    assert torch.equal(fused[0], plain[0])
    assert all(bool(torch.isnan(v)) for v in (*fused[1:], *plain[1:]))


def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=3 * VALUES_PER_THREAD + 5).astype(np.float32) for _ in range(2))
    grid = Grid(*(np.array([v], np.float32) for v in (-1.0, 0.2, 7)))
    out = np.empty_like(x), np.empty_like(x)
    one, three = (backward(x, g, grid, out=o, threads=t) for o, t in zip(out, (1, 3), strict=True))
    assert np.array_equal(one, three) and np.array_equal(*out)


def test_sums_keep_float64_accuracy():
    """A million products of one sign in float32: the error stays at the size of one product's rounding."""
    x = np.full(1_000_003, 5.0, np.float32)
    g = np.full(x.size, 0.1, np.float32)
    grid = Grid(*(np.array([v], np.float32) for v in (-1.0, 0.2, 7)))
    lower, upper = backward(x, g, grid, out=np.empty_like(x))
    assert lower == 0
    np.testing.assert_allclose(upper, x.size * np.float64(np.float32(0.1)), rtol=2e-6)
