"""ONNX files of quantized networks, run by ONNX Runtime beside the networks themselves."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sqlib import datasets, models, quantize_model, recipes
from sqlib.errors import DataError, InputError
from sqlib.evaluate import evaluate
from sqlib.export import OnnxNetwork, export_onnx, onnx_file

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIZES = ((1, 3, 24, 40), (2, 3, 17, 31))


class Network(nn.Module):
    """A residual block, a pixel shuffle that feeds a convolution, and one that feeds one with few outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.up, self.again = (nn.Conv2d(8, 32, 3, padding=1) for _ in range(2))
        self.tail = nn.Conv2d(8, 3, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x - 0.5)
        x = x + self.second(torch.relu(self.first(x)))
        x = nn.functional.pixel_shuffle(self.up(x), 2)
        return self.tail(nn.functional.pixel_shuffle(self.again(x), 2)) + 0.5


@dataclass(frozen=True)
class Untrained(recipes.PAMS):
    """PAMS as it is calibrated."""

    def learn(self, model, lesson) -> None:
        pass


CALIBRATION = [torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(n)) for n in range(2)]
RECIPES = {
    "minmax": recipes.MinMax(bits=8),
    "real zero": recipes.MinMax(bits=4, integer_zero=False, weight_per="tensor"),
    "percentile": recipes.Percentile(bits=(3, 6)),
    "weights alone": recipes.MinMax(bits=(4, 32)),
    "pams": Untrained(bits=4),
    "twodquant": recipes.TwoDQuant(bits=4, iterations=2),
    "brecq": recipes.BRECQ(bits=4, iterations=2, activation_iterations=2),
}


def quantized(recipe: recipes.Recipe):
    return quantize_model(Network().eval(), recipe, CALIBRATION, skip=[])


def session(path: Path, *, optimized: bool = True, save: Path | None = None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if save is not None:
        options.optimized_model_filepath = str(save)
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path: Path, x: Tensor, *, optimized: bool = True) -> Tensor:
    return torch.from_numpy(session(path, optimized=optimized).run(None, {"input": x.numpy()})[0])


def image(size: tuple[int, ...]) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(sum(size)))


