"""A quantized network goes to a file and comes back with the same outputs, bit for bit, with every recipe."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from toy_banks import Banked, Learned, SixBits, patches

import sqlib
from sqlib import models, recipes
from sqlib.codebook import fit_bounds
from sqlib.engine import artifact
from sqlib.errors import DataError, InputError
from sqlib.models._checkpoints import QUANTIZED
from sqlib.models.edsr import EDSR
from sqlib.models.swinir import SwinIR
from sqlib.quantizers import (
    ByPath,
    ByRole,
    ContentBits,
    FollowingQuantizer,
    Gate,
    GatedQuantizer,
    QuantizerBank,
    StaticBits,
    SubsetQuantizer,
    SymmetricQuantizer,
    TableBits,
    UniformQuantizer,
    saved_as,
)
from sqlib.quantizers.rounded import RoundedWeight
from sqlib.recipes import BRECQ, DFSQ, CompensatedDFSQ, MinMax, Recipe

QUICK = {
    "brecq": {"schedule": "laptop", "iterations": 1, "activation_iterations": 1},
    "qdrop": {"schedule": "laptop", "iterations": 1, "scale_steps": 10},
    "twodquant": {"schedule": "laptop", "iterations": 1, "steps": 10},
    "dbdc-pac": {"iterations": 1, "weight_iterations": 1},
    **{key: {"steps": 0} for key in ("pams", "ddtb", "cadyq", "cabm")},
    "refqsr": {"base": {"name": "pams", "bits": 4, "steps": 0}, "steps": 0, "refiners": 1},
    "dobi": {"steps": 10},
    "mse": {"steps": 10},
}


class Twice(nn.Module):
    """A module that is used twice, and a weight with two names."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.body = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.second.weight = self.first.weight
        self.tail = nn.Conv2d(6, 12, 3, padding=1)
        self.register_buffer("gain", torch.rand(1, 6, 1, 1), persistent=False)

    def forward(self, x):
        x = self.head(x)
        x = F.relu(self.body(F.relu(self.body(x)))) * self.gain
        return F.pixel_shuffle(self.tail(self.second(F.relu(self.first(x)))), 2)


def cnn(seed=0):
    torch.manual_seed(seed)
    return EDSR("tiny", 2, blocks=2, features=6).eval()


def swinir(seed=0):
    torch.manual_seed(seed)
    return SwinIR("tiny", 2, features=8, depths=(2,), heads=2, window=4).eval()


NETWORKS = {"cnn": cnn, "swinir": swinir, "twice": Twice}
APART = [("refqsr", "swinir"), ("refqsr", "twice")]


def data(seed=0):
    return [torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(seed))]


PROBE = data(9)[0]


def run(model, x=PROBE):
    with torch.no_grad():
        return model(x)


def quantized(network=None, recipe=None, **options):
    return sqlib.quantize_model(network or cnn(), recipe or MinMax(4), data(), **options)


@pytest.fixture(scope="module")
def made():
    return {"minmax": quantized(), "compensated": quantized(recipe=CompensatedDFSQ(4))}


@pytest.fixture
def saved(made, tmp_path):
    """A model and its file."""
    model = copy.deepcopy(made["minmax"])
    model.save(tmp_path / "q.safetensors")
    return model, tmp_path / "q.safetensors"


@pytest.fixture
def compensated(made, tmp_path):
    """The same with points and codes."""
    model = copy.deepcopy(made["compensated"])
    model.save(tmp_path / "q.safetensors")
    return model, tmp_path / "q.safetensors"


def manifest_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[QUANTIZED])


def tensors_of(path):
    return load_file(path)


def forge(path, manifest=None, tensors=None):
    """Write other content over a file, with a right checksum."""
    manifest = dict(manifest_of(path) if manifest is None else manifest)
    manifest.pop("sha256", None)
    artifact.write(path, manifest, tensors_of(path) if tensors is None else tensors)


def assert_same(one, other):
    """Same bits out, same state, same report."""
    assert torch.equal(run(one), run(other))
    mine, theirs = one.state_dict(), other.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(mine.values(), theirs.values()))
    assert one.report().equals(other.report())
    assert one.recipe == other.recipe
    assert not other.training
    assert not any(module.training for module in other.modules())


