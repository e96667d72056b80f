"""Where DDTB's bounds begin, and by what its dynamic layers are ranked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sqlib.errors import InputError
from sqlib.quantizers import GatedObserver, GatedQuantizer, UniformQuantizer

BATCHES = [torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(4)]


def seen(batches=BATCHES, **options):
    observer = GatedObserver(4, **options)
    for batch in batches:
        observer.update(batch, 0)
    return observer


def test_percentiles_of_the_first_batch_and_variances_over_all():
    observer = seen(axis=-3)
    quantizer = observer.finish()
    first = BATCHES[0].double().numpy()
    assert [quantizer.lower.item(), quantizer.upper.item()] == np.percentile(first, (1, 99)).tolist()
    expected = np.var([float(b.max()) for b in BATCHES]) + np.var([float(b.min()) for b in BATCHES])
    assert observer.spread == pytest.approx(expected) and quantizer.spread.item() == observer.spread
    assert isinstance(quantizer, GatedQuantizer) and not quantizer.on and quantizer.gate.channels == 4
    pooled = BATCHES[0].mean((2, 3)).double().numpy()
    assert quantizer.gate.upper[0].item() == pytest.approx(np.percentile(pooled, 99), rel=1e-6)


def test_given_bounds_and_no_gate():
    quantizer = seen(bounds=(-10.0, 10.0)).finish()
    assert type(quantizer) is UniformQuantizer
    assert (quantizer.lower.item(), quantizer.upper.item()) == (-10, 10)


def test_percentiles_that_coincide_become_the_range():
    sparse = torch.zeros(1, 4, 40, 40)
    sparse[0, 0, 0, :3] = torch.tensor([1.0, -2.0, 3.0])
    quantizer = seen([sparse]).finish()
    assert (quantizer.lower.item(), quantizer.upper.item()) == (-2, 3)
    constant = seen([torch.full((2, 4, 3, 3), 0.5)], axis=-3).finish()
    assert (constant.lower.item(), constant.upper.item()) == (0.5, 0.5)
    assert torch.equal(constant(BATCHES[0]), torch.full_like(BATCHES[0], 0.5))


def test_one_image_without_a_batch_axis():
    observer = seen([BATCHES[0][0]], axis=-3)
    assert observer.finish().gate.channels == 4 and observer.spread == 0


def test_what_is_refused():
    with pytest.raises(InputError, match="no values reached"):
        GatedObserver(4).finish()
    with pytest.raises(InputError, match="no values reached"):
        seen([torch.zeros(0, 4, 3, 3)], bounds=(0.0, 1.0)).finish()
    with pytest.raises(InputError, match="NaN or infinity"):
        seen([torch.full((1, 4, 2, 2), torch.nan)])
    with pytest.raises(InputError, match="percentile=40"):
        GatedObserver(4, percentile=40)
