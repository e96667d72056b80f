"""Calibration data of every form, modes around `quantize_model`, ranges and channels: what results."""

from __future__ import annotations

import warnings
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import sqlib
from sqlib import models, recipes
from sqlib.errors import InputError
from sqlib.recipes import DOBI, MSE, Density, MinMax, Percentile

SHORT = dict(schedule="custom", iterations=3, batch=4, learning_rate=0.05, step_learning_rate=0.01)
EVERY = [
    MinMax(4),
    Percentile(4),
    MSE(4),
    DOBI(4),
    Density(4),
    recipes.DFSQ(4),
    recipes.CompensatedDFSQ(4),
    recipes.create("brecq", bits=4, activation_iterations=2, **SHORT),
    recipes.create("qdrop", bits=4, **SHORT),
    recipes.create("twodquant", bits=4, schedule="laptop", iterations=3, batch=2),
    recipes.create("dbdc-pac", bits=4, iterations=2, weight_iterations=2, batch=2),
]
every_recipe = pytest.mark.parametrize("recipe", EVERY, ids=lambda r: r.name)


def network(norm=False, dropout=False):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)]
    layers += [nn.BatchNorm2d(8)] * norm + [nn.Dropout(0.5)] * dropout
    layers += [nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)]
    return nn.Sequential(*layers)


def batches(n=3):
    """Later batches reach further, so that each of them counts."""
    torch.manual_seed(1)
    return [torch.rand(2, 3, 10, 10) * (i + 1) for i in range(n)]


class Itself:
    """A loader whose iterator is itself."""

    def __init__(self, items):
        self.items = list(items)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.items:
            raise StopIteration
        return self.items.pop(0)


class Once:
    """A view of an iterator, as progress bars are: not its own iterator, and empty the second time."""

    def __init__(self, items):
        self.iterator = iter(items)

    def __iter__(self):
        yield from self.iterator


