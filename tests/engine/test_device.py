"""On another device than the CPU a pass reads no value back and copies nothing over.

The meta device stands for it: it has no values to read, and whatever of the main memory takes part is seen.
"""

from __future__ import annotations

import pytest
import torch
from test_copies import BANKS, EVERY, data
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sqlib
from sqlib.codebook.bounds import Bounds
from sqlib.models.edsr import EDSR
from sqlib.models.swinir import SwinIR
from sqlib.quantizers import QuantizerBank, StaticBits, UniformQuantizer
from sqlib.quantizers.bank import Choice

READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "lift_fresh"}
"""Operations that wait for values, and the one that every constant made from numbers begins with."""


class Watch(TorchDispatchMode):
    """Collects operations that a device would wait for, or that need something of the main memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        devices = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        wanted = (kwargs or {}).get("device")
        moved = wanted is not None and devices and torch.device(wanted).type not in devices
        if name in READS or moved or devices - {"meta"}:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def watched(model, x, grad):
    with torch.set_grad_enabled(grad):
        model(x)  # what is made once, such as the masks of a size
        with Watch() as watch:
            out = model(x)
    return out, watch.found


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", [*EVERY, *BANKS])
def test_nothing_is_read_or_copied_in_a_pass(name, grad):
    torch.manual_seed(0)
    network = EDSR("tiny", 2, blocks=2, features=6).eval()
    model = sqlib.quantize_model(network, {**EVERY, **BANKS}[name], data(0)).to("meta")
    out, found = watched(model, torch.rand(2, 3, 16, 20, device="meta"), grad)
    assert out.shape == (2, 3, 32, 40) and found == []


def test_nothing_is_read_or_copied_by_windows():
    network = SwinIR("tiny", 2, features=8, depths=(2,), heads=2, window=4).eval()
    model = sqlib.quantize_model(network, EVERY["twodquant"], data(0)).to("meta")
    _, found = watched(model, torch.rand(1, 3, 13, 16, device="meta"), False)
    assert found == []


def test_the_watch_sees():
    x = torch.rand(3, device="meta")
    with Watch() as watch:
        x * torch.tensor(2.0)
        torch.tensor([1.0, 2.0]).to("meta")
    assert {"aten.lift_fresh.default", "aten.mul.Tensor", "aten._to_copy.default"} == set(watch.found)


def test_quantizers_are_placed_beside_the_network():
    model = sqlib.quantize_model(EDSR("tiny", 2, blocks=2, features=6), EVERY["minmax"], data(0))
    model.network.to("meta")
    model.add_activation("new", _uniform(4))
    model.add_weight("new", QuantizerBank({4: _uniform(4)}, StaticBits(4)))
    for q in (model.activations["new"], model.weights["new"].at(4)):
        assert q.lower.device.type == "meta"


@pytest.mark.parametrize("name", [*EVERY, *BANKS])
def test_a_file_is_loaded_beside_the_network(name, tmp_path, monkeypatch):
    network = EDSR("tiny", 2, blocks=2, features=6).eval()
    sqlib.quantize_model(network, {**EVERY, **BANKS}[name], data(0)).save(tmp_path / "q.safetensors")
    monkeypatch.setattr("sqlib.engine.loading.check_network", lambda network: None)  # refuses meta tensors
    model = sqlib.load_quantized(tmp_path / "q.safetensors", network.to("meta"))
    _, found = watched(model, torch.rand(2, 3, 16, 20, device="meta"), False)
    assert found == []


def test_widths_that_are_not_read_choose_the_same():
    """Elsewhere all quantizers of a bank run and each sample keeps its own."""
    bank = QuantizerBank({w: _uniform(w) for w in (3, 4, 8)}, StaticBits(4))
    x = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0))
    for widths in [(3, 8, 4), (4, 4, 4), (8, 3, 3, 3, 4, 8)]:
        assert torch.equal(bank(x, Choice(widths)), bank(x, Choice(torch.tensor(widths))))


def _uniform(bits):
    return UniformQuantizer(Bounds(-2.0, 1.5, bits))
