"""A network is one file with its SPEC: ours are found by module, those of others by import."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.io import imsave
from torch import nn

from sqlib import models, quantize_model, training
from sqlib.cost import cost
from sqlib.errors import InputError
from sqlib.fit import distill
from sqlib.models import Spec, SRNetwork, WeightsFile, _spec, carn, edsr, elan, srresnet, swinir
from sqlib.recipes import DOBI

TOY = '''
"""A network of somebody who only uses sqlib."""
from torch import nn
from sqlib import models

class Toy(models.SRNetwork):
    def __init__(self, name, scale, *, width=6):
        super().__init__()
        self.name, self.scale = name, scale
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.up = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x):
        x = self.head(x)
        for block in self.blocks:
            x = x + block(x).relu()
        return self.up(x)

def official(names, network):
    return models.Layout({"first": "head", "body": "blocks"})

SPEC = models.register(
    models.Spec(
        network=Toy,
        names={"toy": {}, "toy-wide": dict(width=8)},
        skip=("head", "up.*"),
        blocks="blocks.*",
        official=official,
        training={("toy", 2): dict(steps=3, batch=2, patch=8, warmup=1, held_out=1)},
    )
)
'''


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is forgotten afterwards."""
    configs = dict(training.CONFIGS)
    monkeypatch.setattr(_spec, "_SPECS", dict(_spec._SPECS))
    yield
    training.CONFIGS.clear()
    training.CONFIGS.update(configs)


