"""Files that users meet: wrapped, renamed, damaged, something else: the right tensors or one line each."""

from __future__ import annotations

import argparse
import collections
import functools
import gzip
import io
import pickle
import tarfile
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from sqlib import models
from sqlib.cli import main
from sqlib.errors import DataError, InputError
from sqlib.models._checkpoints import _WRAPPERS, read_checkpoint
from sqlib.models._state_dict import weights_id

NAME, SCALE = "edsr-small", 4
MODEL = models.create(NAME, scale=SCALE)
STATE: dict[str, Tensor] = dict(MODEL.state_dict())
ID = weights_id(MODEL)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k != key}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


def scripted() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but such files are about
        torch.jit.save(torch.jit.trace(nn.Conv2d(3, 3, 1), torch.rand(1, 3, 4, 4)), buffer)
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("weights.pth")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, head=np.zeros(3))
    return buffer.getvalue()


def numpy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def optimizer_state() -> dict[str, Any]:
    model = models.create(NAME, scale=SCALE)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["model"] = value
    return value


GOOD = saved(STATE)
OWN = safetensors_bytes(STATE, metadata={"name": NAME})

# --- files that load, with the same values ------------------------------------------------------------------

LOADING: dict[str, Callable[[], bytes]] = {
    "ordered dictionary": lambda: saved(collections.OrderedDict(STATE)),
    "parameters": lambda: saved({key: nn.Parameter(value) for key, value in STATE.items()}),
    "old format": lambda: saved(STATE, _use_new_zipfile_serialization=False),
    "safetensors": lambda: OWN,
    "double precision": lambda: saved({key: value.double() for key, value in STATE.items()}),
    "averaged first": lambda: saved({"params": {k: v + 1 for k, v in STATE.items()}, "params_ema": STATE}),
    "unknown wrapper": lambda: saved({"my_network": STATE, "epoch": 3, "best": 31.2}),
    "beside an optimizer": lambda: saved({"mine": STATE, "optimizer": optimizer_state(), "epoch": 3}),
    "nested": lambda: saved({"checkpoint": {"state_dict": {"model": STATE}}, "epoch": 1}),
    "empty wrapper before": lambda: saved({"params_ema": {}, "ema": {"decay": 0.99}, "net": STATE}),
    "two prefixes": lambda: saved(prefixed("module._orig_mod.")),
    "Lightning": lambda: saved({"state_dict": prefixed("model."), "epoch": 2, "global_step": 5}),
    "Lightning with a loss": lambda: saved(
        {"state_dict": prefixed("model.net.") | {"loss.vgg.0.weight": torch.zeros(3)}}
    ),
    "GAN": lambda: saved(prefixed("generator.") | {"discriminator.0.weight": torch.zeros(3)}),
    "AveragedModel": lambda: saved(
        torch.optim.swa_utils.AveragedModel(MODEL).state_dict()  # module.*, and a counter n_averaged
    ),
    **{f"in {w}": functools.partial(saved, {w: STATE, "iter": 3}) for w in _WRAPPERS},
    **{f"under {w}": functools.partial(saved, prefixed(f"{w}.")) for w in _WRAPPERS},
}


@pytest.mark.parametrize("case", LOADING)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_tensors_are_taken_out_of_what_is_around_them(tmp_path: Path, case: str, suffix: str) -> None:
    """Whatever the suffix says: the content counts."""
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(LOADING[case]())
    assert models.load(path, NAME, scale=SCALE).weights_id == ID


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_files_load_as_the_values_they_hold(tmp_path: Path, dtype: torch.dtype) -> None:
    for name, data in (
        ("w.pth", saved({key: value.to(dtype) for key, value in STATE.items()})),
        ("w.safetensors", safetensors_bytes({key: value.to(dtype) for key, value in STATE.items()})),
    ):
        (tmp_path / name).write_bytes(data)
        loaded = models.load(tmp_path / name, NAME, scale=SCALE).state_dict()
        assert all(torch.equal(loaded[k], v.to(dtype).float()) for k, v in STATE.items())
        assert all(value.dtype == torch.float32 for value in loaded.values())


@pytest.mark.parametrize("name", models.names())
def test_no_network_has_a_wrappers_name_in_its_own(name: str) -> None:
    with torch.device("meta"):
        model = models.create(name, scale=2)
    assert not {key.split(".")[0] for key in model.state_dict()} & set(_WRAPPERS)


