"""Every way to reach a product leaves a trace: quantized, or a row in the report with the reason."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import conv2d as bound_before

import sqlib
from sqlib.errors import InputError
from sqlib.recipes import MinMax

X = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
ONE = [1, 1]


@torch.jit.script
def scripted(x: Tensor, w: Tensor) -> Tensor:
    return torch.conv2d(x, w, None, [1, 1], [1, 1])


@torch.library.custom_op("sqlib_tests::convolve", mutates_args=())
def custom(x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x, w, padding=1)


class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        return F.conv2d(x, w, padding=1)


class Net(nn.Module):
    """One ordinary layer, then a convolution called in some way."""

    def __init__(self, call):
        super().__init__()
        torch.manual_seed(0)
        self.before, self.weight = nn.Conv2d(4, 4, 1), nn.Parameter(torch.randn(4, 4, 3, 3) / 6)
        self.call = call

    def forward(self, x):
        return self.call(self.before(x), self.weight)


class Subclass(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight, self.bias)


def compiled(x, w):
    return torch.compile(F.conv2d, backend="eager")(x, w, padding=1)


QUANTIZED = {
    "functional": partial(F.conv2d, padding=1),
    "torch": partial(torch.conv2d, padding=1),
    "bound before": partial(bound_before, padding=1),
    "private": lambda x, w: torch._C._VariableFunctions.conv2d(x, w, None, 1, 1),
    "packet": lambda x, w: torch.ops.aten.conv2d(x, w, None, ONE, ONE),
    "overload": lambda x, w: torch.ops.aten.conv2d.default(x, w, None, ONE, ONE),
    "autograd function": Function.apply,
    "compiled": compiled,
    "getattr": lambda x, w: getattr(F, "conv" + "2d")(x, w, padding=1),
    "map": lambda x, w: next(map(partial(F.conv2d, padding=1), [x], [w])),
    "checkpoint": lambda x, w: torch.utils.checkpoint.checkpoint(
        partial(F.conv2d, padding=1), x, w, use_reentrant=False
    ),
}
REPORTED = {
    "convolution": lambda x, w: torch.convolution(x, w, None, ONE, ONE, ONE, False, [0, 0], 1),
    "aten.convolution": lambda x, w: torch.ops.aten.convolution(x, w, None, ONE, ONE, ONE, False, [0, 0], 1),
    "padding by name": lambda x, w: torch.ops.aten.conv2d.padding(x, w, None, ONE, "same"),
    "scripted": scripted,
    "custom": custom,
    "unfolded": lambda x, w: torch.tensordot(F.unfold(x, 3, padding=1).mT, w.flatten(1).T, 1).mT.reshape(
        x.shape
    ),
}


@pytest.mark.parametrize("call", QUANTIZED)
def test_quantized(call):
    q = sqlib.quantize_model(Net(QUANTIZED[call]), MinMax(3), [X], skip=["before"])
    r = q.report()
    assert list(r.quantized) == [False, True] and list(r.op) == ["conv2d", "conv2d"]
    (activation,), (weight,) = q.activations.values(), q.weights.values()
    with torch.no_grad():
        hidden = q.network.before(X)
        want = F.conv2d(activation(hidden), weight(q.network.weight), padding=1)
        torch.testing.assert_close(q(X), want)


@pytest.mark.parametrize("call", REPORTED)
def test_reported(call):
    net = Net(REPORTED[call])
    q = sqlib.quantize_model(net, MinMax(3), [X], skip=[])
    r = q.report()
    assert list(r.quantized) == [True, False] and list(r.weight_bits) == [3, 32]
    assert r.rule[1].startswith(("not quantized: ", "operation not quantized"))
    plain = sqlib.quantize_model(Net(QUANTIZED["functional"]), MinMax(3), [X], skip=["conv2d"])
    with torch.no_grad():  # runs in full precision, as the report says
        torch.testing.assert_close(q(X), plain(X), rtol=1e-4, atol=1e-5)


A, B = torch.rand(1, 4, 5), torch.rand(1, 5, 6)
PRODUCTS = [
    (torch.ops.aten.matmul, "matmul"),
    (torch.ops.aten.bmm.default, "bmm"),
    (lambda a, b: b.__rmatmul__(a), "matmul"),
    (lambda a, b: torch.ops.aten.addmm(torch.zeros(6), a[0], b[0]), "addmm"),
    (lambda a, b: torch.ops.aten.mm.default(a[0], b[0]), "mm"),
    (lambda a, b: torch.ops.aten.baddbmm(torch.zeros(1, 4, 6), a, b), "baddbmm"),
    (lambda a, b: torch.ops.aten.linear(a, b[0].T), "linear"),
]


@pytest.mark.parametrize(("call", "op"), PRODUCTS)
def test_products_by_the_names_of_their_operators(call, op):
    class Product(nn.Module):
        def forward(self, a, b):
            return call(a, b)

    q = sqlib.quantize_model(Product(), MinMax(3), [(A, B)])
    assert list(q.report().op) == [op] and q.report().quantized.all()
    found = {key.rpartition(":")[2]: quantizer for key, quantizer in q.activations.items()}
    if op != "linear":
        want = found["left"](A) @ found["right"](B)
        torch.testing.assert_close(q(A, B).reshape(want.shape), want)


@pytest.mark.parametrize(
    ("call", "op"),
    [
        (lambda a, b: torch.cdist(a, b.mT.contiguous(), p=2.0), "_euclidean_dist|_cdist_forward|matmul|mm"),
        (lambda a, b: torch.linalg.matrix_power(a @ b[..., :4], 3), "mm|bmm|matmul"),
        (lambda a, b: torch.mv(a[0], b[0, :, 0]), "mv"),
        (lambda a, b: torch.addr(torch.zeros(5, 5), b[0, :, 0], b[0, :, 1]) @ b, "matmul"),
        (lambda a, b: torch.linalg.multi_dot([a[0], b[0], b[0].T]), "multi_dot"),
        (lambda a, b: torch.inner(a, b.mT), "inner"),
        (lambda a, b: torch.einsum("nij,njk,nkl->nil", a, b, b.mT), "einsum"),
        (lambda a, b: F.bilinear(a[0], a[0], torch.ones(3, 5, 5)), "bilinear"),
        (lambda a, b: torch.conv_tbc(a.transpose(0, 1), torch.ones(1, 5, 3), torch.zeros(3)), "conv_tbc"),
    ],
)
def test_every_product_has_a_row(call, op):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, a, b):
            return call(self.layer(a), b)

    r = sqlib.quantize_model(Product(), MinMax(4), [(A, B)], skip=[]).report()
    assert len(r) >= 2 and r.op[0] == "linear"
    assert set(r.op[1:]) & set(op.split("|")), list(r.op)
    assert r.quantized[0]


@pytest.mark.parametrize(
    "layer",
    [nn.LSTM(6, 4), nn.GRU(6, 4), nn.RNN(6, 4), nn.LSTMCell(6, 4), nn.GRUCell(6, 4), nn.Bilinear(6, 6, 4)],
    ids=lambda m: type(m).__name__,
)
def test_recurrent_and_bilinear_layers_have_one_row(layer):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer = nn.Linear(6, 6), layer

        def forward(self, x):
            x = self.first(x)
            return self.layer(x, x) if isinstance(layer, nn.Bilinear) else self.layer(x)

    r = sqlib.quantize_model(Recurrent(), MinMax(4), [torch.rand(3, 6)], skip=[]).report()
    assert list(r.quantized) == [True, False] and r.module[1] == "layer"


def test_integer_convolutions_of_another_library_have_a_row():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), Net(custom)

        def forward(self, x):
            return self.b(self.a(x))

    r = sqlib.quantize_model(Custom(), MinMax(4), [X], skip=[]).report().set_index("site")
    assert (
        r.rule["b.convolve"] == "not quantized: an operator of another library, whose products cannot be seen"
    )
    assert list(r.quantized) == [True, True, False]


# --- other threads ----------------------------------------------------------------------------------------


class Threaded(nn.Module):
    def __init__(self, run, functional=False):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.run, self.functional = run, functional

    def forward(self, x):
        x = self.a(x)
        work = (
            partial(F.conv2d, weight=self.b.weight, bias=self.b.bias, padding=1)
            if self.functional
            else self.b
        )
        return self.c(torch.relu(self.run(work, x)))


def in_pool(function, x):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, x).result()


POOL = ThreadPoolExecutor(1)


def in_old_pool(function, x):
    return POOL.submit(function, x).result()


def in_thread(function, x):
    found = []
    thread = threading.Thread(target=lambda: found.append(function(x)))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("run", [in_pool, in_old_pool, in_thread])
@pytest.mark.parametrize("functional", [False, True])
def test_other_threads(run, functional):
    net = Threaded(run, functional).eval()
    q = sqlib.quantize_model(net, MinMax(3), [X], skip=[])
    r = q.report().set_index("site")
    row = "outside" if functional else "b"
    assert {"a", "c", row} <= set(r.index) and list(r.index[r.quantized]) == ["a", "c"]
    assert "another thread" in r.rule[row]
    want = sqlib.quantize_model(Threaded(lambda f, x: f(x)).eval(), MinMax(3), [X], skip=["b"])
    with torch.no_grad():
        assert torch.equal(q(X), want(X))


def test_a_layer_of_both_threads():
    class Both(Threaded):
        def forward(self, x):
            return self.run(self.a, self.a(x))

    r = sqlib.quantize_model(Both(in_thread), MinMax(3), [X], skip=[]).report().set_index("site")
    assert r.quantized["a"] and not r.quantized["a.thread"]
    assert r.rule["a.thread"] == "not quantized: called from another thread"


def test_constants_have_no_rows():
    shift = torch.rand(1, 4, 1, 1)

    table = [torch.rand(4, 4, 1, 1)]

    class Constants(Net):
        def forward(self, x):
            self.kept = getattr(self, "kept", torch.full((1, 4, 1, 1), 0.5))
            x = x * shift + self.kept + torch.tensor([[[[0.5]]]]) - torch.ones(1, 4, 1, 1)
            x = x * torch.from_numpy(np.ones((1, 4, 1, 1), np.float32))
            return F.conv2d(super().forward(x), table[0])

    r = sqlib.quantize_model(Constants(QUANTIZED["functional"]), MinMax(4), [X], skip=[]).report()
    assert list(r.op) == ["conv2d"] * 3 and r.quantized.all()


# --- what is compiled -------------------------------------------------------------------------------------


def test_what_cannot_be_copied_is_named():
    net = Threaded(in_pool)
    net.b.pool = ThreadPoolExecutor(1)
    with pytest.raises(InputError, match=r"Threaded cannot be copied.*, in b\.pool; keep such objects out"):
        sqlib.quantize_model(net, MinMax(4), [X])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_modules_are_refused_by_name():
    for wrap in (torch.compile, torch.jit.script, partial(torch.jit.trace, example_inputs=X)):
        net = nn.Sequential(nn.Conv2d(4, 4, 1), wrap(nn.Conv2d(4, 4, 1)))
        with pytest.raises(InputError, match="module '1' is compiled"):
            sqlib.quantize_model(net, MinMax(4), [X])


def test_a_module_that_compiles_itself_in_place_is_quantized():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    want = sqlib.quantize_model(net, MinMax(3), [X], skip=[])
    net.compile(backend="eager")
    q = sqlib.quantize_model(net, MinMax(3), [X], skip=[])
    with torch.no_grad():
        assert q.report().quantized.all() and torch.equal(q(X), want(X))


def test_a_first_pass_leaves_nothing_behind():
    """Else each call costs memory for every tensor of the process, and the next one is slower."""
    network, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)), torch.rand(1, 3, 8, 8)
    bystander = torch.rand(5, 5)

    def traces():
        tensors = [bystander, images, *network.parameters()]
        return [weakref.getweakrefcount(t.untyped_storage()) for t in tensors], len(
            weakref.finalize._registry
        )

    sqlib.quantize_model(network, MinMax(8), [images])
    gc.collect()  # what other tests left goes before the count, not during it
    references, finalizers = traces()
    for _ in range(3):
        sqlib.quantize_model(network, MinMax(8), [images])
    gc.collect()
    after = traces()
    assert after[0] == references
    assert after[1] <= finalizers


@pytest.mark.parametrize("state", ["as usual", "frozen", "off"])
def test_constants_are_no_traces_of_other_threads_whatever_the_garbage_collector_does(state):
    """Servers freeze what they have loaded, or switch the collector off."""
    offset = torch.rand(1, 4, 1, 1)

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.second(self.first(x) + offset)

    network = Constant()
    try:
        if state == "frozen":
            gc.freeze()
        elif state == "off":
            gc.disable()
        report = sqlib.quantize_model(network, MinMax(8), [X], skip=[]).report()
        assert gc.isenabled() == (state != "off")
    finally:
        gc.enable()
    assert set(report.op) == {"conv2d"} and report.quantized.all()
