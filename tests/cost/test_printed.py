"""What the papers' tables count of a network: padding, fixed convolutions, operands in full precision."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from torch import Tensor, nn
from toy_banks import Banked, SixBits

import sqlib
from sqlib import cost, models, quantize_model
from sqlib.cost import walk
from sqlib.errors import InputError
from sqlib.experiments.papers import refqsr
from sqlib.experiments.papers.published import published_frame
from sqlib.models.elan import ELAN
from sqlib.models.swinir import SwinIR
from sqlib.recipes import MinMax

LFE, QK, AV, OUT = 14_400, 6_720, 6_720, 3_600  # multiplications of a pixel in one part of ELAN-light
BODY = 24 * (LFE + OUT + AV) + 12 * (7_200 + 3_600 + QK)


def network(name: str, scale: int = 4) -> nn.Module:
    with torch.device("meta"):
        return models.create(name, scale=scale)


def small(**options) -> ELAN:
    torch.manual_seed(0)
    return ELAN("elan-light", 2, blocks=2, features=12, windows=(2, 4), **options).eval()


def test_elan_as_derived_by_hand():
    """120 x 9 more for each of the 24 local extractions; the products with the values at 32 x b."""
    model, pixels = network("elan-light"), 62_868
    full, eight = cost.by_bits(model, (1280, 720), (32, 8), patch=72, overlap=6)
    assert full.pixels == pixels
    assert full.bitops == 2 * pixels * (BODY + 24 * 1_080) == 2 * pixels * 829_440
    assert eight.bitops == 2 * pixels * (24 * AV * 32 * 8 + (829_440 - 24 * AV) * 64) / 1024
    assert (full.fqr, eight.fqr) == (32, 8)
    frame = eight.frame()
    fixed = frame[frame["op"] == "fixed"]
    assert len(fixed) == 24 and (fixed["macs"] == 1_080 * pixels).all()
    assert set(fixed["site"]) == {f"body.{i}.local{k}.conv2.conv" for i in range(12) for k in (1, 2)}
    maps = frame[(frame["kind"] == "matmul") & (frame["left_bits"] == 32)]
    assert len(maps) == 3 * 24 and (maps["right_bits"] == 8).all()
    assert (frame[frame["kind"] == "matmul"]["left_bits"] == 8).sum() == 3 * 12


@pytest.mark.parametrize(("label", "shown"), [("CADyQ", 0.06), ("CABM", 0.0051)])
def test_weights_of_8_bits_and_activations_of_the_printed_fqr(label, shown):
    """CADyQ's totals are up to 0.4 % above this product, CABM's are it."""
    values = published_frame(blanks=False).set_index("id")["value"]
    for dataset in ("urban100", "test2k"):
        row = f"refqsr-table2/SRResNet/x4/{label}/delta/{refqsr._PRINTED[dataset]}"
        eight = refqsr._bitops("srresnet", dataset, 8) / 1e9
        assert eight * values[f"{row}/fqr"] / 8 == pytest.approx(values[f"{row}/bitops_g"], abs=shown)


@pytest.mark.parametrize(
    "model",
    [
        small(),
        SwinIR("swinir-small", 2, features=8, depths=(2,), heads=2, window=4),
        SwinIR("swinir-small", 2, features=8, depths=(2,), heads=2, window=4, padding="always"),
        models.create("edsr-small", scale=2),
    ],
    ids=["elan", "swinir", "swinir, always", "edsr"],
)
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 9)])
def test_pixels_of_the_padding_do_not_count(model, size):
    """The first convolution shows what the network computes on."""
    seen = []
    handle = model.head.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape[2:])))
    with torch.no_grad():
        model.eval()(torch.rand(1, 3, *size))
    handle.remove()
    assert seen == [model.padded_size(*size)]
    high, wide = seen[0]
    output = (2 * size[1], 2 * size[0])
    run, printed = (cost.cost(model, output, counting=counting) for counting in ("run", "printed"))
    macs = sum(p.macs for p in walk(model, (size[1], size[0])).products if p.kind != "norm")
    assert run.macs == macs
    fixed = sum(layer.macs for layer in printed.layers if layer.op == "fixed")
    assert (printed.macs - fixed) * high * wide == macs * size[0] * size[1]
    assert (run.peak_bytes, run.params) == (printed.peak_bytes, printed.params)


def test_skip_takes_the_place_of_what_the_papers_leave_alone():
    everything = cost.cost(network("elan-light"), (128, 128), bits=4, skip=["head", "tail.*"]).frame()
    assert (everything[everything["quantized"]][["left_bits", "right_bits"]] == 4).all(axis=None)
    body = cost.cost(network("carn"), (128, 128), bits=4, skip=["entry", "exit", "upsample.*"])
    assert body.bitops > cost.bitops(network("carn"), (128, 128), bits=4)


@pytest.mark.parametrize(("name", "kept"), [("carn", True), ("carn-single", True), ("carn-m", False)])
def test_fusions_of_carn(name, kept):
    frame = cost.cost(network(name), (64, 64), bits=4).frame()
    fusions = frame[[".fusions." in site or site.startswith("body.fusions") for site in frame["site"]]]
    assert len(fusions) and (~fusions["quantized"]).all() == kept


class KeepsMaps(MinMax):
    """Leaves the attention maps of ELAN in full precision."""

    def activation_observer(self, site, operand):
        patterns = models.spec("elan-light").unquantized["elan-light"]
        kept = any(fnmatchcase(f"{site.name}:{operand}", pattern) for pattern in patterns)
        return None if kept else super().activation_observer(site, operand)


def test_a_quantized_network_costs_what_was_planned():
    model = small()
    planned = cost.cost(model, (40, 28), bits=(6, 3), patch=8, overlap=2)
    quantized = quantize_model(model, KeepsMaps((6, 3)), [torch.rand(1, 3, 8, 8)])
    found = cost.cost(quantized, (40, 28), patch=8, overlap=2)
    assert (found.layers, found.bitops, found.fqr) == (planned.layers, planned.bitops, 3)
    with torch.no_grad(), quantized.passes() as passes:
        quantized(torch.rand(2, 3, 8, 8))
    assert cost.cost(quantized, (40, 28), patch=8, overlap=2, context=passes).bitops == planned.bitops
    # with every operand quantized, the maps have bits, too
    other = cost.cost(quantize_model(model, MinMax((6, 3)), [torch.rand(1, 3, 8, 8)]), (40, 28), patch=8)
    maps = other.frame().query("kind == 'matmul'")
    assert (maps[["left_bits", "right_bits"]] == 3).all(axis=None) and other.fqr == 3


def test_several_bits_from_one_walk():
    model = network("edsr-small", 2)
    bits = [32, (8, 4), {"blocks.0": 8, "*": 3}]
    together = cost.by_bits(model, (64, 48), bits, patch=12, overlap=2, layers="all", skip=["head"])
    alone = [
        cost.cost(model, (64, 48), bits=b, patch=12, overlap=2, layers="all", skip=["head"]) for b in bits
    ]
    assert together == alone and cost.by_bits(model, (64, 48), []) == []
    quantized = quantize_model(models.create("edsr-small", scale=2), MinMax(4), [torch.rand(1, 3, 8, 8)])
    with pytest.raises(InputError, match="by_bits plans bits of a network, and this model is quantized"):
        cost.by_bits(quantized, (64, 48), [4])
    for count in (cost.cost, cost.bitops):
        with pytest.raises(InputError, match="counting='paper': expected 'printed' or 'run'"):
            count(model, (64, 48), counting="paper")
    with pytest.raises(InputError, match="counting=None"):
        cost.by_bits(model, (64, 48), [4], counting=None)


class Branching(nn.Module):
    """Looks at its input to decide on a second convolution."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x) if float(x.mean()) > -9 else x


