"""CADyQ as a recipe: where it starts, its loss by hand, every network, files, interruption, its costs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_pairs import check_each_alone, crops, network, pairs

import sqlib
from sqlib import cost
from sqlib.errors import InputError
from sqlib.fit.distillation.loss import attention_transfer
from sqlib.fit.quantization_aware.task import Answer
from sqlib.models.edsr import EDSR
from sqlib.quantizers import ContentBits, QuantizerBank
from sqlib.recipes import PAMS, CADyQ
from sqlib.recipes.cadyq import ContentLoss, bits_used

KINDS = ["edsr", "srresnet", "carn", "elan", "own"]


def made(kind: str = "edsr", **options: object) -> sqlib.QuantizedModel:
    recipe = CADyQ(**{"steps": 2, "batch": 3, **options})  # type: ignore[arg-type]
    return sqlib.quantize_model(network(kind), recipe, crops(), pairs=pairs())


def contrasts(samples: int = 6, side: int = 12) -> Tensor:
    """Patches that differ in contrast."""
    x = torch.rand(samples, 3, side, side, generator=torch.Generator().manual_seed(5))
    return 0.5 + (x - 0.5) * torch.linspace(0, 1, samples).view(-1, 1, 1, 1)


@torch.no_grad()
def divided(model: sqlib.QuantizedModel, x: Tensor) -> sqlib.QuantizedModel:
    """The same, with selectors that divide these patches by the deviations of each operand."""
    seen: dict[nn.Module, Tensor] = {}
    banks = model.activations.values()

    def note(selector: nn.Module, args: tuple[Any, ...], shares: Tensor) -> None:
        seen[selector] = selector.deviations(args[0], args[2].samples).sum(1)  # type: ignore[operator]

    hooks = [bank.selector.register_forward_hook(note) for bank in banks]
    model(x)
    for hook in hooks:
        hook.remove()
    for bank in banks:
        low, high = seen[bank.selector].quantile(torch.tensor([0.3, 0.7])).unbind()
        # logits 0, s - low, 2 s - low - high: the largest changes where s is low, and where it is high
        bank.selector.gradient_scale.fill_(0.0)
        bank.selector.weight[:, :2] = 0
        bank.selector.weight[:, 2:] = torch.tensor([0.0, 1.0, 2.0]).view(3, 1)
        bank.selector.bias.copy_(torch.stack([0 * low, -low, -low - high]))
    return model


def test_it_starts_from_pams_bounds_and_eight_bits() -> None:
    model = network("edsr")
    recipe = CADyQ(steps=0)
    start = sqlib.quantize_model(model, recipe.starts_from(), crops())
    with torch.no_grad():
        for i, q in enumerate(start.activations.values()):
            q.alpha.fill_(1.0 + i)
        start.network.blocks[0].conv1.weight.mul_(2)
    quantized = sqlib.quantize_model(model, recipe, crops(), start=start)
    assert list(quantized.activations) == list(start.activations)
    for i, bank in enumerate(quantized.activations.values()):
        assert isinstance(bank, QuantizerBank) and isinstance(bank.selector, ContentBits)
        assert [(w, float(bank.at(w).alpha.detach()), bank.at(w).bits) for w in bank.widths] == [
            (w, 1.0 + i, w) for w in (4, 6, 8)
        ]
        alphas = {id(bank.at(w).alpha) for w in bank.widths}
        assert len(alphas) == 3  # each its own
    x = contrasts()
    assert torch.equal(quantized(x), start(x))
    assert torch.equal(quantized.network.blocks[0].conv1.weight, start.network.blocks[0].conv1.weight)


def test_pairs_that_can_be_read_once_serve_both_stages() -> None:
    recipe, data = CADyQ(steps=2, batch=2), pairs()
    one = sqlib.quantize_model(network("own"), recipe, iter(crops()), pairs=iter(data))
    again = sqlib.quantize_model(network("own"), recipe, crops(), pairs=data)
    assert torch.equal(one(crops()[0]), again(crops()[0]))


def test_the_stage_before() -> None:
    assert CADyQ().starts_from() == PAMS(bits=8) and CADyQ().steps == 300_000
    assert CADyQ(schedule="laptop").starts_from() == PAMS(bits=8, schedule="laptop")
    assert CADyQ(schedule="laptop", gradient_scale=1, candidates=(4, 8)).schedule == "laptop"
    rates = CADyQ(schedule="laptop", selector_learning_rate=2e-3)
    assert rates.schedule == "custom" and rates.starts_from() == PAMS(schedule="laptop")
    carn = CADyQ(steps=600_000, halve_every=400_000)
    assert carn.schedule == "custom" and carn.starts_from() == PAMS()
    assert CADyQ(base_transfer=0).starts_from() == PAMS(transfer=0)
    shared = dict(bits=(6, 5), batch=4, seed=3, unquantized=("*.conv1:input",), features=("blocks.0",))
    assert CADyQ(steps=9, **shared).starts_from() == PAMS(steps=9, halve_every=3, **shared)  # type: ignore[arg-type]


def test_the_gradients_are_scaled_by_what_the_network_computes_in() -> None:
    def scales(kind: str, **options: object) -> set[float]:
        banks = made(kind, steps=0, **options).activations.values()
        return {float(bank.selector.gradient_scale) for bank in banks}

    assert scales("carn") == {1.0}
    assert [scales(kind) for kind in ("edsr", "srresnet", "elan", "own")] == [{1000.0}] * 4
    assert scales("edsr", gradient_scale=3) == {3.0}


@pytest.mark.parametrize(("kind", "rate"), [("edsr", 1e-4), ("carn", 1e-3)])
def test_the_rate_of_selectors_is_that_published_for_the_network(
    kind: str, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def train(self, model, lesson, *, rates, **options):  # type: ignore[no-untyped-def]
        seen.append(rates)

    monkeypatch.setattr(CADyQ, "train", train)
    made(kind, steps=0)
    made(kind, steps=0, selector_learning_rate=0.5)
    assert seen == [{"selectors": rate}, {"selectors": 0.5}]


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_everything_on_every_network(kind: str, tmp_path: Path) -> None:
    quantized = made(kind)
    banks = list(quantized.activations.values())
    untrained = made(kind, steps=0)
    for bank, first in zip(banks, untrained.activations.values(), strict=True):
        for name, p in bank.named_parameters():
            assert not torch.equal(p, first.get_parameter(name)), name
    assert [len(outcome.curve) for outcome in quantized.training_log] == [2]

    x = contrasts()
    divided(quantized, x)
    with torch.no_grad():
        with quantized.context() as context:
            whole = quantized(x)
        chosen = torch.stack([context.operands[operand] for operand in context.operands])
        assert {4, 6, 8} <= set(chosen.flatten().tolist())
        assert bool((chosen != chosen[:, :1]).any())
        quantized.save(tmp_path / "cadyq.safetensors")
        loaded = sqlib.load_quantized(tmp_path / "cadyq.safetensors", network(kind))
        copied = copy.deepcopy(quantized)
        for other in (loaded, copied):
            with other.context() as again:
                assert torch.equal(other(x), whole)
            assert all(torch.equal(bits, again.bits[site]) for site, bits in context.bits.items())
    assert loaded.recipe == quantized.recipe
    check_each_alone(quantized, x)


def test_channels_of_operands() -> None:
    """Of a convolution's input its channels; a product of two activations has one deviation for all."""
    found = {key: bank.selector for key, bank in made("elan", steps=0).activations.items()}
    products = {key: s for key, s in found.items() if s.channel_axis is None}
    assert products and all("matmul" in key for key in products)
    assert all(s.channels == 1 for s in products.values())
    rest = {(s.channel_axis, s.channels) for key, s in found.items() if key not in products}
    assert rest == {(-3, 12), (-3, 24)}


