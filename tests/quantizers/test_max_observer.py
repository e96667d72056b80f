"""The start of PAMS's bound."""

from __future__ import annotations

import pytest
import torch

from sqlib.errors import InputError
from sqlib.quantizers import MaxObserver

BATCHES = [torch.tensor([[1.0, -3.0], [0.5, 1.0]]), torch.tensor([[4.0, 0.0], [0.0, -2.0]])]  # m: 2, then 3


@pytest.mark.parametrize(("start", "alpha"), [("mean", 2.5), ("last", 3.0), ("moving", 2 + 0.0003 * (3 - 2))])
def test_starts(start: str, alpha: float) -> None:
    observer = MaxObserver(4, start=start)
    for batch in BATCHES:
        observer.update(batch)
    quantizer = observer.finish()
    assert float(quantizer.alpha.detach()) == pytest.approx(alpha, rel=1e-12)
    assert quantizer.trainable
    assert quantizer.signed


def test_unsigned_only_for_what_is_never_negative() -> None:
    for batch, signed in ((BATCHES[0], True), (BATCHES[0].abs(), False)):
        observer = MaxObserver(4, unsigned=True)
        observer.update(batch)
        quantizer = observer.finish()
        assert quantizer.signed is signed
        assert len(quantizer(torch.linspace(-9, 9, 999)).unique()) == (15 if signed else 16)


def test_only_zeros_and_no_values() -> None:
    observer = MaxObserver(4)
    observer.update(torch.zeros(2, 3))
    assert observer.finish()(torch.zeros(4)).eq(0).all()
    with pytest.raises(InputError, match="no values"):
        MaxObserver(4).finish()
    with pytest.raises(InputError, match="NaN"):
        MaxObserver(4).update(torch.tensor([[torch.nan]]))
    with pytest.raises(InputError, match="start="):
        MaxObserver(4, start="ema")