def test_no_other_bit_goes_unnoticed(tmp_path: Path) -> None:
    """A byte that differs anywhere: what the file held, or a refusal; `torch.load` looks at no checksum."""
    held = {"a.weight": torch.arange(20.0)}
    good, path = saved(held), tmp_path / "weights.pth"
    refusals = 0
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            found = read_checkpoint(path).tensors
        except InputError:
            refusals += 1
        else:
            assert found.keys() == held.keys() and torch.equal(found["a.weight"], held["a.weight"]), at
    assert refusals > 100


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert models.load(tmp_path / "weights.pth", NAME, scale=SCALE).weights_id == ID


# --- files that are refused: what the message says ----------------------------------------------------------

UNREADABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty: copy or download it again"),
    "web page": (lambda: b"\n <!DOCTYPE html><html></html>", "a web page (HTML): download the file that"),
    "web page with a mark": (
        lambda: b"\xef\xbb\xbf<html></html>",
        "a web page (HTML): download the file that",
    ),
    "LFS pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
        "a Git-LFS pointer of 64 bytes: run 'git lfs pull', or download the file itself",
    ),
    "text": (
        lambda: b'{"message": "Not Found"}',
        """a text file that begins with '{"message": "Not Found"}'""",
    ),
    "text with accents": (lambda: "é".encode() * 700, "a text file that begins with 'éé"),
    "whole module": (
        lambda: saved(MODEL),
        "a pickled Python object (sqlib.models.edsr.EDSR), which could run",
    ),
    "whole module inside": (
        lambda: saved({"model": MODEL}),
        "a pickled Python object (sqlib.models.edsr.EDSR)",
    ),
    "whole module, old format": (
        lambda: saved(nn.Sequential(nn.ReLU()), _use_new_zipfile_serialization=False),
        "a pickled Python object (torch.nn.modules.container.Sequential)",
    ),
    "arguments": (
        lambda: saved({"args": argparse.Namespace(), "state_dict": STATE}),
        "a pickled Python object (argparse.Namespace)",
    ),
    "NumPy values": (lambda: saved({"best": np.float64(3), "net": STATE}), "a pickled Python object (numpy."),
    "plain pickle": (
        lambda: pickle.dumps(STATE),
        "or was not written by torch.save: copy, download or save it",
    ),
    "text pickle": (lambda: pickle.dumps({"a": 1}, protocol=0), "a text file that begins with '(dp0"),
    "cut off": (
        lambda: GOOD[: len(GOOD) // 2],
        f"damaged or cut off ({len(GOOD) // 2} bytes): copy or download",
    ),
    "one byte short": (lambda: GOOD[:-1], f"damaged or cut off ({len(GOOD) - 1} bytes): copy or download"),
    "damaged inside": (lambda: GOOD[:3000] + bytes(400) + GOOD[3400:], "damaged in archive/data.pkl"),
    "other bits in a tensor": (
        lambda: GOOD[: len(GOOD) // 2] + bytes([GOOD[len(GOOD) // 2] ^ 255]) + GOOD[len(GOOD) // 2 + 1 :],
        ", by its checksum: download it again, or restore a copy",
    ),
    "old format, cut off": (
        lambda: saved(STATE, _use_new_zipfile_serialization=False)[:5000],
        "damaged or cut off (5000 bytes), or was not written by torch.save",
    ),
    "first byte": (lambda: b"\x80", "damaged or cut off (1 bytes)"),
    "letter i": (lambda: b"\x00i" * 50, "damaged or cut off (100 bytes)"),  # an operand of 105
    "zeros": (lambda: bytes(1000), "damaged or cut off (1000 bytes)"),
    "safetensors, cut off": (
        lambda: OWN[:-10],
        f"a safetensors file that is damaged or cut off ({len(OWN) - 10}",
    ),
    "safetensors, cut in its header": (
        lambda: OWN[:100],
        "a safetensors file that is damaged or cut off (100",
    ),
    "zip": (lambda: zipped(**{"a.pth": GOOD}), "a zip archive holding a.pth: unpack it and give the path of"),
    "empty zip": (lambda: zipped(), "a zip archive holding nothing"),
    "NumPy archive": (numpy_archive, "an archive of NumPy arrays; expected a state dict of tensors"),
    "NumPy file": (numpy_file, "a NumPy array; expected a state dict of tensors"),
    "TorchScript": (
        scripted,
        "a TorchScript program: save the state dict of the network that it was made from",
    ),
    "exported program": (
        lambda: zipped(**{"archive/models/model.json": b"{}"}),
        "a program of torch.export: save the state dict",
    ),
    "tar": (lambda: tarred(GOOD), "a tar archive: unpack it first"),
    "gzip": (lambda: gzip.compress(GOOD), "a gzip archive: unpack it first"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image; expected a state dict of tensors"),
    "HDF5": (
        lambda: b"\x89HDF\r\n\x1a\n" + bytes(50),
        "an HDF5 file (Keras); expected a state dict of tensors",
    ),
}
NO_STATE: dict[str, tuple[Any, str]] = {
    "list": (list(STATE.values()), "it holds a list; save model.state_dict() alone"),
    "tensor": (torch.zeros(3), "it holds a single tensor"),
    "nothing": (None, "it holds a NoneType"),
    "text": ("weights", "it holds a str"),
    "empty dictionary": ({}, "it holds nothing"),
    "empty wrapper": ({"state_dict": {}}, "it holds 'state_dict', a dictionary without weights"),
    "optimizer": (optimizer_state(), "it holds the state of an optimizer"),
    "integer keys": (dict(enumerate(STATE.values())), "it holds entries without a name (0: Tensor)"),
    "one integer key": ({**STATE, 3: torch.zeros(1)}, "it holds entries without a name (3: Tensor)"),
    "nested list": ({"layers": [torch.zeros(3)]}, "it holds 'layers', which is a list and no tensor"),
    "number beside": ({**STATE, "epoch": 3}, "it holds 'epoch', which is a int and no tensor"),
    "itself": (itself(), "it holds 'model', a dictionary without weights"),
}
UNUSUAL: dict[str, tuple[Callable[[], Tensor], str]] = {
    "sparse": (lambda: STATE["head.weight"].to_sparse(), "is sparse (torch.sparse_coo)"),
    "compressed rows": (lambda: torch.eye(3).to_sparse_csr(), "is sparse (torch.sparse_csr)"),
    "meta": (lambda: STATE["head.weight"].to("meta"), "has no values (device meta)"),
    "quantized": (
        lambda: torch.quantize_per_tensor(STATE["head.weight"], 0.1, 0, torch.qint8),
        "is quantized (torch.qint8)",
    ),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "is a nested tensor"),
}


def refused(path: Path) -> str:
    """The message with which ``path`` is refused: one line, nothing of PyTorch's, no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            models.load(path, NAME, scale=SCALE)
    everything = "".join(traceback.format_exception(caught.value))
    for foreign in ("weights_only=", "\x1b", "object at 0x", "WeightsUnpickler", "(105)"):
        assert foreign not in everything
    text = str(caught.value)
    assert "\n" not in text and text.startswith(str(path))
    return text.removeprefix(str(path))


@pytest.mark.parametrize("case", UNREADABLE)
def test_files_that_hold_no_weights(tmp_path: Path, case: str) -> None:
    make, message = UNREADABLE[case]
    for suffix in ("pth", "safetensors"):
        path = tmp_path / f"weights.{suffix}"
        path.write_bytes(make())
        text = refused(path)
        assert text.startswith(" cannot be read as weights: it ") and message in text


@pytest.mark.parametrize("case", NO_STATE)
def test_files_that_hold_something_else(tmp_path: Path, case: str) -> None:
    value, message = NO_STATE[case]
    torch.save(value, tmp_path / "weights.pth")
    text = refused(tmp_path / "weights.pth")
    assert text.startswith(" does not hold a state dict of tensors: ") and message in text


def test_of_several_networks_none_is_guessed(tmp_path: Path) -> None:
    torch.save({"first": STATE, "second": STATE}, tmp_path / "weights.pth")
    assert refused(tmp_path / "weights.pth") == (
        " holds several state dicts (first, second); save the network's alone"
    )


@pytest.mark.parametrize("case", UNUSUAL)
def test_tensors_without_plain_values(tmp_path: Path, case: str) -> None:
    make, message = UNUSUAL[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the state of these features in PyTorch
        torch.save(prefixed("module.") | {"module.head.weight": make()}, tmp_path / "weights.pth")
        with pytest.raises(InputError) as caught:
            models.load(tmp_path / "weights.pth", NAME, scale=SCALE)
    assert f"weights.pth: module.head.weight {message}; expected dense tensors" in str(caught.value)


NUMBERS = ["int8", "uint8", "int16", "int32", "int64", "uint16", "bool", "complex64", "float8_e4m3fn"]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_other_numbers_are_no_weights(tmp_path: Path, dtype: str) -> None:
    """Codes without their scale, or values that would lose their imaginary part, used to become weights."""
    key = "blocks.3.conv1.weight"
    other = getattr(torch, dtype)
    torch.save({**STATE, key: STATE[key].to(other)}, tmp_path / "one.pth")
    torch.save({k: v.to(other) for k, v in STATE.items()}, tmp_path / "all.pth")
    expected = f"is {dtype}, expected weights in 16-, 32- or 64-bit floats"
    assert refused(tmp_path / "one.pth").startswith(f" does not fit edsr-small x4: {key} {expected};")
    assert f"{expected} (and {len(STATE) - 1} more);" in refused(tmp_path / "all.pth")


@pytest.mark.parametrize("value", [1e300, -1e39, 3.5e38])
def test_values_beyond_float32_are_refused(tmp_path: Path, value: float) -> None:
    bias = STATE["head.bias"].double()
    bias[5] = value
    torch.save({**STATE, "head.bias": bias}, tmp_path / "weights.pth")
    assert "head.bias holds values beyond the range of float32" in refused(tmp_path / "weights.pth")
    bias[5] = 3.4e38  # the largest that fits
    torch.save({**STATE, "head.bias": bias}, tmp_path / "weights.pth")
    loaded = models.load(tmp_path / "weights.pth", NAME, scale=SCALE)
    assert loaded.state_dict()["head.bias"][5] == np.float32(3.4e38)


def test_counts_stay_integers(tmp_path: Path) -> None:
    model = models.create("srresnet", scale=4)
    state = model.state_dict()
    key = "blocks.0.norm1.num_batches_tracked"
    for count in (torch.tensor(7), torch.tensor(7, dtype=torch.int32)):
        torch.save({**state, key: count}, tmp_path / "weights.pth")
        loaded = models.load(tmp_path / "weights.pth", "srresnet", scale=4).state_dict()[key]
        assert loaded == 7 and loaded.dtype == torch.int64
    for other in (torch.tensor(7.5), torch.tensor(True), torch.tensor(1j)):
        torch.save({**state, key: other}, tmp_path / "weights.pth")
        with pytest.raises(InputError, match=rf"{key} is \w+, expected integers"):
            models.load(tmp_path / "weights.pth", "srresnet", scale=4)


@pytest.mark.parametrize("value", [io.BytesIO(GOOD), None, b"weights.pth", 3])
def test_only_paths_are_loaded(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        models.load(value, NAME, scale=SCALE)
    assert str(caught.value) == f"weights are loaded by path, got {type(value).__name__}: write it to a file"


def test_folders_and_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"is a folder; give the path of a \.safetensors, \.pth or \.pt file"):
        models.load(tmp_path, NAME, scale=SCALE)
    with pytest.raises(DataError, match="cannot be read: File name too long; give the path"):
        models.load("w" * 5000, NAME, scale=SCALE)
    (tmp_path / "weights.pth").write_bytes(GOOD)

    def denied(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"weights\.pth cannot be read: Permission denied"):
        models.load(tmp_path / "weights.pth", NAME, scale=SCALE)


def test_the_command_line_says_the_same_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(MODEL, path)
    assert main(["evaluate", NAME, "--scale", "4", "--dataset", "builtin", "--weights", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"sqlib evaluate: error: {path} cannot be read as weights: it holds a pickled")
    assert error.count("\n") == 1


# --- names: those of the file, not ours ---------------------------------------------------------------------


def official(name: str, scale: int) -> dict[str, Tensor]:
    """A network of ours under the names of its release."""
    model = models.create(name, scale=scale)
    layout = models.spec(name).official((), model)
    state: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        theirs = layout.theirs(key)
        state[theirs] = torch.cat([state[theirs], value]) if theirs in state else value
    return state


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_names_of_releases_go_both_ways(tmp_path: Path, name: str, scale: int) -> None:
    with torch.device("meta"):
        model = models.create(name, scale=scale)
        state = official(name, scale)
    layout = models.spec(name).official(state, model)
    back = [ours for theirs in state for ours in layout.ours(theirs)]
    assert sorted(back) == sorted(model.state_dict())
    translated = layout.translate(state)
    assert {k: v.shape for k, v in translated.items()} == {k: v.shape for k, v in model.state_dict().items()}


QKV = "layers.0.residual_group.blocks.1.attn.qkv.weight"


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("edsr-small", "body.3.body.0.weight", (32, 32, 3, 3)),
        ("edsr-small", "body.8.weight", (32, 32, 3, 3)),  # the closing convolution
        ("carn-m", "b2.b1.body.4.bias", (64,)),
        ("carn-m", "upsample.up4.body.3.weight", (256, 16, 3, 3)),
        ("srresnet", "residual.15.bn2.running_var", (64,)),
        ("elan-light", "body.5.modules_gmsa.1.project_inp.0.weight", (60, 60, 1, 1)),
        ("bsrn", "B3.esa.conv_max.dw.weight", (16, 1, 3, 3)),
        ("swinir-small", QKV, (180, 60)),  # three tensors of ours
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_one_fault_is_reported_once_and_by_the_files_own_name(
    tmp_path: Path, name: str, key: str, shape: tuple[int, ...], prefix: str
) -> None:
    state = official(name, 4)
    path = tmp_path / "weights.pth"

    def message(changed: dict[str, Tensor]) -> str:
        torch.save({"state_dict": {prefix + k: v for k, v in changed.items()}, "epoch": 1}, path)
        with pytest.raises(InputError) as caught:
            models.load(path, name, scale=4)
        return str(caught.value)

    start, end = (
        f"{path} does not fit {name} x4: ",
        "; check the network's name and scale, and how the file was",
    )
    assert message(without(state, key)).startswith(f"{start}1 missing ({prefix}{key}){end}")
    extra = message({**state, "extra.weight": torch.zeros(3)})
    if prefix:  # another module beside the wrapped one would be left out; under the prefix it is too much
        assert extra.startswith(f"{start}1 unexpected ({prefix}extra.weight){end}")
    else:
        assert extra.startswith(f"{start}1 unexpected (extra.weight){end}")
    assert message({**state, key: torch.zeros(2, 5)}).startswith(
        f"{start}{prefix}{key} is (2, 5), expected {shape}{end}"
    )
    broken = state[key].clone()
    broken.view(-1)[-1] = float("nan")
    assert message({**state, key: broken}).startswith(
        f"{start}{prefix}{key} holds NaN or infinite values{end}"
    )


def test_a_tensor_beside_the_wrapped_network(tmp_path: Path) -> None:
    torch.save({**prefixed("module."), "extra": torch.zeros(3)}, tmp_path / "weights.pth")
    text = refused(tmp_path / "weights.pth")
    assert text == ": extra unexpected beside 'module.'; save the network's state dict alone"


def test_prefix_is_known(tmp_path: Path) -> None:
    torch.save({"net": prefixed("module.model.")}, tmp_path / "weights.pth")
    found = read_checkpoint(tmp_path / "weights.pth")
    assert found.prefix == "module.model." and list(found.tensors) == list(STATE)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_carn_for_one_scale(tmp_path: Path, scale: int) -> None:
    """Releases for one scale call its upsampler ``upsample.up``, whatever the scale."""
    model = models.create("carn-single", scale=scale)
    state = {
        k.replace(f"upsample.up{scale}.", "upsample.up."): v
        for k, v in official("carn-single", scale).items()
    }
    torch.manual_seed(0)
    state = {key: torch.randn_like(value) for key, value in state.items()}
    torch.save(state, tmp_path / "weights.pth")
    loaded = models.load(tmp_path / "weights.pth", "carn-single", scale=scale)
    assert torch.equal(loaded.state_dict()[f"upsample.x{scale}.0.weight"], state["upsample.up.body.0.weight"])
    assert loaded.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "rgb_range"), [("edsr-small", 255.0), ("carn-m", 1.0), ("elan-light", 255.0)]
)
def test_shifts_of_colours_are_compared(tmp_path: Path, name: str, rgb_range: float) -> None:
    state = official(name, 4)
    mean = rgb_range * torch.tensor([0.4488, 0.4371, 0.4040])
    inner = "shifter." if name == "carn-m" else ""
    for side, sign in (("sub_mean", -1), ("add_mean", 1)):
        state[f"{side}.{inner}weight"] = torch.eye(3).view(3, 3, 1, 1)
        state[f"{side}.{inner}bias"] = sign * mean
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    assert models.load(path, name, scale=4).name == name
    for key, wrong in (
        (f"add_mean.{inner}bias", mean * (255.0 if rgb_range == 1.0 else 1 / 255)),
        (f"sub_mean.{inner}bias", mean),
        (f"sub_mean.{inner}weight", torch.eye(3).view(3, 3, 1, 1) / 0.5),
    ):
        torch.save({**state, key: wrong}, path)
        with pytest.raises(InputError, match=f"{key.rpartition('.')[0]} shifts colours by .*another range"):
            models.load(path, name, scale=4)
