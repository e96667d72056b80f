from __future__ import annotations

import pytest
import torch

from sqlib.errors import InputError
from sqlib.models._interpolation import Bilinear


def test_linear_ramps_stay_linear_inside():
    x = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 3, 4, 8)
    y = Bilinear(4)(x)
    assert y.shape == (1, 3, 16, 32)
    # pixel centres aligned: output pixel j lies at (j + 1/2) / 4 - 1/2 of the input
    wanted = (torch.arange(32) + 0.5) / 4 - 0.5
    assert torch.allclose(y[0, 0, 5, 2:-2], wanted[2:-2])
    assert (y[0, 0, 5, :2] == 0).all() and (y[0, 0, 5, -2:] == 7).all()


def test_it_has_no_parameters_and_knows_its_scales():
    assert not list(Bilinear(2).parameters()) and Bilinear(2).weights_id == "none"
    with pytest.raises(InputError, match="exists for x2, x3, x4"):
        Bilinear(5)
