"""The cost model against printed figures, torch's own counter, and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from toy_banks import NETWORKS, Banked, patches

from sqlib import cost, models, quantize_model
from sqlib.cost import patch_sizes, walk
from sqlib.errors import InputError
from sqlib.evaluate import super_resolve
from sqlib.experiments.papers.published import published_frame
from sqlib.patches import Grid, Tiling, split
from sqlib.quantizers import ByRole
from sqlib.recipes import BRECQ, CompensatedDFSQ, MinMax

IMAGES = {"Urban100": ((1280, 720), 72), "Test2K": ((2048, 1080), 96), "Test4K": ((4096, 2160), 96)}
CHECKED = [("Urban100", "8"), ("Test2K", "4"), ("Test4K", "32")]


def network(name: str, scale: int = 4) -> nn.Module:
    """A registered network without memory for its weights."""
    with torch.device("meta"):
        return models.create(name, scale=scale)


@pytest.mark.parametrize("printed_as", ["SRResNet", "CARN"])
def test_bitops_and_fqr_as_refqsr_prints_them(printed_as):
    frame = published_frame(blanks=False)
    frame = frame[frame["table"].isin(["refqsr-table2", "refqsr-table4"]) & (frame["model"] == printed_as)]
    frame = frame[frame["method"].isin(["FP", "DDTB"]) & frame["metric"].isin(["bitops_g", "fqr"])]
    # each width and each size of image once
    frame = frame[[pair in CHECKED for pair in zip(frame["dataset"], frame["bits"], strict=True)]]
    assert len(frame) == len(CHECKED) * 2
    model = network(printed_as.lower())
    for (dataset, bits), rows in frame.groupby(["dataset", "bits"]):
        size, patch = IMAGES[dataset]
        found = cost.cost(model, size, patch=patch, overlap=6, bits=int(bits))
        printed = rows.set_index("metric")["value"]
        assert found.fqr == printed["fqr"] == int(bits)
        # rounded or cut off at two decimals (1442.416 is printed as 1442.41)
        assert -0.005 <= found.bitops / 1e9 - printed["bitops_g"] < 0.01, (dataset, bits)


def test_whole_4k_image_as_in_refqsr_table_7():
    assert cost.bitops(network("srresnet"), (4096, 2160)) / 1e9 == pytest.approx(1304.60, abs=0.005)
    assert cost.bitops(network("srresnet"), (4096, 2160), bits=8) / 1e9 == pytest.approx(81.54, abs=0.005)


class Mixed(nn.Module):
    """One of every kind of product."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.up = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1)
        self.linear = nn.Linear(6, 10)
        self.weight = nn.Parameter(torch.randn(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.depthwise(self.conv(x)))
        rows = self.linear(x.flatten(2).transpose(1, 2))
        scores = rows @ rows.transpose(1, 2)
        rows = torch.bmm(scores, rows) @ self.weight
        rows = torch.addmm(torch.zeros(4), rows[0], torch.ones(4, 4, device=rows.device).to(rows))[None]
        return torch.einsum("bnc,cd->bnd", rows, self.weight.t()[:, :3].contiguous())


@pytest.mark.parametrize("name", ["edsr-small", "carn-m", "swinir-small", "elan-light", "mixed"])
def test_macs_are_half_of_torchs_flops(name):
    size = (32, 24)
    model = Mixed() if name == "mixed" else models.create(name, scale=2)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        if name == "mixed":
            model.eval()(torch.zeros(1, 3, size[1], size[0]).to(next(model.parameters())))
        else:
            model.eval()(torch.zeros(1, 3, size[1], size[0]))
    macs = sum(p.macs for p in walk(model, size).products if p.kind != "norm")
    assert 2 * macs == counter.get_total_flops() > 0


def test_fused_attention_is_two_products():
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q = x.flatten(2).transpose(1, 2)  # 1 x tokens x 3
            return F.scaled_dot_product_attention(q, q[:, :5], torch.ones(1, 5, 7).to(q))

    products = walk(Attention(), (4, 4)).products
    assert [(p.op, p.macs) for p in products] == [
        ("query @ key", 16 * 5 * 3),
        ("attention @ value", 16 * 5 * 7),
    ]


def test_einsum_with_ellipsis_counts_every_combination_once():
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("...hw, ...vw -> ...hv", x, torch.zeros(1, 5, 6).to(x))

    (product,) = walk(Net(), (6, 4)).products
    assert product.macs == 3 * 4 * 6 * 5


def test_what_cannot_be_counted_is_said():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tensordot(self.conv(x), torch.ones(3, 3).to(x), dims=([1], [0])).permute(0, 3, 1, 2)

    found = cost.cost(Net(), (4, 4), scale=1)
    assert found.uncounted == ("tensordot",) and found.macs == 9 * 16


class Branch(nn.Module):
    """Dark images are cheap."""

    def __init__(self, look) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.look = look

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x)) if self.look(x) else self.conv(x)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: float(x.mean()) > 0.5,
        lambda x: (x * 2).sum() > x.numel(),
        lambda x: len(x[x > 0.5]) > x.numel() / 2,
        lambda x: x.mean((1, 2, 3)).tolist()[0] > 0.5,
        lambda x: x.numpy().mean() > 0.5,
        lambda x: 1 / float(x.mean()) < 2,  # not defined for a black image
    ],
)
def test_a_network_that_looks_at_values_needs_images(look):
    network = Branch(look)
    with pytest.raises(InputError, match=r"Branch looks at values of its input.*images= of cost"):
        cost.cost(network, (8, 6), scale=1)
    with pytest.raises(InputError, match="image= of walk"):
        walk(network, (8, 6))
    dark, bright = torch.full((3, 6, 8), 0.2), torch.full((3, 6, 8), 0.9)
    assert len(walk(network, (8, 6), image=dark[None]).products) == 1
    found = walk(network, (8, 6), image=bright[None])
    assert [p.macs for p in found.products] == [48 * 3 * 27] * 2
    assert found.live_bytes >= 4 * 48 * (3 + 3)
    with pytest.raises(InputError, match=r"image has shape \(3, 6, 8\), expected \(1, C, 6, 8\)"):
        walk(network, (8, 6), image=dark)
    # three images: dark, bright and bright
    counted = cost.cost(network, (8, 6), scale=1, skip=[], bits=4, images=[dark, torch.stack([bright] * 2)])
    assert [layer.macs for layer in counted.layers] == [48 * 81, 48 * 81 * 2 // 3]
    assert counted.bitops == pytest.approx(2 * 48 * 81 * 16 / 1024 * (1 + 2 / 3))


def test_a_branch_on_anything_else_needs_none():
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gain = nn.Conv2d(3, 3, 3, padding=1), nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            x = x + torch.zeros(1)  # on the CPU, where a pass over shapes cannot add it
            return self.conv(x) if float(self.gain) > 0 and x.shape[2] == 6 else x

    assert [p.macs for p in walk(Sized(), (8, 6)).products] == [48 * 81]


def test_live_bytes_are_those_of_the_widest_moment():
    chain = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    # the image, the first convolution's output and its rectified copy
    assert walk(chain, (10, 7)).live_bytes == 70 * (3 + 8 + 8) * 4
    in_place = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1))
    assert walk(in_place, (10, 7)).live_bytes == 70 * (3 + 8 + 4) * 4
    assert walk(chain.half(), (10, 7)).live_bytes == 70 * (3 + 8 + 8) * 2


