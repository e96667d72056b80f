"""CABM as a recipe: the table of what CADyQ chose, by hand, and the network that looks bits up."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from toy_pairs import check_each_alone, crops, network, pairs

import sqlib
from sqlib import cost
from sqlib.errors import InputError
from sqlib.quantizers import QuantizerBank, StaticBits, TableBits, edge_scores
from sqlib.recipes import CABM, PAMS, CADyQ
from sqlib.recipes.cabm import banks, edge_table


def pictures(n: int = 3, side: int = 20) -> list[torch.Tensor]:
    """Whole pictures whose left is flat and whose right is busy, more and more of them."""
    x = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(3))
    contrast = torch.linspace(0.02, 1, side).view(1, 1, 1, -1) * torch.linspace(0.3, 1, n).view(-1, 1, 1, 1)
    return list((0.5 + (x - 0.5) * contrast).split(1))


def start(kind: str, recipe: CABM) -> sqlib.QuantizedModel:
    """CADyQ's network, with selectors that give more bits where the image has larger gradients."""
    base = recipe.starts_from()
    assert isinstance(base, CADyQ)
    made = sqlib.quantize_model(network(kind), base, pictures(), pairs=pairs() if recipe.steps else None)
    with torch.no_grad():
        for i, bank in enumerate(made.activations.values()):
            bank.selector.gradient_scale.fill_(100.0)
            bank.selector.weight.zero_()
            bank.selector.weight[:, 0] = torch.tensor([0.0, 1.0, 2.0])
            low, high = 1.0 + i % 3, 4.0 + i % 2
            bank.selector.bias.copy_(torch.tensor([0.0, -low, -low - high]))
    return made


def made(kind: str = "edsr", **options: object) -> tuple[sqlib.QuantizedModel, sqlib.QuantizedModel]:
    """CABM's network, and that of CADyQ which it was made from."""
    given = {"steps": 2, "batch": 3, "table_patch": 8, "limit": 100, **options}
    recipe = CABM(**given)  # type: ignore[arg-type]
    first = start(kind, recipe)
    data = pairs() if recipe.steps else None
    return sqlib.quantize_model(network(kind), recipe, pictures(), pairs=data, start=first), first


def test_the_table_by_hand() -> None:
    """Patches of 8 with step 6, the last one extended: 0..8, 6..14 and 12..20."""
    _, cadyq = made(steps=0)
    sites = [site.name for site in cadyq.sites.values() if site.active]
    rows = set()
    for picture in pictures():
        for top, bottom in ((0, 8), (6, 14), (12, 20)):
            for left, right in ((0, 8), (6, 14), (12, 20)):
                patch = picture[..., top:bottom, left:right]
                with torch.no_grad(), cadyq.context() as context:
                    cadyq(patch)
                bits = [int(context.bits[name]) for name in sites]
                rows.add((int(edge_scores(patch)), sum(bits) / len(bits), *bits))
    table = edge_table(cadyq, pictures(), patch=8)
    found = [(s, m, *b) for s, m, b in zip(table.scores.tolist(), table.means.tolist(), table.bits.tolist())]
    assert found == sorted(rows)
    assert len({row[1] for row in rows}) > 2
    assert [name for name, _, _ in banks(cadyq)] == sites


def test_pictures_smaller_than_a_patch_are_one_and_others_run_as_they_are() -> None:
    _, cadyq = made(steps=0)
    small = [picture[..., :7] for picture in pictures()]
    assert torch.equal(edge_table(cadyq, small).scores, edge_scores(torch.cat(small)).sort().values)
    by_tuple = edge_table(cadyq, [(picture,) for picture in pictures()], patch=8)
    assert by_tuple.scores.tolist() == sorted(edge_scores(torch.cat(pictures())).tolist())


def test_without_images_or_banks_there_is_no_table() -> None:
    _, cadyq = made(steps=0)
    with pytest.raises(InputError, match="one or more patches"):
        edge_table(cadyq, [])
    pams = sqlib.quantize_model(network("edsr"), PAMS(steps=0), crops())
    with pytest.raises(InputError, match="no bank of quantizers"):
        edge_table(pams, pictures())


