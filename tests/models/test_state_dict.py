"""Loading weights: official layouts, our own files, and files that must be refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sqlib import models
from sqlib.errors import DataError, InputError
from sqlib.models._state_dict import matching, weights_id


def official_edsr_state(model: torch.nn.Module, blocks: int) -> dict[str, Tensor]:
    """Our EDSR under the names of the EDSR-PyTorch release."""
    state = {f"{name}_mean.{kind}": torch.zeros(3) for name in ("sub", "add") for kind in ("weight", "bias")}
    for key, value in model.state_dict().items():
        key = key.replace("head.", "head.0.")
        key = key.replace("body_end.", f"body.{blocks}.") if key.startswith("body_end") else key
        key = key.replace("tail.", "tail.1.") if key.startswith("tail") else key
        key = key.replace("upsampler.", "tail.0.")
        if key.startswith("blocks."):
            _, index, conv, kind = key.split(".")
            key = f"body.{index}.body.{ {'conv1': 0, 'conv2': 2}[conv] }.{kind}"
        state[key] = value
    return state


def test_official_edsr_layout_loads_and_computes_the_same(tmp_path: Path) -> None:
    model = models.create("edsr-baseline", scale=2)
    torch.save(official_edsr_state(model, 16), tmp_path / "edsr.pt")
    loaded = models.load(tmp_path / "edsr.pt", "edsr-baseline", scale=2)
    x = torch.rand(1, 3, 6, 6)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model(x))
    assert loaded.weights_id == weights_id(model) != "random"


def test_official_carn_m_layout(weights_dir: Path) -> None:
    path = weights_dir / "carn_m.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    assert sum(value.numel() for value in state.values()) == 414_811
    model = models.load(path, "carn-m", scale=4)
    assert models.count_parameters(model) == 414_811 - 24


def test_own_file_carries_its_name(tmp_path: Path) -> None:
    model = models.create("edsr-small", scale=4)
    save_file(model.state_dict(), tmp_path / "w.safetensors", metadata={"name": "edsr-small"})
    assert models.load(tmp_path / "w.safetensors", scale=4).name == "edsr-small"
    save_file(model.state_dict(), tmp_path / "anonymous.safetensors")
    with pytest.raises(InputError, match="pass name="):
        models.load(tmp_path / "anonymous.safetensors", scale=4)


def test_wrong_network_and_wrong_scale_are_refused(tmp_path: Path) -> None:
    model = models.create("edsr-small", scale=2)
    torch.save(model.state_dict(), tmp_path / "x2.pt")
    with pytest.raises(InputError, match="does not fit edsr-small x4"):
        models.load(tmp_path / "x2.pt", "edsr-small", scale=4)
    with pytest.raises(InputError, match="does not fit carn x2"):
        models.load(tmp_path / "x2.pt", "carn", scale=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(tmp_path: Path, value: float) -> None:
    state = models.create("edsr-small", scale=4).state_dict()
    state["blocks.3.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"blocks\.3\.conv1\.weight holds NaN or infinite"):
        models.load(tmp_path / "bad.pt", "edsr-small", scale=4)


class _Touch:
    """A pickle that would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    with path.open("wb") as file:
        pickle.dump({"weight": _Touch(tmp_path / "owned")}, file)
    torch.save({"weight": _Touch(tmp_path / "owned")}, tmp_path / "evil-zip.pth")
    for name in ("evil.pth", "evil-zip.pth"):
        with pytest.raises(InputError, match="cannot be read as weights"):
            models.load(tmp_path / name, "edsr-small", scale=4)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_and_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        models.load(tmp_path / name, "edsr-small", scale=4)
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read as weights"):
        models.load(tmp_path / name, "edsr-small", scale=4)


def test_a_list_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="does not hold a state dict"):
        models.load(tmp_path / "list.pt", "edsr-small", scale=4)


def test_shipped_weights_load_and_match_their_cards() -> None:
    shipped = models.available()
    assert shipped, "no weights in the package"
    for name, scales in shipped.items():
        for scale in scales:
            model = models.pretrained(name, scale=scale)
            card = models.card(name, scale=scale)
            assert model.weights_id == card["weights_id"] == weights_id(model)
            assert models.count_parameters(model) == card["parameters"]
            json.dumps(dict(card))


def test_unshipped_weights_say_how_to_get_them(no_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQLIB_WEIGHTS", raising=False)
    with pytest.raises(DataError, match=r"no weights ship for edsr-large x4; shipped: .*no training config"):
        models.pretrained("edsr-large", scale=4)
    with pytest.raises(DataError, match=r"python -m sqlib train rdn-x4 --data DIR"):
        models.pretrained("rdn", scale=4)
    with pytest.raises(InputError, match="unknown network"):
        models.pretrained("edsr-tiny", scale=4)


def test_a_network_starts_from_another_scale() -> None:
    """The x4 network takes all but its upsampler; what has another shape is left, what is its own is new."""
    torch.manual_seed(0)
    x2, x4 = (models.create("edsr-small", scale=scale) for scale in (2, 4))
    fresh = {key: value.clone() for key, value in x4.state_dict().items()}
    state = {key: value.half() for key, value in x2.state_dict().items()}
    state["upsampler.0.weight"] = state["upsampler.0.weight"][:64]
    taken, new, left = matching(state, x4)
    # x2's only upsampling step has the shape of x4's first, but here it was cut; the second is x4's alone.
    assert new == ["upsampler.0.weight", "upsampler.2.weight", "upsampler.2.bias"]
    assert left == ["upsampler.0.weight"]
    x4.load_state_dict(taken, strict=False)
    for key, value in x4.state_dict().items():
        assert torch.equal(value, fresh[key] if key in new else x2.state_dict()[key].half().float()), key


def test_a_start_that_fits_nothing_and_one_that_is_not_finite() -> None:
    model = models.create("edsr-small", scale=4)
    taken, new, left = matching({"weight": torch.zeros(2), "head.weight": torch.zeros(3)}, model)
    assert not taken and new == list(model.state_dict()) and left == ["weight", "head.weight"]
    # Codes of a quantized file are not values, whatever their shape.
    codes = {"head.bias": torch.zeros(32, dtype=torch.int8)}
    assert matching(codes, model)[0] == {} and matching(codes, model)[2] == ["head.bias"]
    for value, word in (
        (float("nan"), "NaN or infinite values"),
        (float("inf"), "NaN or infinite values"),
        (1e300, "values beyond the range of float32"),
    ):
        with pytest.raises(InputError, match=rf"head\.bias holds {word}; nothing can start"):
            matching({"head.bias": torch.full((32,), value, dtype=torch.float64)}, model)