def test_peak_falls_with_patches_and_packed_weights():
    model = network("edsr-small")
    whole = cost.cost(model, (512, 256))
    patched = cost.cost(model, (512, 256), patch=32, overlap=4)
    packed = cost.cost(model, (512, 256), bits=4)
    assert patched.peak_bytes < whole.peak_bytes and patched.macs > whole.macs
    assert whole.peak_bytes - packed.peak_bytes == whole.packed_bytes - packed.packed_bytes > 0


@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)), st.integers(1, 64), st.integers(0, 63), st.booleans()
)
def test_patches_cover_the_image(size, patch, overlap, whole):
    patch, overlap = min(patch, *size), overlap % min(patch, *size)
    if whole:
        assert patch_sizes(size, None) == {size: 1}
        return
    found = patch_sizes(size, patch, overlap)
    # by walking along the sides as CADyQ's release does
    counts = []
    for length in size:
        start, sides = 0, []
        while start + patch <= length:
            last = start + (patch - overlap) + patch > length
            sides.append(length - start if last else patch)
            start += patch - overlap
        counts.append(sides)
        assert sum(sides) == length + overlap * (len(sides) - 1)
    assert sum(found.values()) == len(counts[0]) * len(counts[1])
    area = sum(n * w * h for (w, h), n in found.items())
    assert area == sum(counts[0]) * sum(counts[1])


