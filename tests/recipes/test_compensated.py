"""Compensated weights in whole networks: better than the parts it is made of, and safe on bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sqlib import quantize_model, recipes
from sqlib.errors import InputError
from sqlib.fit.compensation.moments import Moments
from sqlib.fit.compensation.passes import _joined
from sqlib.quantizers.rounded import RoundedWeight
from sqlib.recipes import CompensatedDFSQ

OFF = dict(retarget=False, compensate=False, correct_bias=False)


class Net(nn.Module):
    """Plain, grouped and pointwise convolutions, one block used twice, a linear layer on channels."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.plain = nn.Conv2d(8, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.point = nn.Conv2d(16, 8, 1, bias=False)
        self.linear = nn.Linear(8, 8)
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        x = self.head(x)
        a = self.shared(F.relu(self.plain(x)))
        b = self.shared(F.relu(a))
        y = x + self.point(torch.cat([a, b], dim=1))
        y = y + self.linear(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.tail(y)


SKIP = ["head", "tail"]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def images():
    """Smooth random images, as neighbouring pixels of photographs are alike."""
    torch.manual_seed(1)
    return F.interpolate(torch.rand(6, 3, 6, 6), size=24, mode="bicubic").clamp(0, 1)


def _error(net, quantized, x):
    with torch.no_grad():
        return float((net(x) - quantized(x)).square().mean())


@pytest.mark.parametrize("bits", [(3, 32), (4, 32), 4, (2, 8)], ids=str)
def test_better_than_clipped_weights_on_images_it_has_not_seen(net, images, bits):
    seen, unseen = images[:4], images[4:]
    ours = quantize_model(net, CompensatedDFSQ(bits=bits), [seen], skip=SKIP)
    baseline = quantize_model(net, CompensatedDFSQ(bits=bits, **OFF), [seen], skip=SKIP)
    assert _error(net, ours, unseen) < 0.6 * _error(net, baseline, unseen)


def test_full_precision_weights_are_left_alone(net, images):
    ours = quantize_model(net, CompensatedDFSQ(bits=(32, 4)), [images], skip=SKIP)
    plain = quantize_model(net, CompensatedDFSQ(bits=(32, 4), **OFF), [images], skip=SKIP)
    assert torch.equal(ours(images), plain(images))
    for name, value in ours.network.state_dict().items():
        assert torch.equal(value, net.state_dict()[name])


def test_the_network_is_not_changed_and_only_free_biases_move(net, images):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    ours = quantize_model(net, CompensatedDFSQ(bits=4), [images], skip=SKIP)
    moved = {k for k, v in ours.network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"plain.bias", "shared.bias", "linear.bias"}
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    same = quantize_model(net, CompensatedDFSQ(bits=4, correct_bias=False), [images], skip=SKIP)
    assert all(torch.equal(v, before[k]) for k, v in same.network.state_dict().items())


def test_report_and_codes(net, images):
    ours = quantize_model(net, CompensatedDFSQ(bits=(3, 4)), [images], skip=SKIP)
    report = ours.report().set_index("site")
    assert list(report.index) == ["head", "plain", "shared", "shared#1", "point", "linear", "tail"]
    assert (report.weight_bits[1:6] == 3).all() and (report.activation_bits[1:6] == 4).all()
    assert report.weight_sqnr_db[1:6].between(5, 40).all()
    for name in ("plain", "shared", "shared#1", "point", "linear"):
        quantizer = ours.weight_quantizer(ours.sites[name].weight_key)
        assert isinstance(quantizer, RoundedWeight)
        weight = net.get_submodule(name.split("#")[0]).weight
        assert quantizer.stored.shape == weight.shape
        levels = [len(v.unique()) for v in quantizer(weight.detach()).flatten(1)]
        assert max(levels) <= 8


def test_mean_outputs_are_those_of_full_precision(net, images):
    """At the last fitted layer, over the positions it was fitted on (all of them here)."""
    ours = quantize_model(net, CompensatedDFSQ(bits=3), [images], skip=SKIP)
    means = {}
    for label, network in (("full", net), ("ours", ours.network)):
        module = network.linear
        handle = module.register_forward_hook(
            lambda m, i, o, label=label: means.__setitem__(label, o.mean(dim=(0, 1, 2)))
        )
        with torch.no_grad():
            (net if label == "full" else ours)(images)
        handle.remove()
    assert torch.allclose(means["full"], means["ours"], atol=1e-5)


def test_batches_do_not_matter_if_they_can_be_joined(net, images):
    one = quantize_model(net, CompensatedDFSQ(bits=4), [images], skip=SKIP)
    many = quantize_model(net, CompensatedDFSQ(bits=4), [images[:2], images[2:]], skip=SKIP)
    assert torch.equal(one(images), many(images))


def test_images_of_different_sizes(net, images):
    mixed = [images[:4], images[:2, :, :20, :16]]
    ours = quantize_model(net, CompensatedDFSQ(bits=4), mixed, skip=SKIP)
    baseline = quantize_model(net, CompensatedDFSQ(bits=4, **OFF), mixed, skip=SKIP)
    assert _error(net, ours, images[4:]) < 0.6 * _error(net, baseline, images[4:])


class Deep(nn.Module):
    """As deep as a real network is beside the three passes that would fit it all at once."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(12)])
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        x = self.head(x)
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.tail(x)


@pytest.mark.parametrize("form", ["sizes", "tuples", "dictionaries"])
def test_many_batches_fit_a_deep_network_as_well_as_one(images, form):
    """Each layer is fitted behind a prefix that is final, also where batches cannot be joined."""
    torch.manual_seed(3)
    net = Deep().eval()
    halves = [images[:2], images[2:4]]
    data = {
        "sizes": [images[:2], images[2:4, :, :20, :20]],
        "tuples": [(x,) for x in halves],
        "dictionaries": [{"x": x} for x in halves],
    }[form]
    recipe = CompensatedDFSQ(bits=4)
    one = _error(net, quantize_model(net, recipe, [images[:4]], skip=SKIP), images[4:])
    many = _error(net, quantize_model(net, recipe, data, skip=SKIP), images[4:])
    plain = _error(net, quantize_model(net, CompensatedDFSQ(bits=4, **OFF), data, skip=SKIP), images[4:])
    assert many < 1.4 * one and many < 0.6 * plain


def test_positions_are_shared_among_batches(net, images, monkeypatch):
    assert [len(b) for b in _joined([images[:2], images[2:4, :, :20], images[4:]])] == [4, 2]
    counts = []
    of = Moments.of
    monkeypatch.setattr(Moments, "of", lambda x, y: counts.append(len(y)) or of(x, y))
    tuples = [(x[None],) for x in images[:4]]
    quantize_model(net, CompensatedDFSQ(bits=4, positions=64), tuples, skip=SKIP)
    assert set(counts) == {16}
    counts.clear()
    uneven = [(images[:3],), (images[3:4],)]
    quantize_model(net, CompensatedDFSQ(bits=4, positions=64), uneven, skip=SKIP)
    assert set(counts) == {48, 16}


class Routed(nn.Module):
    """Small images go another way: two layers on it, `early` before `late`, and `late` alone on the other."""

    def __init__(self):
        super().__init__()
        self.late, self.early = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.head, self.tail = (nn.Conv2d(3, 3, 1) for _ in range(2))

    def forward(self, x):
        x = self.head(x)
        if x.shape[-1] < 24:
            x = F.relu(self.early(x))
        try:
            return self.tail(self.late(x))
        except Exception:  # what some networks do; must not swallow the end of a pass
            return self.tail(self.early(x))


def test_layers_are_fitted_in_the_order_in_which_any_batch_runs_them(images):
    torch.manual_seed(5)
    net = Routed().eval()
    large, small = images[:3], images[3:, :, :20, :20]
    models = [
        quantize_model(net, CompensatedDFSQ(bits=3), data, skip=SKIP)
        for data in ([large, small], [small, large])
    ]
    errors = [_error(net, model, small) for model in models]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    plain = quantize_model(net, CompensatedDFSQ(bits=3, **OFF), [large, small], skip=SKIP)
    assert errors[0] < 0.7 * _error(net, plain, small)


def test_a_weight_whose_first_use_differs_between_batches(images):
    """The sum runs over every use in every batch, and each of them is looked at again in each round."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 3, 3, padding=1)
            self.two = nn.Conv2d(3, 3, 3, padding=1)
            self.two.weight = self.one.weight
            self.head, self.tail = (nn.Conv2d(3, 3, 1) for _ in range(2))

        def forward(self, x):
            x = self.head(x)
            if x.shape[-1] < 24:
                x = F.relu(self.one(x))
            return self.tail(self.two(x))

    torch.manual_seed(8)
    net = Tied().eval()
    data = [images[:3], images[3:, :, :20, :20]]
    ours = quantize_model(net, CompensatedDFSQ(bits=3), data, skip=SKIP)
    plain = quantize_model(net, CompensatedDFSQ(bits=3, **OFF), data, skip=SKIP)
    assert len(ours.weights) == 1
    assert all(_error(net, ours, x) < 0.6 * _error(net, plain, x) for x in data)
    # Two biases go with the weight: no mean is free, and neither is touched.
    assert torch.equal(ours.network.one.bias, net.one.bias)
    assert torch.equal(ours.network.two.bias, net.two.bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_that_compute_in_0_to_255(images, dtype):
    """Squares of such activations are more than float16 holds."""
    torch.manual_seed(4)
    net = Net().eval()
    with torch.no_grad():
        net.head.weight *= 255
        net.head.bias *= 255
    exact = _error(net, quantize_model(net, CompensatedDFSQ(bits=4), [images], skip=SKIP), images)
    half = Net().eval()
    half.load_state_dict(net.state_dict())
    half = half.to(dtype)
    ours = quantize_model(half, CompensatedDFSQ(bits=4), [images.to(dtype)], skip=SKIP)
    with torch.no_grad():
        error = float((net(images) - ours(images.to(dtype)).float()).square().mean())
    assert ours(images.to(dtype)).dtype == dtype and error < 2 * exact


def test_one_ridge_for_re_targeting_and_rounding(net, images):
    """Under an overwhelming ridge nothing makes up for anything: weights as without correlation."""
    ours = quantize_model(net, CompensatedDFSQ(bits=4, ridge=1e9), [images], skip=SKIP)
    plain = quantize_model(
        net, CompensatedDFSQ(bits=4, retarget=False, compensate=False), [images], skip=SKIP
    )
    for key, quantizer in ours.weights.items():
        weight = dict(net.named_parameters())[key.split("|")[0].replace("/", ".")]
        kept, nearest = (q(weight.detach()) - weight for q in (quantizer, plain.weights[key]))
        assert float(kept.detach().square().sum()) <= 1.02 * float(nearest.detach().square().sum())


def test_deterministic_and_loadable(net, images):
    recipe = CompensatedDFSQ(bits=3)
    one, two = (quantize_model(net, recipe, [images], skip=SKIP) for _ in range(2))
    assert torch.equal(one(images), two(images))
    other = quantize_model(net, recipe, [images[:1]], skip=SKIP)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(images), other(images))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_one_constant_image(net, value):
    image = torch.full((1, 3, 12, 12), value)
    ours = quantize_model(net, CompensatedDFSQ(bits=4), [image], skip=SKIP)
    assert torch.isfinite(ours(image)).all() and torch.isfinite(ours(torch.rand(1, 3, 9, 9))).all()
    assert _error(net, ours, image) < 0.05 * float(net(image).detach().square().mean())


def test_dead_channels(images):
    torch.manual_seed(2)
    net = Net().eval()
    with torch.no_grad():
        net.plain.weight[:4] = 0
        net.plain.bias[:4] = -1  # always 0 after the ReLU
        net.shared.weight[2] = 0
    ours = quantize_model(net, CompensatedDFSQ(bits=4), [images[:4]], skip=SKIP)
    baseline = quantize_model(net, CompensatedDFSQ(bits=4, **OFF), [images[:4]], skip=SKIP)
    assert _error(net, ours, images[4:]) < _error(net, baseline, images[4:])


def test_a_weight_with_two_biases_keeps_both(images):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3, 1, 1))
            self.bias = nn.Parameter(torch.randn(3))
            self.other = nn.Parameter(torch.randn(3, 3, 1, 1))

        def forward(self, x):
            return F.conv2d(F.conv2d(x, self.weight, self.bias), self.other, bias=self.bias)

    torch.manual_seed(3)
    net = Two().eval()
    ours = quantize_model(net, CompensatedDFSQ(bits=4), [images], skip=[])
    assert torch.equal(ours.network.bias, net.bias)
    assert torch.isfinite(ours(images)).all()