@pytest.mark.parametrize(
    ("name", "network"),
    # RefQSR takes networks of residual blocks alone
    [(name, network) for name in recipes.names() for network in NETWORKS if (name, network) not in APART],
)
def test_every_recipe(name, network, tmp_path):
    """Saved, rebuilt on a network with other weights, and saved again: equal bits, and equal bytes."""
    model = quantized(NETWORKS[network](), recipes.create(name, bits=4, **QUICK.get(name, {})))
    model.save(tmp_path / "q.safetensors")
    loaded = sqlib.load_quantized(tmp_path / "q.safetensors", NETWORKS[network](1))
    assert_same(model, loaded)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "q.safetensors").read_bytes()


@pytest.mark.parametrize(
    "recipe",
    [
        MinMax((8, 32)),
        MinMax((32, 4), weight_per="tensor"),
        DFSQ(4, selector="exact", normalize="static"),
        DFSQ(3, selector="exact", statistics="patch", patch=5, points_per="channel"),
        DFSQ(2, post_relu="release", words=2),
        CompensatedDFSQ(8),
        CompensatedDFSQ((4, 32)),
        BRECQ((3, 32), schedule="laptop", iterations=2, activation_iterations=2),
    ],
    ids=repr,
)
def test_options(recipe, tmp_path):
    model = quantized(recipe=recipe, skip=["head"])
    model.save(tmp_path / "q.safetensors")
    assert_same(model, sqlib.load_quantized(tmp_path / "q.safetensors", cnn(1)))


