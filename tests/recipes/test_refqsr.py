"""RefQSR as a recipe: bits on both paths, where it starts, its training, files, costs, and bad input."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_pairs import Own, crops, network, pairs, refilled

import sqlib
from sqlib.cost import cost
from sqlib.engine import Context
from sqlib.errors import DataError, InputError
from sqlib.fit import Answer
from sqlib.models.edsr import EDSR
from sqlib.patches import Grid, split
from sqlib.quantizers import GatedQuantizer, QuantizerBank, UniformQuantizer
from sqlib.recipes import CABM, DDTB, PAMS, CADyQ, MinMax, RefQSR, refqsr
from sqlib.recipes.refqsr import BASES
from sqlib.reference.twins import Twins
from sqlib.reference.two_path import QUERY, REFERENCE, RefinedBlock, queries, references, two_path

BRIEF: dict[str, Any] = {
    "schedule": "custom",
    "steps": 2,
    "halve_every": 1,
    "batch": 2,
    "bound_learning_rate": 0.01,
}
LOW, HIGH = pairs()[0]
CHOICE: dict[str, Any] = {**BRIEF, "selector_learning_rate": 1e-3, "bit_weight": 1e-2}


def edsr() -> EDSR:
    torch.manual_seed(0)
    return EDSR("edsr-small", 2, blocks=4, features=8)


def base(kind: type, bits: int = 8, **options: Any) -> Any:
    return kind(bits, **{**(CHOICE if issubclass(kind, CADyQ) else BRIEF), **options})


def made(recipe: RefQSR, model: nn.Module | None = None) -> sqlib.QuantizedModel:
    return sqlib.quantize_model(model or edsr(), recipe, crops(), pairs=pairs())


def recipe(kind: type = PAMS, bits: int = 8, **options: Any) -> RefQSR:
    return RefQSR(**{"base": base(kind, bits), **BRIEF, "refiners": 1, "tau": -1.0, **options})


def patches(sizes: tuple[tuple[int, int], ...] = ((18, 18),) * 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(1, 3, *size, generator=generator) for size in sizes]


def upscaled(model: sqlib.QuantizedModel, x: list[Tensor]) -> list[Tensor]:
    assert model.together is not None
    found = dict(model.together(x))
    return [found[n] for n in range(len(x))]


@torch.no_grad()
def used(model: sqlib.QuantizedModel, role: str) -> tuple[dict[str, int], dict[str, int]]:
    """Bits of activations and weights by site on one path."""
    x = patches()[0]
    with references() as kept, model.context(roles=REFERENCE) as context:
        model(x)
    if role == QUERY:
        with queries(kept), model.context(roles=QUERY) as context:
            model(x)
    return tuple({k: int(v[0]) for k, v in b.items()} for b in (context.bits, context.weight_bits))  # type: ignore[return-value]


@pytest.mark.parametrize("high, low, medium", [(8, 5, 6), (8, 4, 6), (8, 3, 6), (4, 3, 4), (4, 2, 3)])
def test_bits_of_both_paths(high: int, low: int, medium: int) -> None:
    """The first block and refinement have b_high; b_medium is rounded half to even (pitfall 55)."""
    model = made(recipe(bits=high, low=low, steps=0))
    activations, weights = used(model, REFERENCE)
    blocks = [f"blocks.{i}.conv{j}" for i in range(3) for j in (1, 2)]
    last = ["blocks.3.block.conv1", "blocks.3.block.conv2"]
    assert {k: activations[k] for k in (*blocks, *last)} == dict.fromkeys((*blocks, *last), high)
    assert {k: weights[k] for k in (*blocks, *last)} == dict.fromkeys((*blocks, *last), high)
    activations, weights = used(model, QUERY)
    expected = {name: high if name.startswith("blocks.0") else low for name in blocks}
    refer = dict.fromkeys(("blocks.3.refer.conv1", "blocks.3.refer.conv2"), high)
    assert activations == {**_full(activations), **expected, **refer, "blocks.3.refer.match.matmul": low}
    expected = {name: high if name.startswith("blocks.0") else medium for name in blocks}
    assert weights == {**_full(weights), **expected, **refer}


@pytest.mark.parametrize("first", ["high", "medium"])
def test_weights_of_the_first_block(first: str) -> None:
    """Its activations have b_high in any case, and so has all of it for references."""
    model = made(recipe(bits=8, low=3, steps=0, first_weights=first))
    for patch, expected in ((REFERENCE, 8), (QUERY, 8 if first == "high" else 6)):
        activations, weights = used(model, patch)
        for name in ("blocks.0.conv1", "blocks.0.conv2"):
            assert (activations[name], weights[name]) == (8, expected)
        assert weights["blocks.1.conv1"] == (8 if patch is REFERENCE else 6)


def test_options_of_refinement_arrive() -> None:
    model = made(recipe(norm="map", renormalize=True, pool=2, steps=0))
    refer = model.network.get_submodule("blocks.3.refer")
    assert (refer.norm, refer.renormalize, refer.pool) == ("map", True, 2)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("bits, low, medium", [((4, 8), 5, 4), ((8, 4), 3, 6), ((3, 6), 3, 3)])
def test_weights_and_activations_of_other_bits(
    kind: type, bits: tuple[int, int], low: int, medium: int
) -> None:
    """Of CADyQ and CABM the references choose."""
    model = made(recipe(kind, bits, low=low, steps=0))
    activations, weights = used(model, REFERENCE)
    assert weights["blocks.1.conv1"] == bits[0]
    chosen = CADyQ(8).candidates if issubclass(kind, CADyQ) else bits[1:]
    assert activations["blocks.1.conv1"] in chosen
    activations, weights = used(model, QUERY)
    assert (activations["blocks.1.conv1"], weights["blocks.1.conv1"]) == (low, medium)
    assert activations["blocks.0.conv1"] in chosen and weights["blocks.0.conv1"] == bits[0]


def _full(bits: dict[str, int]) -> dict[str, int]:
    """What is never quantized."""
    return {name: 32 for name in bits if name.split(".")[0] in ("head", "body_end", "upsampler", "tail")}


@pytest.mark.parametrize("kind", BASES)
def test_every_base_trains_saves_and_counts(kind: type, tmp_path: Path) -> None:
    model = made(recipe(kind, low=3))
    assert len(model.training_log[-1].curve) == 2
    model.save(tmp_path / "q.safetensors")
    again = sqlib.load_quantized(tmp_path / "q.safetensors", edsr())
    pieces = patches(((18, 18), (18, 18), (20, 18), (20, 18), (18, 21)))
    with torch.no_grad(), model.passes() as passes:
        whole = upscaled(model, pieces)
        for one, other in zip(whole, upscaled(again, pieces), strict=True):
            assert torch.equal(one, other)
    assert {context.roles[0] for context in passes} == {REFERENCE, QUERY}
    assert sum(context.samples for context in passes) == 5
    found = cost(model, (36, 36), context=passes)
    assert 3 <= found.fqr < 8 and found.bitops > 0


def test_fqr_is_the_mean_over_patches() -> None:
    """q patches of 8 - (2 middle blocks of 4) (8 - 4) bits; the cost volume is none of its sites."""
    model = made(recipe(low=4, steps=0))
    with torch.no_grad(), model.passes() as passes:
        upscaled(model, patches())
    samples = {role: sum(c.samples for c in passes if c.roles[0] == role) for role in (REFERENCE, QUERY)}
    share = samples[QUERY] / 6
    assert 0 < share < 1
    found = cost(model, (36, 36), context=passes)
    assert found.fqr == pytest.approx(8 - share * 4 * 4 / 8)
    prices = {layer.site: layer for layer in found.layers}
    convolution = 18 * 18 * 9 * 8 * 8
    assert prices["blocks.3.block.conv1"].macs == round((1 - share) * convolution)
    assert prices["blocks.3.refer.conv1"].macs == round(share * convolution)
    assert prices["blocks.3.refer.match.matmul"].macs == round(share * 36**2 * 8)
    middle = (1 - share) * 8 * 8 + share * 6 * 4
    assert prices["blocks.1.conv1"].bitops == pytest.approx(2 * convolution * middle / 1024)


def idle(model: sqlib.QuantizedModel, passes: list[Context]) -> set[str]:
    """Bounds of widths that nothing in these passes had, where the choice is not learned."""
    found = set()
    for site in model.sites.values():
        for role, key in site.activation_keys.items():
            bank = model.activations[key.replace(".", "/")]
            if isinstance(bank, QuantizerBank) and not list(bank.selector.parameters()):
                had = {width for c in passes for width in c.operands.get((site.name, role), NONE).tolist()}
                found |= {
                    f"activations.{key.replace('.', '/')}.quantizers.{width}.{name}"
                    for width in set(bank.widths) - had
                    for name, _ in bank.at(width).named_parameters()
                }
    return found


NONE = torch.zeros(0)


@pytest.mark.parametrize("kind", BASES)
def test_gradients_reach_what_learns_and_nothing_else(kind: type) -> None:
    """All but the bounds of widths that CABM's table does not choose; neither the clustering nor the data."""
    data = [(LOW, HIGH), (LOW / 20, HIGH / 20)]
    apart = {"selector_learning_rate": 3e-3, "bit_weight": 1.0} if issubclass(kind, CADyQ) else {}
    limit = {"limit": 100} if kind is CABM else {}
    own = recipe(base=base(kind, **apart, **limit), low=3, steps=0)
    model = sqlib.quantize_model(edsr(), own, [low for low, _ in data], pairs=data)
    for quantizer in model.activations.values():
        quantizer.learnable()
    model.train()
    with torch.no_grad():  # a new block passes nothing back through its second convolution
        model.network.blocks[3].refer.conv2.weight.normal_(std=0.1)
    source = Twins.of(data, "textures", -1.0)
    known = copy.deepcopy(source.extract.state_dict())
    drawn = source.draw(4, False, torch.Generator().manual_seed(0))
    with model.passes() as passes:
        loss = (two_path(model, drawn.args[0]) - drawn.target).abs().mean()
    loss.backward()
    assert {context.roles[0] for context in passes} == {REFERENCE, QUERY}
    untouched = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert untouched == idle(model, passes)
    assert bool(untouched) == (kind is CABM)
    if kind is CABM:  # the table has several widths of one bank, and not all
        first = next(c.bits["blocks.1.conv2"] for c in passes if c.roles[0] == REFERENCE)
        assert len(first.unique()) == 2
    assert all(p.grad is None for p in source.extract.parameters())
    assert all(torch.equal(v, known[k]) for k, v in source.extract.state_dict().items())
    assert not drawn.args[0].requires_grad and not drawn.target.requires_grad