def test_weights_that_are_not_compensated_are_rounded_to_the_nearest_level(images):
    net = nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.Conv2d(4, 3, 3, padding=1)).eval()
    ours = quantize_model(net, CompensatedDFSQ(bits=4), [images], skip=[])
    kinds = [type(ours.weight_quantizer(s.weight_key)).__name__ for s in ours.sites.values()]
    assert kinds == ["UniformQuantizer", "RoundedWeight"]
    assert torch.isfinite(ours(images)).all()


def test_bits_per_layer(net, images):
    """A recipe of one's own may give every layer its bits."""

    class Mixed(CompensatedDFSQ):
        def weight_quantizer(self, weight, site):
            from sqlib.codebook import fit_bounds
            from sqlib.quantizers import UniformQuantizer

            bits = 8 if site.module == "plain" else 2
            return UniformQuantizer(fit_bounds(weight, bits, axis=site.weight_axis, method="minmax"))

    ours = quantize_model(net, Mixed(bits=(4, 8)), [images], skip=SKIP)
    report = ours.report().set_index("site")
    assert report.weight_bits["plain"] == 8 and report.weight_bits["linear"] == 2


def test_wrong_or_missing_calibration_data(net, images):
    for data, message in [([], "empty"), ([torch.full((1, 3, 8, 8), torch.nan)], "NaN")]:
        with pytest.raises(InputError, match=message):
            quantize_model(net, CompensatedDFSQ(bits=4), data, skip=SKIP)
    with pytest.raises(InputError, match="channels"):
        quantize_model(net, CompensatedDFSQ(bits=4), [torch.rand(1, 4, 8, 8)], skip=SKIP)
    with pytest.raises(InputError, match="no call that can be quantized"):
        quantize_model(nn.ReLU(), CompensatedDFSQ(bits=4), [images])
    everything = quantize_model(net, CompensatedDFSQ(bits=4), [images], skip="*")
    assert torch.equal(everything(images), net(images))