def test_in_another_process(tmp_path):
    want = {}
    for name, recipe in {"a": CompensatedDFSQ(4), "b": MinMax(4), "c": DFSQ(4, selector="exact")}.items():
        model = quantized(Twice(), recipe)
        model.save(tmp_path / f"{name}.safetensors")
        want[name] = run(model)
    program = f"""
import sys, torch, sqlib
from safetensors.torch import save_file
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
from test_saving import Twice, PROBE
out = {{}}
for name in {list(want)}:
    model = sqlib.load_quantized(f"{tmp_path}/{{name}}.safetensors", Twice(5))
    with torch.no_grad():
        out[name] = model(PROBE)
save_file(out, "{tmp_path}/out.safetensors")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    found = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(found[name], want[name]) for name in want)


@pytest.mark.parametrize("name", ["minmax", "dfsq", "dfsq-compensated"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(name, dtype, tmp_path):
    """Moved before it is saved, or after it is loaded."""
    options = {"selector": "exact"} if name == "dfsq" else {}
    model = quantized(recipe=recipes.create(name, bits=4, **options))
    model.save(tmp_path / "single.safetensors")
    model.to(dtype)
    want = run(model, PROBE.to(dtype))
    assert want.dtype == dtype
    model.save(tmp_path / "other.safetensors")
    later = sqlib.load_quantized(tmp_path / "single.safetensors", cnn(1)).to(dtype)
    before = sqlib.load_quantized(tmp_path / "other.safetensors", cnn(1))
    assert torch.equal(run(later, PROBE.to(dtype)), want)
    assert torch.equal(run(before, PROBE.to(dtype)), want)
    assert {p.dtype for p in before.network.parameters()} == {dtype}
    assert before.network.head.weight.dtype == dtype


def test_channels_last(compensated, tmp_path):
    model = compensated[0].to(memory_format=torch.channels_last)
    model.save(tmp_path / "q.safetensors")
    loaded = sqlib.load_quantized(tmp_path / "q.safetensors", cnn(1))
    strides = {name: p.stride() for name, p in model.network.named_parameters()}
    assert {name: p.stride() for name, p in loaded.network.named_parameters()} == strides
    assert torch.equal(run(model), run(loaded))


def test_what_a_loaded_network_has(saved):
    model, path = saved
    network = cnn(1)
    network.train()
    before = copy.deepcopy(network.state_dict())
    loaded = sqlib.load_quantized(path, network)
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert (loaded.scale, loaded.name, loaded.default_skip) == (model.scale, model.name, model.default_skip)
    assert (loaded.input_range.lower, loaded.input_range.upper) == (
        model.input_range.lower,
        model.input_range.upper,
    )
    with pytest.warns(UserWarning, match="give both in the same units"):
        run(loaded, 255 * PROBE)
    assert loaded.sites == model.sites
    assert torch.equal(run(copy.deepcopy(loaded)), run(model))
    loaded.load_state_dict(model.state_dict())
    out = loaded(PROBE)
    out.mean().backward()
    assert all(p.grad is not None for p in loaded.network.parameters())


def test_weights_id_is_that_of_the_file(tmp_path):
    network = cnn()
    network.weights_id = "abc"
    quantized(network).save(tmp_path / "q.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = sqlib.load_quantized(tmp_path / "q.safetensors", cnn(1))
    assert loaded.weights_id == "abc"


def test_manifest(compensated):
    model, path = compensated
    found = manifest_of(path)
    assert found["format"] == 1
    assert found["recipe"] == json.loads(model.recipe.to_json())
    assert [s["name"] for s in found["sites"]] == list(model.sites)
    assert found["input_range"] == [model.input_range.lower, model.input_range.upper]
    key, weight = next(iter(found["weights"].items()))
    assert weight["class"] == "rounded-weight" and weight["bits"] == 4
    codes = tensors_of(path)[f"weights.{key}.code_values"]
    assert codes.dtype == torch.uint8
    assert torch.equal(codes.int(), model.weights[key].stored)
    entries = found["activations"].values()
    assert {e["class"] for e in entries} == {"subset"} and {e["patch"] for e in entries} == {16}
    assert {e["centre"] for e in entries} == {True, False}


def test_learned_and_averaged_state(compensated, tmp_path):
    """Bounds that train stay parameters; codes that an average moved off their integers are rounded."""
    model, _ = compensated
    key, weight = next(iter(model.weights.items()))
    weight.learnable()
    with torch.no_grad():
        weight.upper.mul_(1.01)
        weight.code_values.add_(1e-4)
    model.save(tmp_path / "q.safetensors")
    loaded = sqlib.load_quantized(tmp_path / "q.safetensors", cnn(1))
    assert isinstance(loaded.weights[key].upper, nn.Parameter)
    assert torch.equal(loaded.weights[key].upper, weight.upper)
    assert torch.equal(run(model), run(loaded))


def test_values_that_json_has_not(tmp_path):
    """A weight of zeros has an infinite ratio of signal to noise; negative zeros keep their sign."""
    network = cnn()
    with torch.no_grad():
        network.blocks[0].conv1.weight.zero_()
        network.blocks[0].conv1.bias.copy_(torch.tensor([-0.0] * 6))
    model = quantized(network)
    model.save(tmp_path / "q.safetensors")
    loaded = sqlib.load_quantized(tmp_path / "q.safetensors", cnn(1))
    assert loaded.sites["blocks.0.conv1"].weight_sqnr_db == np.inf
    assert_same(model, loaded)
    assert torch.signbit(loaded.network.blocks[0].conv1.bias).all()


class Normalized(nn.Module):
    """Weights computed in the pass (old weight_norm), a packed weight in parts, and a batch normalization."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.conv = nn.utils.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
        self.norm = nn.BatchNorm2d(8)
        self.packed = nn.Parameter(torch.randn(16, 8))
        self.norm.running_mean.uniform_()
        self.tail = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        x = self.norm(self.conv(x)).permute(0, 2, 3, 1)
        one, two = self.packed.chunk(2)
        x = torch.cat([F.linear(x, one), F.linear(F.relu(x), two)], -1)
        return self.tail(x.permute(0, 3, 1, 2))


@pytest.mark.parametrize("recipe", [MinMax(4), CompensatedDFSQ(4)], ids=repr)
def test_computed_and_packed_weights(recipe, tmp_path):
    model = sqlib.quantize_model(Normalized().eval(), recipe, data(), skip=[])
    assert sum(site.active for site in model.sites.values()) == 4
    model.save(tmp_path / "q.safetensors")
    assert_same(model, sqlib.load_quantized(tmp_path / "q.safetensors", Normalized(1)))


class Recurrent(nn.Module):
    """Keeps a second reference to its parameters."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.rnn, self.tail = nn.Conv2d(3, 4, 1), nn.LSTM(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.tail(self.rnn(self.conv(x).flatten(2).permute(2, 0, 1))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_references(dtype, tmp_path):
    model = sqlib.quantize_model(Recurrent(), MinMax(4), data(), skip=["tail"]).to(dtype)
    model.save(tmp_path / "q.safetensors")
    loaded = sqlib.load_quantized(tmp_path / "q.safetensors", Recurrent(1))
    assert torch.equal(run(model, PROBE.to(dtype)), run(loaded, PROBE.to(dtype)))


class Caching(nn.Module):
    """Makes a buffer that is not part of its state when it runs."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.tail = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1)
        self.register_buffer("ramp", torch.zeros(1), persistent=False)

    def forward(self, x):
        x = self.conv(x)
        if self.ramp.shape != x.shape[-1:]:
            self.register_buffer("ramp", torch.linspace(0, 1, x.shape[-1]), persistent=False)
            self.register_buffer("other", torch.ones(()), persistent=False)
        return self.tail(x * self.ramp * self.other)


