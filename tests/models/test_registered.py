"""What every registered network keeps, whichever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sqlib import models
from sqlib.models._state_dict import weights_id


@pytest.mark.parametrize("name", models.names())
def test_deterministic_and_saved_and_loaded(name: str, tmp_path: Path) -> None:
    """In evaluation mode a network is a function of its input; a file brings back the very same one."""
    model = models.create(name, scale=2)
    assert not model.training
    x = torch.rand(1, 3, 8, 8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        out = model(x)
        assert torch.equal(out, model(x))
    # Running a network changes nothing in it, running statistics included.
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    path = tmp_path / "weights.safetensors"
    save_file(before, path, metadata={"name": name})
    loaded = models.load(path, scale=2)
    path.unlink()  # pytest keeps tmp_path for a while, and some of these are large
    with torch.inference_mode():
        assert torch.equal(loaded(x), out)
    assert loaded.weights_id == weights_id(model)
    assert (loaded.name, loaded.scale) == (name, 2)
