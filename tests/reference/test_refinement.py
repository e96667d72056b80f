"""RefER against a slow direct implementation, its gradients, and what it must do with special features."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sqlib
import sqlib.cost
from sqlib.errors import InputError
from sqlib.reference.refinement import CostVolume, RefER, flow, preprocess, warp

PAIRS = [((7, 10), (9, 6)), ((6, 9), (6, 9)), ((5, 4), (8, 13)), ((1, 1), (4, 7)), ((3, 8), (1, 2))]


def features(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def block(channels: int = 4, **options) -> RefER:
    """A RefER in float64 whose second convolution does something."""
    torch.manual_seed(0)
    made = RefER(channels, **options).double()
    nn.init.normal_(made.conv2.weight, std=0.1)
    return made


# --- a direct implementation: loops over positions, NumPy in float64 -----------------------------


def window(k: int, n: int, size: int) -> range:
    """Pixels of the k-th of n windows of adaptive average pooling."""
    return range(k * size // n, -(-(k + 1) * size // n))


def slow_unit(x: np.ndarray) -> np.ndarray:
    unit = np.zeros_like(x)
    for v, u in itertools.product(range(x.shape[1]), range(x.shape[2])):
        norm = math.sqrt(sum(x[c, v, u] ** 2 for c in range(len(x))))
        unit[:, v, u] = x[:, v, u] / norm if norm else 0
    return unit


def slow_preprocess(x: np.ndarray, pool: int, norm: str) -> np.ndarray:
    channels, height, width = x.shape
    unit = slow_unit(x) if norm == "position" else x / math.sqrt(float((x**2).sum()))
    rows, columns = math.ceil(height / pool), math.ceil(width / pool)
    pooled = np.zeros((channels, rows, columns))
    for r, k in itertools.product(range(rows), range(columns)):
        cells = [unit[:, v, u] for v in window(r, rows, height) for u in window(k, columns, width)]
        pooled[:, r, k] = sum(cells) / len(cells)
    return pooled


def bilinear(image: np.ndarray, y: float, x: float) -> float:
    """Value at a position in pixels; outside, of the nearest border position."""
    height, width = image.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    below, beside = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[top, left] * (1 - (x - left)) + image[top, beside] * (x - left)
    lower = image[below, left] * (1 - (x - left)) + image[below, beside] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def slow_flow(made: RefER, query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    (_, h, w), (_, big_h, big_w) = query.shape, reference.shape
    temperature = made.temperature if made.training else None
    q, r = query, reference
    if made.preprocess:
        q, r = (slow_preprocess(x, made.pool, made.norm) for x in (query, reference))
    if made.renormalize:
        q, r = slow_unit(q), slow_unit(r)
    rows, columns = q.shape[1:]
    coarse = np.zeros((2, rows, columns))
    for i, j in itertools.product(range(rows), range(columns)):
        entries = {
            (k, m): sum(q[c, i, j] * r[c, k, m] for c in range(len(q)))
            for k, m in itertools.product(range(r.shape[1]), range(r.shape[2]))
        }
        top = max(entries.values())
        if temperature is None:
            shares = {next(place for place, e in entries.items() if e == top): 1.0}
        else:
            raw = {place: math.exp(temperature * (e - top)) for place, e in entries.items()}
            shares = {place: e / sum(raw.values()) for place, e in raw.items()}
        x = sum(e * ((m + 0.5) * big_w / r.shape[2] - 0.5) for (_, m), e in shares.items())
        y = sum(e * ((k + 0.5) * big_h / r.shape[1] - 0.5) for (k, _), e in shares.items())
        coarse[:, i, j] = x - ((j + 0.5) * w / columns - 0.5), y - ((i + 0.5) * h / rows - 0.5)
    full = np.zeros((2, h, w))
    for d, v, u in itertools.product(range(2), range(h), range(w)):
        full[d, v, u] = bilinear(coarse[d], (v + 0.5) * rows / h - 0.5, (u + 0.5) * columns / w - 0.5)
    return full


def slow_warp(x: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    _, h, w = displacement.shape
    out = np.zeros((len(x), h, w))
    for c, v, u in itertools.product(range(len(x)), range(h), range(w)):
        out[c, v, u] = bilinear(x[c], v + displacement[1, v, u], u + displacement[0, v, u])
    return out


def slow_conv(x: np.ndarray, conv: nn.Conv2d) -> np.ndarray:
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), *x.shape[1:]))
    for c, v, u in itertools.product(range(len(weight)), range(x.shape[1]), range(x.shape[2])):
        out[c, v, u] = (padded[:, v : v + 3, u : u + 3] * weight[c]).sum() + bias[c]
    return out


def slow_refer(made: RefER, query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    warped = slow_warp(reference, slow_flow(made, query, reference))
    seen = np.concatenate((query, warped)) if made.mode == "concat" else query - warped
    return query + slow_conv(np.maximum(slow_conv(seen, made.conv1), 0), made.conv2)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("small", "large"), PAIRS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "concat"},
        {"preprocess": False},
        {"renormalize": True},
        {"norm": "map"},
        {"norm": "map", "renormalize": True},
        {"pool": 2},
        {"pool": 5},
        {"pool": 1},
    ],
    ids=str,
)
def test_the_slow_direct_implementation_gives_the_same(options, small, large, training):
    made = block(temperature=8.0, **options).train(training)
    query, reference = features(1, 2, 4, *small), features(2, 2, 4, *large)
    got = made(query, reference).detach().numpy()
    for n in range(2):
        expected = slow_refer(made, query[n].numpy(), reference[n].numpy())
        np.testing.assert_allclose(got[n], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pool", [1, 2, 3, 4])
def test_pooling_of_sides_that_it_divides_is_that_of_a_plain_kernel(pool):
    x = features(0, 1, 4, 3 * pool, 5 * pool)
    expected = nn.functional.avg_pool2d(nn.functional.normalize(x, dim=1), pool)
    torch.testing.assert_close(preprocess(x, pool), expected, rtol=0, atol=1e-12)


# --- gradients ------------------------------------------------------------------------------------


def test_gradients_of_the_soft_path_are_those_of_finite_differences():
    query, reference = features(1, 1, 3, 4, 5).requires_grad_(), features(2, 1, 3, 6, 4).requires_grad_()

    def displacement(q: Tensor, r: Tensor) -> Tensor:
        volume = CostVolume()(preprocess(q, 2), preprocess(r, 2))
        return flow(volume, (4, 5), (6, 4), pool=2, temperature=5.0)

    assert torch.autograd.gradcheck(displacement, (query, reference))
    made = block(3, pool=2, temperature=5.0)
    assert torch.autograd.gradcheck(made, (query, reference))


def test_gradients_of_warping_are_those_of_finite_differences():
    x = features(3, 1, 2, 5, 6).requires_grad_()
    # At least 0.1 from pixels, where bilinear interpolation has a corner, and from the border.
    steps = torch.rand(1, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    displacement = (0.1 + 0.8 * steps).requires_grad_()
    assert torch.autograd.gradcheck(warp, (x, displacement))


def test_training_reaches_features_through_flow_and_evaluation_only_through_values():
    query, reference = features(1, 1, 4, 6, 6), features(2, 1, 4, 6, 6)
    soft = block(temperature=5.0).flow(query.requires_grad_(), reference)
    assert soft.requires_grad
    assert not block(temperature=5.0).eval().flow(query, reference).requires_grad


def test_every_parameter_learns_once_the_second_convolution_is_not_zero():
    made = block()
    made(features(1, 1, 4, 6, 6), features(2, 1, 4, 6, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_a_hot_enough_soft_arg_max_is_the_arg_max():
    volume = features(5, 2, 6, 12)
    soft = flow(volume, (4, 6), (6, 8), pool=2, temperature=1e5)
    torch.testing.assert_close(soft, flow(volume, (4, 6), (6, 8), pool=2), rtol=0, atol=1e-9)


# --- known flows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(3, 0), (-3, 6), (0, -9), (6, 3)])
@pytest.mark.parametrize("training", [False, True])
def test_a_shifted_copy_gives_its_shift_and_warps_to_the_query(shift, training):
    right, down = shift
    query = features(6, 1, 32, 24, 27)
    reference = torch.roll(query, (down, right), (2, 3))
    made = block(32).train(training)
    found = made.flow(query, reference)
    # Windows that the roll does not carry around the border; one window more for the interpolation.
    rows = slice(max(0, -down) + 3, 24 - max(0, down) - 3)
    columns = slice(max(0, -right) + 3, 27 - max(0, right) - 3)
    inside = found[0, :, rows, columns]
    expected = torch.tensor([right, down], dtype=torch.float64).view(2, 1, 1).expand_as(inside)
    torch.testing.assert_close(inside, expected, rtol=0, atol=1e-6)
    warped = warp(reference, found)
    torch.testing.assert_close(warped[..., rows, columns], query[..., rows, columns], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 12), (7, 10), (1, 1), (2, 5)])
@pytest.mark.parametrize("pool", [1, 3, 4])
def test_a_position_that_matches_itself_does_not_move(size, pool):
    rows, columns = (math.ceil(side / pool) for side in size)
    found = flow(torch.eye(rows * columns)[None], size, size, pool=pool)
    assert torch.equal(found, torch.zeros(1, 2, *size))
    x = features(7, 1, 3, *size)
    torch.testing.assert_close(warp(x, found.double()), x, rtol=0, atol=1e-13)


def test_identical_features_refine_nothing_without_pooling():
    made = block(16, pool=1)
    x = features(8, 2, 16, 7, 10)
    torch.testing.assert_close(made.flow(x, x), torch.zeros(2, 2, 7, 10).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(warp(x, made.eval().flow(x, x)), x, rtol=0, atol=1e-12)


def test_the_longest_pooled_vector_attracts_its_neighbours_unless_it_is_renormalized():
    # Two windows of two pixels: one of equal directions, one of directions 90 degrees apart.
    x = torch.tensor([[[1.0, 1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]], dtype=torch.float64)[None]
    long, short = preprocess(x, 2)[0, :, 0].T
    assert long @ short == short @ short and long.norm() == 1 and short.norm() < 0.8
    x[0, 1, 0, :2] = 0.5  # the long one leans a little to the short one
    made = RefER(2, pool=2).eval()
    assert made.flow(x, x)[0, 0, 0].tolist() == [0.0, -0.5, -1.5, -2.0]
    made.renormalize = True
    torch.testing.assert_close(made.flow(x, x), torch.zeros(1, 2, 1, 4).double())


@pytest.mark.parametrize("size", [(9, 12), (7, 10)])
def test_renormalized_features_find_themselves(size):
    x = features(10, 2, 3, *size)
    unit = preprocess(x, 3, renormalize=True)
    assert torch.allclose(unit.norm(dim=1), torch.ones(1, dtype=torch.float64))
    found = RefER(3, renormalize=True).eval().flow(x, x)
    assert torch.equal(found, torch.zeros_like(found))


def test_equal_entries_take_the_first_position():
    found = flow(torch.zeros(1, 4, 9), (2, 2), (3, 3), pool=1)
    assert found[0, :, 0, 0].tolist() == [0, 0] and found[0, :, 1, 1].tolist() == [-1, -1]
    soft = flow(torch.zeros(1, 4, 9), (2, 2), (3, 3), pool=1, temperature=1000.0)
    assert soft[0, :, 0, 0].tolist() == [1, 1]  # the mean of all positions


def test_positions_outside_are_moved_to_the_border():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    far = torch.full((1, 2, 3, 4), -50.0)
    assert warp(x, far).unique().tolist() == [0.0]
    assert warp(x, -far).unique().tolist() == [11.0]


# --- special features -----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_and_zero_features_stay_finite_with_their_gradients(value, training):
    made = block().train(training)
    query = torch.full((1, 4, 7, 10), value, dtype=torch.float64, requires_grad=True)
    reference = torch.full((1, 4, 9, 6), value, dtype=torch.float64, requires_grad=True)
    out = made(query, reference)
    torch.testing.assert_close(warp(reference, made.flow(query, reference)), torch.full_like(query, value))
    out.sum().backward()
    assert all(bool(t.isfinite().all()) for t in (out, query.grad, reference.grad))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("renormalize", [False, True])
def test_positions_without_features_stay_zero_in_any_dtype(dtype: torch.dtype, renormalize: bool) -> None:
    x = torch.zeros(1, 4, 3, 3, dtype=dtype)
    x[0, :, 0, 0] = 200  # whose square float16 cannot hold
    out = preprocess(x, 1, renormalize=renormalize)
    assert out.dtype == dtype
    assert out[0, :, 0, 0].tolist() == [0.5] * 4 and out.count_nonzero() == 4


def test_a_position_without_features_stays_zero():
    x = features(9, 1, 4, 3, 3)
    x[..., 1, 1] = 0
    unit = preprocess(x, 1)
    assert unit[..., 1, 1].abs().max() == 0
    assert torch.allclose(unit.norm(dim=1).flatten().sort().values[1:], torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["difference", "concat"])
def test_a_new_block_passes_its_query_on(mode):
    query, reference = features(1, 2, 4, 7, 10).float(), features(2, 2, 4, 9, 6).float()
    made = RefER(4, mode=mode)
    assert torch.equal(made(query, reference), query) and torch.equal(made.eval()(query, reference), query)


def test_pairs_do_not_see_each_other():
    made = block().eval()
    query, reference = features(1, 3, 4, 7, 10), features(2, 3, 4, 9, 6)
    together = made(query, reference)
    alone = [made(query[n : n + 1], reference[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


def test_sixteen_bit_products_leave_positions_exact():
    # The one match of every position is the last of 300, which bfloat16 cannot tell from its neighbours.
    made = RefER(2, pool=1).eval()
    query, reference = torch.ones(1, 2, 1, 300), torch.ones(1, 2, 1, 300)
    query[:, 1] = reference[:, 0, :, :-1] = 0
    expected = 299 - torch.arange(300.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made.flow(query, reference)
    assert found.dtype == torch.float32 and torch.equal(found[0, 0, 0], expected)
    assert warp(reference.bfloat16(), found).dtype == torch.bfloat16


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "reference", "message"),
    [
        ((1, 5, 6, 6), (1, 4, 6, 6), r"query has shape \(1, 5, 6, 6\): expected \(N, 4, height, width\)"),
        ((1, 4, 6, 6), (1, 8, 6, 6), r"reference has shape \(1, 8, 6, 6\): expected \(N, 4"),
        ((4, 6, 6), (1, 4, 6, 6), r"query has shape \(4, 6, 6\): expected"),
        ((1, 4, 6, 6), (1, 4, 6), r"reference has shape \(1, 4, 6\): expected"),
        ((1, 4, 6, 6), (1, 4, 0, 6), r"reference has shape \(1, 4, 0, 6\): expected"),
        ((2, 4, 6, 6), (1, 4, 6, 6), "2 queries and 1 references: expected one reference for each"),
    ],
)
def test_features_of_other_shapes_are_refused(query, reference, message):
    with pytest.raises(InputError, match=message):
        RefER(4)(torch.zeros(query), torch.zeros(reference))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (torch.zeros(1, 4, 6, 6).double(), "query is torch.float64 and its reference torch.float32"),
        (torch.zeros(1, 4, 6, 6).long(), "query is torch.int64: expected a floating-point tensor"),
        (np.zeros((1, 4, 6, 6)), "query is ndarray: expected a floating-point tensor"),
        (None, "query is NoneType"),
    ],
)
def test_features_of_other_kinds_are_refused(query, message):
    made = RefER(4)
    for call in (made, made.flow):
        with pytest.raises(InputError, match=message):
            call(query, torch.zeros(1, 4, 6, 6))
    with pytest.raises(InputError, match=r"x is (torch\.int64|ndarray|NoneType|torch\.float64)"):
        preprocess(query if not isinstance(query, Tensor) else query.long(), 3)


def test_features_of_another_dtype_than_the_weights_are_refused():
    x = features(1, 1, 4, 6, 6)
    with pytest.raises(InputError, match=r"query is torch\.float64 and the weights torch\.float32"):
        RefER(4)(x, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which brings dtypes together
        assert RefER(4)(x.bfloat16(), x.float()).isfinite().all()


@pytest.mark.parametrize(
    ("x", "displacement", "message"),
    [
        (
            torch.zeros(2, 3, 5, 5),
            torch.zeros(1, 2, 5, 5),
            r"shape \(1, 2, 5, 5\): expected \(2, 2,",
        ),
        (torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 5, 5), r"flow has shape \(1, 3, 5, 5\)"),
        (torch.zeros(1, 3, 5, 5), torch.zeros(2, 5, 5), r"flow has shape \(2, 5, 5\)"),
        (torch.zeros(3, 5, 5), torch.zeros(1, 2, 5, 5), r"x has shape \(3, 5, 5\)"),
        (torch.zeros(1, 3, 0, 5), torch.zeros(1, 2, 5, 5), r"x has shape \(1, 3, 0, 5\)"),
        (torch.zeros(1, 3, 5, 5).long(), torch.zeros(1, 2, 5, 5), "x is torch.int64"),
        (torch.zeros(1, 3, 5, 5), np.zeros((1, 2, 5, 5)), "flow is ndarray"),
    ],
)
def test_warping_of_other_shapes_and_kinds_is_refused(x, displacement, message):
    with pytest.raises(InputError, match=message):
        warp(x, displacement)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "features=0: expected an integer of at least 1"),
        ({"features": 4.0}, "features=4.0: expected an integer"),
        ({"pool": 0}, "pool=0: expected an integer of at least 1"),
        ({"pool": 1.5}, "pool=1.5: expected an integer"),
        ({"temperature": 0}, "temperature=0: expected a number above 0"),
        ({"temperature": -1.0}, "temperature=-1.0: expected a number above 0"),
        ({"temperature": math.nan}, "temperature=nan: expected a number above 0"),
        ({"temperature": math.inf}, "temperature=inf: expected a number above 0"),
        ({"temperature": None}, "temperature=None: expected a number above 0"),
        ({"mode": "sum"}, "mode='sum': expected 'difference' or 'concat'"),
        ({"mode": None}, "mode=None: expected 'difference' or 'concat'"),
        ({"renormalize": None}, "renormalize=None: expected True or False"),
        ({"preprocess": 1}, "preprocess=1: expected True or False"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        RefER(**{"features": 4, **options})


def test_a_volume_of_other_sizes_is_refused():
    with pytest.raises(InputError, match=r"volume has shape \(1, 4, 4\): expected \(N, 4, 9\)"):
        flow(torch.zeros(1, 4, 4), (4, 4), (5, 5), pool=2)
    with pytest.raises(InputError, match="pool=0: expected an integer of at least 1"):
        preprocess(torch.zeros(1, 2, 4, 4), 0)


# --- what the engine finds in it ------------------------------------------------------------------


class Pair(nn.Module):
    """A network of two inputs: a query patch and its reference."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.refer = RefER(4, **options)
        nn.init.normal_(self.refer.conv2.weight, std=0.1)

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        return self.refer(query, reference)