def test_buffers_that_do_not_persist(tmp_path):
    model = sqlib.quantize_model(Caching(), MinMax(4), data(), skip=["tail"])
    model.save(tmp_path / "q.safetensors")
    loaded = sqlib.load_quantized(tmp_path / "q.safetensors", Caching(1))
    assert torch.equal(run(model), run(loaded))


def test_in_inference_mode_and_without_calibration(saved):
    model, path = saved
    with torch.inference_mode():
        loaded = sqlib.load_quantized(path, cnn(1))
    loaded(PROBE).mean().backward()
    assert torch.equal(run(loaded), run(model))


# --- writing ---------------------------------------------------------------------------------------------


def test_writing_is_atomic(saved, monkeypatch):
    """A file is replaced whole; whatever goes wrong leaves the old one and nothing beside it."""
    _, path = saved
    old = path.read_bytes()
    other = quantized(recipe=MinMax(8))

    def fail(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", fail)
        with pytest.raises(DataError, match="No space left"):
            other.save(path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]
    other.save(path)
    assert list(path.parent.iterdir()) == [path]
    assert_same(other, sqlib.load_quantized(path, cnn(1)))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a" * 300, "cannot be the name of a file"),
        ("a\0b", "cannot be the name of a file: .*embedded null"),
        (".", "is a folder"),
        ("none/q.safetensors", "does not exist"),
        (None, "path is NoneType"),
    ],
)
def test_bad_places(path, message, tmp_path):
    with pytest.raises(InputError, match=message):
        quantized().save(path and tmp_path / path)
    assert list(tmp_path.iterdir()) == []


class Own(UniformQuantizer):
    """A quantizer of somebody's own."""


@dataclass(frozen=True)
class WithOwn(Recipe):
    """Its recipe; in no registry."""

    quantizer: type = Own

    def weight_quantizer(self, weight, site):
        found = MinMax(4).weight_quantizer(weight, site)
        return self.quantizer(found.bounds())

    def activation_observer(self, site, operand):
        return MinMax(4).activation_observer(site, operand)

    def to_dict(self):
        return {"name": "with-own", "version": 1, "bits": 8}


def test_quantizers_of_ones_own(tmp_path, monkeypatch):
    path = tmp_path / "q.safetensors"
    model = quantized(recipe=WithOwn())
    with pytest.raises(InputError, match=r"Own is no quantizer that can be saved.*saved_as"):
        model.save(path)
    assert not path.exists()
    monkeypatch.setattr("sqlib.quantizers._saved._CLASSES", dict(sqlib.quantizers._saved._CLASSES))
    saved_as("own")(Own)
    saved_as("own")(Own)  # a notebook runs a cell twice
    with pytest.raises(InputError, match=r"UniformQuantizer has this name"):
        saved_as("uniform")(Own)
    model.save(path)
    with pytest.warns(UserWarning, match="unknown recipe 'with-own'"):
        loaded = sqlib.load_quantized(path, cnn(1))
    assert torch.equal(run(model), run(loaded))
    assert {type(q) for q in loaded.weights.values()} == {Own}
    assert loaded.recipe.to_dict() == model.recipe.to_dict()
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    monkeypatch.undo()
    with (
        pytest.warns(UserWarning, match="unknown recipe"),
        pytest.raises(InputError, match="class 'own' is unknown, expected one of identity, "),
    ):
        sqlib.load_quantized(path, cnn(1))