@pytest.fixture
def toy(table: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module outside sqlib, imported."""
    assert "toy" not in models.names() and "toy-x2" not in training.CONFIGS
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    return importlib.import_module("toy")


def test_a_network_from_outside_is_created_and_loaded(toy: ModuleType, tmp_path: Path) -> None:
    model = models.create("toy-wide", scale=3)
    assert isinstance(model, toy.Toy) and model.head.out_channels == 8 and not model.training
    assert model.spec is toy.SPEC is models.spec("toy") is models.spec("toy-wide")
    assert models.names()[-2:] == ["toy", "toy-wide"]
    state = model.state_dict()
    theirs = {k.replace("head.", "first.").replace("blocks.", "body."): v for k, v in state.items()}
    for names in (state, theirs):
        save_file(names, tmp_path / "weights.safetensors", metadata={"name": "toy-wide"})
        loaded = models.load(tmp_path / "weights.safetensors", scale=3)
        assert type(loaded) is toy.Toy
        assert all(torch.equal(loaded.state_dict()[k], v) for k, v in state.items())


def test_a_network_from_outside_is_quantized_distilled_and_costed(toy: ModuleType) -> None:
    torch.manual_seed(0)
    network, images = models.create("toy", scale=2), torch.rand(4, 3, 12, 12)
    quantized = quantize_model(network, DOBI(bits=4, steps=10), [images])
    report = quantized.report().set_index("site")
    assert set(report.index[report.quantized]) == {"blocks.0", "blocks.1"}
    assert set(report.index[~report.quantized]) == {"head", "up.0"}
    assert set(report.rule[~report.quantized]) == {"network default: head", "network default: up.*"}
    outcome = distill(quantized, [images], iterations=3, batch=2, learning_rate=0.01, relative=True)
    assert outcome.features == ("blocks.0", "blocks.1")
    # Two layers of 6 x 6 x 9 products at 100 pixels, two operations each, 4 bits of 32 on both sides.
    assert cost(network, (20, 20), bits=4).bitops == 2 * 2 * 36 * 9 * 100 * 4 * 4 / 32**2


def test_a_network_from_outside_has_its_training(toy: ModuleType) -> None:
    config = training.config("toy-x2")
    assert config == training.TrainConfig("toy", 2, steps=3, batch=2, patch=8, warmup=1, held_out=1)
    assert training.CONFIGS["toy-x2"] is config
    with pytest.raises(models.DataError, match=r"python -m sqlib train toy-x2 --data DIR"):
        models.pretrained("toy", scale=2)


COMMANDS = """
import json, sys
import toy
from sqlib.cli import main

images, folder = sys.argv[1:]
print(json.dumps([
    main(["train", "toy-x2", "--data", images, "--resume", folder]),
    main(["evaluate", "toy", "--scale", "2", "--dataset", "builtin", "--first", "1", "--json"]),
    main(["cost", "toy-wide", "--scale", "4", "--image", "64x48", "--json"]),
    main(["evaluate", "tiy", "--scale", "2", "--dataset", "builtin"]),
]))
"""


def test_the_command_line_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_data: Path) -> None:
    """Trained, found by its name in SQLIB_WEIGHTS, scored and costed, in a process that imports it."""
    (tmp_path / "toy.py").write_text(TOY)
    images, folder = tmp_path / "images", tmp_path / "trained"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        imsave(images / f"{i}.png", rng.integers(0, 256, (48, 48, 3), dtype=np.uint8), check_contrast=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("SQLIB_WEIGHTS", str(folder))
    command = [sys.executable, "-c", COMMANDS, str(images), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *shown, codes = done.stdout.splitlines()
    assert json.loads(codes) == [0, 0, 0, 2], done.stderr
    text = "\n".join(shown)
    assert f"done: {folder}/toy-x2.safetensors" in text
    assert '"n": 1' in text and f'"params": {3 * 8 * 9 + 8 + 2 * (8 * 8 * 9 + 8) + 8 * 48 * 9 + 48}' in text
    assert "unknown network 'tiy'; expected one of bsrn, " in done.stderr
    assert done.stderr.endswith("swinir-small, toy, toy-wide; did you mean 'toy'?\n")


# --- refusals -----------------------------------------------------------------------------------------------


class Net(SRNetwork):
    """The least there can be."""

    def __init__(self, name: str, scale: int, *, width: int = 3) -> None:
        super().__init__()
        self.name, self.scale = name, scale


def described(**changes: Any) -> Spec:
    return Spec(**{"network": type("Net", (Net,), {}), "names": {"net": {}}, "skip": (), **changes})


@pytest.mark.parametrize("given", [Net, Net("net", 2), nn.Conv2d, None, {"network": Net}])
def test_a_network_without_spec(table: None, given: object) -> None:
    with pytest.raises(
        InputError, match=r"register\(\) got .*expected a sqlib\.models\.Spec, which says how"
    ):
        models.register(given)  # type: ignore[arg-type]


def test_a_name_that_is_taken(table: None) -> None:
    before = dict(_spec._SPECS)
    spec = described(names={"net": {}, "edsr-small": {}}, training={("net", 2): dict(steps=1)})
    message = r"two networks are called 'edsr-small': EDSR of sqlib\.models\.edsr and Net of .*test_spec"
    with pytest.raises(InputError, match=message):
        models.register(spec)
    # Nothing of it stays.
    assert before == _spec._SPECS and "net-x2" not in training.CONFIGS
    assert spec.network.spec is None


def test_a_class_with_another_spec(table: None) -> None:
    """A second SPEC would change what the networks of the first one skip."""
    other = dataclasses.replace(edsr.SPEC, names={"edsr-16x32": dict(features=32)}, files=(), training={})
    with pytest.raises(InputError, match=r"EDSR of sqlib\.models\.edsr has a SPEC already.*a subclass of it"):
        models.register(other)
    models.register(edsr.SPEC)  # the same one again changes nothing
    subclass = type("Wide", (edsr.EDSR,), {})
    models.register(dataclasses.replace(other, network=subclass, skip=("head",)))
    wide = models.create("edsr-16x32", scale=2)
    assert (wide.default_skip, edsr.EDSR.default_skip) == (("head",), edsr.SPEC.skip)
    assert wide.head.out_channels == 32


def test_a_cell_that_runs_twice_replaces_itself(table: None) -> None:
    for steps in (1, 2):
        spec = models.register(described(training={("net", 2): dict(steps=steps)}))
        assert models.spec("net") is spec and training.config("net-x2").steps == steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(network=nn.Conv2d), "network=.*Conv2d.*expected a subclass of sqlib.models.SRNetwork"),
        (dict(network=Net("net", 2)), "expected a subclass of sqlib.models.SRNetwork"),
        (dict(names={}), "no names; expected one at least"),
        (dict(names={"my/net": {}}), "name 'my/net'; expected letters"),
        (
            dict(names={"net": dict(depth=2)}),
            r"Net\(name, scale, \*\*{'depth': 2}\) cannot be called: .*depth",
        ),
        (dict(skip="head"), "skip='head'; expected a tuple of patterns"),
        (dict(skip=(1,)), r"skip=\(1,\); expected a tuple of patterns"),
        (dict(unquantized={"net": "head"}), "net='head'; expected a tuple of patterns"),
        (dict(unquantized={"other": ("head",)}), "of 'other', which is none of its names net"),
        (dict(training={("other", 2): {}}), "of 'other', which is none of its names net"),
        (
            dict(files=(WeightsFile("nets", (2,), "f", "MIT", "s"),)),
            "of 'nets', which is none of its names net",
        ),
    ],
)
def test_a_spec_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        described(**changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "missing .*'steps'"),
        (dict(steps=0), "cannot have steps=0"),
        (dict(steps="1"), "'str' and 'int'"),
        (dict(steps=1, epochs=3), "unexpected keyword argument 'epochs'"),
    ],
)
def test_a_training_that_cannot_be(table: None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"SPEC of net, training x2: .*{message}"):
        models.register(described(training={("net", 2): options}))
    assert "net" not in models.names()


# --- found by module ----------------------------------------------------------------------------------------


def package(folder: Path, **files: str) -> ModuleType:
    """A package of modules with these sources."""
    (folder / "nets").mkdir()
    for name, source in {"__init__": "", **files}.items():
        (folder / "nets" / f"{name}.py").write_text(source)
    return importlib.import_module("nets")


@pytest.fixture
def folder(table: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "nets"]:
        del sys.modules[name]


def test_modules_are_found_and_private_ones_are_not_read(folder: Path) -> None:
    _spec.discover(package(folder, toy=TOY, _helper="raise RuntimeError('read')"))
    assert models.create("toy", scale=2).__module__ == "nets.toy"


@pytest.mark.parametrize("source", ["", "SPEC = None", "class Net: ..."])
def test_a_module_without_spec(folder: Path, source: str) -> None:
    message = r"nets/helper\.py has no SPEC: .* begins with an underscore"
    with pytest.raises(InputError, match=message):
        _spec.discover(package(folder, helper=source))


def test_every_file_of_ours_is_found() -> None:
    files = {f"sqlib.models.{p.stem}" for p in Path(models.__file__).parent.glob("[!_]*.py")}
    assert {models.spec(name).network.__module__ for name in models.names()} == files


# --- what ours say ------------------------------------------------------------------------------------------


def test_blocks_are_the_networks_own() -> None:
    """Residual (dense, attention) blocks in the order in which they run, and how many RefQSR replaces."""
    found = {}
    for name in models.names():
        with torch.device("meta"):
            network = models.create(name, scale=4)
        pattern = str(network.spec.blocks)
        blocks = [
            type(module)
            for path, module in network.named_modules()
            if path.count(".") == pattern.count(".") and fnmatchcase(path, pattern)
        ]
        assert len(set(blocks)) == 1
        found[name] = (blocks[0].__qualname__, len(blocks), network.spec.replaced)
        assert all(name in network.spec.names for name, _ in network.spec.training)
    assert found == {
        "bsrn": ("DistillationBlock", 8, 0),
        "carn": ("ResidualBlock", 9, 1),
        "carn-single": ("ResidualBlock", 9, 1),
        "carn-m": ("EfficientResidualBlock", 3, 1),
        "edsr-baseline": ("ResidualBlock", 16, 2),
        "edsr-large": ("ResidualBlock", 32, 2),
        "edsr-small": ("ResidualBlock", 8, 2),
        "edsr-8x64": ("ResidualBlock", 8, 2),
        "elan-light": ("Block", 12, 2),
        "rdn": ("ResidualDenseBlock", 16, 0),
        "srresnet": ("ResidualBlock", 16, 2),
        "srresnet-small": ("ResidualBlock", 8, 2),
        "swinir-light": ("ResidualGroup", 4, 0),
        "swinir-small": ("ResidualGroup", 2, 0),
    }


def test_features_are_the_blocks_unless_said_otherwise() -> None:
    assert swinir.SPEC.features == "groups.*.layers" and swinir.SPEC.channel_axis == -1
    others = [carn.SPEC, edsr.SPEC, elan.SPEC, srresnet.SPEC]
    assert [(spec.features, spec.channel_axis) for spec in others] == [(None, 1)] * 4


@pytest.mark.parametrize("scale", [5, 2.0, None])
def test_carn_for_one_scale_knows_its_scales(scale: Any) -> None:
    with pytest.raises(InputError, match=r"carn-single got scale .*exists for x2, x3, x4"):
        models.create("carn-single", scale=scale)