def test_numbers_of_bits_reach_the_sites_that_are_quantized():
    model = network("edsr-small")
    found = cost.cost(model, (64, 64), bits=(8, 4))
    frame = found.frame().set_index("site")
    assert frame.loc["blocks.0.conv1", ["left_bits", "right_bits"]].tolist() == [4, 8]
    assert frame.loc["head", ["left_bits", "right_bits"]].tolist() == [32, 32]
    body = frame[frame["quantized"]]
    assert set(body.index) == {f"blocks.{i}.conv{k}" for i in range(8) for k in (1, 2)}
    assert found.bitops == body["bitops"].sum() == 2 * body["macs"].sum() * 4 * 8 / 1024
    assert found.fqr == 4
    both = cost.cost(model, (64, 64), bits=(8, 4), layers="all")
    assert both.bitops == frame["bitops"].sum() > found.bitops
    assert cost.bitops(model, (64, 64), bits=(8, 4)) == found.bitops
    everything = cost.cost(model, (64, 64), bits=4, skip=[])
    assert everything.frame()["quantized"].all()


def test_bits_by_pattern_take_the_first_that_fits():
    model = network("edsr-small")
    plan = {"blocks.0": 8, "blocks.*.conv2": (6, 3), "*": 4}
    frame = cost.cost(model, (64, 64), bits=plan).frame().set_index("site")
    widths = {site: tuple(row) for site, row in frame[["right_bits", "left_bits"]].iterrows()}
    assert widths["blocks.0.conv2"] == (8, 8) and widths["blocks.1.conv2"] == (6, 3)
    assert widths["blocks.1.conv1"] == (4, 4) and widths["tail"] == (32, 32)
    partly = cost.cost(model, (64, 64), bits={"blocks.0": 8}).frame()
    assert (partly["right_bits"] == 8).sum() == 2
    with pytest.raises(InputError, match="'block0' matches none"):
        cost.cost(model, (64, 64), bits={"block0": 8})


def test_packed_bytes_by_hand():
    found = cost.cost(network("edsr-small"), (64, 64), bits=4)
    weights = 16 * 32 * 32 * 9
    assert found.packed_bytes == weights // 2 + (found.params - weights) * 4
    assert found.quantizer_bytes == 0
    stored = found.storage().set_index("name")
    assert stored.loc["blocks.0.conv1.weight", ["bits", "bytes"]].tolist() == [4, 32 * 32 * 9 // 2]
    assert stored["bytes"].sum() == found.packed_bytes and stored["numel"].sum() == found.params


def test_parts_of_a_packed_weight_share_its_storage():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(9, 3))

        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(2).transpose(1, 2)
            a, b, c = self.weight.chunk(3)
            return F.linear(rows, a) + F.linear(rows, b) + rows @ c.t()

    found = cost.cost(Packed(), (4, 4), scale=1, bits=4, skip=["matmul"])
    assert found.packed_bytes == 18 // 2 + 9 * 4
    assert cost.cost(Packed(), (4, 4), scale=1, bits=4, skip=[]).packed_bytes == 14  # 27 half bytes