BANKS = {
    "variance": Banked(),
    "learned": Banked(selector=Learned),
    "of weights": Banked(weights=SixBits),
    "by role": Banked(
        selector=lambda edges: ByRole({"reference": 8, "query": 4}, default=6), weights=SixBits
    ),
}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("network", ["cnn", "swinir"])
@pytest.mark.parametrize("kind", BANKS)
def test_banks(kind, network, trained, tmp_path):
    """Quantizers, selectors and what they choose; with bounds that are parameters, too."""
    probe = patches(6)
    model = sqlib.quantize_model(NETWORKS[network](), BANKS[kind], [probe])
    if trained:
        for bank in model.activations.values():
            bank.learnable()
        with torch.no_grad():
            [p.mul_(1.01) for p in model.activations.parameters()]
    model.save(tmp_path / "q.safetensors")
    with pytest.warns(UserWarning, match="unknown recipe 'toy-banked'"):
        loaded = sqlib.load_quantized(tmp_path / "q.safetensors", NETWORKS[network](1))
    roles = ["reference", "query", None] * 2
    found = []
    for one in (model, loaded):
        with torch.no_grad(), one.context(roles=roles) as context:
            found.append((one(probe), {key: bits.tolist() for key, bits in context.operands.items()}))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    mine, theirs = model.state_dict(), loaded.state_dict()
    assert list(mine) == list(theirs) and all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in loaded.named_parameters()]
    assert model.report().equals(loaded.report())
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "q.safetensors").read_bytes()


def test_codes_in_a_bank_are_packed(tmp_path):
    bank = QuantizerBank({4: RoundedWeight(*codes(4)), 8: RoundedWeight(*codes(8))}, StaticBits(4))
    entry, tensors = sqlib.quantizers._saved.describe(bank)
    assert tensors["quantizers.4.code_values"].dtype == torch.uint8
    again = sqlib.quantizers._saved.rebuild(entry, tensors)
    assert torch.equal(again.at(8).stored, bank.at(8).stored) and again.selector.bits == 4


def codes(bits):
    bounds = fit_bounds(np.linspace(-1, 1, 24).reshape(4, 6), bits, method="minmax")
    return bounds, torch.arange(24).reshape(4, 6) % (1 << bits)


def test_selectors_of_ones_own(tmp_path, monkeypatch):
    class Mine(nn.Module):
        def forward(self, x, site, context):
            return 4

    path = tmp_path / "q.safetensors"
    model = quantized(recipe=Banked(selector=lambda edges: Mine()))
    with pytest.raises(
        InputError, match=r"'blocks/0/conv1:input' of the activations: its selector: Mine is no"
    ):
        model.save(path)
    assert not path.exists()
    quantized(recipe=Banked()).save(path)
    known = {k: v for k, v in sqlib.quantizers._saved._CLASSES.items() if not k.startswith("toy-")}
    monkeypatch.setattr("sqlib.quantizers._saved._CLASSES", known)
    with (
        pytest.warns(UserWarning, match="unknown recipe"),
        pytest.raises(InputError, match=r"conv1:input' .*: its selector: class 'toy-by-variance' is unknown"),
    ):
        sqlib.load_quantized(path, cnn())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda e: e["parts"].pop("selector"), "'selector' of a 'bank' quantizer is missing"),
        (lambda e: e["parts"].pop("quantizers.4"), r"tensor '.*quantizers\.4\.(lower|upper)' is not one"),
        (lambda e: e.update(parts=[1]), "expected an object of"),
        (lambda e: e["parts"]["quantizers.4"].update(bits=5), "quantizer for 4 bits"),
        (
            lambda e: e["parts"].update({"quantizers.five": e["parts"]["selector"]}),
            "no 'bank' quantizer can be",
        ),
        (lambda e: e["parts"].update(selector=3), "its selector: 3: expected an object"),
        (lambda e: e.update(widths="4/6"), "option 'widths' of a 'bank' quantizer is '4/6'"),
    ],
)
def test_damaged_banks(damage, message, tmp_path):
    path = tmp_path / "q.safetensors"
    quantized(recipe=Banked(selector=lambda edges: StaticBits(6))).save(path)
    manifest = manifest_of(path)
    damage(manifest["activations"]["blocks/1/conv1:input"])
    forge(path, manifest)
    with pytest.warns(UserWarning, match="unknown recipe"), pytest.raises(InputError, match=message):
        sqlib.load_quantized(path, cnn())


