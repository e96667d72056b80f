"""What a pass used, sample by sample: against each sample alone, in every way to run a network."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from toy_banks import NETWORKS, WIDTHS, Banked, ByVariance, Learned, cnn, patches

import sqlib
from sqlib.engine import Context
from sqlib.errors import InputError
from sqlib.quantizers import ByRole, StaticBits
from sqlib.recipes import MinMax

X = patches()
BODY = "blocks.0.conv1"


def quantized(network=None, **options):
    return sqlib.quantize_model(network or cnn(), Banked(**options), [X])


def used(model, x=X, **options):
    """The output and the context of one pass."""
    with torch.no_grad(), model.context(**options) as context:
        return model(x), context


class Kept:
    """Operands and results of every bank in one pass."""

    def __init__(self, model):
        self.seen = []
        for key, bank in model.activations.items():
            hook = lambda m, args, out, key=key: self.seen.append((key, m, args, out.clone()))  # noqa: E731
            bank.register_forward_hook(hook)


@pytest.mark.parametrize("selector", [ByVariance, Learned])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_uses_what_each_sample_uses_alone(name, selector):
    """Bits of every operand, and values in float64, where the order of sums decides no level."""
    model = quantized(NETWORKS[name](), selector=selector).double()
    x = X.double()
    y, context = used(model, x)
    mixed = [key for key, widths in context.operands.items() if len(set(widths.tolist())) > 1]
    assert len(mixed) >= 4 and {w for key in mixed for w in context.operands[key].tolist()} <= set(WIDTHS)
    for n in range(len(x)):
        alone, single = used(model, x[n : n + 1])
        assert {key: widths[n].item() for key, widths in context.operands.items()} == {
            key: widths.item() for key, widths in single.operands.items()
        }
        torch.testing.assert_close(y[n], alone[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operand_is_quantized_sample_by_sample(name):
    """Bit for bit: each sample's block of windows by the quantizer of its width."""
    model = quantized(NETWORKS[name]())
    kept = Kept(model)
    _, context = used(model)
    assert len(kept.seen) == len(model.activations)
    blocks = set()
    for key, bank, (x, _choice), out in kept.seen:
        widths = context.operands[tuple(key.replace("/", ".").split(":"))].tolist()
        block = len(x) // len(X)
        blocks.add(block)
        for n, width in enumerate(widths):
            part = slice(n * block, (n + 1) * block)
            assert torch.equal(out[part], bank.at(width)(x[part]))
    assert blocks == ({1} if name == "cnn" else {9, 1})  # windows of 4 x 4 in 12 x 12, and whole maps


def test_full_precision_and_static_sites_are_there_too():
    model = sqlib.quantize_model(cnn(), MinMax((8, 3)), [X])
    _, context = used(model)
    assert list(context.bits) == list(model.sites)
    assert context.bits[BODY].tolist() == [3] * 6 and context.weight_bits[BODY].tolist() == [8] * 6
    assert context.bits["head"].tolist() == context.weight_bits["head"].tolist() == [32] * 6
    assert context.bits[BODY].dtype == torch.int64
    assert (context.samples, context.size) == (6, (12, 12)) and torch.equal(context.args[0], X)
    _, one_side = used(sqlib.quantize_model(cnn(), MinMax((8, 32)), [X]))
    assert one_side.bits[BODY].tolist() == [32] * 6 and one_side.weight_bits[BODY].tolist() == [8] * 6


def test_products_of_activations_have_the_wider_operand_and_no_weight():
    model = quantized(NETWORKS["swin"]())
    _, context = used(model)
    site = "groups.0.layers.0.attn.matmul#1"
    left, right = context.operands[site, "left"], context.operands[site, "right"]
    assert context.bits[site].tolist() == torch.maximum(left, right).tolist()
    assert left.tolist() != right.tolist() and site not in context.weight_bits


def test_roles_choose_bits_of_activations_and_weights():
    selectors = {"selector": lambda edges: ByRole({"reference": 8, "query": 4}, default=6)}
    roles = ["reference", "query", None, "query", "reference", "reference"]
    _, context = used(quantized(**selectors), roles=roles)
    assert context.bits[BODY].tolist() == [8, 4, 6, 4, 8, 8] and context.roles == tuple(roles)
    model = quantized(**selectors, weights=lambda: ByRole({"reference": 8, "query": 6}, default=4))
    for role, width in (("reference", 8), ("query", 6), (None, 4), ("query", 6)):
        y, context = used(model, roles=role)
        assert context.weight_bits[BODY].tolist() == [width] * 6
        bank = model.weight_quantizer("blocks.0.conv1.weight|0")
        (fake,) = (t for key, (_, t) in model._cache._found.items() if key == (f"{BODY}.weight|0", width))
        assert torch.equal(fake, bank.at(width)(model.network.blocks[0].conv1.weight))
    assert len(model._cache._found) == 3 * len(model.weights)
    model.refresh()
    assert torch.equal(used(model, roles="query")[0], y)
    with pytest.raises(
        InputError, match=r"call site 'blocks\.0\.conv1' \(conv2d, weight\): .*in a pass of thei"
    ):
        used(model, roles=roles)