@pytest.mark.parametrize("kind", BASES)
def test_training_changes_what_learns_and_nothing_else(kind: type) -> None:
    """Not what it starts from, the original that teaches, the extractor of the clustering, or a table."""
    short = recipe(kind, low=3, learning_rate=1e-3)
    original = edsr()
    start = sqlib.quantize_model(original, short.base, crops(), pairs=pairs())
    fixed = (original, start, refqsr._packaged())
    known = [copy.deepcopy(network.state_dict()) for network in fixed]

    def trained(recipe: RefQSR) -> sqlib.QuantizedModel:
        return sqlib.quantize_model(original, recipe, crops(), pairs=pairs(), start=start)

    before, model = trained(dataclasses.replace(short, steps=0)), trained(short)
    upscaled(model.eval(), patches())
    for still, state in zip(fixed, known, strict=True):
        assert all(p.grad is None for p in still.parameters())
        same(still.state_dict(), state, ())
    first, last = before.state_dict(), model.state_dict()
    learned = {name for name, _ in model.named_parameters()}
    gates = {name for name in first if name.endswith((".gate.mean", ".gate.variance"))}
    same(first, last, learned | gates)
    moved = {name for name in learned if not torch.equal(first[name], last[name])}
    assert learned - moved == set() or kind is CABM
    assert all(".quantizers." in name for name in learned - moved)