def test_tensors_that_cannot_be_written(saved):
    model, path = saved
    old = path.read_bytes()
    model.network.register_buffer("extra", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(InputError, match=r"safetensors cannot hold these tensors \(torch.complex128, "):
        model.save(path)
    with pytest.raises(InputError, match=r"tensor 'network.head.weight' is on the meta device"):
        model.to("meta").save(path)
    assert path.read_bytes() == old


def test_recipe_that_is_not_json(tmp_path):
    model = quantized()
    model.recipe = WithOwn()
    object.__setattr__(model.recipe, "to_dict", lambda: {"x": float("inf")})
    with pytest.raises(InputError, match="cannot be written as JSON"):
        model.save(tmp_path / "q.safetensors")


def test_state_beyond_tensors(tmp_path):
    class Extra(nn.Conv2d):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            raise AssertionError

    model = sqlib.quantize_model(
        nn.Sequential(Extra(3, 4, 3), nn.Conv2d(4, 3, 1)), MinMax(4), data(), skip=[]
    )
    with pytest.raises(InputError, match=r"module '0' \(Extra\) has a state beyond its tensors"):
        model.save(tmp_path / "q.safetensors")


def test_recipe_of_another_version(saved):
    model, path = saved
    manifest = manifest_of(path)
    manifest["recipe"]["version"] = 7
    forge(path, manifest)
    with pytest.warns(UserWarning, match="version 1 here, the data says 7"):
        loaded = sqlib.load_quantized(path, cnn(1))
    assert torch.equal(run(model), run(loaded))
    assert loaded.recipe.to_dict()["version"] == 7
    assert loaded.report().equals(model.report())


# --- files and networks that do not go together ----------------------------------------------------------


def wider():
    torch.manual_seed(0)
    return EDSR("tiny", 2, blocks=2, features=8)


def deeper():
    torch.manual_seed(0)
    return EDSR("tiny", 2, blocks=3, features=6)


def other_padding():
    network = cnn()
    network.blocks[0].conv2.padding_mode = "reflect"
    return network


def tied():
    network = cnn()
    network.blocks[1].conv1.weight = network.blocks[0].conv1.weight
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (wider, r"module 'head' has out_channels=6 in the file, 8 in the network"),
        (deeper, r"module 'blocks.2' is missing in the file, Res"),
        (
            other_padding,
            r"module 'blocks.0.conv2' has padding_mode='zeros' in the file, 'reflect' in the network",
        ),
        (tied, r"tensor 'blocks.1.conv1.weight' is .* in the file, .* in the network"),
        (swinir, r"the network is EDSR in the file, SwinIR in the network"),
        (lambda: quantized(), "already quantized"),
        (lambda: torch.compile(cnn()), "is compiled"),
        (lambda: "edsr", "network is str"),
    ],
    ids=["wider", "deeper", "padding", "tied", "swinir", "quantized", "compiled", "str"],
)
def test_another_network(network, message, saved):
    with pytest.raises(InputError, match=message):
        sqlib.load_quantized(saved[1], network())


def test_another_shape_of_a_parameter(tmp_path):
    model = sqlib.quantize_model(Normalized().eval(), MinMax(4), data(), skip=[])
    model.save(tmp_path / "q.safetensors")
    other = Normalized()
    other.packed = nn.Parameter(torch.zeros(16, 7))
    with pytest.raises(
        InputError, match=r"'packed' is of shape \(16, 8\) in the file, of shape \(16, 7\) in"
    ):
        sqlib.load_quantized(tmp_path / "q.safetensors", other)
    other.packed, other.more = nn.Parameter(torch.zeros(16, 8)), nn.Parameter(torch.zeros(3))
    with pytest.raises(InputError, match=r"'more' is missing in the file, of shape \(3,\) in the network"):
        sqlib.load_quantized(tmp_path / "q.safetensors", other)
    del other.more
    other.packed = None
    with pytest.raises(
        InputError, match=r"'packed' is of shape \(16, 8\) in the file, missing in the network"
    ):
        sqlib.load_quantized(tmp_path / "q.safetensors", other)