def test_a_weight_of_many_bits_is_never_stale():
    model = quantized(weights=lambda: ByRole({"a": 8, "b": 4}))
    weight = model.network.blocks[0].conv1.weight
    for _ in range(2):
        for role in "abab":
            fresh = copy.deepcopy(model)
            assert torch.equal(used(model, roles=role)[0], used(fresh, roles=role)[0])
        weight.data.mul_(0.5)


@pytest.mark.parametrize(
    ("roles", "message"),
    [(["a", "b"], "2 roles for a batch of 6 samples"), (3, "roles="), (["a", 1], "roles=")],
)
def test_bad_roles(roles, message):
    model = quantized()
    with pytest.raises(InputError, match=message):
        used(model, roles=roles)
    with pytest.raises(InputError, match=message), model.passes(roles=roles):
        model(X)


def test_a_context_is_of_one_pass_and_passes_are_of_many():
    model = quantized()
    with torch.no_grad(), model.context(data={"edges": 1}) as context:
        model(X)
        first = context.bits[BODY].tolist()
        with pytest.raises(InputError, match=r"belongs to one pass.*quantized\.passes\(\)"):
            model(X)
    assert context.data == {"edges": 1}
    model(X)
    assert context.bits[BODY].tolist() == first
    with torch.no_grad(), model.passes(roles="query", data={"k": 0}) as passes:
        for part in X.split(4):
            model(part)
    assert [c.samples for c in passes] == [4, 2] and passes[1].roles == ("query", "query")
    assert torch.cat([c.bits[BODY] for c in passes]).tolist() == first
    assert passes[0].data is not passes[1].data


def test_the_inner_of_two_blocks_and_only_its_own_model():
    model, teacher = quantized(), quantized(selector=lambda edges: StaticBits(6))
    twin = copy.deepcopy(model)
    with torch.no_grad(), model.context() as outer:
        teacher(X), twin(X)
        assert not outer.bits
        with model.context() as inner:
            model(X)
        assert inner.bits and not outer.bits
        model(X)
    assert outer.bits[BODY].tolist() == inner.bits[BODY].tolist()


def test_threads_have_their_own():
    model = quantized(
        selector=lambda edges: ByRole({"a": 4, "b": 8}), weights=lambda: ByRole({"a": 6, "b": 8})
    )
    inputs = {"a": patches(seed=1), "b": patches(4, seed=2)}
    want = {role: used(model, x, roles=role)[0] for role, x in inputs.items()}
    wrong, start = [], threading.Barrier(2)

    def work(role):
        start.wait()
        for _ in range(20):
            y, context = used(model, inputs[role], roles=role)
            bits = {*context.bits[BODY].tolist()}, {*context.weight_bits[BODY].tolist()}
            if not torch.equal(y, want[role]) or (bits != ({4}, {6}) and bits != ({8}, {8})):
                wrong.append((role, bits))
            if (bits[0] == {4}) != (role == "a") or context.samples != len(inputs[role]):
                wrong.append((role, bits))

    threads = [threading.Thread(target=work, args=(role,)) for role in inputs]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


def test_gradients_reach_the_selectors_that_take_part():
    model = quantized(selector=Learned)
    for bank in model.activations.values():
        bank.learnable()
    model.train()
    plain = used(model)[0]
    with model.context() as context:
        y = model(X)
    assert torch.equal(y.detach(), plain)
    bits = torch.tensor(WIDTHS, dtype=torch.float32)
    expected = sum((shares @ bits).mean() for shares in context.data["shares"].values())
    ((y - 1).square().mean() + 1e-3 * expected).backward()
    for name, bank in model.activations.items():
        grads = [p.grad for p in bank.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in grads), name
        assert any((g != 0).any() for g in (p.grad for p in bank.selector.parameters())), name
    assert set(context.data["shares"]) == {s.name for s in model.sites.values() if s.active}
    assert context.bits[BODY].tolist() == [WIDTHS[k] for k in context.data["shares"][BODY].argmax(1)]


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = cnn(), reentrant

    def forward(self, x):
        h = self.net.head(x)
        for block in self.net.blocks:
            if self.reentrant is None:
                h = block(h)
            else:
                h = checkpoint(block, h, use_reentrant=self.reentrant)
        return self.net.tail(self.net.upsampler(h))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_bits_and_gradients(reentrant):
    found = {}
    for how in (None, reentrant):
        model = quantized(Checkpointed(how), selector=Learned, weights=lambda: ByRole({"q": 6}))
        with model.context(roles="q") as context:
            y = model(X)
        before = {site: bits.tolist() for site, bits in context.bits.items()}
        y.square().mean().backward()
        assert {site: bits.tolist() for site, bits in context.bits.items()} == before
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found[how] = y.detach(), before, grads
    (y, bits, grads), (y2, bits2, grads2) = found.values()
    assert torch.equal(y, y2) and bits == bits2 and grads.keys() == grads2.keys()
    assert any("selector" in name for name in grads)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, grads2[name], rtol=1e-5, atol=1e-8)