def same(one: dict[str, Any], other: dict[str, Any], without: Collection[str]) -> None:
    """Entries of two states."""
    assert set(one) == set(other)
    for name in set(one) - set(without):
        equal = torch.equal(one[name], other[name]) if isinstance(one[name], Tensor) else None
        assert one[name] == other[name] if equal is None else equal, name


def test_two_bounds_never_cross_on_either_path() -> None:
    """Steps larger than the features: those of banks are kept apart as all others are."""
    model = made(recipe(DDTB, 4, low=3, steps=3, bound_learning_rate=1e4))
    pairs = [q for q in model.modules() if type(q) in (UniformQuantizer, GatedQuantizer)]
    assert any(isinstance(q, QuantizerBank) for q in model.activations.values())
    assert pairs and all(bool(q.lower < q.upper) for q in pairs)


@pytest.mark.parametrize("kind", BASES)
def test_bounds_of_the_match_move_as_far_for_their_width_as_others(kind: type) -> None:
    """Others are in 0..255, and one step of theirs may be more than the whole range of the match."""

    def widths(steps: int, rate: str) -> tuple[float, float]:
        model = made(recipe(kind, steps=steps, bound_learning_rate=3.0, match_rate=rate, halve_every=9))
        found = {
            k: refqsr._extent(part)
            for k, q in model.activations.items()
            for part in q.modules()
            if refqsr._extent(part) > 0
        }
        match = [v for k, v in found.items() if "/refer/match/" in k]
        return float(np.median(match)), float(np.median([v for k, v in found.items() if "/match/" not in k]))

    (start, others), (learned, _) = widths(0, "relative"), widths(2, "relative")
    with pytest.warns(UserWarning, match=r"of 2 quantizers by more than half .*refer\.match\.matmul"):
        lost, _ = widths(2, "absolute")
    assert others > 20 > 1.5 > start
    assert abs(learned - start) <= 1.1 * 2 * 2 * 3.0 / others * start  # both sides, two steps
    assert abs(lost - start) > 10 * abs(learned - start)