def banked(weights=None) -> nn.Module:
    torch.manual_seed(0)
    edsr = models.create("edsr-small", scale=2)
    return quantize_model(edsr, Banked(weights=weights), [torch.rand(2, 3, 8, 8)])


DEPENDENT = {
    "a branch": Branching,
    "a branch, quantized": lambda: quantize_model(Branching(), MinMax(4), [torch.rand(1, 3, 8, 8)], skip=[]),
    "banks of activations": banked,
    "banks of weights and activations": lambda: banked(SixBits),
}


@pytest.mark.parametrize("make", DEPENDENT.values(), ids=DEPENDENT)
@pytest.mark.parametrize("options", [{}, {"patch": 4, "overlap": 1}, {"layers": "all"}, {"counting": "run"}])
def test_what_depends_on_the_image_is_never_counted_on_none(make, options):
    model = make()
    size = (8 * model.scale, 8 * model.scale)
    for count in (cost.cost, cost.bitops):
        with pytest.raises(InputError, match=r"depends? on .*(give|:) .*images="):
            count(model, size, **options)
    assert cost.cost(model, size, images=torch.rand(1, 3, 8, 8), **options).macs > 0


def test_neither_is_a_loaded_one_nor_several_bits_of_a_branch(tmp_path):
    model = banked()
    model.save(tmp_path / "banked.safetensors")
    with pytest.warns(UserWarning, match="unknown recipe 'toy-banked'"):
        loaded = sqlib.load_quantized(tmp_path / "banked.safetensors", models.create("edsr-small", scale=2))
    with pytest.raises(InputError, match="the bits depend on what the network is given"):
        cost.cost(loaded, (16, 16))
    x = torch.rand(1, 3, 8, 8)
    assert cost.cost(loaded, (16, 16), images=x) == cost.cost(model, (16, 16), images=x)
    with pytest.raises(InputError, match="Branching looks at values of its input"):
        cost.by_bits(Branching(), (8, 8), [32, 8])