@pytest.mark.parametrize("name", ["edsr-small", "swinir-small"])
def test_a_quantized_model_counts_with_its_own_bits(name):
    model = models.create(name, scale=2)
    calibration = [torch.rand(1, 3, 16, 16)]
    quantized = quantize_model(model, MinMax(bits=(6, 3)), calibration)
    found = cost.cost(quantized, (64, 48))
    planned = cost.cost(model, (64, 48), bits=(6, 3))
    assert found.layers == planned.layers and found.bitops == planned.bitops and found.fqr == 3
    assert found.packed_bytes == planned.packed_bytes and found.quantizer_bytes > 0
    other = cost.cost(quantize_model(model, MinMax(bits=(6, 3)), calibration, skip=["*conv*"]), (64, 48))
    assert other.bitops != found.bitops
    # the same again, and the model still computes
    assert cost.cost(quantized, (64, 48)) == found
    with torch.no_grad():
        assert quantized(torch.rand(1, 3, 24, 32)).shape == (1, 3, 48, 64)


@pytest.mark.parametrize("recipe", [CompensatedDFSQ(4), BRECQ(4, schedule="laptop", iterations=1)])
def test_stored_codes_are_the_packed_weight_and_nothing_beside_it(recipe):
    """Bounds and points: what a file of 4-bit codes needs beside them, and what MinMax needs, too."""
    model = models.create("edsr-small", scale=2)
    calibration = [torch.rand(1, 3, 12, 12)]
    quantized = quantize_model(model, recipe, calibration)
    found = cost.cost(quantized, (64, 48))
    layers = [s for s in quantized.sites.values() if s.active]
    bounds = sum(2 * s.weight_shape[0] for s in layers)  # lower and upper of every output channel
    points = isinstance(recipe, CompensatedDFSQ)
    inputs = sum(16 * s.weight_shape[1] if points else 2 for s in layers)
    assert found.quantizer_bytes == 4 * (bounds + inputs)
    plain = cost.cost(quantize_model(model, MinMax(4), calibration), (64, 48))
    assert found.packed_bytes == plain.packed_bytes


def test_matrix_products_have_two_activations():
    frame = cost.cost(network("swinir-small"), (64, 64), bits=(8, 4)).frame()
    products = frame[frame["kind"] == "matmul"]
    assert len(products) == 2 * 4 and (products[["left_bits", "right_bits"]] == 4).all(axis=None)