def test_training_lowers_the_loss() -> None:
    model = made(recipe(low=4, steps=30, learning_rate=1e-3, halve_every=30))
    curve = model.training_log[-1].curve
    assert sum(curve[-5:]) < 0.96 * sum(curve[:5])


@pytest.mark.parametrize("kind", ["srresnet", "carn", "elan"])
def test_every_network(kind: str) -> None:
    model = made(recipe(low=4), network(kind))
    with torch.no_grad():
        found = upscaled(model, patches(((16, 16),) * 3))
    assert [tuple(x.shape) for x in found] == [(1, 3, 32, 32)] * 3


def test_blocks_of_elan_are_parts_whose_input_the_network_adds() -> None:
    """A new refinement block passes its query on, so that nothing is added to the sum."""
    model = made(recipe(low=8, refiners=2, steps=0), network("elan"))
    refined = [m for m in model.network.modules() if isinstance(m, RefinedBlock)]
    x = torch.rand(1, 12, 16, 16)
    assert len(refined) == 2
    with references() as kept:
        refined[0](x)
    with queries(kept):
        torch.testing.assert_close(refined[0](x), torch.zeros_like(x))


def test_ablations() -> None:
    plain = made(recipe(refiner="none", low=3, steps=0))
    activations, weights = used(plain, QUERY)
    assert activations["blocks.3.conv1"] == 8 == weights["blocks.3.conv1"]
    assert activations["blocks.2.conv1"] == 3 and weights["blocks.2.conv1"] == 6
    itself = made(recipe(kept="query", low=3, steps=0))
    assert used(itself, QUERY)[0]["blocks.3.refer.conv1"] == 8
    whole = made(recipe(preprocess=False, low=3, steps=0))
    assert used(whole, QUERY)[0]["blocks.3.refer.match.matmul"] == 8
    chosen = made(recipe(base=base(CADyQ, candidates=(2, 4)), preprocess=False, low=3, steps=0))
    assert used(chosen, QUERY)[0]["blocks.3.refer.match.matmul"] == 4
    assert made(recipe(mode="concat", steps=0)).network.blocks[3].refer.conv1.in_channels == 16
    assert made(recipe(kept="output", refiners=2)).training_log[-1].finished