@pytest.fixture(scope="module", params=RECIPES)
def pair(request, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("export") / "network.onnx"
    model = quantized(RECIPES[request.param])
    return model, path, export_onnx(model, path)


@pytest.mark.parametrize("size", SIZES)
def test_the_file_computes_what_the_network_does(pair, size: tuple[int, ...]) -> None:
    model, path, _ = pair
    with torch.no_grad():
        expected = model(image(size))
    found = run(path, image(size), optimized=False)
    assert found.shape == expected.shape
    # values halfway between two levels, to the accuracy of a sum, may go to the other one
    assert (found - expected).abs().median() < 1e-5
    # integer products have biases that are multiples of both scales
    noise = (run(path, image(size)) - expected).square().mean()
    assert noise < 0.5 * (expected - Network()(image(size))).square().mean()


def test_every_quantizer_gives_the_same_levels(pair) -> None:
    """Up to one step, which takes a value halfway between two levels."""
    model, path, _ = pair
    file = onnx.load(path)
    names = [n.output[0] for n in file.graph.node if n.op_type == "QuantizeLinear"]
    assert len(names) == len(model.activations)
    for name in names:
        file.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    seen, hooks = [], []
    for module in model.activations.values():
        hooks.append(module.register_forward_hook(lambda q, given, out: seen.append(q.codes(given[0]))))
    with torch.no_grad():
        model(image(SIZES[0]))
    for hook in hooks:
        hook.remove()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    runtime = ort.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = runtime.run(names, {"input": image(SIZES[0]).numpy()}) if names else []
    for codes, expected, quantizer in zip(found, seen, model.activations.values(), strict=True):
        off = np.abs(np.minimum(codes, quantizer.top).astype(int) - expected.numpy())
        assert off.max() <= 1
        assert (off > 0).mean() < 0.01


def test_which_call_sites_compute_in_integers(pair) -> None:
    model, _, written = pair
    assert written.quantized == ("head", "first", "second", "up", "again", "tail")
    if model.activations:
        zero = all(q.integer_zero for q in model.activations.values())
        assert bool(written.integer) == zero
    else:  # products of floating-point activations
        assert written.integer == ()


def test_rounding_the_zero_point(tmp_path: Path) -> None:
    model = quantized(RECIPES["real zero"])
    written = export_onnx(model, tmp_path / "q.onnx", round_zero=True)
    assert written.integer == written.quantized
    for quantizer in (*model.activations.values(), *model.weights.values()):
        quantizer.integer_zero = True
    with torch.no_grad():
        expected = model(image(SIZES[0]))
    found = run(tmp_path / "q.onnx", image(SIZES[0]), optimized=False)
    assert (found - expected).abs().median() < 1e-5


def test_with_outputs_every_layer_multiplies_integers(tmp_path: Path) -> None:
    model = quantized(RECIPES["minmax"])
    export_onnx(model, tmp_path / "q.onnx", outputs=CALIBRATION)
    session(tmp_path / "q.onnx", save=tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 6 and "Conv" not in kinds
    x = image(SIZES[1])
    with torch.no_grad():
        expected, full = model(x), model.network(x)
    error = (run(tmp_path / "q.onnx", x) - full).square().mean()
    assert error < 3 * (expected - full).square().mean() + 1e-4


def test_cheaper_shuffles_change_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantized(RECIPES["percentile"])
    export_onnx(model, tmp_path / "q.onnx", outputs=CALIBRATION)
    monkeypatch.setattr(onnx_file.shuffle, "rewrite", lambda graph: None)
    export_onnx(model, tmp_path / "plain.onnx", outputs=CALIBRATION)
    for size in SIZES:
        plain, cheap = (run(tmp_path / n, image(size), optimized=False) for n in ("plain.onnx", "q.onnx"))
        assert (plain - cheap).abs().median() < 1e-6
        assert (plain - cheap).square().mean() < 1e-5
    shuffles = [
        [tuple(node.input) for node in onnx.load(tmp_path / n).graph.node if node.op_type == "DepthToSpace"]
        for n in ("plain.onnx", "q.onnx")
    ]
    assert [len(found) for found in shuffles] == [2, 1]


def test_four_bits_take_half_a_byte(tmp_path: Path) -> None:
    model = quantized(recipes.MinMax(bits=(4, 8)))
    export_onnx(model, tmp_path / "eight.onnx")
    export_onnx(model, tmp_path / "four.onnx", int4=True)
    x = image(SIZES[0])
    assert torch.equal(*(run(tmp_path / n, x, optimized=False) for n in ("eight.onnx", "four.onnx")))
    weights = sum(site.weight_shape[0] * int(np.prod(site.weight_shape[1:])) for site in model.sites.values())
    packed = [t for t in onnx.load(tmp_path / "four.onnx").graph.initializer if t.data_type == t.INT4]
    assert sum(int(np.prod(t.dims)) for t in packed if len(t.dims) == 4) == weights
    assert sum(len(t.raw_data) for t in packed if len(t.dims) == 4) == weights // 2


def test_a_shipped_network_on_a_photograph(tmp_path: Path) -> None:
    network = models.pretrained("edsr-small", scale=4).eval()
    crops = datasets.calibration("builtin", n=8, patch=48, scale=4, seed=0)
    model = quantize_model(network, recipes.MinMax(bits=8), crops)
    export_onnx(model, tmp_path / "q.onnx")
    photo = datasets.load("builtin").subset(1)
    found, expected = (
        evaluate(m, photo, scale=4).psnr for m in (OnnxNetwork(tmp_path / "q.onnx", scale=4), model)
    )
    assert abs(found - expected) < 0.02


def test_what_was_given_is_not_changed(tmp_path: Path) -> None:
    model = quantized(RECIPES["minmax"]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "q.onnx", outputs=CALIBRATION)
    assert model.training and model.network.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_file_says_what_it_is_and_not_where_it_was_made(pair) -> None:
    model, path, written = pair
    assert path.stat().st_size == written.bytes
    file = onnx.load(path)
    assert file.metadata_props[0].value == model.recipe.to_json()
    assert b"site-packages" not in path.read_bytes() and b".py" not in path.read_bytes()
    assert [d.dim_param != "" for d in file.graph.input[0].type.tensor_type.shape.dim] == [1, 0, 1, 1]


class Choosy(Network):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.mean() > 0 else x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(), "model is Network, expected a quantized network"),
        (lambda: quantized(RECIPES["minmax"]).half(), "float16 parameters: export it in float32"),
        (lambda: quantized(recipes.DFSQ(bits=4)), "head.*no grid of 8 bits.*such as minmax"),
        (
            lambda: quantize_model(Choosy().eval(), RECIPES["minmax"], CALIBRATION, skip=[]),
            "torch cannot export this network",
        ),
    ],
)
def test_what_cannot_be_exported(make, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_onnx(make(), tmp_path / "q.onnx")
    assert not any(tmp_path.iterdir())


class TwoImages(Network):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


def gray() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)).eval()