@pytest.mark.parametrize("options", [{}, {"mode": "concat"}, {"preprocess": False}], ids=str)
def test_quantization_finds_the_convolutions_and_both_factors_of_the_match(options):
    torch.manual_seed(0)
    query, reference = features(1, 2, 4, 7, 10).float(), features(2, 2, 4, 9, 6).float()
    quantized = sqlib.quantize_model(
        Pair(**options), sqlib.recipes.MinMax(bits=3), [(query, reference)], skip=[]
    )
    assert set(quantized.sites) == {"refer.match.matmul", "refer.conv1", "refer.conv2"}
    assert all(site.active for site in quantized.sites.values())

    seen = []
    match = quantized.network.refer.match
    handle = match.register_forward_hook(lambda _, args, out: seen.append((*args, out)))
    quantized(query, reference)
    handle.remove()
    (left, right, volume), site = seen[0], quantized.sites["refer.match.matmul"]
    left = quantized.activation_quantizer(site, "left")(left.flatten(2).transpose(1, 2))
    right = quantized.activation_quantizer(site, "right")(right.flatten(2))
    assert len(left.unique()) <= 8 and len(right.unique()) <= 8
    torch.testing.assert_close(volume, left @ right, rtol=0, atol=1e-6)


class SelfReference(Pair):
    """`Self-reference` of Table 5."""

    def forward(self, x: Tensor) -> Tensor:
        return self.refer(x, x)


@pytest.mark.parametrize(("options", "positions"), [({}, 24 * 24), ({"preprocess": False}, 72 * 72)])
def test_a_match_costs_a_product_for_each_pair_of_positions_and_channel(options, positions):
    walk = sqlib.cost.walk(SelfReference(**options), (72, 72), channels=4)
    assert {p.site: p.macs for p in walk.products}["refer.match.matmul"] == positions**2 * 4