def test_every_mode_gives_the_same():
    model = quantized()
    y, context = used(model)
    want = {site: bits.tolist() for site, bits in context.bits.items()}
    for mode in (torch.inference_mode, torch.enable_grad):
        with mode(), model.context() as other:
            assert torch.equal(model(X).detach(), y)
        assert {site: bits.tolist() for site, bits in other.bits.items()} == want
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        found, other = used(twin)
        assert torch.equal(found, y)
    for again in (copy.deepcopy(context), pickle.loads(pickle.dumps(context))):
        assert {site: bits.tolist() for site, bits in again.bits.items()} == want
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), model.context() as other:
        model(X)
    assert other.bits.keys() == want.keys() and set(other.bits[BODY].tolist()) <= set(WIDTHS)
    moved, other = used(model.to(torch.bfloat16), X.bfloat16())
    assert moved.dtype == torch.bfloat16 and set(other.bits[BODY].tolist()) <= set(WIDTHS)


def test_other_inputs_than_one_batch_of_images():
    context = Context("a")
    context.begin((torch.zeros(5, 7),), {})
    assert (context.samples, context.size, context.roles) == (5, None, ("a",) * 5)
    context.begin(("text",), {"images": [torch.zeros(2, 3, 4, 6)], "scale": torch.tensor(2.0)})
    assert (context.samples, context.size) == (2, (6, 4))
    context.begin((), {})
    assert context.samples == 1


def test_samples_that_cannot_be_told_apart():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(4, 2)

        def forward(self, x):
            rows = x.flatten(2).permute(2, 0, 1)  # (length, samples, features)
            return self.attn(rows, rows, rows)[0]

    x = patches(6, 4)[:, :1].expand(-1, 4, -1, -1)
    model = sqlib.quantize_model(Attention(), Banked(), [x], skip=[])
    with pytest.raises(InputError, match=r"call site 'attn\.linear.* sequences of all samples at once"):
        used(model, x)
    for n in range(6):
        used(model, x[n : n + 1])

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x[1:])

    model = sqlib.quantize_model(Sum(), Banked(selector=lambda edges: ByRole({"a": 4, "b": 8})), [X], skip=[])
    with pytest.raises(InputError, match=r"call site 'conv' .*shape \(5, 3, 12, 12\).*over 6 samples"):
        used(model, roles=list("ababab"))
    assert used(model, roles="a")[1].bits["conv"].tolist() == [4] * 6


def test_report_shows_all_widths_and_stays_numeric_where_static():
    frame = quantized(weights=lambda: StaticBits(6)).report().set_index("site")
    assert frame.loc[BODY, ["weight_bits", "activation_bits", "weight_per"]].tolist() == ["4/6/8"] * 2 + [
        "channel"
    ]
    assert frame.loc["head", ["weight_bits", "activation_bits"]].tolist() == [32, 32]
    four = sqlib.quantize_model(cnn(), MinMax(4), [X]).report().set_index("site")
    assert frame.loc[BODY, "weight_sqnr_db"] == four.loc[BODY, "weight_sqnr_db"]
    assert four["activation_bits"].dtype == four["weight_bits"].dtype == "int64"


def test_a_weight_takes_no_shares():
    class Share(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(3))

        def forward(self, x, site, context):
            return self.logits.softmax(0).expand(context.samples, 3)

    model = quantized(weights=Share)
    with pytest.raises(InputError, match="expected one width and no shares"):
        model(X)


def test_states_of_banks_go_between_models():
    first, second = quantized(selector=Learned), quantized(cnn(1), selector=Learned)
    want = used(second)
    assert not torch.equal(used(first)[0], want[0])
    first.load_state_dict(second.state_dict())
    found = used(first)
    assert torch.equal(found[0], want[0])
    static = sqlib.quantize_model(cnn(), MinMax(8), [X])
    with pytest.raises(RuntimeError, match=r"activations\.blocks\.0\.conv1:input: the state was saved"):
        static.load_state_dict(first.state_dict())