def test_one_network_of_ones_own_needs_to_name_its_blocks() -> None:
    class Residual(nn.Module):
        scale = 2

        def __init__(self) -> None:
            super().__init__()
            self.own = Own()
            self.body = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.body:
                x = block(x)
            return self.own(x)

    with pytest.raises(InputError, match="blocks=, a pattern"):
        sqlib.quantize_model(Residual(), recipe(), crops(), skip=[], pairs=pairs())
    with pytest.raises(InputError, match=r"^blocks: 'nope\.\*' matches no module of Residual.* of a name$"):
        sqlib.quantize_model(Residual(), recipe(blocks="nope.*"), crops(), skip=[], pairs=pairs())
    model = sqlib.quantize_model(Residual(), recipe(blocks="body.*"), crops(), skip=[], pairs=pairs())
    assert isinstance(model.network.body[2], RefinedBlock)


def test_a_whole_image_is_a_reference() -> None:
    model = made(recipe(low=3, steps=0))
    x = patches()[0]
    with torch.no_grad():
        (alone,) = upscaled(model, [x])
        assert torch.equal(alone, model(x))
        with model.context() as context:
            model(x)
    assert context.bits["blocks.1.conv1"].tolist() == [8]


@pytest.mark.filterwarnings("ignore:no configuration has a mean below")
@pytest.mark.parametrize("kind", [CADyQ, CABM])
def test_convolutions_of_refer_choose_as_those_of_the_base(kind: type) -> None:
    """A new selector over CADyQ, the table of the base's last layer over CABM; the match has b_low."""
    model = made(recipe(kind, low=3, steps=0))
    last = model.activations["blocks/3/block/conv2:input"].selector
    for name in ("conv1", "conv2"):
        bank: Any = model.activations[f"blocks/3/refer/{name}:input"]
        assert bank.widths == CADyQ(8).candidates and type(bank.selector) is type(last)
        if kind is CADyQ:
            assert bank.selector is not last and torch.equal(bank.selector.weight, torch.ones(3, 10))
            assert bank.selector.gradient_scale == last.gradient_scale
        else:
            assert bank.selector is not last
            for key, value in last.state_dict().items():
                assert torch.equal(bank.selector.state_dict()[key], value)


def test_the_loss_is_that_of_references_and_that_of_their_queries() -> None:
    """Equation 9; rows and features belong together, and no path weighs more."""
    seen: list[Any] = []

    def single(answer: Any) -> Tensor:
        seen.append(answer)
        return (answer.output - answer.target).abs().mean()

    rows = torch.arange(4.0)
    answer = Answer(
        output=rows,
        target=torch.tensor([0.0, 3.0, -8.0, 3.0]),  # errors 0 and 2 of references, 10 and 0 of queries
        taught=rows + 10,
        features=[torch.tensor([path]) for path in (1.0, 2.0, 3.0, 4.0)],  # two taps a path
        teacher_features=[rows + 20, rows + 30],
        model=None,  # type: ignore[arg-type]  # not looked at
        step=0,
        passes=("references", "queries"),  # type: ignore[arg-type]  # not looked at
    )
    assert refqsr.BothPaths(single)(answer) == 1 + 5
    first, second = seen
    assert first.taught.tolist() == [10, 11] and second.taught.tolist() == [12, 13]
    assert [f.item() for f in first.features] == [1, 2] and [f.item() for f in second.features] == [3, 4]
    assert [f.tolist() for f in first.teacher_features] == [[20, 21], [30, 31]]
    assert [f.tolist() for f in second.teacher_features] == [[22, 23], [32, 33]]
    assert first.passes == ("references",) and second.passes == ("queries",)


def test_options_are_those_of_the_paper_where_it_gives_them() -> None:
    default = RefQSR()
    assert (default.tau, default.temperature, default.pool, default.kept) == (0.5, 1000, 3, "input")


def test_an_image_without_queries_costs_what_its_references_do() -> None:
    model = made(recipe(low=3, steps=0))
    with torch.no_grad(), model.passes() as passes:
        upscaled(model, patches()[:1])
    found, plain = cost(model, (36, 36), context=passes), cost(made_start(), (36, 36))
    assert (found.fqr, found.bitops) == (8, plain.bitops)


def test_a_base_by_its_name_has_these_bits_and_this_schedule() -> None:
    assert RefQSR().base == PAMS(8) and RefQSR().bits == 8
    one = RefQSR(bits=4, base="DDTB", low=3, schedule="laptop")
    assert one.base == DDTB(4, schedule="laptop") and one.bits == 4
    assert RefQSR.from_json(one.to_json()) == one
    assert sqlib.recipes.create("refqsr", bits=(4, 6)).base == PAMS((4, 6))
    assert RefQSR(base="cadyq", **BRIEF).base == CADyQ(8)