def test_half_of_the_network_in_evaluation_only(net, images):
    net.train()
    try:
        ours = quantize_model(net, CompensatedDFSQ(bits=4), [images], skip=SKIP)
        assert not any(m.training for m in ours.modules())
    finally:
        net.eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(retarget=1), "retarget"),
        (dict(compensate="yes"), "compensate"),
        (dict(correct_bias=None), "correct_bias"),
        (dict(positions=0), "positions"),
        (dict(repeats=0), "repeats"),
        (dict(ridge=0), "ridge"),
        (dict(ridge=float("nan")), "ridge"),
        (dict(ridge="big"), "ridge"),
        (dict(selector="best"), "selector"),
        (dict(reach=0.25), "reach=0.25: expected 1 or 0.5"),
        (dict(reach=True), "reach=True"),
        (dict(reach=0.5, normalize="none", statistics="image"), "needs normalize='dynamic'"),
        (dict(normalize="static"), "give statistics='image'"),
        (dict(words=2, reach=0.5, bits=5), "19 up to 0.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        CompensatedDFSQ(**{"bits": 4, **options})


@pytest.mark.parametrize(
    ("bits", "words", "reach"),
    [(3, 4, 1), (5, 4, 1), (6, 5, 0.5), ((4, 8), 5, 0.5), ((8, 4), 4, 1), ((6, 32), 4, 1)],
)
def test_words_and_reach_follow_the_bits_of_activations(bits, words, reach):
    recipe = CompensatedDFSQ(bits)
    assert recipe.words == recipe.to_dict()["words"] == words
    assert recipe.reach == recipe.to_dict()["reach"] == reach
    assert recipe.statistics == "patch"
    assert CompensatedDFSQ(bits, normalize="static", statistics="image").reach == 1  # a range that is fixed
    kept = CompensatedDFSQ(bits, words=3 if bits != (4, 8) else 4, reach=1)
    assert kept.words < 5 and kept.reach == 1  # what is asked for is kept


def test_bits_are_checked_before_words_follow_them():
    with pytest.raises(InputError, match="bits='x'"):
        CompensatedDFSQ("x")


@pytest.mark.parametrize(
    ("bits", "worse"),
    [
        (6, dict(words=4, reach=1)),  # 189 points between 0 and 1 to choose 64 from
        (8, dict(reach=1)),  # 95 of 648 points in the upper half of the range
        (8, dict(words=4)),
    ],
)
def test_more_words_and_half_the_reach_help_at_many_bits(bits, worse):
    positive = [torch.rand(2, 8, 32, 32, generator=torch.Generator().manual_seed(1))]
    layer = nn.Sequential(nn.Conv2d(8, 4, 1))
    errors = []
    for options in (worse, {}):
        quantized = quantize_model(layer, CompensatedDFSQ((32, bits), **options), positive)
        with torch.inference_mode():
            errors.append(float((quantized(positive[0]) - layer(positive[0])).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_round_trip():
    recipe = CompensatedDFSQ(bits=(3, 4), selector="release", ridge=1, positions=np.int64(100))
    assert recipes.from_json(recipe.to_json()) == recipe
    assert recipes.create("dfsq-compensated", bits=4) == CompensatedDFSQ(bits=4)