def test_walking_changes_nothing():
    model = models.create("swinir-small", scale=2).train()
    x = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        before = model(x)
    hooks = [len(m._forward_hooks) for m in model.modules()]
    cost.cost(model, (80, 48))
    assert model.training and [len(m._forward_hooks) for m in model.modules()] == hooks
    assert all(p.device.type == "cpu" and p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert torch.equal(model(x), before)


def test_weights_shared_by_several_calls_are_stored_once():
    model = network("carn-m")
    found = cost.cost(model, (64, 64), bits=4)
    assert found.storage()["numel"].sum() == found.params == models.count_parameters(model)
    body = [layer for layer in found.layers if layer.site.startswith("body.stages.0.stages.0.conv1")]
    assert len(body) == 3  # one block, applied three times


def test_operations_of_2dquant_and_the_slips_of_its_source():
    found = {bits: cost.cost(network("swinir-light"), (512, 512), bits=bits) for bits in (32, 2)}
    true = cost.operations(found[32])
    released = cost.operations(found[32], counting="swinir-release")
    assert true.loc["Conv", "ops"] == 189_540 * 128 * 128
    assert released.loc["Conv", "ops"] == 142_020 * 128 * 128
    assert true.loc["Linear&BMM", "ops"] == released.loc["Linear&BMM", "ops"] == 875_520 * 128 * 128
    assert true["percent"].iloc[:3].sum() == pytest.approx(100) == true["percent"].iloc[3]
    # linear in the bits; the paper's abstract has 5.08 times fewer operations and 3.60 times fewer bytes at 2
    totals = {b: cost.operations(c, counting="swinir-release").loc["Total", "ops"] for b, c in found.items()}
    assert round(totals[32] / totals[2], 2) == 5.08
    tables = "relative_position_bias"
    sizes = {b: sum(t.bytes for t in c.stored if not t.name.endswith(tables)) for b, c in found.items()}
    assert round(sizes[32] / sizes[2], 2) == 3.60


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        ((510, 512), {}, "510x512 .* does not divide by the scale 4; 508x512 does"),
        ((3, 512), {}, "does not divide by the scale 4$"),
        ((0, 512), {}, "image_size="),
        ((512,), {}, "expected \\(width, height\\)"),
        ("512x512", {}, "expected \\(width, height\\)"),
        ((512.0, 512), {}, "image_size="),
        ((512, 512), {"patch": 129}, "patch=129 is larger than the low-resolution image of 128x128"),
        ((512, 512), {"patch": 0}, "patch=0"),
        ((512, 512), {"patch": 32, "overlap": 32}, "less than the patch"),
        ((512, 512), {"patch": 32, "overlap": -1}, "overlap=-1"),
        ((512, 512), {"overlap": 6}, "without a patch"),
        ((512, 512), {"bits": 0}, "bits=0"),
        ((512, 512), {"bits": 17}, "bits=17"),
        ((512, 512), {"bits": (4, 4, 4)}, "a pair"),
        ((512, 512), {"bits": 4.0}, "float"),
        ((512, 512), {"skip": ["nothing*"]}, "matches none"),
        ((512, 512), {"layers": "tail"}, "'body' or 'all'"),
        ((512, 512), {"scale": 2}, "the model is for x4"),
        ((512, 512), {"channels": 4}, "does not run on an input of shape \\(1, 4, 128, 128\\)"),
    ],
)
def test_bad_input(size, options, words):
    with pytest.raises(InputError, match=words):
        cost.cost(network("edsr-small"), size, **options)


def test_bad_models():
    with pytest.raises(InputError, match="pass scale="):
        cost.cost(Plain(), (64, 64))
    assert cost.cost(Plain(), (64, 64), scale=2).macs == 32 * 32 * 81
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        cost.cost("edsr-small", (64, 64))
    quantized = quantize_model(Plain(), MinMax(bits=4), [torch.rand(1, 3, 8, 8)], skip=[])
    with pytest.raises(InputError, match="leave bits= and skip= out"):
        cost.cost(quantized, (64, 64), scale=2, bits=4)
    found = cost.cost(network("edsr-small"), (64, 64))
    with pytest.raises(InputError, match="is for SwinIR, the network is EDSR"):
        cost.operations(found, counting="swinir-release")
    with pytest.raises(InputError, match="expected one of exact"):
        cost.operations(found, counting="theirs")


class Ladder(nn.Module):
    """Two convolutions between the first and the last, without change of scale."""

    scale = 1

    def __init__(self) -> None:
        super().__init__()
        self.head, self.a = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3, padding=1)
        self.b, self.tail = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.b(self.a(self.head(x))))


MACS = {"a": 2 * 2 * 9, "b": 2 * 4}  # of a pixel
ROLES = {"low": 4, "middle": 6, "high": 8}


def by_role(**options):
    torch.manual_seed(0)
    model = Ladder().eval()
    banked = Banked(selector=lambda edges: ByRole(ROLES), **options)
    return quantize_model(model, banked, [torch.rand(4, 3, 8, 8)])