def test_dictionaries_keep_the_base() -> None:
    one = RefQSR(base=CADyQ(8, candidates=(4, 8)), low=3)
    assert RefQSR.from_json(one.to_json()) == one and one.bits == 8
    assert RefQSR(base=DDTB(4), low=2).bits == 4 and RefQSR(base=DDTB(4), low=2).medium_bits == 3
    assert RefQSR(base=CABM(8), low=8).low == 8


def test_the_older_version_had_one_rate_for_all_bounds() -> None:
    one = recipe(DDTB, 4, low=3)
    older = {k: v for k, v in one.to_dict().items() if k != "match_rate"} | {"version": 1}
    assert RefQSR.from_dict(older) == dataclasses.replace(one, match_rate="absolute")
    with pytest.raises(InputError, match="has version 2 here, the data says 3"):
        RefQSR.from_dict({**older, "version": 3})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"base": MinMax(8)}, "expected one of PAMS, DDTB, CADyQ, CABM"),
        ({"base": "minmax"}, "expected one of PAMS"),
        ({"base": PAMS(4), "low": 5}, "at most the 4 bits"),
        ({"base": PAMS((32, 8))}, "32 are none"),
        ({"base": PAMS((4, 8)), "low": 6}, "would have 5 bits, more .*give low=4 or less"),
        ({"base": DDTB((2, 8)), "low": 4}, "would have 3 bits"),
        ({"base": CADyQ((4, 8)), "low": 6}, "would have 5 bits"),
        ({"base": CABM((3, 8)), "low": 4}, "would have 4 bits"),
        ({"base": CADyQ(8, candidates=(2, 4)), "low": 5}, "at most the 4 bits"),
        ({"bits": (3, 8)}, "would have 4 bits"),
        ({"low": 1}, "low"),
        ({"tau": 1.5}, "tau"),
        ({"refiners": 0}, "refiners"),
        ({"kept": "both"}, "kept"),
        ({"bits": 4, "base": PAMS(6)}, "a base of 6: those of the base count"),
        ({"bits": 8, "base": PAMS(6)}, "a base of 6: those of the base count"),
        ({"extractor": ""}, "path of an extractor"),
        ({"extractor": 5}, "path of an extractor"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RefQSR(**options)


def test_a_number_of_numpy_is_a_number() -> None:
    found = RefQSR(refiners=np.int64(2))
    assert found.to_dict() == RefQSR(refiners=2).to_dict() and type(found.refiners) is int


def test_bad_networks_and_data() -> None:
    with pytest.raises(InputError, match="expected at most 3"):
        made(recipe(refiners=4, steps=0))
    with pytest.raises(InputError, match="trains on pairs"):
        sqlib.quantize_model(edsr(), recipe(), crops(), pairs=None, start=made_start())
    with pytest.raises(InputError, match="start is made by"):
        sqlib.quantize_model(edsr(), recipe(low=3), crops(), pairs=pairs(), start=made_start(bits=4))


@pytest.mark.parametrize(
    "given, message",
    [
        (5, "pairs is int, expected an iterable"),
        ([torch.rand(1, 3, 16, 16)], r"expected pairs \(low, high\)"),
        ([(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 33, 32))], "a whole number of times"),
        ([], "no samples"),
    ],
)
def test_bad_pairs(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sqlib.quantize_model(edsr(), recipe(), crops(), pairs=given, start=made_start())


def test_pictures_smaller_than_the_extractor_sees() -> None:
    model = sqlib.quantize_model(edsr(), recipe(), crops(), pairs=pairs(side=8))
    assert model.training_log[-1].finished


def test_an_interrupted_training_continues_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder holds the finished base, too."""
    long = recipe(low=3, steps=5)
    whole = made(long)
    count, draw = iter(range(99)), Twins.draw

    def interrupted(self: Twins, *args: Any) -> Any:
        if next(count) == 3:
            raise KeyboardInterrupt
        return draw(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Twins, "draw", interrupted)
        sqlib.quantize_model(edsr(), long, crops(), pairs=pairs(), resume=tmp_path)
    again = sqlib.quantize_model(edsr(), long, crops(), pairs=pairs(), resume=tmp_path)
    assert again.training_log[-1].curve == whole.training_log[-1].curve
    for name, value in whole.state_dict().items():
        other = again.state_dict()[name]
        assert torch.equal(other, value) if isinstance(value, Tensor) else other == value, name


def made_start(bits: int = 8) -> sqlib.QuantizedModel:
    return sqlib.quantize_model(edsr(), base(PAMS, bits), crops(), pairs=pairs())


def test_banks_only_where_queries_differ() -> None:
    model = made(recipe(low=4, steps=0))
    banks = {k for k, q in model.activations.items() if isinstance(q, QuantizerBank)}
    assert banks == {f"blocks/{i}/conv{j}:input" for i in (1, 2) for j in (1, 2)}


def test_images_are_counted_with_their_queries() -> None:
    """Patches of each image are clustered among themselves, as `together` does, in the model's dtype."""
    model = made(recipe(low=3, steps=0))
    images = torch.rand(2, 3, 18, 60, generator=torch.Generator().manual_seed(5))
    with torch.no_grad(), model.passes() as passes:
        for image in images:
            upscaled(model, split(image[None], Grid(18, 60, 18, 2)))
    queries = sum(c.samples for c in passes if c.roles[0] == QUERY)
    assert 0 < queries < 6
    found = cost(model, (120, 36), patch=18, overlap=2, images=images.double())
    expected = cost(model, (120, 36), patch=18, overlap=2, context=passes)
    assert (found.bitops, found.fqr) == (expected.bitops, expected.fqr)
    assert found.fqr < 8


def test_without_banks_it_still_needs_images() -> None:
    """Of two blocks, the first has b_high on both paths and the last is refined: nothing is lowered."""
    torch.manual_seed(0)
    network = EDSR("edsr-small", 2, blocks=2, features=8)
    model = made(recipe(low=3, steps=0), network)
    assert not model.has_banks
    with pytest.raises(InputError, match=r"which parts of it run.*give images="):
        cost(model, (36, 36))
    plain = cost(sqlib.quantize_model(network, base(PAMS), crops(), pairs=pairs()), (36, 36))
    assert cost(model, (36, 36), images=torch.rand(3, 18, 18)).bitops == plain.bitops


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_any_floating_dtype(dtype: torch.dtype) -> None:
    """The extractor computes in its own; what it found is the same."""
    model = made(recipe(low=8, steps=0))
    x = [(255 * patch).round() / 255 for patch in patches()]
    with torch.no_grad():
        plain = upscaled(model, x)
        other = copy.deepcopy(model).to(dtype)
        found = upscaled(other, [patch.to(dtype) for patch in x])
    assert {one.dtype for one in found} == {dtype}
    for one, two in zip(found, plain, strict=True):
        assert float((one.float() - two).abs().mean()) < 0.02 * float(two.abs().mean())


def test_faults_are_found_before_the_base_is_trained(tmp_path: Path) -> None:
    class Drawing:
        paired = True

        def draw(self, *args: Any) -> None:
            raise AssertionError("the base was trained")

    sources: dict[str, Any] = (
        {"extractor": tmp_path / "none.safetensors"},
        {"refiners": 9},
        {"blocks": "no.*"},
        {},
    )
    for options in sources:
        with pytest.raises((InputError, DataError)):
            sqlib.quantize_model(edsr(), recipe(**options), crops(), pairs=Drawing())


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is trained is a failure."""

    def train(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("sqlib.fit.train_quantized", train)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    "given, message",
    [
        ([(LOW * torch.nan, HIGH)], "picture 0 has 768 NaN or infinite"),
        ([(LOW, HIGH / 0)], "picture 0 has 3072 NaN or infinite"),
        ([(LOW[:, :1], HIGH[:, :1])], "expected RGB"),
        ([*pairs(), *pairs(3)], "picture 6 has"),
        ([((255 * LOW).long(), (255 * HIGH).long())], "a pair has .*int64.*divide 8-bit images by 255"),
        ([], "no samples"),
    ],
)
def test_bad_pictures_are_found_before_the_base_is_trained(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sqlib.quantize_model(edsr(), recipe(), crops(), pairs=given)


class Gray(nn.Module):
    scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.body:
            x = block(x)
        return x


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("steps", [0, 2])
def test_a_gray_network_is_refused(steps: int) -> None:
    """Whatever it starts from, and without pairs."""
    gray, own = [LOW[:, :1]], recipe(base=base(PAMS, steps=steps), blocks="body.*", steps=steps)
    start = sqlib.quantize_model(Gray(), own.base, gray, skip=[]) if not steps else None
    for begin in (None, start):
        with pytest.raises(InputError, match=r"Gray is given \(6, 1, 16, 16\).*RGB"):
            sqlib.quantize_model(Gray(), own, gray, skip=[], start=begin)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_pairs_of_any_floating_dtype(dtype: torch.dtype) -> None:
    """Those of float64 are the same pictures."""
    given = [(LOW.to(dtype), HIGH.to(dtype))]
    model = sqlib.quantize_model(edsr(), recipe(low=3), crops(), pairs=given)
    assert model.training_log[-1].finished
    if dtype == torch.double:
        same(model.state_dict(), made(recipe(low=3)).state_dict(), ())


@pytest.mark.parametrize("dtype", [torch.half, torch.double])
def test_networks_of_other_dtypes_are_given_theirs(dtype: torch.dtype) -> None:
    own = sqlib.quantize_model(Own().to(dtype), recipe(blocks="middle.?"), crops(), skip=[], pairs=pairs())
    assert own.training_log[-1].finished


def test_a_loader_may_fill_one_buffer_again_and_again() -> None:
    """All pictures are trained on, by the base, too."""
    short = recipe(base=base(PAMS, steps=4, batch=6), low=3, steps=4, batch=6)
    models = [sqlib.quantize_model(edsr(), short, crops(), pairs=p) for p in (list(singles()), refilled())]
    same(models[0].state_dict(), models[1].state_dict(), ())


def singles() -> Iterator[tuple[Tensor, Tensor]]:
    return ((low, high) for low, high in zip(LOW.split(1), HIGH.split(1), strict=True))


def test_k_means_takes_every_patch_and_clustblock_the_similar_ones() -> None:
    """tau is of the number of references there."""
    x = split(torch.rand(1, 3, 42, 60, generator=torch.Generator().manual_seed(1)), Grid(42, 60, 18, 0))
    for tau in (-1.0, 0.5, 1.0):
        references = len(recipe(tau=tau)._cluster()(x).references)
        found = recipe(tau=tau, clustering="kmeans-pixels")._cluster()(x)
        assert len(found.references) == references
    assert references == len(x)
    loose = recipe(tau=0.99, clustering="kmeans-pixels")._cluster()(x)
    assert loose.is_query.any() and bool((loose.similarity[loose.is_query] < 0.5).all())


@pytest.mark.parametrize("name", ["kmeans-pixels", "kmeans-gradients", "scan"])
def test_other_clusterings_choose_the_references(name: str) -> None:
    own = made(recipe(steps=0, clustering=name))
    assert own.recipe.clustering == name
    image = split(torch.rand(1, 3, 42, 60, generator=torch.Generator().manual_seed(1)), Grid(42, 60, 18, 0))
    cluster = own.recipe._cluster()
    expected = cluster(image)
    with torch.inference_mode(), own.passes() as passes:
        upscaled(own, image)
    roles = [(c.roles[0], c.samples) for c in passes]
    assert sum(n for role, n in roles if role == QUERY) == expected.is_query.sum()
    if name != "scan":  # as many as ClustBlock
        assert len(expected.references) <= len(recipe()._cluster()(image).references)


def test_small_images(tmp_path: Path) -> None:
    """Below the 15 pixels that the extractor sees, border pixels are repeated."""
    model = made(recipe(low=3, steps=0))
    with torch.no_grad():
        found = upscaled(model, [torch.rand(1, 3, 9, 30), torch.rand(1, 3, 1, 1)])
    assert [tuple(x.shape) for x in found] == [(1, 3, 18, 60), (1, 3, 2, 2)]