def test_another_setting_of_ones_own_module(tmp_path):
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor, self.body = factor, nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1))

        def forward(self, x):
            return self.factor * self.body(x)

    sqlib.quantize_model(Scaled(0.1), MinMax(4), data(), skip=[]).save(tmp_path / "q.safetensors")
    with pytest.warns(UserWarning, match=r"^the network has factor=0.1 in the file, 1.0 in the network: res"):
        sqlib.load_quantized(tmp_path / "q.safetensors", Scaled(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sqlib.load_quantized(tmp_path / "q.safetensors", Scaled(0.1))


# --- bad files -------------------------------------------------------------------------------------------


def test_files_that_are_none(tmp_path):
    network, path = cnn(), tmp_path / "x.safetensors"
    with pytest.raises(DataError, match="does not exist"):
        sqlib.load_quantized(path, network)
    with pytest.raises(DataError, match="is a folder"):
        sqlib.load_quantized(tmp_path, network)
    with pytest.raises(InputError, match="got NoneType"):
        sqlib.load_quantized(None, network)
    for content, message in (
        (b"", "empty"),
        (b"some text", "a text file"),
        (bytes(range(256)) * 4, "is not a safetensors file"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            sqlib.load_quantized(path, network)
    torch.save(network.state_dict(), path)
    with pytest.raises(InputError, match="is not a safetensors file"):
        sqlib.load_quantized(path, network)
    save_file(network.state_dict(), path)
    with pytest.raises(InputError, match="does not say how they are quantized: it is an ordinary checkpoint"):
        sqlib.load_quantized(path, network)
    save_file(network.state_dict(), path, {QUANTIZED: "{"})
    with pytest.raises(InputError, match="its manifest is not JSON"):
        sqlib.load_quantized(path, network)
    for text in ("[]", "{}", '{"format": true}', '{"format": "1"}', '{"format": 0}'):
        save_file(network.state_dict(), path, {QUANTIZED: text})
        with pytest.raises(InputError, match="has no number of a format"):
            sqlib.load_quantized(path, network)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_cut_off(share, saved):
    _, path = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="damaged or cut off"):
        sqlib.load_quantized(path, cnn())


def test_one_bit(saved):
    _, path = saved
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not as it was written"):
        sqlib.load_quantized(path, cnn())


def test_manifest_changed_by_hand(saved):
    _, path = saved
    manifest = manifest_of(path)
    manifest["weights"][next(iter(manifest["weights"]))]["bits"] = 8
    save_file(tensors_of(path), path, {QUANTIZED: json.dumps(manifest)})
    with pytest.raises(InputError, match="is not as it was written"):
        sqlib.load_quantized(path, cnn())


def test_newer_format(saved):
    _, path = saved
    forge(path, {**manifest_of(path), "format": 2})
    with pytest.raises(InputError, match="has format 2, this version of sqlib reads formats up to 1"):
        sqlib.load_quantized(path, cnn())


def first(manifest, side="weights"):
    return next(iter(manifest[side].values()))


FORGERIES = {
    "no sites": (lambda m: m.pop("sites"), "no usable 'sites'"),
    "sites are text": (lambda m: m.update(sites="x"), "no usable 'sites'"),
    "no modules": (lambda m: m["network"].pop("modules"), "no usable 'network'"),
    "range": (lambda m: m.update(input_range=[0.0]), "expected two numbers"),
    "range is text": (lambda m: m.update(input_range=["0", "1"]), "no usable 'input_range'"),
    "class": (lambda m: first(m).update({"class": "os.system"}), "class 'os.system' is unknown"),
    "class is a list": (lambda m: first(m).update({"class": ["uniform"]}), "expected an object of numbers"),
    "no class": (lambda m: first(m).pop("class"), "class None is unknown"),
    "entry": (lambda m: m["weights"].update({next(iter(m["weights"])): []}), "no usable 'weights'"),
    "bits": (lambda m: first(m).update(bits=99), "bits=99: expected an integer from 1 to 16"),
    "bits is text": (lambda m: first(m).update(bits="4"), "bits='4'"),
    "axis": (lambda m: first(m).update(axis=None), "lower has shape"),
    "no bits": (lambda m: first(m).pop("bits"), "'bits' of a 'uniform' quantizer is missing"),
    "more": (lambda m: first(m).update(extra=1), "option 'extra' of a 'uniform' quantizer is 1"),
    "other class": (lambda m: first(m).update({"class": "rounded-weight"}), "'code_values' .* is missing"),
    "key": (lambda m: m["weights"].update({"a.b": first(m)}), "'lower' of a 'uniform' quantizer is missing"),
    "no quantizer": (lambda m: m["activations"].clear(), "belongs to nothing in the manifest"),
    "site twice": (lambda m: m["sites"].append(m["sites"][0]), "call site 'head' is there twice"),
    "site field": (lambda m: m["sites"][2].update(active="no"), "has active='no'"),
    "site field lost": (lambda m: m["sites"][2].pop("rule"), "has rule='missing'"),
    "site field more": (lambda m: m["sites"][2].update(x=1), "has x=1"),
    "site noise": (lambda m: m["sites"][2].update(weight_sqnr_db="loud"), "is incomplete"),
    "site key": (
        lambda m: m["sites"][2]["activation_keys"].update(input="x"),
        "lacks the quantizer of its input",
    ),
    "site weight": (lambda m: m["sites"][2].update(weight_key="x"), "lacks the quantizer of its weight"),
    "strides": (
        lambda m: m["network"]["strides"].update({"head.weight": [0, 0, 0, 0]}),
        r"'head.weight' of shape .* cannot have strides",
    ),
    "huge strides": (
        lambda m: m["network"]["strides"].update({"head.weight": [10**15, 9, 3, 1]}),
        r"'head.weight' of shape .* cannot have strides",
    ),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_forged_manifests(kind, saved):
    """With a right checksum, too, a manifest that makes no sense is refused with a sentence."""
    change, message = FORGERIES[kind]
    _, path = saved
    manifest = manifest_of(path)
    change(manifest)
    forge(path, manifest)
    with pytest.raises(InputError, match=message) as error:
        sqlib.load_quantized(path, cnn())
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centre": "no"}, "centre='no'"),
        ({"patch": "3"}, "no 'subset' quantizer can be made"),
        ({"denominator": 0}, "denominator=0"),
        ({"bits": 3}, "option 'bits' of a 'subset' quantizer is 3, its tensors make it 4"),
        ({"fixed_scale": True}, "option 'fixed_scale' .* is True, its tensors make it False"),
        ({"axis": 2}, "axis=2"),
    ],
)
def test_forged_subset(options, message, compensated):
    _, path = compensated
    manifest = manifest_of(path)
    first(manifest, "activations").update(options)
    forge(path, manifest)
    with pytest.raises(InputError, match=message):
        sqlib.load_quantized(path, cnn())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("network.head.weight"), "tensor 'head.weight' is missing in the file"),
        (
            lambda t: t.update({"network.head.bias": torch.zeros(2)}),
            r"'head.bias' is of shape \(2,\) in the fi",
        ),
        (
            lambda t: t.pop("weights.blocks/0/conv1/weight|0.lower"),
            "'lower' of a 'rounded-weight' quantizer is mis",
        ),
        (lambda t: t.update({"weights.blocks/0/conv1/weight|0.lower": torch.zeros(2)}), "lower has shape"),
        (
            lambda t: t.update({"weights.blocks/0/conv1/weight|0.more": torch.zeros(2)}),
            "'more' is not one that a 'rounded-weight' quantizer",
        ),
        (
            lambda t: t["weights.blocks/0/conv1/weight|0.code_values"].add_(100),
            "codes must be integers from 0 to 15",
        ),
        (lambda t: t["weights.blocks/0/conv1/weight|0.lower"].fill_(torch.nan), "expected finite numbers"),
        (lambda t: t.update({"x.y.z": torch.zeros(2)}), "'x.y.z' belongs to nothing"),
        (lambda t: t["activations.blocks/0/conv1:input.points"].mul_(3), "expected within"),
    ],
)
def test_forged_tensors(change, message, compensated):
    _, path = compensated
    tensors = tensors_of(path)
    change(tensors)
    forge(path, tensors=tensors)
    with pytest.raises(InputError, match=message):
        sqlib.load_quantized(path, cnn())


def test_it_is_no_checkpoint_of_the_network(saved):
    """Its weights alone would be another network than the one in full precision."""
    with pytest.raises(InputError, match=r"is a quantized network.*sqlib.load_quantized"):
        models.load(saved[1], "edsr-small", scale=2)


def test_classes():
    """These are all that a file can name."""
    known = {n: cls for n, cls in sqlib.quantizers._saved._CLASSES.items() if not n.startswith("toy-")}
    assert known == {
        "bank": QuantizerBank,
        "by-path": ByPath,
        "by-role": ByRole,
        "content-bits": ContentBits,
        "following": FollowingQuantizer,
        "gate": Gate,
        "gated": GatedQuantizer,
        "identity": nn.Identity,
        "uniform": UniformQuantizer,
        "rounded-weight": RoundedWeight,
        "static-bits": StaticBits,
        "subset": SubsetQuantizer,
        "symmetric": SymmetricQuantizer,
        "table-bits": TableBits,
    }