def test_bits_of_a_mixed_batch_by_hand():
    model = by_role()
    x = torch.rand(4, 3, 8, 8)
    with torch.no_grad(), model.context(roles=["low", "high", "high", "middle"]) as context:
        model(x)
    found = cost.cost(model, (8, 8), context=context)
    mean = (4 + 8 + 8 + 6) / 4
    assert found.fqr == mean == 6.5
    assert found.bitops == 2 * 64 * (MACS["a"] + MACS["b"]) * 8 * mean / 1024
    frame = found.frame().set_index("site")
    assert frame.loc["a", ["left_bits", "right_bits", "macs"]].tolist() == [6.5, 8, 64 * MACS["a"]]
    assert frame.loc["head", ["left_bits", "right_bits"]].tolist() == [32, 32]
    assert frame["bitops"].sum() == cost.bitops(model, (8, 8), context=context, layers="all")
    # two passes, of three samples and of one
    with torch.no_grad(), model.passes(roles="low") as passes:
        model(x[:3])
    with torch.no_grad(), model.context(roles="high") as more:
        model(x[3:])
    assert cost.cost(model, (8, 8), context=[*passes, more]).fqr == (3 * 4 + 8) / 4


def test_weights_and_activations_multiply_sample_by_sample():
    """Mean of products, not product of means: 4 x 4 and 8 x 8 are not 6 x 6."""
    model = by_role(weights=lambda: ByRole(ROLES))
    with torch.no_grad(), model.passes() as none:
        pass
    passes = []
    for role in ("low", "high"):
        with torch.no_grad(), model.context(roles=role) as context:
            model(torch.rand(2, 3, 8, 8))
        passes.append(context)
    found = cost.cost(model, (8, 8), context=passes)
    assert found.fqr == 6 and found.bitops == 2 * 64 * (MACS["a"] + MACS["b"]) * (16 + 64) / 2 / 1024
    # a weight is stored at 4, 6 and 8 bits
    sizes = found.storage().set_index("name")["bits"]
    assert sizes["a.weight"] == 18 and sizes["head.weight"] == 32
    with pytest.raises(InputError, match="has seen no pass"):
        cost.cost(model, (8, 8), context=none)


def test_patches_of_each_size_cost_what_they_used():
    """14 x 8 pixels in patches of 6: two of 6 x 8 and one of 2 more columns."""
    model = by_role()
    assert patch_sizes((14, 8), 6, 0) == {(6, 8): 1, (8, 8): 1}
    with torch.no_grad(), model.passes(roles="low") as small:
        model(torch.rand(3, 3, 8, 6))
    with torch.no_grad(), model.context(roles="high") as large:
        model(torch.rand(1, 3, 8, 8))
    found = cost.cost(model, (14, 8), patch=6, context=[*small, large])
    per_pixel = 2 * (MACS["a"] + MACS["b"]) * 8 / 1024
    assert found.bitops == per_pixel * (48 * 4 + 64 * 8) and found.fqr == 6
    # no pass had this size: all samples count
    assert cost.cost(model, (10, 10), context=[*small, large]).fqr == (3 * 4 + 8) / 4


@pytest.mark.parametrize("network", ["cnn", "swin"])
def test_images_cost_what_their_patches_use_one_by_one(network):
    images = patches(3, 20)
    model = quantize_model(NETWORKS[network](), Banked(), [patches()])
    found = cost.cost(model, (40, 40), patch=8, overlap=2, images=images)
    total, ratios = 0.0, []
    for image in images.split(1):
        for piece in split(image, Grid(20, 20, 8, 2)):
            with torch.no_grad(), model.context() as context:
                model(piece)
            used = {key: int(bits) for key, bits in context.operands.items()}
            for p in walk(model.network, (piece.shape[3], piece.shape[2])).products:
                if p.kind != "norm" and model.sites[p.site].active:
                    total += 2 * p.macs * used[p.site, p.left] * used[p.site, p.right] / 1024
            active = [
                bits
                for (site, role), bits in used.items()
                if model.sites[site].active and role != model.sites[site].weight_role
            ]
            ratios.append(sum(active) / len(active))
    assert found.bitops == pytest.approx(total / 3, rel=1e-12)
    assert found.fqr == pytest.approx(sum(ratios) / len(ratios), rel=1e-12)
    assert 4 < found.fqr < 8 and found.patches == len(ratios) / 3
    assert cost.cost(model, (40, 40), patch=8, overlap=2, images=iter(images)) == found