def quantized_gray():
    return quantize_model(gray(), RECIPES["minmax"], [torch.rand(1, 1, 8, 8)], skip=[])


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            quantized_gray,
            {},
            r"example \(\(2, 3, 32, 40\) float32\): .* Sequential cannot run on it.*example=",
        ),
        (
            lambda: quantize_model(
                TwoImages().eval(), RECIPES["minmax"], [(CALIBRATION[0], CALIBRATION[0])], skip=[]
            ),
            {},
            "TwoImages cannot run on it.*networks of one tensor",
        ),
        (None, {"example": np.zeros((2, 3, 16, 16), np.float32)}, "example is ndarray, expected a tensor"),
        (None, {"outputs": 5}, "outputs is int"),
        (None, {"outputs": iter([])}, "outputs is empty"),
        (None, {"outputs": [np.zeros((2, 3, 16, 16), np.float32)]}, "outputs batch 0: .* ndarray"),
        (None, {"outputs": [CALIBRATION[0], torch.rand(1, 1, 8, 8)]}, r"outputs batch 1 \(\(1, 1, 8, 8\)"),
        (None, {"path": None}, "path=None: expected the name of a file"),
        (None, {"path": ""}, "path='': expected the name of a file"),
    ],
)
def test_bad_arguments(make, options: dict, message: str, tmp_path: Path) -> None:
    model = quantized(RECIPES["minmax"]) if make is None else make()
    with pytest.raises(InputError, match=message):
        export_onnx(model, **{"path": tmp_path / "q.onnx", **options})
    assert not any(tmp_path.iterdir())


def test_an_example_says_what_a_network_takes(tmp_path: Path) -> None:
    model, x = quantized_gray(), torch.rand(1, 1, 13, 17)
    export_onnx(model, tmp_path / "q.onnx", example=torch.rand(2, 1, 16, 16))
    with torch.no_grad():
        assert torch.allclose(run(tmp_path / "q.onnx", x), model(x), atol=1e-5)


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder of .* does not exist"):
        export_onnx(quantized(RECIPES["minmax"]), tmp_path / "nowhere" / "q.onnx")


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="need the package onnxscript: pip install"):
        export_onnx(quantized(RECIPES["minmax"]), tmp_path / "q.onnx")


def test_files_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no file"):
        OnnxNetwork(tmp_path / "q.onnx", scale=4)
    (tmp_path / "q.onnx").write_text("no network")
    with pytest.raises(InputError, match="cannot read"):
        OnnxNetwork(tmp_path / "q.onnx", scale=4)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        OnnxNetwork(tmp_path / "q.onnx", scale=4)