class OneBuffer:
    """A loader that fills the same memory with every batch."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        buffer = torch.empty_like(self.items[0])
        for item in self.items:
            yield buffer.copy_(item)


class Shuffling:
    """Another order in every pass, and other images in the second."""

    def __init__(self, items):
        self.items, self.passes = items, 0

    def __iter__(self):
        self.passes += 1
        yield from [x * self.passes for x in reversed(self.items)]


FORMS = {
    "generator": lambda xs: (x for x in xs),
    "map": lambda xs: map(torch.clone, xs),
    "itself": Itself,
    "once": Once,
    "progress bar": lambda xs: tqdm((x for x in xs), disable=True),
    "bar on a list": lambda xs: tqdm(xs, disable=True),
    "one buffer": OneBuffer,
    "shuffling": Shuffling,
    "loader": lambda xs: DataLoader(xs, batch_size=None),
    "loader of rows": lambda xs: DataLoader(TensorDataset(torch.cat(xs)), batch_size=2),
    "dict values": lambda xs: dict(enumerate(xs)).values(),
    "tuple": tuple,
}


@every_recipe
@pytest.mark.parametrize("form", FORMS)
def test_every_batch_counts_however_it_is_iterated(recipe, form):
    data, x = batches(), batches(1)[0]
    ordered = list(reversed(data)) if form == "shuffling" else data
    if form == "loader of rows":
        ordered = [(x,) for x in data]
    want = sqlib.quantize_model(network(), recipe, ordered)
    q = sqlib.quantize_model(network(), recipe, FORMS[form](data))
    with torch.no_grad():
        assert torch.equal(q(x), want(x)) and not torch.equal(q(x), network()(x))
    assert set(q.report().calls) == {3}


def test_bounds_reach_over_all_batches_of_an_iterator():
    data = batches()
    q = sqlib.quantize_model(nn.Sequential(nn.Conv2d(3, 3, 1)), MinMax(8), Once(data), skip=[])
    assert q.report().upper[0] == pytest.approx(float(max(x.max() for x in data)), rel=0.01)


def test_spent_iterators():
    spent = iter(batches())
    list(spent)
    with pytest.raises(InputError, match="calibration is empty"):
        sqlib.quantize_model(network(), MinMax(8), spent)
    with pytest.raises(InputError, match="calibration is empty"):
        sqlib.quantize_model(network(), MinMax(8), Once([]))


def test_operands_and_distillation_of_what_can_be_read_once():
    data, net = batches(), network().eval()
    seen = sqlib.record_operands(net, Once(data), skip=[])
    assert all(torch.equal(a, b) for a, b in zip(seen["0", "input"], data, strict=True))
    q, twin = (sqlib.quantize_model(net, MinMax(3), data) for _ in range(2))
    options = dict(iterations=3, batch=2, learning_rate=1e-2)
    assert sqlib.fit.distill(q, Once(data), **options) == sqlib.fit.distill(twin, data, **options)


def test_a_site_that_only_the_first_pass_reaches_is_not_called_quantized():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.once, self.b = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            x = self.a(x)
            return self.b(self.once(x) if self.calls == 1 else x)

    r = sqlib.quantize_model(Counting(), MinMax(4), batches(), skip=[]).report().set_index("site")
    assert list(r.quantized) == [True, False, True]
    assert r.rule["once"] == "not quantized: called in the first pass only"


# --- modes ------------------------------------------------------------------------------------------------


@every_recipe
def test_a_network_in_training_mode_gives_a_model_in_evaluation_mode(recipe):
    data = batches()
    net = network(norm=True, dropout=True)
    net(data[0])  # statistics that are not the initial ones
    want = sqlib.quantize_model(net.eval(), recipe, data)
    net.train()
    net[2].eval()  # a mixture, as with frozen statistics
    state = {k: v.clone() for k, v in net.state_dict().items()}
    q = sqlib.quantize_model(net, recipe, data)
    assert [m.training for m in net] == [True, True, False, *[True] * 4] and net.training
    assert not any(m.training for m in q.modules())
    kept = {k: v.clone() for k, v in q.network.named_buffers()}
    with torch.no_grad():
        assert torch.equal(q(data[0]), want(data[0])) and torch.equal(q(data[0]), q(data[0]))
        error = float((q(data[1]) - net.eval()(data[1])).norm() / net(data[1]).norm())
    assert error < 0.35  # 4 bits
    assert all(torch.equal(v, kept[k]) for k, v in q.network.named_buffers())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    q.train()
    assert q.network[2].training and q.network[3].training


@every_recipe
@pytest.mark.parametrize("where", ["all", "network", "data"])
def test_made_in_inference_mode_and_used_outside(recipe, where):
    want = sqlib.quantize_model(network(), recipe, batches())
    net, data = network(), batches()
    if where != "all":
        with torch.inference_mode():
            net = network() if where == "network" else net
            data = batches() if where == "data" else data
    with torch.inference_mode():
        if where == "all":
            net, data = network(), batches()
        q = sqlib.quantize_model(net, recipe, data)
        assert torch.is_inference_mode_enabled()
        x = batches(1)[0]
        inside = q(x)
    x = x.clone()
    assert torch.equal(want(x), q(x)) and torch.equal(inside, q(x))
    assert not any(t.is_inference() for t in (*q.parameters(), *q.buffers()))
    q(x).square().sum().backward()
    want(x).square().sum().backward()
    for a, b in zip(q.parameters(), want.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    torch.optim.SGD(q.parameters(), 0.1).step()
    q.load_state_dict(want.state_dict())


@every_recipe
def test_made_without_gradients_or_under_autocast(recipe):
    data, x = batches(), batches(1)[0]
    want = sqlib.quantize_model(network(), recipe, data)
    for context in (torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            q = sqlib.quantize_model(network(), recipe, data)
        assert torch.equal(q(x), want(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert q(x).dtype == torch.bfloat16
        with torch.no_grad():
            assert float((q(x) - want(x)).norm() / want(x).norm()) < 0.02


# --- ranges and channels ----------------------------------------------------------------------------------


def small():
    torch.manual_seed(0)
    return models.create("edsr-small", scale=2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x: x * 255, r"lie in 1\.42\d*\.\.254\.\d*, but edsr-small takes RGB in 0\.\.1 \(divide"),
        (lambda x: (x - 0.5) * 2, r"lie in -\S*\.\.\S*, but .* \(undo their normalization\)"),
        (lambda x: x / 255**2, r"divided by 255 twice"),
        (lambda x: (x * 255).long().float(), "takes RGB in 0..1"),
    ],
)
def test_images_in_other_units_warn_with_their_range(data, message):
    with pytest.warns(UserWarning, match=message):
        sqlib.quantize_model(small(), MinMax(8), [data(x) for x in batches(1)])


@pytest.mark.parametrize("data", [lambda x: x, lambda x: x * 1.2 - 0.1, lambda x: x * 0, lambda x: x / 20])
def test_images_as_they_should_be_do_not(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q = sqlib.quantize_model(small(), MinMax(8), [data(x) for x in batches(1)])
        q(data(batches(1)[0]))


@pytest.mark.parametrize("make", ["edsr-small", "carn-m", "srresnet", "elan-light", "swinir-small"])
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8), (1, 8, 8), (2, 4, 8, 8), (2, 3, 1, 8, 8), (8, 8)])
def test_shapes_that_broadcasting_would_make_images(make, shape):
    net = models.create(make, scale=2)
    with pytest.raises(InputError, match=r"batch 1 \(\(.*\) float32\).*RGB images \(N, 3, H, W\)"):
        sqlib.quantize_model(net, MinMax(8), [torch.rand(1, 3, 8, 8), torch.rand(shape)])


def test_one_channel_is_no_image_at_inference_either():
    q = sqlib.quantize_model(small(), MinMax(8), batches(1))
    for shape in ((2, 1, 8, 8), (3, 8, 8)):
        with pytest.raises(InputError, match="takes RGB images"):
            q(torch.rand(shape))


def test_inputs_in_other_units_than_calibration_warn_once():
    images = batches(1)[0]
    q = sqlib.quantize_model(network(), MinMax(8), [images])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q(images * 2), q(images / 50), q(images * 0), q(images - 1)
    with pytest.warns(
        UserWarning, match=r"input lies in 1\.42\d*\.\.254\.\d*, calibration data lay in 0\."
    ) as seen:
        q(images * 255)
        q(images * 255)
    assert len(seen) == 1
    large = sqlib.quantize_model(network(), MinMax(8), [images * 255])
    with pytest.warns(UserWarning, match="same units"):
        large(images)


# --- batches that are no arguments of the network ---------------------------------------------------------


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x, gain=None, *, shift=0.0):
        return self.b(self.a(x if gain is None else x * gain.reshape(-1, 1, 1, 1)) + shift)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x, y):
        return self.a(x) + self.b(y)


X, LABEL = torch.rand(2, 3, 6, 6), torch.tensor([1, 0])
Pair = namedtuple("Pair", "image label")


@pytest.mark.parametrize(
    ("net", "batch", "message"),
    [
        (
            network,
            (X, LABEL),
            r"batch 0: 2 values \[\(2, 3, 6, 6\) float32, \(2,\) int64\].*takes input;.*pairs",
        ),
        (network, [X, LABEL], "images only"),
        (network, (X, X), "images only"),
        (network, Pair(X, LABEL), "images only"),
        (network, (X, "name.png"), "str.*images only"),
        (
            network,
            {"image": X, "label": LABEL},
            "'image', 'label', but Sequential.forward takes input; leave out",
        ),
        (network, {"input": X, "label": LABEL}, "leave out 'label'"),
        (network, {}, "input must be given"),
        (Optional, (X, LABEL), "'gain' of .* is optional.*'x', 'gain'.*pairs"),
        (Optional, (X, LABEL.float()), "is optional"),
        (Optional, (X, X, X), "images only"),
        (Optional, {"gain": X}, "x must be given"),
        (Optional, {"x": X, "label": LABEL}, "leave out 'label'"),
        (Both, X, "y is missing"),
        (Both, (X, X, LABEL), "images only"),
        (Both, {"x": X}, "y must be given"),
    ],
)
def test_batches_that_do_not_fit_the_signature(net, batch, message):
    with pytest.raises(InputError, match=message):
        sqlib.quantize_model(net(), MinMax(8), [batch])


def test_the_number_of_the_batch_is_named():
    with pytest.raises(InputError, match="calibration batch 1: 2 values"):
        sqlib.quantize_model(network(), MinMax(8), [X, (X, LABEL)])
    loader = DataLoader(TensorDataset(torch.cat([X, X]), torch.arange(4)), batch_size=2)
    with pytest.raises(InputError, match="images only"):
        sqlib.quantize_model(network(), MinMax(8), loader)


def test_arguments_that_are_meant_arrive():
    plain = sqlib.quantize_model(Optional(), MinMax(8), [{"x": X}], skip=[])
    twice = sqlib.quantize_model(Optional(), MinMax(8), [{"x": X, "gain": torch.tensor([2.0, 2.0])}], skip=[])
    assert twice.report().upper[0] == pytest.approx(2 * plain.report().upper[0])
    both = sqlib.quantize_model(Both(), MinMax(8), [Pair(X, 3 * X)], skip=[])
    assert list(both.report().upper) == pytest.approx([float(X.max()), 3 * float(X.max())], rel=0.01)

    class Anything(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Both()

        def forward(self, *args, **kwargs):
            return self.net(*args, **kwargs)

    for batch in ((X, 3 * X), {"x": X, "y": 3 * X}):
        q = sqlib.quantize_model(Anything(), MinMax(8), [batch], skip=[])
        assert torch.equal(q(X, X), q(X, y=X))
        assert list(q.report().upper) == list(both.report().upper)


def test_errors_inside_the_network_name_the_batch():
    class Wrong(nn.Module):
        def forward(self, x):
            return F.conv2d(x, None)

    with pytest.raises(InputError, match=r"batch 0 \(\(2, 3, 6, 6\) float32\): the network Wrong cannot run"):
        sqlib.quantize_model(Wrong(), MinMax(8), [X])


# --- what weights may be ----------------------------------------------------------------------------------


@every_recipe
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_networks(recipe, kind):
    data, x = batches(), batches(1)[0]
    q = sqlib.quantize_model(network(norm=True).to(kind), recipe, data)
    want = sqlib.quantize_model(network(norm=True).eval(), recipe, data)
    with torch.no_grad():
        out = q(x.to(kind))
        assert out.dtype == kind and torch.isfinite(out).all()
        full = network(norm=True).eval()(x)
        lost, ours = ((o.float() - full).norm() / full.norm() for o in (want(x), out))
    assert ours < 1.25 * lost + 0.02
    assert {p.dtype for p in q.network.parameters()} == {kind}


def test_weights_without_values_or_density():
    with torch.device("meta"):
        nowhere = network()
    with pytest.raises(
        InputError, match=r"parameter '0.weight' is on the meta device, which holds no values"
    ):
        sqlib.quantize_model(nowhere, MinMax(8), batches())
    only = network(norm=True)
    only[2].running_mean = torch.zeros(8, device="meta")
    with pytest.raises(InputError, match=r"buffer '2\.running_mean' is on the meta device"):
        sqlib.quantize_model(only, MinMax(8), batches())
    with pytest.raises(InputError, match=r"\(2, 3, 6, 6\) float32 on the meta device"):
        sqlib.quantize_model(network(), MinMax(8), [X.to("meta")])
    sparse = nn.Sequential(nn.Linear(3, 3))
    sparse[0].weight = nn.Parameter(torch.eye(3).to_sparse())
    with pytest.raises(InputError, match=r"'0.weight' is stored as torch.sparse_coo; .*dense"):
        sqlib.quantize_model(sparse, MinMax(8), [torch.rand(2, 3)])


def test_a_dark_patch_is_an_image_like_others():
    """Up to two gray levels of 255: nothing is wrong with its units."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
    quantized = sqlib.quantize_model(model, recipes.MinMax(8), [torch.rand(2, 3, 8, 8)], skip=[])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized(torch.full((1, 3, 8, 8), 2 / 255))
    with pytest.warns(UserWarning, match="same units"):
        quantized(torch.rand(1, 3, 8, 8) * 255)