@pytest.mark.parametrize("kind", ["edsr", "srresnet", "carn", "elan", "own"])
def test_every_network_looks_its_bits_up(kind: str, tmp_path: Path) -> None:
    quantized, cadyq = made(kind)
    assert all(isinstance(bank.selector, TableBits) for bank in quantized.activations.values())
    (outcome,) = quantized.training_log
    assert outcome.finished and len(outcome.curve) == 2
    assert not any("selector" in name for name in outcome.parameters)
    for key, bank in quantized.activations.items():
        for width in bank.widths:  # trained from CADyQ's bounds, which it leaves as they are
            trained, first = bank.at(width).alpha, cadyq.activations[key].at(width).alpha
            assert trained is not first and abs(float(trained.detach() - first.detach())) < 0.03
    x = torch.cat([pictures()[i][..., j : j + 8, j : j + 8] for i in range(3) for j in (0, 12)])
    table = edge_table(cadyq, pictures(), patch=8)
    want = table.find(edge_scores(x))
    with torch.no_grad():
        with quantized.context() as context:
            whole = quantized(x)
        chosen = torch.stack([context.operands[site, role] for site, role, _ in banks(quantized)], 1)
        assert torch.equal(chosen, want) and len(want.unique(dim=0)) > 2
        quantized.save(tmp_path / "cabm.safetensors")
        loaded = sqlib.load_quantized(tmp_path / "cabm.safetensors", network(kind))
        for other in (loaded, copy.deepcopy(quantized)):
            assert torch.equal(other(x), whole)
    assert loaded.recipe == quantized.recipe
    check_each_alone(quantized, x)
    assert torch.equal(quantized.edge_table.bits, table.bits)


def test_costs_come_from_the_table() -> None:
    quantized, _ = made(steps=0)
    images = torch.cat(pictures())
    patches = [images[..., i : i + 12, j : j + 12] for i in (0, 8) for j in (0, 8)]
    want = quantized.edge_table.find(edge_scores(torch.cat(patches))).double().mean()
    found = cost.cost(quantized, (40, 40), patch=12, overlap=4, images=images)
    assert found.fqr == pytest.approx(float(want), rel=1e-12)


def test_a_single_entry_always_hits() -> None:
    recipe = CABM(steps=0, limit=100)
    one = [pictures()[1]]
    quantized = sqlib.quantize_model(network("edsr"), recipe, one, start=start("edsr", recipe))
    assert len(quantized.edge_table) == 1
    with torch.no_grad(), quantized.passes() as passes:
        for scale in (0.0, 1.0, 100.0):  # no edges, the entry itself, and saturated ones
            quantized((one[0] * scale).clamp(0, 1))
    assert all(torch.equal(a, passes[0].bits[site]) for p in passes for site, a in p.bits.items())