def test_the_loss_by_hand() -> None:
    quantized = divided(made("edsr", steps=0), contrasts())
    teacher, x = made("edsr", steps=0), contrasts()
    seen: dict[str, list[Tensor]] = {"own": [], "taught": []}
    for key, model in (("own", quantized), ("taught", teacher)):
        for block in model.network.blocks:
            block.register_forward_hook(lambda m, a, out, key=key: seen[key].append(out))
    with quantized.context() as context:
        output = quantized(x)
    teacher(x)
    target = torch.rand(output.shape, generator=torch.Generator().manual_seed(0))
    answer = Answer(output, target, None, seen["own"], seen["taught"], quantized, 2500, (context,))
    maps = [attention_transfer(b, a) for a, b in zip(seen["own"], seen["taught"], strict=True)]
    assert len(maps) == 2 and float(maps[1].detach()) > 0
    bits = 0.0
    for shares in context.data["shares"].values():
        expected = (shares * torch.tensor([4.0, 6.0, 8.0])).sum(1)
        bits += float((torch.tensor([4, 6, 8])[shares.argmax(1)] / expected).sum().detach())
    want = 255 * (output - target).abs().mean() + 7 * maps[1] + 5 * (maps[0] + maps[1]) + (1e-2 + 2e-3) * bits
    found = ContentLoss(7, 5, 1e-2, 1e-3)(answer)
    assert float(found.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    assert len(context.data["shares"]) == len(quantized.activations)


def test_the_gradient_of_the_bits_is_that_of_the_logarithms_of_expected_widths() -> None:
    quantized = divided(made("own", steps=0), contrasts()).double()
    for bank in quantized.activations.values():
        bank.selector.weight.data = bank.selector.weight.data.double()
        bank.selector.bias.data = bank.selector.bias.data.double()
    parameters = [p for bank in quantized.activations.values() for p in bank.selector.parameters()]
    with quantized.context() as context:
        quantized(contrasts().double())
    shares = context.data["shares"].values()
    widths = torch.tensor([4.0, 6.0, 8.0], dtype=torch.float64)
    want = torch.autograd.grad(sum((s @ widths).log().sum() for s in shares), parameters, retain_graph=True)
    found = torch.autograd.grad(bits_used(context), parameters)
    assert any(bool((g != 0).any()) for g in found)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_weight_on_bits_makes_them_fewer() -> None:
    def mean(weight: float) -> float:
        rates = dict(bit_weight=weight, selector_learning_rate=1e-2, steps=12)
        quantized = made("own", transfer=0, block_transfer=0, **rates)
        with torch.no_grad(), quantized.context() as context:
            quantized(contrasts())
        return float(
            torch.stack(list(context.data["shares"].values())).matmul(torch.tensor([4.0, 6, 8])).mean()
        )

    assert mean(10.0) < mean(1e-9) - 0.5


def test_bounds_in_a_bank_stay_positive() -> None:
    """Each keeps 1 % of what it starts with, that is, of what the stage before has left."""
    recipe = CADyQ(steps=4, batch=2, bound_learning_rate=1e4)
    base = recipe.starts_from()
    assert base is not None
    first = sqlib.quantize_model(network("own"), base, crops(), pairs=pairs())
    quantized = sqlib.quantize_model(network("own"), recipe, crops(), pairs=pairs(), start=first)
    for key, bank in quantized.activations.items():
        least = 0.01 * float(first.activations[key].alpha.detach())
        assert all(float(bank.at(w).alpha.detach()) >= least * (1 - 1e-9) for w in bank.widths)
    with pytest.raises(InputError, match=r"bound alpha of activations.* is -"):
        rash = CADyQ(steps=4, batch=2, bound_learning_rate=1e4, guard=False)
        sqlib.quantize_model(network("own"), rash, crops(), pairs=pairs())


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    low, high = pairs()[0]
    recipe = CADyQ(steps=2, batch=2)
    base = recipe.starts_from()
    assert base is not None
    first = sqlib.quantize_model(network("own"), base, crops(), pairs=[(low, high)])
    with pytest.raises(InputError, match=r"the loss is inf.*last good state, of step 0"):
        bad = [(low, torch.full_like(high, torch.inf))]
        sqlib.quantize_model(network("own"), recipe, crops(), pairs=bad, start=first)


def test_training_in_bfloat16_keeps_selectors_in_single() -> None:
    quantized = made("edsr", precision="bf16")
    for bank in quantized.activations.values():
        assert bank.selector.weight.dtype == torch.float32
        assert not torch.equal(bank.selector.weight, torch.ones_like(bank.selector.weight))


def test_the_weight_on_bits_grows_with_each_epoch() -> None:
    """By w_1 every 1,000 steps, as the release counts an epoch."""
    quantized, x = made("own", steps=0), torch.rand(2, 3, 12, 12)
    with quantized.passes() as passes:
        output = quantized(x)
    growing, constant = ContentLoss(0, 0, 1e-4, 1e-3), ContentLoss(0, 0, 1e-4, 0)
    used = float(sum(map(bits_used, passes)))
    for step, times in ((0, 0), (999, 0), (1000, 1), (2500, 2)):
        answer = Answer(output, torch.zeros_like(output), None, [], [], quantized, step, passes)
        more = float(growing(answer) - constant(answer))
        assert more == pytest.approx(times * 1e-3 * used, rel=1e-3, abs=1e-6)
    assert used > 1


def test_without_a_weight_on_bits_selectors_learn_from_the_output() -> None:
    quantized = made("own", bit_weight=0, bit_growth=0)
    for bank in quantized.activations.values():
        assert not torch.equal(bank.selector.weight, torch.ones_like(bank.selector.weight))


def test_the_bits_of_a_cost_are_those_of_its_patches() -> None:
    """FQR: patches count alike whatever their size; BitOPs: each with its own pixels and bits."""
    quantized, side = made("edsr", steps=0), 20
    images = [contrasts(6, side)[i] for i in (1, 3, 5)]
    # patches of 12 with step 8 in an image of 20 by 20: two by two of 12 by 12
    patches = [im[:, top : top + 12, left : left + 12] for im in images for top in (0, 8) for left in (0, 8)]
    divided(quantized, torch.stack(patches))
    sites = [site.name for site in quantized.sites.values() if site.active]
    per_patch = []
    for patch in patches:
        with torch.no_grad(), quantized.context() as context:
            quantized(patch[None])
        per_patch.append([int(context.bits[name]) for name in sites])
    bits = torch.tensor(per_patch, dtype=torch.float64)
    assert len(bits.unique()) == 3
    found = cost.cost(quantized, (40, 40), patch=12, overlap=4, images=images)
    assert found.fqr == pytest.approx(float(bits.mean()), rel=1e-12)
    macs = 12 * 12 * 8 * 8 * 9  # of a 3x3 convolution of 8 channels on one patch
    want = float((2 * macs * 8 * bits / 32**2).sum() / len(images))
    assert found.bitops == pytest.approx(want, rel=1e-12)
    with pytest.raises(InputError, match="give images="):
        cost.cost(quantized, (40, 40), patch=12, overlap=4)


def test_patches_of_different_sizes_count_alike() -> None:
    quantized = made("edsr", steps=0)
    images = torch.stack([contrasts(6, 20)[i] for i in (0, 3, 5)])
    divided(quantized, images[..., :12, :12])
    # patches of 8 with step 8: two by two, of which those at the border are 8 or 12 wide and high
    corners = [(slice(0, 8), slice(8, 20))[i] for i in (0, 1)]
    sites, bits = [site.name for site in quantized.sites.values() if site.active], []
    for image in images:
        for rows in corners:
            for columns in corners:
                with torch.no_grad(), quantized.context() as context:
                    quantized(image[None, :, rows, columns])
                bits.append([int(context.bits[name]) for name in sites])
    found = cost.cost(quantized, (40, 40), patch=8, images=images)
    assert found.patches == 4
    assert found.fqr == pytest.approx(float(torch.tensor(bits, dtype=torch.float64).mean()), rel=1e-12)


@pytest.mark.parametrize("stage", [PAMS, CADyQ])
def test_resumed_training_is_the_same_bit_for_bit(
    stage: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlib.fit.loop.loop import Loop

    options = dict(steps=120, batch=2, halve_every=50, selector_learning_rate=1e-2)
    whole, advance, began = made("own", **options), Loop.advance, []

    def dying(self: Loop) -> None:
        if self.step == 0:
            began.append(self)
        if self.step == 110 and len(began) == (1 if stage is PAMS else 2):
            raise RuntimeError("killed")
        advance(self)

    def again() -> sqlib.QuantizedModel:
        recipe = CADyQ(**options)  # type: ignore[arg-type]
        return sqlib.quantize_model(network("own"), recipe, crops(), pairs=pairs(), resume=tmp_path)

    monkeypatch.setattr(Loop, "advance", dying)
    with pytest.raises(RuntimeError, match="killed"):
        again()
    monkeypatch.setattr(Loop, "advance", advance)
    state = again().state_dict()
    assert all(torch.equal(t, state[name]) for name, t in whole.state_dict().items())


def test_sites_that_the_release_leaves_unquantized() -> None:
    quantized = made("srresnet", unquantized=("*.conv1:input",))
    assert {key.split(":")[0].split("/")[-1] for key in quantized.activations} == {"conv2"}
    bits = quantized.report().set_index("site")["activation_bits"]
    assert bits["blocks.0.conv1"] == 32 and bits["blocks.0.conv2"] == "4/6/8"


def test_with_everything_unquantized_only_weights_are_trained() -> None:
    quantized = made("edsr", unquantized=("*:*",))
    assert not quantized.activations and quantized.training_log[0].finished


def test_a_patch_without_any_variation() -> None:
    """All gradients and, in this network, all deviations are 0: the bias decides, in training as well."""
    low = torch.full((2, 3, 8, 8), 0.25)
    data = [(low, torch.full((2, 3, 16, 16), 0.25))]

    class Flat(nn.Sequential):
        scale = 2

    torch.manual_seed(0)
    flat = Flat(*(nn.Conv2d(n, m, 1) for n, m in ((3, 4), (4, 4), (4, 12))), nn.PixelShuffle(2))
    recipe = CADyQ(steps=3, batch=2)
    quantized = sqlib.quantize_model(flat, recipe, [low], skip=[], pairs=data)
    with torch.no_grad(), quantized.context() as context:
        out = quantized(low)
    assert bool(torch.isfinite(out).all())
    for bank in quantized.activations.values():
        torch.testing.assert_close(
            context.data["shares"][bank.selector], bank.selector.bias.softmax(0).expand(2, 3)
        )


def test_inputs_that_are_no_images_are_refused() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    data = [torch.rand(2, 5, 4)]
    quantized = sqlib.quantize_model(net, CADyQ(steps=0), data, skip=[])
    with pytest.raises(InputError, match=r"call site '0' .*gray or RGB.*its tensors are \(2, 5, 4\)"):
        quantized(data[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(candidates=(8,)), "two or more"),
        (dict(candidates=(4, 4, 8)), "each once"),
        (dict(candidates="468"), "candidates='468'"),
        (dict(bits=(8, 32)), "CADyQ chooses the bits of activations"),
        (dict(gradient_scale=-1), "gradient_scale"),
        (dict(selector_learning_rate=0), "selector_learning_rate"),
        (dict(bit_weight=-1), "bit_weight"),
        (dict(schedule="fast"), "schedule='fast'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CADyQ(**options)  # type: ignore[arg-type]


def test_a_start_of_another_recipe_or_other_sites() -> None:
    model = network("edsr")
    other = sqlib.quantize_model(model, PAMS(bits=4, steps=0), crops())
    with pytest.raises(InputError, match=r"start is made by PAMS\(bits=4.*needs PAMS\(bits=8"):
        sqlib.quantize_model(model, CADyQ(steps=0), crops(), start=other)
    recipe = CADyQ(steps=0)
    fewer = sqlib.quantize_model(model, recipe.starts_from(), crops(), skip=["head", "blocks.1", "tail"])
    with pytest.raises(InputError, match=r"start has no quantizer for the activation 'blocks.1.conv1"):
        sqlib.quantize_model(model, recipe, crops(), start=fewer)


def test_round_trip_and_pairs() -> None:
    recipe = CADyQ(candidates=[8, 4], schedule="laptop", gradient_scale=2)
    assert recipe.candidates == (4, 8)
    assert sqlib.recipes.from_json(recipe.to_json()) == recipe
    with pytest.raises(InputError, match=r"trains on pairs.*pairs="):
        sqlib.quantize_model(network("own"), CADyQ(steps=1), crops())


def test_two_candidates_on_a_gray_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.PixelShuffle(2))
    low, high = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 16, 16)
    recipe = CADyQ(steps=2, batch=2, candidates=(3, 7))
    quantized = sqlib.quantize_model(net, recipe, [low], skip=["0"], pairs=[(low, high)])
    with torch.no_grad(), quantized.context() as context:
        quantized(low)
    assert set(context.bits["1"].tolist()) <= {3, 7}


def test_edsr_of_the_papers_has_32_quantized_activations() -> None:
    net = EDSR("edsr-baseline", 4, blocks=16, features=4)
    quantized = sqlib.quantize_model(net, CADyQ(steps=0), crops())
    assert len(quantized.activations) == 32