def test_what_an_upscaled_image_used_is_what_it_costs():
    """Patches of four sizes, in batches as evaluation makes them."""
    noise = np.random.default_rng(0).uniform(-128, 127, (22, 29, 3))
    lr = (128 + noise * np.linspace(0.02, 1, 29)[:, None]).astype(np.uint8)
    model = quantize_model(NETWORKS["cnn"](), Banked(), [patches()])
    with model.passes() as passes:
        super_resolve(model, lr, tiling=Tiling(8, 2))
    assert len(passes) == 4 and sum(c.samples for c in passes) == 3 * 4
    found = cost.cost(model, (58, 44), patch=8, overlap=2, context=passes)
    again = cost.cost(model, (58, 44), patch=8, overlap=2, images=torch.tensor(lr).permute(2, 0, 1) / 255)
    assert (found.bitops, found.fqr) == (again.bitops, again.fqr) and 4 < found.fqr < 7.8
    assert found.macs == cost.cost(model.network, (58, 44), patch=8, overlap=2).macs


def test_a_context_of_static_bits_changes_nothing():
    model = quantize_model(models.create("edsr-small", scale=2), MinMax((6, 3)), [torch.rand(1, 3, 16, 16)])
    with torch.no_grad(), model.context() as context:
        model(torch.rand(2, 3, 8, 8))
    found, plain = cost.cost(model, (64, 48), context=context), cost.cost(model, (64, 48))
    assert (found.layers, found.bitops, found.fqr) == (plain.layers, plain.bitops, 3)
    assert cost.cost(model, (64, 48), images=torch.rand(1, 3, 24, 32)) == plain


def test_bits_that_depend_on_the_image_are_not_guessed():
    model = by_role()
    with pytest.raises(InputError, match=r"depend on what the network .*first at 'a:input': 4/6/8\)"):
        cost.cost(model, (8, 8))
    with pytest.raises(InputError, match=r"give images=.*or context=.*quantized\.passes"):
        cost.bitops(model, (8, 8))
    with pytest.raises(InputError, match="samples without a role"):
        cost.cost(model, (8, 8), images=torch.rand(1, 3, 8, 8))
    with torch.no_grad(), model.context(roles="low") as context:
        model(torch.rand(1, 3, 8, 8))
    with pytest.raises(InputError, match="context= takes what"):
        cost.cost(model, (8, 8), context="passes")
    with pytest.raises(InputError, match="context= takes what"):
        cost.cost(model, (8, 8), context=8)
    with pytest.raises(InputError, match="for the quantized model"):
        cost.cost(model.network, (8, 8), scale=1, context=context)
    with pytest.raises(InputError, match="never reached the call site"):
        other = quantize_model(models.create("edsr-small", scale=2), MinMax(4), [torch.rand(1, 3, 8, 8)])
        cost.cost(other, (16, 16), context=context)
    with pytest.raises(InputError, match="in training mode"):
        cost.cost(by_role().train(), (8, 8), images=torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "images is empty"),
        (torch.rand(1, 3, 8, 9), r"number 0 has 9x8 pixels \(width x height\), expected .* 8x8"),
        ([torch.rand(3, 8, 8), torch.rand(3, 16, 16)], "number 1 has 16x16"),
        (torch.rand(8, 8), r"images has a Tensor \(8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "expected floating-point tensors"),
        (8, "images has a int"),
        (["image.png"], r"images has a str \(\)"),
    ],
)
def test_images_that_are_refused(images, words):
    with pytest.raises(InputError, match=words):
        cost.cost(by_role(), (8, 8), images=images)