def test_a_limit_below_everything_is_off_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"no configuration has a mean below limit=4 bits \(the cheapest"):
        quantized, _ = made(steps=0, limit=4)
    selectors = [bank.selector for bank in quantized.activations.values()]
    assert all(float(s.limit) == 100 for s in selectors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized, _ = made(steps=0, limit=6)
    cheap = quantized.edge_table.means < 6
    assert bool(cheap.any()) and not bool(cheap.all())
    with torch.no_grad(), quantized.passes() as passes:
        for picture in pictures():
            quantized(picture)
    assert all(sum(float(p.bits[s]) for s, _, _ in banks(quantized)) / 4 < 6 for p in passes)


def test_scores_of_the_release_see_white_almost_everywhere() -> None:
    image, _ = made(steps=0)
    release, _ = made(steps=0, edges="release")
    assert len(image.edge_table.scores.unique()) > 10
    assert release.edge_table.scores.tolist() == [0] * len(release.edge_table)
    assert all(bank.selector.saturated for bank in release.activations.values())


def test_the_teacher_is_the_start_with_its_largest_width(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def train(self, model, lesson, *, teacher, features, rates):  # type: ignore[no-untyped-def]
        seen.append((teacher, self.criterion(model.network), features, rates))

    recipe = CABM(steps=2, limit=100, table_patch=8)
    cadyq = start("edsr", recipe)
    monkeypatch.setattr(CABM, "train", train)
    sqlib.quantize_model(network("edsr"), recipe, pictures(), pairs=pairs(), start=cadyq)
    ((teacher, loss, features, rates),) = seen
    assert (loss.bit_weight, loss.bit_growth, loss.transfer, loss.block_transfer) == (0, 0, 1000, 100)
    assert features == ("blocks.0", "blocks.1") and rates == {"selectors": 1e-4}
    for bank in teacher.activations.values():
        assert isinstance(bank.selector, StaticBits) and bank.selector.bits == 8
    assert not any(isinstance(b.selector, StaticBits) for b in cadyq.activations.values())
    assert all(isinstance(b, QuantizerBank) for b in cadyq.activations.values())


def test_the_stages_before() -> None:
    assert CABM().starts_from() == CADyQ()
    assert CABM(schedule="laptop").starts_from() == CADyQ(schedule="laptop")
    assert (CABM().learning_rate, CABM(schedule="laptop").steps, CABM().steps) == (1e-5, 2_000, 300_000)
    recipe = CABM(steps=7, candidates=(3, 5), base_transfer=0, learning_rate=1e-6, seed=2, edges="release")
    assert recipe.starts_from() == CADyQ(steps=7, candidates=(3, 5), base_transfer=0, seed=2)
    base = recipe.starts_from()
    assert base is not None and base.starts_from() == PAMS(steps=7, halve_every=2, transfer=0, seed=2)
    assert sqlib.recipes.from_json(recipe.to_json()) == recipe


def test_everything_from_one_call() -> None:
    with pytest.warns(UserWarning, match="no configuration has a mean below limit=6"):
        quantized = sqlib.quantize_model(network("own"), CABM(steps=2, batch=2), crops(), pairs=pairs())
    assert quantized.edge_table.bits.shape[1] == 2


def test_resumed_training_is_the_same_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlib.fit.loop.loop import Loop

    recipe = CABM(steps=110, batch=2, halve_every=50, limit=100, table_patch=8)
    first = start("own", recipe)

    def quantize(resume: Path | None) -> sqlib.QuantizedModel:
        return sqlib.quantize_model(
            network("own"), recipe, pictures(), pairs=pairs(), start=first, resume=resume
        )

    whole, advance = quantize(None), Loop.advance

    def dying(self: Loop) -> None:
        if self.step == 105:
            raise RuntimeError("killed")
        advance(self)

    monkeypatch.setattr(Loop, "advance", dying)
    with pytest.raises(RuntimeError, match="killed"):
        quantize(tmp_path)
    monkeypatch.setattr(Loop, "advance", advance)
    state = quantize(tmp_path).state_dict()
    assert all(torch.equal(t, state[name]) for name, t in whole.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(table_patch=4, table_overlap=4), "patches larger than their overlap"),
        (dict(limit=0), "limit"),
        (dict(limit=101), "limit"),
        (dict(edges="opencv"), "edges='opencv': expected one of 'image', 'release'"),
        (dict(data_range=0), "data_range"),
        (dict(bits=(8, 32)), "CABM chooses the bits of activations"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CABM(**options)  # type: ignore[arg-type]


def test_a_start_with_other_candidates_is_refused() -> None:
    other = sqlib.quantize_model(network("edsr"), CADyQ(steps=0, candidates=(2, 8)), crops())
    with pytest.raises(InputError, match=r"start is made by CADyQ\(.*candidates=\(2, 8\).*needs CADyQ"):
        sqlib.quantize_model(network("edsr"), CABM(steps=0), crops(), start=other)


def test_a_start_with_other_sites_is_refused() -> None:
    recipe = CABM(steps=0)
    base = recipe.starts_from()
    assert base is not None
    skip = ["head", "blocks.1", "body_end", "tail"]
    fewer = sqlib.quantize_model(network("edsr"), base, crops(), skip=skip)
    with pytest.raises(InputError, match=r"bits of \d activations, here 4 are quantized: make it with"):
        sqlib.quantize_model(network("edsr"), recipe, crops(), start=fewer)


def test_images_that_are_not_finite() -> None:
    quantized, _ = made(steps=0)
    x = pictures()[0]
    x[0, 0, 3, 3] = torch.nan
    with pytest.raises(InputError, match=r"call site 'blocks.0.conv1' .*not finite"):
        quantized(x)
